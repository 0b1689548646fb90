"""Locks that the kernel drops when their process ends: `flock` on files of the store.

`flock` belongs to the open file, not to the process: threads exclude each other too, and closing another descriptor
of the same file drops nothing (POSIX record locks would). A forked child shares the open file, so it closes its
copy; otherwise a child that outlives its parent would keep the parent's locks.
"""

import fcntl
import os
import weakref
from pathlib import Path
from typing import Self

from layerstore.storage.layout import translate_os_errors

_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process."""

    __slots__ = ("__weakref__", "_descriptor", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        _held.add(self)

    @classmethod
    def acquire(cls, path: Path, *, blocking: bool, create: bool) -> Self | None:
        """Lock the file at ``path``; None if it is locked by someone else (without ``blocking``) or absent.

        A file that was unlinked or replaced while we waited for it is absent, too.
        """
        with translate_os_errors(f"cannot lock {path}"):
            return cls._acquire(path, blocking, create)

    @classmethod
    def _acquire(cls, path: Path, blocking: bool, create: bool) -> Self | None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        while True:
            try:
                descriptor = os.open(path, flags, 0o666)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
                if _is_at(path, descriptor):
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not create:
                return None

    @property
    def descriptor(self) -> int:
        """The open file, for reading and writing."""
        return self._descriptor

    def release(self) -> None:
        """Let go. The file stays."""
        # Forgotten first: a signal in between must not let us close a number that is someone else's by then.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            _held.discard(self)
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()

    def _forget_after_fork(self) -> None:
        # Not LOCK_UN: that would unlock the parent's, which is the same open file.
        os.close(self._descriptor)
        self._descriptor = -1


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _drop_inherited_locks() -> None:
    for lock in list(_held):
        lock._forget_after_fork()
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited_locks)
