"""Helpers to mount, and to look at the servers."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerstore import Digest, Store
from layerstore.mounting.client import Mount, MountInfo, mount_container, mount_view, mounts
from layerstore.mounting.connection import find_server
from layerstore.mounting.runtime import all_folders

_DEADLINE_SECONDS = 30


def wait_until(holds: Callable[[], object], failure: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + _DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < end, failure
        time.sleep(0.01)


def servers(runtime: Path) -> list[int]:
    """The processes of the servers that have a folder in ``runtime``."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"layerstore.mounting" in command and any(one.startswith(os.fsencode(runtime)) for one in command):
                found.append(int(process.name))
    return found


def statistics() -> dict[str, Any]:
    """What the only server tells of itself."""
    connections = [connection for folder in all_folders() if (connection := find_server(folder)) is not None]
    assert len(connections) == 1
    with connections[0] as connection:
        return connection.ask({"do": "statistics"})


def is_answered_by_the_kernel(action: Callable[[], object], *requests: str) -> bool:
    """Whether the kernel can do something without such requests; memory may be short at times, so a few are tried."""
    for _ in range(5):
        before = statistics()["requests"]
        action()
        after = statistics()["requests"]
        if all(before.get(one, 0) == after.get(one, 0) for one in requests):
            return True
    return False


def kill_server(runtime: Path) -> None:
    """End the only server as the kernel would if memory ran out."""
    (process,) = servers(runtime)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{process}").exists(), "the server has not died")


def mounted(place: Path) -> list[MountInfo]:
    """What is mounted in the folder of a test: others may run at the same time."""
    return [one for one in mounts() if one.target.is_relative_to(place)]


def lock_file(folder: Path) -> Path:
    """The lock file of a container, as the store makes it."""
    path = folder / "lock"
    path.touch()
    return path


class Mounter:
    """Mounts stacks of layers of a store."""

    def __init__(self, store: Store, place: Path) -> None:
        self.store = store
        self.place = place

    def push(self, *layers: bytes) -> list[Digest]:
        """Store layers; their DiffIDs."""
        return [self.store.push_layer(data).layer.diff_id for data in layers]

    def folder(self, name: str) -> Path:
        """A new folder to mount at."""
        path = self.place / name
        path.mkdir()
        return path

    def view(self, diff_ids: list[Digest], name: str = "view") -> Mount:
        """Mount a view at a folder, which may be there."""
        target = self.place / name
        target.mkdir(exist_ok=True)
        return mount_view(self.store.path, self.store.config.store_id, diff_ids, target)

    def container(self, diff_ids: list[Digest], name: str = "container", *, user_xattrs: bool = False) -> Mount:
        """Mount a container whose folders are beside its target."""
        target = self.place / name
        folder = self.place / f"{name}.d"
        for path in (target, folder, folder / "upper", folder / "work"):
            path.mkdir(exist_ok=True)
        return mount_container(
            self.store.path,
            self.store.config.store_id,
            diff_ids,
            target,
            upper=folder / "upper",
            work=folder / "work",
            lock=lock_file(folder),
            user_xattrs=user_xattrs,
        )

    def upper(self, name: str = "container") -> Path:
        """The upper folder of a container."""
        return self.place / f"{name}.d" / "upper"
