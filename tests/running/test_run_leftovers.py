"""What a run must not leave: in the container, on the machine, and in sight of others."""

import inspect
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from running_samples import busybox_root

from layerstore import Image, Store
from layerstore.mounting.mount_table import mount_at
from layerstore.running import RunOptions, run_container
from layerstore.running.folders import run_folder
from layerstore.running.options import Volume

pytestmark = pytest.mark.usefixtures("mounts")


@pytest.fixture(params=["runc", "bwrap"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    return name


@pytest.fixture
def folders(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folders of runs are, of this test alone."""
    path = open_folder / "runs"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    return path


def wait_until(holds: Callable[[], object], failure: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, failure
        time.sleep(0.02)


def command(store: Store, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "layerstore", "--store", str(store.path), *arguments]


@contextmanager
def started(store: Store, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A run whose program has printed ``ready``, and ends with its input."""
    process = subprocess.Popen(command(store, "run", *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(60, process.kill)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.stdin.close()
        timer.start()
        process.wait()
        timer.cancel()
        process.stdout.close()


# --- in the container -------------------------------------------------------------------------------------------------


def test_a_run_that_does_nothing_changes_nothing(store: Store, tmp_path: Path, runtime: str, open_folder: Path) -> None:
    """Of an image that has no directories for what is mounted; and what a program makes beside them stays."""
    root = busybox_root(tmp_path / "root")
    for name in ("proc", "dev", "sys"):
        (root / name).rmdir()
    (root / "srv").mkdir()
    os.utime(root / "srv", (5, 5))
    image = store.create_image([store.push_tree(root).layer], config={"Cmd": ["true"], "Env": ["PATH=/bin"]})
    (open_folder / "file").write_text("1")
    volumes = (
        Volume(open_folder, "/srv/deep/data"),
        Volume(open_folder, "/other/data"),
        Volume(open_folder / "file", "/srv/file"),
    )
    with image.container("web") as container:
        assert run_container(container, RunOptions(command=("id",), volumes=volumes), runtime=runtime) == 0
        assert container.changes() == []
        script = "mkdir /made; touch /srv/deep/kept"
        options = RunOptions(command=("sh", "-c", script), volumes=volumes)
        assert run_container(container, options, runtime=runtime) == 0
        assert {(one.kind, one.path) for one in container.changes()} == {
            ("added", b"made"),
            ("modified", b"srv"),
            ("added", b"srv/deep"),
            ("added", b"srv/deep/kept"),
        }
    container.remove()


# --- in sight of others -----------------------------------------------------------------------------------------------


def test_variables_are_no_business_of_others(store: Store, image: Image, runtime: str) -> None:
    """Every user of the machine reads the command lines of all processes."""
    with started(store, "--runtime", runtime, "-e", "TOKEN=not-on-show", "busybox:1", "sh", "-c", READY) as process:
        lines = []
        for one in Path("/proc").iterdir():
            if one.name.isdecimal() and int(one.name) != process.pid:
                try:
                    lines.append((one / "cmdline").read_bytes())
                except OSError:
                    continue
        assert any(runtime.encode() in line for line in lines)
        assert not any(b"not-on-show" in line for line in lines)


READY = "echo ready; cat > /dev/null"


def test_a_program_has_no_descriptors_of_ours(store: Store, image: Image, runtime: str) -> None:
    """Standard streams, and the one by which it reads the folder."""
    with image.container(None) as container:
        options = RunOptions(command=("sh", "-c", "ls /proc/self/fd > /tmp/fd; cat /proc/self/status > /tmp/status"))
        assert run_container(container, options, runtime=runtime) == 0
        assert container.read_bytes("/tmp/fd").split() == [b"0", b"1", b"2", b"3"]
        status = container.read_bytes("/tmp/status").decode()
    container.remove()
    rows = dict(line.split(":", 1) for line in status.splitlines())
    docker, of_bubblewrap = 0xA80425FB, 1 << 12 | 1 << 21
    assert int(rows["CapEff"], 16) == docker
    assert int(rows["CapBnd"], 16) & ~(docker | (of_bubblewrap if runtime == "bwrap" else 0)) == 0


# --- on the machine ---------------------------------------------------------------------------------------------------


def test_a_container_is_in_use_while_its_program_runs(store: Store, image: Image, runtime: str, folders: Path) -> None:
    """Also if somebody takes away what is mounted there."""
    container = image.container("web")
    with started(store, "--runtime", runtime, "container:web", "sh", "-c", READY) as process:
        (folder,) = folders.glob("layerstore-run-*")
        subprocess.run(["umount", "-l", folder / "rootfs"], check=True)
        wait_until(lambda: mount_at(folder / "rootfs") is None, "it is still mounted")
        assert (
            subprocess.run(command(store, "container", "rm", "web"), capture_output=True, check=False).returncode == 4
        )
        assert container.is_in_use
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
    wait_until(lambda: not container.is_in_use, "it is still in use")
    container.remove()
    assert list(folders.iterdir()) == []


def test_a_run_that_was_killed_is_taken_away_when_its_program_ends(store: Store, image: Image, folders: Path) -> None:
    """runc goes on without the process that started it; the container is in use until the program ends."""
    if shutil.which("runc") is None:
        pytest.skip("there is no runc")
    container = image.container("web")
    with started(store, "--runtime", "runc", "container:web", "sh", "-c", READY) as process:
        process.kill()
        process.wait()
        (folder,) = folders.glob("layerstore-run-*")
        assert container.is_in_use
        run(store, "busybox:1", "id")
        assert folder.exists(), "its program still runs"
    wait_until(lambda: not runtime_lives(folder), "the program has not ended")
    run(store, "busybox:1", "id")
    assert list(folders.iterdir()) == []
    assert mount_at(folder / "rootfs") is None
    wait_until(lambda: not container.is_in_use, "it is still in use")
    container.remove()


def test_bubblewrap_ends_with_the_run(store: Store, image: Image, folders: Path) -> None:
    """And the next run takes its folder away, and what is mounted there."""
    if shutil.which("bwrap") is None:
        pytest.skip("there is no bwrap")
    script = "echo ready; while :; do sleep 1; done"
    with started(store, "--runtime", "bwrap", "--name", "web", "busybox:1", "sh", "-c", script) as process:
        process.kill()
        process.wait()
        (folder,) = folders.glob("layerstore-run-*")
        assert process.stdout is not None
        assert process.stdout.read() == b"", "the program has ended: nobody can write any more"
    run(store, "busybox:1", "id")
    assert list(folders.iterdir()) == []
    assert mount_at(folder / "rootfs") is None
    run(store, "container:web", "id")


def test_a_collection_takes_what_a_killed_run_left(store: Store, image: Image, folders: Path) -> None:
    """Its folder, its mount, and the container, which was to be removed at its end."""
    if shutil.which("bwrap") is None:
        pytest.skip("there is no bwrap")
    script = "echo ready; while :; do sleep 1; done"
    with started(store, "--runtime", "bwrap", "busybox:1", "sh", "-c", script) as process:
        (container,) = store.containers.values()
        subprocess.run(command(store, "gc"), check=True, capture_output=True)
        assert list(store.containers) == [container.name]
        process.kill()
        process.wait()
    wait_until(lambda: not left_by_collection(store), "it is still there")
    assert list(folders.iterdir()) == []


def left_by_collection(store: Store) -> list[str]:
    """The containers that are left by a collection."""
    subprocess.run(command(store, "gc"), check=True, capture_output=True)
    return list(store.containers)


@pytest.mark.parametrize("moment", ["container", "folder", "mount"])
def test_a_hangup_leaves_nothing(store: Store, image: Image, folders: Path, runtime: str, moment: str) -> None:
    """SIGHUP while the run begins: when the container has just been made, its folder, or its mount."""

    def is_there() -> bool:
        found = list(folders.glob("layerstore-run-*"))
        if moment == "container":
            return bool(list(store.containers))
        return bool(found) if moment == "folder" else any(mount_at(one / "rootfs") is not None for one in found)

    script = "trap 'exit 9' HUP; for n in $(/bin/busybox seq 300); do sleep 0.1; done"
    process = subprocess.Popen(
        command(store, "run", "--runtime", runtime, "busybox:1", "sh", "-c", script), stderr=subprocess.DEVNULL
    )
    try:
        wait_until(is_there, "it has not begun")
        process.send_signal(signal.SIGHUP)
        # One that comes before the program has a handler is lost to it, as it is the first of its namespace.
        for _ in range(3):
            try:
                process.wait(10)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGHUP)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()
    assert list(store.containers) == []
    # Python itself tries out whether a folder for temporary files can be written to, and leaves that if it ends there.
    assert list(folders.glob("layerstore-*")) == []


class _EndedError(BaseException):
    pass


def test_an_end_at_any_line_leaves_no_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's exception before each line that makes the folder of a run."""
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    code = inspect.unwrap(run_folder).__code__
    lines = sorted({line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno})
    source, first = inspect.getsourcelines(code)
    end = first + next(n for n, line in enumerate(source) if "yield" in line)
    ended = 0
    for target in [line for line in lines if line <= end]:

        def trace(frame: FrameType, event: str, _: object, target: int = target) -> Any:
            if frame.f_code is code and event == "line" and frame.f_lineno == target:
                raise _EndedError
            return trace if frame.f_code is code else None

        sys.settrace(trace)
        try:
            with run_folder():
                pass
        except _EndedError:
            ended += 1
        finally:
            sys.settrace(None)
        assert list(folders.iterdir()) == [], f"line {target - first} of run_folder"
    assert ended > 5


def test_what_others_put_there_stays(store: Store, image: Image, folders: Path) -> None:
    """Folders of other users, links, and those that are just being made."""
    (folders / "layerstore-run-of-other").mkdir()
    os.chown(folders / "layerstore-run-of-other", 1000, 1000)
    (folders / "layerstore-run-link").symlink_to(folders)
    (folders / "layerstore-new-run-x").mkdir()
    run(store, "busybox:1", "id")
    assert len(list(folders.iterdir())) == 3


def run(store: Store, *arguments: str) -> None:
    subprocess.run(command(store, "run", *arguments), check=True, capture_output=True, stdin=subprocess.DEVNULL)


def runtime_lives(folder: Path) -> bool:
    """Whether somebody has the lock of a run's folder."""
    probe = ["flock", "--nonblock", folder / "lock", "true"]
    return subprocess.run(probe, check=False, capture_output=True).returncode != 0
