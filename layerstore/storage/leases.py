"""Process leases: what a running operation relies on, told to other processes by a locked file.

A lease file lies in the store's `leases` folder, holds what it covers, and is locked by the process that made it.
When the process ends, however it ends, the kernel drops the lock: whoever finds the file unlocked removes it.

The order that makes this safe: a reader *first* has its lease, *then* looks whether the layer is still there;
collection *first* makes a layer invisible, *then* looks for leases. One of the two sees the other.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import UnavailableError
from layerstore.storage.layout import translate_os_errors
from layerstore.storage.locks import FileLock

_SESSION = "session"
_LAYER = "layer"
_EVERYTHING = "everything"


class Session:
    """The mark of one opened store that writes: uploads and pushed layers are its own while it lives."""

    def __init__(self, folder: Path) -> None:
        self.name = secrets.token_bytes(16)
        self._lock = _make(folder, f"{_SESSION}-{self.name.hex()}")

    def end(self) -> None:
        """Drop the mark."""
        _remove(self._lock)


@contextmanager
def lease_layer(folder: Path, number: int) -> Iterator[None]:
    """Cover the recipe ``number``, and all chunks that it refers to, against collection."""
    lock = _make(folder, f"{_LAYER}-{number}-{secrets.token_hex(8)}")
    try:
        yield
    finally:
        _remove(lock)


@contextmanager
def lease_everything(folder: Path) -> Iterator[None]:
    """Keep collection from taking anything away, as a backup needs it."""
    lock = _make(folder, f"{_EVERYTHING}-{secrets.token_hex(8)}")
    try:
        yield
    finally:
        _remove(lock)


class LiveLeases:
    """The process leases that live at the moment of `look`. Files of dead processes are removed on the way."""

    def __init__(self) -> None:
        self.sessions: set[bytes] = set()
        self.layers: set[int] = set()
        self.everything = False

    @classmethod
    def look(cls, folder: Path) -> "LiveLeases":
        """Read the folder."""
        found = cls()
        with translate_os_errors(f"cannot read {folder}"):
            paths = list(folder.iterdir())
        for path in paths:
            kind, _, rest = path.name.partition("-")
            if not _is_live(path):
                continue
            if kind == _SESSION:
                found.sessions.add(bytes.fromhex(rest))
            elif kind == _LAYER:
                found.layers.add(int(rest.partition("-")[0]))
            elif kind == _EVERYTHING:
                found.everything = True
        return found


def _make(folder: Path, name: str) -> FileLock:
    with translate_os_errors(f"cannot make a lease in {folder}"):
        # A reader's lease must be locked before it can be seen, or a collector would take it for a dead one's.
        temporary = folder / f".{name}"
        lock = FileLock.acquire(temporary, blocking=True, create=True)
        assert lock is not None
        path = folder / name
        temporary.rename(path)
        lock.path = path
        return lock


def _remove(lock: FileLock) -> None:
    if lock.descriptor >= 0:
        lock.path.unlink(missing_ok=True)
        lock.release()


def _is_live(path: Path) -> bool:
    try:
        lock = FileLock.acquire(path, blocking=False, create=False)
    except UnavailableError:
        return path.exists()  # unreadable for us: someone else's, so respect it
    if lock is None:
        return path.exists()
    # Nobody holds it. One that is being made (a leading dot) may still get its lock: it has an hour for that.
    being_made = path.name.startswith(".") and time.time() - os.fstat(lock.descriptor).st_mtime < 3600
    if not being_made:
        path.unlink(missing_ok=True)
    lock.release()
    return False
