"""What is mounted in this mount namespace, and what of it is ours."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from layerstore.storage.mount_table import MOUNT_TABLE, mount_fields

FUSE_KIND = "fuse.layerstore"
OVERLAY_SOURCE = "layerstore"
FUSE_OVERLAY_KIND = "fuse.fuse-overlayfs"


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of the table."""

    device: str
    """Major and minor number of the file system, as ``0:52``."""
    root: bytes
    """What of the file system is at the target: ``/`` for all of it, a directory for a bind mount."""
    target: Path
    kind: str
    source: str
    options: bytes
    """Those of the file system."""

    @property
    def is_view(self) -> bool:
        """Whether it is a view of ours, or all of them."""
        return self.kind == FUSE_KIND

    @property
    def has_all_views(self) -> bool:
        """Whether it is the private mount of root's server; a user's has one view, which is its root."""
        return self.is_view and self.root == b"/" and b"user_id=0" in self.options.split(b",")

    @property
    def is_container(self) -> bool:
        """Whether it is a container's overlay of ours, made by root."""
        return self.source == OVERLAY_SOURCE and self.kind == "overlay"

    @property
    def is_user_overlay(self) -> bool:
        """Whether it is made by fuse-overlayfs, for us or for others."""
        return self.kind == FUSE_OVERLAY_KIND

    def option(self, name: bytes) -> bytes | None:
        """The value of an option of an overlay, unescaped."""
        for part in re.split(rb"(?<!\\),", self.options):
            key, _, value = part.partition(b"=")
            if key == name:
                return re.sub(rb"\\(.)", rb"\1", value)
        return None


def read_mounts() -> list[MountEntry]:
    """All mounts of this process's namespace, later ones over earlier ones."""
    return [MountEntry(*fields) for fields in mount_fields(MOUNT_TABLE.read_bytes())]


def mount_at(target: Path) -> MountEntry | None:
    """The uppermost mount at exactly this path, which must be `resolved`."""
    return next((one for one in reversed(read_mounts()) if one.target == target), None)


def resolved(target: Path) -> Path:
    """A path as the table has it. Its last part is not looked at: a dead mount there would answer with an error."""
    absolute = Path(os.path.abspath(target))  # noqa: PTH100  # `Path.absolute` keeps ".."
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def open_table() -> int:
    """A descriptor of the table; poll(2) reports POLLPRI and POLLERR when it has changed."""
    return os.open(MOUNT_TABLE, os.O_RDONLY | os.O_CLOEXEC)
