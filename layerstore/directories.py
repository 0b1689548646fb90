"""Directories below the target, reached by descriptors and over no symbolic link.

A path is never given to the system whole: each step is opened in the directory before it, with O_NOFOLLOW. So a link in
the tree, whoever put it there, leads nowhere.
"""

import os
import secrets
from types import TracebackType
from typing import Self

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How each step is opened."""
NAME_LENGTH_MAX = 255
PATH_LENGTH_MAX = 4095
"""PATH_MAX of Linux without the zero at its end: what is deeper can be made step by step, and then not be used."""

_HELD_MAX = 32
"""How many levels stay open at once. What lies deeper is walked to again from there."""


def remove_tree(parent: int, name: bytes) -> None:
    """Remove a directory with all that is in it, be it deeper than a path or a stack can reach.

    What lies deep comes up first: every directory is moved to the uppermost one, under a name of chance.
    """
    top = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    try:
        waiting = _empty(top, b".")
        while waiting:
            here = waiting.pop()
            for below in _empty(top, here):
                waiting.append(secrets.token_hex(16).encode())
                os.rename(here + b"/" + below, waiting[-1], src_dir_fd=top, dst_dir_fd=top)
            os.rmdir(here, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _empty(parent: int, name: bytes) -> list[bytes]:
    """Unlink all in a directory but the directories in it, which are returned."""
    directory = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    try:
        with os.scandir(directory) as found:
            entries = [(os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in found]
        for entry, is_directory in entries:
            if not is_directory:
                os.unlink(entry, dir_fd=directory)
    finally:
        os.close(directory)
    return [entry for entry, is_directory in entries if is_directory]


class Directories:
    """Opens the directories of a tree one after the other; what the next has in common with the last stays open.

    One thread uses it at a time. It takes over none of the descriptor of ``root``.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._held: list[tuple[bytes, int]] = []
        self._deep: int | None = None
        self._path = b""

    def open(self, path: bytes) -> int:
        """A descriptor of the directory ``path`` below the root, which is valid until the next call."""
        if path == self._path:
            return self._current()
        if self._deep is not None and path.startswith(self._path + b"/"):
            rest = path[len(self._path) + 1 :].split(b"/")
        else:
            rest = self._opened_in_common(path.split(b"/") if path else [])
        self._path = b"\0"  # the path of nothing: should a step fail, the next call begins anew
        for step in rest:
            descriptor = os.open(step, OPEN_DIRECTORY, dir_fd=self._current())
            if self._deep is None and len(self._held) < _HELD_MAX:
                self._held.append((step, descriptor))
            else:
                self._drop_deep()
                self._deep = descriptor
        self._path = path
        return self._current()

    def _opened_in_common(self, steps: list[bytes]) -> list[bytes]:
        """Keep what is open of these steps; the steps behind it."""
        self._drop_deep()
        common = 0
        for (name, _), step in zip(self._held, steps, strict=False):
            if name != step:
                break
            common += 1
        self._keep(common)
        return steps[common:]

    def close(self) -> None:
        """Close all but the root."""
        self._drop_deep()
        self._keep(0)
        self._path = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _current(self) -> int:
        if self._deep is not None:
            return self._deep
        return self._held[-1][1] if self._held else self._root

    def _keep(self, count: int) -> None:
        while len(self._held) > count:
            os.close(self._held.pop()[1])

    def _drop_deep(self) -> None:
        if self._deep is not None:
            os.close(self._deep)
            self._deep = None
