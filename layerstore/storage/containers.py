"""The folders of containers: what a container stands on, and where its changes are (FORMAT.md, "Containers")."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerstore.digest import Digest
from layerstore.directories import remove_tree
from layerstore.errors import (
    ContainerInUseError,
    ContainerNotFoundError,
    DamagedError,
    InvalidReferenceError,
    LayerstoreError,
)
from layerstore.storage.layout import sync_directory, translate_os_errors, write_file
from layerstore.storage.locks import FileLock

NAME_PATTERN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_DESCRIPTION = "container.json"
_MANIFEST = "manifest"
_CONFIG = "config"
_RUNNING = "running"
_REMOVED = ".removed-"
_NEW = ".new-"


class ContainerDescription(BaseModel):
    """`container.json`: what is fixed when a container is created."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(pattern="^[0-9a-f]{32}$")
    """Names the lease that keeps the layers."""
    image: Digest
    layers: tuple[Digest, ...]
    created: int = Field(ge=0)
    """Nanoseconds since 1970."""
    owners_kept: bool
    """Whether owners, modes and devices are told by attributes, since its user is not allowed to set them."""
    session: str | None = Field(default=None, pattern="^[0-9a-f]{32}$")
    """Names the session that it ends with; None for a container that stays until it is removed."""

    @property
    def lease(self) -> bytes:
        """The name of the lease."""
        return bytes.fromhex(self.id)


class ContainerFolder:
    """The folder of one container."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.upper = path / "upper"
        """The changes, as overlayfs keeps them in its upper directory."""
        self.work = path / "work"
        """What overlayfs needs beside them."""
        self.temporary = path / "tmp"
        """What is being made before it is put in place."""
        self.lock_file = path / "lock"

    @property
    def name(self) -> str:
        """The container's name."""
        return self.path.name

    def read(self) -> ContainerDescription:
        """What it stands on. Raises `ContainerNotFoundError`, `DamagedError`."""
        path = self.path / _DESCRIPTION
        with translate_os_errors(f"cannot read container {self.name}"):
            try:
                return ContainerDescription.model_validate_json(path.read_bytes())
            except (FileNotFoundError, NotADirectoryError):
                if not self.path.is_dir():
                    raise _absent(self.name) from None
                what = "missing"
            except ValidationError:
                what = "damaged"
        raise DamagedError(
            f"{path} is {what}: take what you need from {self.upper}, then `layerstore container rm {self.name}`"
        )

    def read_documents(self) -> tuple[bytes, bytes]:
        """The exact manifest and config of the image that it was made of."""
        with translate_os_errors(f"cannot read container {self.name}"):
            return (self.path / _MANIFEST).read_bytes(), (self.path / _CONFIG).read_bytes()

    def lock(self) -> FileLock:
        """Be the only one who changes it. Raises `ContainerInUseError`, `ContainerNotFoundError`."""
        if not self.path.is_dir():
            raise _absent(self.name)
        if not self.lock_file.exists():
            with translate_os_errors(f"cannot lock container {self.name}"):
                self.lock_file.touch()
        return lock_container(self.lock_file)

    @contextmanager
    def running(self) -> Iterator[int]:
        """Let it be in use while a program runs in it; the descriptor of a lock, for the program's runtime to inherit.

        The lock of who has it mounted ends with the mount, which somebody may take away: this one does not.
        """
        with translate_os_errors(f"cannot lock container {self.name}"):
            lock = FileLock.acquire(self.path / _RUNNING, blocking=True, create=True)
        assert lock is not None, "it was waited for"
        try:
            yield lock.descriptor
        finally:
            lock.release()

    @property
    def is_locked(self) -> bool:
        """Whether somebody changes it, has it mounted, or runs a program in it."""
        return _is_locked(self.lock_file) or _is_locked(self.path / _RUNNING)


def lock_container(path: Path) -> FileLock:
    """Lock a container's lock file. Raises `ContainerInUseError`.

    Whoever looks whether it is locked has it for a moment, so one try is not enough.
    """
    for wait in (0.001, 0.01, 0.1, 0):
        lock = FileLock.acquire(path, blocking=False, create=False)
        if lock is not None and not _is_locked(path.with_name(_RUNNING)):
            return lock
        if lock is not None:
            lock.release()
        time.sleep(wait)
    raise ContainerInUseError(f"container {path.parent.name} is mounted, or being changed by another process")


