"""The official conformance suites against a server as users run it: nothing fails, nothing is left out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance_suites import first_suite, run_first_suite, run_suite, suite
from server_process import ServerProcess

SPARSE = "OCI_DATA_SPARSE"

# What the first suite can only try on a registry that answers otherwise, or that was filled before.
ALTERNATIVES = {
    "Pull Setup Get tag name from environment",
    "Push Cross-Repository Blob Mount Cross-mounting of nonexistent blob should yield session id",
    "Content Discovery Setup Populate registry with test tags (no push)",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("registry") / "store") as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return suite(tmp_path_factory.mktemp("suite") / "module")


@pytest.fixture(scope="module")
def first_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_suite(tmp_path_factory.mktemp("suite") / "module")


@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_suite(version: str, program: Path, server: ServerProcess, tmp_path: Path) -> None:
    """All that the version of the specification has; with ``dev`` also what the next one is to have."""
    results = tmp_path / "results"
    repositories = {f"OCI_REPO{number}": f"conformance-{version}/{number}" for number in (1, 2)}
    result = run_suite(program, server.address, results, OCI_VERSION=version, **repositories)
    assert not result.failed
    assert {name for name in result.skipped if "tag-param" not in name} == set()
    kinds = re.findall(r"^  (\S.*): (\w+)$", (results / "results.yaml").read_text(), re.MULTILINE)
    endings = {name: ending for name, ending in kinds if ending in ("Pass", "FAIL", "Skip", "Disabled", "Error")}
    wanted = {"Sparse Manifests"} | ({"Tag Param", "Tag Param sha512"} if version == "1.1" else set())
    assert {name for name, ending in endings.items() if ending != "Pass"} <= wanted, endings


def test_first_suite(first_program: Path, server: ServerProcess, tmp_path: Path) -> None:
    """All four workflows."""
    for is_automatic in "01":
        result = run_first_suite(
            first_program, server.url, tmp_path / is_automatic, OCI_AUTOMATIC_CROSSMOUNT=is_automatic
        )
        print(result)
