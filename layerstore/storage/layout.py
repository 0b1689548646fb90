"""The folder of a store: its files, its configuration, and what the place must offer."""

import json
import os
import shutil
import time
import uuid
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerstore.errors import (
    InvalidOptionError,
    LayerstoreError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
    UnsupportedFormatError,
    UnsupportedPlaceError,
    UpgradeNeededError,
)
from layerstore.os_errors import os_error as _os_error
from layerstore.os_errors import translate_os_errors as _translate_os_errors
from layerstore.storage.mount_table import MOUNT_TABLE, mount_fields

FORMAT_VERSION = 2
"""What this version writes, and the newest that it reads (FORMAT.md, "Versions")."""

CONFIG_NAME = "layerstore.json"
_LEFTOVER_SECONDS = 3600
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "glusterfs", "gpfs", "beegfs", "afs", "9p", "ncpfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph", "fuse.cephfs", "orangefs", "davfs"}
)


class StoreConfig(BaseModel):
    """`layerstore.json`: what is fixed when a store is created."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    store_id: str = Field(pattern="^[0-9a-f]{32}$")
    chunking: str = "fastcdc2020-4096-16384-65536-n2"
    frame_size: int = Field(default=2 << 20, ge=1 << 12, le=1 << 26)
    """A frame is closed as soon as its chunks have this many bytes together."""
    pack_size_max: int = Field(default=64 << 20, ge=1 << 12, le=1 << 40)
    """A pack gets no further batch once it has this many bytes."""
    compression_level: int = Field(default=5, ge=-7, le=19)
    trash_ttl_seconds: int = Field(default=24 * 3600, ge=0, le=10 * 365 * 24 * 3600)
    """How long a deleted image can be brought back."""
    encoding_cache_max: int = Field(default=1 << 30, ge=0, le=1 << 50)
    """How many bytes of encodings that were made again are kept for the next who asks for them."""


_ON_FULL_DISK = "Free space on the disk or run `layerstore gc`, then try again"


def translate_os_errors(what: str) -> AbstractContextManager[None]:
    """Raise our errors for the operating system's; ``what`` says what was tried."""
    return _translate_os_errors(what, on_full_disk=_ON_FULL_DISK)


def os_error(error: OSError, what: str) -> LayerstoreError:
    """Our error for one of the operating system."""
    return _os_error(error, what, on_full_disk=_ON_FULL_DISK)


class Layout:
    """Paths inside a store's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / CONFIG_NAME
        self.index = root / "index"
        self.packs = root / "packs"
        self.leases = root / "leases"
        self.temporary = root / "tmp"
        self.raw = root / "raw"
        self.cache = root / "cache"
        self.journal = root / "journal"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of a store."""
        return self.index, self.packs, self.leases, self.temporary, self.raw, self.cache

    def pack(self, number: int) -> Path:
        """The path of a pack."""
        return self.packs / f"{number:08d}.pack"

    def pack_number(self, path: Path) -> int | None:
        """The inverse of `pack`; None for a file that is no pack."""
        return int(path.stem) if path.suffix == ".pack" and path.stem.isdecimal() else None


def create_layout(root: Path, config: StoreConfig) -> Layout:
    """Make the folders of a new store; its configuration file, which makes it a store, comes last by `write_config`."""
    refuse_network_file_system(root.parent if not root.exists() else root)
    layout = Layout(root)
    with translate_os_errors(f"cannot create a store at {root}"):
        root.mkdir(parents=True, exist_ok=True)
        if layout.config.exists():
            raise StoreExistsError(f"{root} is a store already")
        if any(root.iterdir()):
            raise StoreExistsError(f"{root} is not empty; choose a new or empty folder for the store")
        for folder in layout.folders:
            folder.mkdir()
    return layout


def make_missing_folders(layout: Layout) -> None:
    """Make the folders that may be empty and so be missing in a copy of a store."""
    with translate_os_errors(f"cannot open the store at {layout.root}"):
        for folder in (layout.leases, layout.temporary, layout.raw, layout.cache):
            folder.mkdir(exist_ok=True)


def sync_layout(layout: Layout) -> None:
    """Make the entries of the folders, and of LMDB's files in the index's, durable: LMDB does not."""
    with translate_os_errors(f"cannot create a store at {layout.root}"):
        sync_directory(layout.index)
        sync_directory(layout.root)


def remove_layout(layout: Layout) -> None:
    """Take back what `create_layout` made, of a store that could not be completed."""
    for folder in layout.folders:
        shutil.rmtree(folder, ignore_errors=True)


def write_config(layout: Layout, config: StoreConfig) -> None:
    """Put the configuration in place, durably and in one step."""
    with translate_os_errors(f"cannot write {layout.config}"):
        write_file(layout.config, (config.model_dump_json(indent=2) + "\n").encode())
        sync_directory(layout.root.parent)


def open_layout(root: Path, *, oldest: int = FORMAT_VERSION) -> tuple[Layout, StoreConfig]:
    """Find the store at ``root`` and check that its format is this version's, or not older than ``oldest``."""
    layout = Layout(root)
    try:
        text = layout.config.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise StoreNotFoundError(f"no store at {root}; make one with `layerstore --store {root} init`") from None
    except OSError as error:
        raise os_error(error, f"cannot read {layout.config}") from error
    try:
        version = json.loads(text)["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"{root} has format {version}; this layerstore reads up to {FORMAT_VERSION}: install a newer one"
            )
        if isinstance(version, int) and 0 <= version < oldest:
            raise UpgradeNeededError(f"{root} has the older format {version}; run `layerstore --store {root} upgrade`")
        config = StoreConfig.model_validate_json(text)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise StorageError(f"{layout.config} is damaged ({type(error).__name__}); restore it from a backup") from None
    refuse_network_file_system(root)
    return layout, config


def new_config(**options: int | None) -> StoreConfig:
    """A configuration with a new store id. Raises `InvalidOptionError` for values out of range."""
    chosen = {name: value for name, value in options.items() if value is not None}
    try:
        return StoreConfig.model_validate({"store_id": uuid.uuid4().hex, **chosen})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidOptionError(f"{first['loc'][0]}: {first['msg']}") from None


def refuse_network_file_system(path: Path) -> None:
    """Raise `UnsupportedPlaceError` where locks or shared memory maps cannot be trusted."""
    kind = _file_system_of(path)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise UnsupportedPlaceError(
            f"{path} lies on a network file system ({kind}), where LMDB's locks and memory map do not work; "
            "keep the store on a local disk"
        )


def _file_system_of(path: Path, mounts: Path = MOUNT_TABLE) -> str | None:
    """The type of the file system that holds ``path``; None where the system has no mountinfo."""
    try:
        table = mounts.read_bytes()
    except OSError:
        return None
    resolved = path.resolve()
    best: tuple[int, str | None] = (-1, None)
    for _, _, mount_point, kind, _, _ in mount_fields(table):
        # `>=`: of two mounts on the same directory, the later line is the one on top.
        if resolved.is_relative_to(mount_point) and len(mount_point.parts) >= best[0]:
            best = (len(mount_point.parts), kind)
    return best[1]


def sync_file(descriptor: int) -> None:
    """Make a file's data, and the size needed to read it, durable."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(layout: Layout) -> None:
    """Unlink temporary files beside journal and configuration that a killed process left an hour ago or more."""
    with translate_os_errors(f"cannot clean {layout.root}"):
        for path in layout.root.iterdir():
            if path.name.startswith((f".{layout.journal.name}.", f".{layout.config.name}.")):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                        path.unlink()


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file durably: it has the old or the new contents, never others."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
