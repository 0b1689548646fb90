"""Power cuts: every file operation of a store's life is recorded, and the disk rebuilt as a cut may have left it."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import crash_scenarios
import pytest
from crash_model import Expected, check_after_crash
from replay_io import Disk, Operation, read_recording

from layerstore import LayerstoreError, Store

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that records, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("a C compiler on Linux is needed to record what a process writes")
    library = tmp_path_factory.mktemp("recorder") / "record_io.so"
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(HERE / "record_io.c"), "-ldl", "-lpthread"], check=True)
    return library


Record = Callable[..., list[Operation]]


@pytest.fixture(scope="module")
def record(recorder: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Run a scenario, recorded."""

    def run(bug: str = "", scenario: str = "life") -> list[Operation]:
        folder = tmp_path_factory.mktemp("recorded")
        place, log = folder / "place", folder / "log"
        place.mkdir()
        environment = {**os.environ, "LD_PRELOAD": str(recorder), "RECORD_ROOT": "/place", "RECORD_LOG": str(log)}
        environment["RECORD_ROOT"] = str(place)
        command = [sys.executable, str(HERE / "crash_recorded.py"), scenario, str(place / "store"), str(place / "said")]
        subprocess.run([*command, *([bug] if bug else [])], env=environment, check=True)
        operations = read_recording(log)
        shutil.rmtree(place)
        return [Operation("M", 0, str(place), "", -1, 0, b""), *operations]

    return run


@pytest.fixture(scope="module")
def life(record: Record) -> list[Operation]:
    """A recording of the store as it is."""
    return record()


@pytest.fixture(scope="module")
def transfer(record: Record) -> list[Operation]:
    """A recording of blobs that come, are proved and go."""
    return record(scenario="transfer")


def replay(operations: list[Operation], cut: int, target: Path, chooser: random.Random | None) -> Expected:
    """Make the disk as after the first ``cut`` operations; what must be on it."""
    root = Path(operations[0].path)
    disk = Disk(root, "said")
    for operation in operations[1:cut]:
        disk.follow(operation)
    if chooser is None:
        disk.after_kill(target)
    else:
        disk.after_cut(target, chooser)
    return Expected.of(disk.marks)


def try_cut(
    operations: list[Operation], cut: int, place: Path, chooser: random.Random | None, *, rebuild: bool = False
) -> None:
    """Cut, and check what is left; with ``rebuild``, after its index was made anew from packs and journal."""
    target = place / "disk"
    expected = replay(operations, cut, target, chooser)
    try:
        if rebuild and expected.created:
            Store.rebuild_index(target / "store")
            expected.gone_images.clear()  # with a torn journal, an image that was deleted may come back, without tags
        try:
            check_after_crash(target / "store", expected, crash_scenarios.CONTENTS)
        except LayerstoreError:
            if expected.created:
                raise  # a store whose making was cut need not open, and says so
    except BaseException as error:
        error.add_note(f"cut before operation {cut} of {len(operations)}, after: {expected.last}")
        raise
    finally:
        shutil.rmtree(target)


def test_recording_is_complete(life: list[Operation], memory_path: Path) -> None:
    """What the recording rebuilds at its end is the store that the process left: nothing was written past it."""
    kinds = {operation.kind for operation in life}
    assert set("OCWTSRUM") <= kinds
    try_cut(life, len(life), memory_path, None)


@pytest.mark.parametrize("seed", range(8))
def test_power_cut(seed: int, life: list[Operation], memory_path: Path, crash_thorough: bool) -> None:
    """Cuts at random instants, with random remains: 200, or 2,400 with ``--crash-thorough``."""
    chooser = random.Random(seed)
    for _ in range(300 if crash_thorough else 25):
        try_cut(life, chooser.randrange(1, len(life) + 1), memory_path, chooser)


@pytest.mark.parametrize("seed", range(2))
def test_power_cut_and_index_lost(seed: int, life: list[Operation], memory_path: Path, crash_thorough: bool) -> None:
    """Packs and journal alone have all that was acknowledged."""
    chooser = random.Random(100 + seed)
    for _ in range(300 if crash_thorough else 25):
        try_cut(life, chooser.randrange(1, len(life) + 1), memory_path, chooser, rebuild=True)


def test_kill_between_any_two_operations(life: list[Operation], memory_path: Path, crash_thorough: bool) -> None:
    """Every prefix of the recording is what a SIGKILL may leave, those inside LMDB's commits included."""
    writes = [index for index, operation in enumerate(life) if operation.kind in "WTRUM" and index]
    for index in writes if crash_thorough else writes[::12]:
        try_cut(life, index, memory_path, None)


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_power_cut_of_a_transfer(
    seed: int, rebuild: bool, transfer: list[Operation], memory_path: Path, crash_thorough: bool
) -> None:
    """The same over blobs, with the index and without."""
    chooser = random.Random(200 + seed)
    for _ in range(300 if crash_thorough else 20):
        try_cut(transfer, chooser.randrange(1, len(transfer) + 1), memory_path, chooser, rebuild=rebuild)


def test_a_missing_sync_of_raw_files_is_found(record: Record, memory_path: Path) -> None:
    """These tests can fail, too."""
    operations = record("without_raw_sync", "transfer")
    chooser = random.Random(1)
    with pytest.raises((AssertionError, LayerstoreError)):
        for _ in range(100):
            try_cut(operations, chooser.randrange(1, len(operations) + 1), memory_path, chooser)


@pytest.mark.parametrize("bug", ["without_pack_sync", "without_directory_sync"])
def test_a_missing_sync_is_found(bug: str, record: Record, memory_path: Path) -> None:
    """These tests can fail."""
    operations = record(bug)
    chooser = random.Random(1)
    with pytest.raises((AssertionError, LayerstoreError)):
        for _ in range(100):
            try_cut(operations, chooser.randrange(1, len(operations) + 1), memory_path, chooser)
