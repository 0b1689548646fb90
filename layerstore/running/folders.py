"""The folder of a run: where the container is mounted, and what its runtime is told.

It is locked by this process and by the runtime, which inherits the lock. Whoever finds one that nobody has locked takes
it away, with what is mounted there and what still runs: its processes were killed.
"""

import fcntl
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.errors import LayerstoreError, NotMountedError
from layerstore.mounting.client import unmount
from layerstore.os_errors import translate_os_errors

_PREFIX = "layerstore-run-"
_NEW_PREFIX = "layerstore-new-run-"
_NEW_SECONDS_MAX = 3600
_LOCK = "lock"
_ROOT = "rootfs"
_BUNDLE = "bundle"
_NOTE = "runtime"


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock
        """The descriptor of its lock, to be inherited by the runtime."""
        self.root = path / _ROOT
        """Where the container is mounted."""
        self.bundle = path / _BUNDLE
        """The OCI bundle, for nobody's eyes but the runtime's: it has the variables."""

    def note_runtime(self, runtime: str, identity: str) -> None:
        """Tell whoever takes the folder away by which name the runtime knows the container."""
        (self.path / _NOTE).write_text(f"{runtime} {identity}\n")


@contextmanager
def run_folder() -> Iterator[RunFolder]:
    """A new folder, which is taken away at the end. Raises `StorageError` or `NoSpaceError`."""
    place, name = Path(tempfile.gettempdir()), secrets.token_hex(8)
    new, path = place / f"{_NEW_PREFIX}{name}", place / f"{_PREFIX}{name}"
    lock: int | None = None
    try:
        with translate_os_errors(f"cannot make a folder in {place}"):
            new.mkdir(mode=0o700)
            lock = _locked(new, create=True)
            assert lock is not None, "it is nobody else's"
            # Whoever sees it by this name sees it locked.
            new.rename(path)
            folder = RunFolder(path, lock)
            # Whoever the program runs as must come through to its root; names in there are no secret.
            path.chmod(0o711)
            folder.root.mkdir()
            folder.bundle.mkdir(mode=0o700)
        yield folder
    finally:
        # A signal may have come between any two steps, so nothing is known but the names.
        for one in (new, path):
            _remove(one)
        if lock is not None:
            os.close(lock)


def remove_dead_runs() -> None:
    """Take away what this user's runs left whose processes were killed: folders, mounts, and what still runs there."""
    place = Path(tempfile.gettempdir())
    for path in [*place.glob(f"{_PREFIX}*"), *place.glob(f"{_NEW_PREFIX}*")]:
        # Others may put things of that name there, too.
        with suppress(OSError):
            status = path.lstat()
            is_young = time.time() - status.st_mtime < _NEW_SECONDS_MAX
            is_being_made = is_young and path.name.startswith(_NEW_PREFIX)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or is_being_made:
                continue
            lock = _locked(path, create=True)  # one that was killed between two steps has none
            if lock is not None:
                try:
                    _take_away(RunFolder(path, lock))
                finally:
                    os.close(lock)


def _take_away(folder: RunFolder) -> None:
    note = folder.path / _NOTE
    runtime, _, identity = note.read_text().strip().partition(" ") if note.exists() else ("", "", "")
    if identity:
        subprocess.run([runtime, "delete", "--force", identity], check=False, capture_output=True)
    try:
        unmount(folder.root)
    except NotMountedError:
        pass  # it was unmounted already
    except LayerstoreError:
        return  # somebody still uses it
    _remove(folder.path)


def _remove(path: Path) -> None:
    """Take a folder away, but for what is still mounted there: that is the container's."""
    shutil.rmtree(path / _BUNDLE, ignore_errors=True)
    with suppress(OSError):
        with suppress(FileNotFoundError):
            (path / _ROOT).rmdir()
        for name in (_NOTE, _LOCK):
            (path / name).unlink(missing_ok=True)
        path.rmdir()


def _locked(path: Path, *, create: bool) -> int | None:
    """The descriptor of a folder's lock; None if another process has it."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path / _LOCK, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
