"""Where a server has its socket, its locks, its log and its mount point. All of it may vanish with a reboot."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import MountUnavailableError
from layerstore.mounting.mount_table import mount_at
from layerstore.storage.layout import translate_os_errors
from layerstore.storage.locks import FileLock

RUNTIME_VARIABLE = "LAYERSTORE_RUNTIME_DIR"
"""Names another folder than /run/layerstore, or the user's own."""
_SOCKET_PATH_MAX = 107


class RuntimeFolder:
    """The folder of one server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_system = path / "fs"
        """Where the server mounts its views; nobody else can reach it."""
        self.socket = path / "socket"
        self.lock = path / "lock"
        """Locked by the server as long as it lives."""
        self.start_lock = path / "start"
        """Locked by a client that looks for the server, and starts it if there is none."""
        self.log = path / "log"
        self.overlay_target = path / "overlay"
        """Tells where a user's container is mounted: fuse-overlayfs gives its mounts no mark of ours."""

    @classmethod
    def of_store(cls, store: Path, store_id: str) -> "RuntimeFolder":
        """The folder of the server for a store in this mount namespace, in which alone its mounts can be seen."""
        namespace = Path("/proc/self/ns/mnt").stat()
        place = f"{namespace.st_dev} {namespace.st_ino} {store.resolve()}"
        return cls(_base() / f"{store_id[:12]}-{_short_name(place)}").made()

    @classmethod
    def of_one_mount(cls) -> "RuntimeFolder":
        """A new folder, for a server that has a single mount."""
        return cls(_base() / secrets.token_hex(8)).made()

    def made(self) -> "RuntimeFolder":
        """The folder, which is there then. Nobody but its owner can enter it."""
        with translate_os_errors(f"cannot make {self.path}"):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.path.lstat().st_uid
        if owner != os.geteuid():
            raise MountUnavailableError(f"{self.path} belongs to user {owner}; set {RUNTIME_VARIABLE} to your own")
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_MAX:
            raise MountUnavailableError(f"{self.path} is too long for a socket; set a shorter {RUNTIME_VARIABLE}")
        return self

    @contextmanager
    def of_dead_server(self) -> Iterator[bool]:
        """Whether a file system is mounted here whose server is dead; no other one starts meanwhile."""
        is_mounted = mount_at(self.file_system) is not None
        lock = FileLock.acquire(self.lock, blocking=False, create=True) if is_mounted else None
        try:
            yield lock is not None and mount_at(self.file_system) is not None
        finally:
            if lock is not None:
                lock.release()


def all_folders() -> list[RuntimeFolder]:
    """The folders of all servers that there are or were."""
    base = _base()
    if not base.is_dir():
        return []
    return [RuntimeFolder(path) for path in sorted(base.iterdir()) if path.is_dir()]


def overlay_targets() -> set[Path]:
    """Where users' containers of ours are mounted, or were."""
    notes = (folder.overlay_target for folder in all_folders())
    return {Path(os.fsdecode(note.read_bytes())) for note in notes if note.exists()}


@contextmanager
def mounting_lock() -> Iterator[None]:
    """One process of this user at a time looks whether a directory is free, and mounts there."""
    base = _base()
    with translate_os_errors(f"cannot make {base}"):
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock.acquire(base / "mounting", blocking=True, create=True)
    assert lock is not None, "it was waited for"
    try:
        yield
    finally:
        lock.release()


def _base() -> Path:
    chosen = os.environ.get(RUNTIME_VARIABLE)
    if chosen:
        return Path(chosen).resolve()
    if os.geteuid() == 0:
        return Path("/run/layerstore")
    of_user = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(of_user) / "layerstore" if of_user else Path(f"/tmp/layerstore-{os.geteuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.lstat().st_uid != os.geteuid():
        raise MountUnavailableError(f"{path} belongs to someone else; set {RUNTIME_VARIABLE} to a folder of your own")
    return path


def _short_name(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=6).hexdigest()
