"""The official conformance suites against a server as users run it: nothing fails, nothing is left out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance_suites import first_suite, run_first_suite, run_suite, suite
from server_process import ServerProcess

EVERYTHING = {
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
}
"""What is off by default, except manifests whose blobs were never pushed: a store has whole images only."""
_FIRST = "[It] OCI Distribution Conformance Tests"
_MOUNT = f"{_FIRST} Push Cross-Repository Blob Mount Cross-mounting"
ALTERNATIVES = {
    f"{_FIRST} Pull Setup Get tag name from environment",
    f"{_FIRST} Content Discovery Setup Populate registry with test tags (no push)",
    f"{_MOUNT} of nonexistent blob should yield session id",
    f"{_MOUNT} without from, and automatic content discovery disabled should return a 202",
}
"""What the first suite tries only on a registry that answers otherwise, or that may not be pushed to."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("registry") / "store", "--workers", "2") as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return suite(tmp_path_factory.mktemp("suite") / "module")


@pytest.fixture(scope="module")
def first_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_suite(tmp_path_factory.mktemp("suite") / "module")


@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_suite(version: str, program: Path, server: ServerProcess, tmp_path: Path) -> None:
    """All that this version of the specification has, and all options of the suite."""
    results = tmp_path / "results"
    repositories = {f"OCI_REPO{number}": f"conformance-{version}/{number}" for number in (1, 2)}
    result = run_suite(program, server.address, results, OCI_VERSION=version, **repositories, **EVERYTHING)
    assert not result.failed
    assert not result.skipped
    assert len(result.passed) > 350
    kinds = re.findall(r"^  (\S.*): (Pass|FAIL|Skip|Disabled|Error)$", (results / "results.yaml").read_text(), re.M)
    assert {name: ending for name, ending in kinds if ending != "Pass"} == {"Sparse Manifests": "Disabled"}


def test_first_suite(first_program: Path, server: ServerProcess, tmp_path: Path) -> None:
    """All four workflows, with deletes in either order."""
    for order in "01":
        options = {"OCI_AUTOMATIC_CROSSMOUNT": "1", "OCI_DELETE_MANIFEST_BEFORE_BLOBS": order}
        result = run_first_suite(first_program, server.url, tmp_path / order, **options)
        assert not result.failed
        assert result.skipped == ALTERNATIVES
        assert len(result.passed) >= 70
