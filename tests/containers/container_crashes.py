"""What children do that are killed in the midst of it: changes of a container, and its making and removal."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crash_kills
from container_samples import BIG, CAPABILITY

from layerstore import Container, Store
from layerstore.containers import disk
from layerstore.tar.entries import EntryKind

Step = Callable[[Container], object]
_STEPS = ("symlink", "mknod", "link", "rmdir", "setxattr", "removexattr", "chown", "fchown", "chmod", "utime", "write")
_RENAMES = ("exchange", "rename_leaving_whiteout")


@dataclass(frozen=True)
class Operation:
    """A change in steps: whoever is killed leaves what is there after one of them. Most have one step."""

    steps: list[Step]
    before: Step = field(default=lambda container: None)


def _chown_by_the_system(container: Container) -> None:
    container.chmod("able", 0o755)
    container.remove_xattr("able", b"security.capability")
    container.chown("able", 8, 9)


def _emptied(path: str, mtime_ns: int) -> list[Step]:
    """The copy of a file that is about to be written anew has its attributes already, and no contents yet."""
    return [lambda c: (c.truncate(path, 0), c.utime(path, mtime_ns)), lambda c: c.truncate(path, 0)]


def _then(*steps: Step) -> Step:
    def do(container: Container) -> None:
        for step in steps:
            step(container)

    return do


OPERATIONS = {
    "new file": Operation([lambda c: c.mknod("d/s/new", EntryKind.FILE), lambda c: c.write_bytes("d/s/new", b"1")]),
    "overwrite": Operation([*_emptied("d/f", 102_500_000_000), lambda c: c.write_bytes("d/f", b"new")]),
    "copy up a big file": Operation([lambda c: c.chmod("big", 0o600)]),
    "copy up a sparse file": Operation([lambda c: c.chmod("holes", 0o600)]),
    "cut": Operation([lambda c: c.truncate("big", 5)]),
    "mkdir": Operation([lambda c: c.mkdir("d/s/new")]),
    "mkdir over a whiteout": Operation([lambda c: c.mkdir("d", 0o700)], lambda c: c.remove_tree("d")),
    "mkdir with parents": Operation([lambda c: c.mkdir("d/x"), lambda c: c.mkdir("d/x/y")]),
    "symlink": Operation([lambda c: c.symlink("x", "d/link")]),
    "symlink over a whiteout": Operation([lambda c: c.symlink("x", "big")], lambda c: c.unlink("big")),
    "mknod": Operation([lambda c: c.mknod("d/dev", EntryKind.BLOCK, 0o600, (8, 3))]),
    "link": Operation([lambda c: c.link("d/f", "op/new")]),
    "link over a whiteout": Operation([lambda c: c.link("d/f", "big")], lambda c: c.unlink("big")),
    "unlink": Operation([lambda c: c.unlink("d/f")]),
    "unlink what was changed": Operation([lambda c: c.unlink("d/f")], lambda c: c.write_bytes("d/f", b"x")),
    "unlink what is new": Operation([lambda c: c.unlink("d/new")], lambda c: c.write_bytes("d/new", b"x")),
    "rmdir": Operation([lambda c: c.rmdir("empty")]),
    "rmdir of what was emptied": Operation([lambda c: c.rmdir("op")], lambda c: c.unlink("op/own")),
    "remove a tree": Operation([lambda c: c.remove_tree("d")]),
    "remove a changed tree": Operation([lambda c: c.remove_tree("d")], lambda c: c.write_bytes("d/s/t", b"x")),
    "remove a new tree": Operation([lambda c: c.remove_tree("x")], lambda c: c.mkdir("x/y/z", parents=True)),
    "rename": Operation([lambda c: c.rename("d/f", "op/f")]),
    "rename over a file": Operation([lambda c: c.rename("d/f", "h1")]),
    "rename a new one over a whiteout": Operation(
        [lambda c: c.rename("new", "big")], _then(lambda c: c.unlink("big"), lambda c: c.write_bytes("new", b"1"))
    ),
    "rename a directory": Operation([lambda c: c.rename("d", "op/d")]),
    "rename a directory over an empty one": Operation([lambda c: c.rename("d", "empty")]),
    "rename a directory over an emptied one": Operation([lambda c: c.rename("d", "op")], lambda c: c.unlink("op/own")),
    "rename a directory with whiteouts": Operation([lambda c: c.rename("d", "e")], lambda c: c.unlink("d/g")),
    "rename a directory back": Operation([lambda c: c.rename("e", "d")], lambda c: c.rename("d", "e")),
    "rename a new directory over a whiteout": Operation(
        [lambda c: c.rename("x", "d")], _then(lambda c: c.remove_tree("d"), lambda c: c.mkdir("x/y", parents=True))
    ),
    "rename a directory over a whiteout, leaving one": Operation(
        [lambda c: c.rename("empty", "d")], lambda c: c.remove_tree("d")
    ),
    "chmod": Operation([lambda c: c.chmod("d/s/t", 0o600)]),
    "chown": Operation([lambda c: c.chown("d/s", 8, 9)]),
    "chown of what has rights": Operation(
        [
            _chown_by_the_system,
            lambda c: c.set_xattr("able", b"security.capability", CAPABILITY),
            lambda c: c.chmod("able", 0o4755),
        ]
    ),
    "utime": Operation([lambda c: c.utime("d/s/t", 5 * 10**9)]),
    "xattr": Operation([lambda c: c.set_xattr("noted", b"user.note", b"two")]),
    "no xattr": Operation([lambda c: c.remove_xattr("noted", b"user.note")]),
}
"""By their names. Where an operation has several steps, `WHOLE` has the call that does them all."""

WHOLE: dict[str, Step] = {
    "new file": lambda c: c.write_bytes("d/s/new", b"1"),
    "overwrite": lambda c: c.write_bytes("d/f", b"new"),
    "mkdir with parents": lambda c: c.mkdir("d/x/y", parents=True),
    "chown of what has rights": lambda c: c.chown("able", 8, 9),
}


def kill_in_change(store: str, name: str, operation: str, at: int) -> None:
    """In a child: make a container, and be killed at step ``at`` of a change."""
    with Store.open(store) as opened:
        container = opened.images["shop:1"].container(name)
        OPERATIONS[operation].before(container)
        container.close()
        _install(at)
        WHOLE.get(operation, OPERATIONS[operation].steps[-1])(container)
        os._exit(0)


def kill_in_life(store: str, doing: str, at: int) -> None:
    """In a child: be killed at step ``at`` of making or removing a container."""
    with Store.open(store) as opened:
        _install(at)
        if doing == "create":
            opened.images["shop:1"].container("mine")
        else:
            opened.containers["mine"].remove()
        os._exit(0)


def hold(store: str, name: str, ready: str) -> None:
    """In a child: change a container, say so, and hold it until killed."""
    with Store.open(store) as opened:
        container = opened.containers[name]
        container.write_bytes("big", BIG[:5])
        Path(ready).touch()
        crash_kills.signal.pause()


def _install(at: int) -> None:
    killer = crash_kills.Killer(at)
    crash_kills.install(killer)
    for name in _STEPS:
        setattr(os, name, _counted(killer, getattr(os, name)))
    for name in _RENAMES:
        setattr(disk, name, _counted(killer, getattr(disk, name)))


def _counted(killer: crash_kills.Killer, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        killer.step()
        return real(*arguments, **options)

    return call