def _is_locked(path: Path) -> bool:
    try:
        lock = FileLock.acquire(path, blocking=False, create=False)
    except LayerstoreError:
        return False
    if lock is None:
        return path.exists()
    lock.release()
    return False


def container_folder(root: Path, name: str) -> ContainerFolder:
    """The folder of a container in a store, be it there or not. Raises `InvalidReferenceError` for what is no name."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidReferenceError(
            f"{name!r} is no name for a container: up to 128 letters, digits, '_', '.' and '-', "
            "the first a letter or digit"
        )
    return ContainerFolder(root / "containers" / name)


def container_folders(root: Path) -> Iterator[ContainerFolder]:
    """The containers of a store, sorted by name."""
    with translate_os_errors(f"cannot read the containers of {root}"):
        try:
            names = sorted(path.name for path in (root / "containers").iterdir())
        except FileNotFoundError:
            return
    for name in names:
        if NAME_PATTERN.fullmatch(name):
            yield ContainerFolder(root / "containers" / name)


def container_leases(root: Path) -> dict[bytes, str]:
    """The leases of the containers of a store, with their names; those of `damaged_containers` are not known."""
    found = {}
    for folder in container_folders(root):
        with suppress(ContainerNotFoundError, DamagedError):  # it was removed meanwhile
            found[folder.read().lease] = folder.name
    return found


def damaged_containers(root: Path) -> dict[str, DamagedError]:
    """The containers of a store that cannot be read, by name."""
    found = {}
    for folder in container_folders(root):
        try:
            folder.read()
        except ContainerNotFoundError:
            continue  # it was removed meanwhile
        except DamagedError as error:
            found[folder.name] = error
    return found


def new_container_folder(
    root: Path, image: Digest, layers: tuple[Digest, ...], *, owners_kept: bool, session: str | None
) -> "NewContainer":
    """Begin a container: its folder is no container's until `NewContainer.install`."""
    with translate_os_errors(f"cannot create a container in {root}"):
        containers = root / "containers"
        containers.mkdir(exist_ok=True)
        sync_directory(root)
        path = containers / f"{_NEW}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
    description = ContainerDescription(
        id=secrets.token_hex(16),
        image=image,
        layers=layers,
        created=time.time_ns(),
        owners_kept=owners_kept,
        session=session,
    )
    return NewContainer(ContainerFolder(path), description)


class NewContainer:
    """A container that is being made."""

    def __init__(self, folder: ContainerFolder, description: ContainerDescription) -> None:
        self.folder = folder
        self.description = description

    def fill(self, manifest: bytes, config: bytes) -> None:
        """Write all but the changes, durably."""
        folder = self.folder
        with translate_os_errors(f"cannot create a container in {folder.path.parent}"):
            for one in (folder.upper, folder.work, folder.temporary):
                one.mkdir(mode=0o755)
            folder.lock_file.touch()
            write_file(folder.path / _MANIFEST, manifest)
            write_file(folder.path / _CONFIG, config)
            description = self.description.model_dump_json(indent=2, exclude_none=True)
            write_file(folder.path / _DESCRIPTION, description.encode() + b"\n")

    def install(self, target: ContainerFolder) -> None:
        """Let it be the container that ``target`` names, durably; none may be there."""
        with translate_os_errors(f"cannot create container {target.name}"):
            self.folder.path.rename(target.path)
            sync_directory(target.path.parent)
        self.folder = target

    def discard(self) -> None:
        """Remove what was begun."""
        with suppress(OSError):
            _remove(self.folder.path)


def remove_container_folder(folder: ContainerFolder) -> None:
    """Remove a container, in one step to all who look for it. Raises `ContainerNotFoundError`."""
    aside = folder.path.with_name(f"{_REMOVED}{secrets.token_hex(8)}")
    with translate_os_errors(f"cannot remove container {folder.name}"):
        try:
            folder.path.rename(aside)
        except FileNotFoundError:
            raise _absent(folder.name) from None
        sync_directory(aside.parent)
        _remove(aside)


def remove_container_leftovers(root: Path) -> None:
    """Remove what processes that were killed left of containers they made or removed. Nobody may do either now."""
    with suppress(FileNotFoundError):
        for path in (root / "containers").iterdir():
            if path.name.startswith((_REMOVED, _NEW)):
                with suppress(OSError):
                    _remove(path)


def _remove(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(directory, os.fsencode(path.name))
    finally:
        os.close(directory)


def _absent(name: str) -> ContainerNotFoundError:
    return ContainerNotFoundError(f"the store has no container {name}; `layerstore container ls` lists them")
