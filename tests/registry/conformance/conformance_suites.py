"""The conformance suites of the OCI distribution specification, as Go modules: built, run, and what they found."""

import os
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import pytest

_MODULE = "github.com/opencontainers/distribution-spec/conformance"
SUITE_VERSION = "v0.0.0-20260831232431-97274622c111"
"""The suite as it is since 2025: a program."""
_GO_VERSION_MIN = (1, 24)
FIRST_SUITE_VERSION = "v0.0.0-20231101194043-f2182352d4cc"
"""The suite that came with version 1.1 of the specification: a test of Go."""


@dataclass(frozen=True)
class SuiteResult:
    """How the tests of a suite ended."""

    passed: set[str]
    skipped: set[str]
    """By request, or since the registry cannot do it."""
    failed: dict[str, str]
    """What was wrong."""


def needs_go() -> str:
    """The Go command; skips the test where there is none."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("Go is not installed")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=True).stdout
    if tuple(map(int, version.strip().removeprefix("go").split(".")[:2])) < _GO_VERSION_MIN:
        pytest.skip(f"{version.strip()} is too old for the suite")
    return go


def suite(folder: Path) -> Path:
    """The program of `SUITE_VERSION`. Go keeps what it has compiled, so that this takes long only once."""
    return _built(folder, SUITE_VERSION, "build")


def first_suite(folder: Path) -> Path:
    """The program of `FIRST_SUITE_VERSION`."""
    return _built(folder, FIRST_SUITE_VERSION, "test", "-c")


def run_suite(program: Path, registry: str, folder: Path, **settings: str) -> SuiteResult:
    """Run the newer suite against a registry with all that its README lists as on by default, and ``settings``."""
    environment = {"OCI_REGISTRY": registry, "OCI_TLS": "disabled", "OCI_RESULTS_DIR": str(folder)}
    return _run(program, folder, environment | settings)


def run_first_suite(program: Path, url: str, folder: Path, **settings: str) -> SuiteResult:
    """Run the older suite, all four of its workflows."""
    environment = {"OCI_ROOT_URL": url, "OCI_NAMESPACE": "first/one", "OCI_CROSSMOUNT_NAMESPACE": "first/other"}
    environment["OCI_REPORT_DIR"] = str(folder)
    for workflow in ("PULL", "PUSH", "CONTENT_DISCOVERY", "CONTENT_MANAGEMENT"):
        environment[f"OCI_TEST_{workflow}"] = "1"
    return _run(program, folder, environment | settings)


def _built(folder: Path, version: str, *command: str) -> Path:
    """Compile a version of the module inside a module of our own, which says which versions it is compiled with."""
    folder.mkdir()
    program = folder / f"conformance-{version}"
    steps = (
        ["mod", "init", "layerstore.test"],
        ["get", "-t", f"{_MODULE}@{version}"],
        [*command, "-o", program, _MODULE],
    )
    for step in steps:
        done = subprocess.run([needs_go(), *step], cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        assert not done.returncode, f"go {step}: {done.stderr}"
    return program


def _run(program: Path, folder: Path, settings: dict[str, str]) -> SuiteResult:
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    done = subprocess.run(
        [program], cwd=folder, env=clean | settings, capture_output=True, text=True, timeout=300, check=False
    )
    report = folder / "junit.xml"
    assert report.exists(), done.stdout + done.stderr
    result = SuiteResult(set(), set(), {})
    for case in ElementTree.parse(report).iter("testcase"):
        name, status = case.attrib["name"], case.attrib["status"]
        if status == "passed":
            result.passed.add(name)
        elif status == "skipped":
            result.skipped.add(name)
        else:
            result.failed[name] = "".join(case.findtext("system-out") or ElementTree.tostring(case, "unicode"))[:500]
    return result
