"""SIGKILL at every step of a change, and of making and removing a container."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import container_crashes
import pytest
from container_crashes import OPERATIONS
from container_samples import Picture, changed, check_commit, everything, left_over, picture
from fork_server import ForkServer

from layerstore import Container, Image, Store
from layerstore.errors import ContainerInUseError
from layerstore.storage.records import NEVER

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the image has devices and owners")
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    running = ForkServer(["container_crashes"], [TESTS / name for name in ("containers", "unpacking", "union")])
    yield running
    running.close()


# --- changes ----------------------------------------------------------------------------------------------------------


def plain(shown: Picture) -> Picture:
    """A picture without times of this moment, and without those of directories: a step in them shows there first."""
    start = time.time_ns() - 3600 * 10**9
    return {
        path: replace(seen, mtime_ns=-1 if seen.kind == "DIRECTORY" or seen.mtime_ns > start else seen.mtime_ns)
        for path, seen in shown.items()
    }


def real_changes(container: Container) -> list[tuple[str, bytes]]:
    """The changes without those of a directory's time."""
    return [
        (change.kind, change.path)
        for change in container.changes()
        if not (change.old and change.new and change.old.is_dir and change.new.is_dir)
    ]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_killed_change_leaves_the_old_state_or_the_new(
    kept_store: Store, image: Image, children: ForkServer, operation: str
) -> None:
    with image.container() as container:
        OPERATIONS[operation].before(container)
        allowed = [(plain(picture(container)), real_changes(container))]
        for step in OPERATIONS[operation].steps:
            step(container)
            allowed.append((plain(picture(container)), real_changes(container)))
    container.remove()
    at, ended, seen = 0, False, set()
    while not ended:
        at += 1
        name = f"{operation.replace(' ', '-').replace(',', '')}-{at}"
        children.start(container_crashes.kill_in_change, kept_store.path, name, operation, at)
        ended = children.wait()
        with kept_store.containers[name] as container:
            state = (plain(picture(container)), real_changes(container))
            assert state in allowed, f"killed at step {at}"
            seen.add(allowed.index(state))
            container.mkdir("after")
            assert left_over(container) == []
            container.rmdir("after")
            assert plain(picture(container)) == state[0]
            if ended or at % 7 == 0:
                check_commit(container).close()
        container.remove()
    assert {0, len(allowed) - 1} <= seen
    assert at > 1


# --- containers -------------------------------------------------------------------------------------------------------


def leases_without_end(store: Store) -> int:
    with store._opened.index.read() as transaction:
        return sum(record.expires == NEVER for _, record in transaction.leases.items())


@pytest.mark.parametrize("doing", ["create", "remove"])
def test_a_killed_making_or_removal_leaves_a_container_or_none(
    memory: Path, children: ForkServer, crash_thorough: bool, doing: str
) -> None:
    """Making one has many steps: without ``--crash-thorough`` every third."""
    origin = memory / doing
    with Store.create(origin) as store:
        image = store.create_image([store.push_layer(data).layer for data in everything()], tag="shop:1")
        layers = [layer.diff_id for layer in image.layers]
        with image.view() as view:
            shown = picture(view)
        if doing == "remove":
            image.container("mine")
    at, ended, outcomes = 0, False, set()
    while not ended:
        at += 1 if crash_thorough or doing == "remove" else 3
        path = memory / f"{doing}-{at}"
        subprocess.run(["cp", "-a", origin, path], check=True)
        children.start(container_crashes.kill_in_life, path, doing, at)
        ended = children.wait()
        with Store.open(path) as store:
            store.delete_image("shop:1", ttl=0)
            store.collect_garbage()
            is_there = "mine" in store.containers
            outcomes.add(is_there)
            assert [folder.name for folder in (path / "containers").glob("*")] == ["mine"] * is_there
            assert leases_without_end(store) == is_there
            if is_there:
                check_whole(store, store.containers["mine"], shown)
            store.collect_garbage()
            for diff_id in layers:
                assert diff_id not in store.layers
            assert store.verify(full=False).problems == ()
        shutil.rmtree(path)
    assert outcomes == {True, False}
    assert at > (10 if doing == "remove" else 20)


def check_whole(store: Store, container: Container, shown: Picture) -> None:
    with container:
        assert picture(container) == shown
        assert changed(container) == ""
        container.write_bytes("d/f", b"new")
        check_commit(container).close()
    store.delete_image(container.commit(), ttl=0)
    container.remove()


def test_a_container_that_another_process_changes(
    kept_store: Store, image: Image, children: ForkServer, tmp_path: Path
) -> None:
    """It is refused to all others until that process ends, however it ends."""
    container = image.container("held")
    ready = tmp_path / "ready"
    child = children.start(container_crashes.hold, kept_store.path, "held", ready)
    while not ready.exists():
        time.sleep(0.001)  # until the child says so
    try:
        assert container.is_in_use
        for change in (lambda: container.write_bytes("x", b""), lambda: container.rename("d", "e"), container.remove):
            with pytest.raises(ContainerInUseError, match="held"):
                change()
        assert "held" in kept_store.containers
        assert container.read_bytes("d/f") == b"file f", "reading needs nothing"
        assert changed(container) == "M big"
    finally:
        os.kill(child, signal.SIGKILL)
        children.wait()
    assert not container.is_in_use
    assert len(container.read_bytes("big")) == 5
    container.write_bytes("x", b"1")
    assert changed(container) == "M big, A x"
    container.remove()
    assert "held" not in kept_store.containers
