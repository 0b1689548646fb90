"""What a view shows at a path."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from layerstore.digest import Digest
from layerstore.tar.entries import EntryKind, TarEntry


@dataclass(frozen=True, slots=True)
class Node:
    """What stands at a path of a view."""

    path: bytes
    """From the root, without a slash in front; empty for the root. It leads through no links, ``.`` or ``..``."""
    kind: EntryKind
    """Never ``HARDLINK`` (names of one file have one `inode`) and never ``OTHER``."""
    mode: int
    """Permissions with set-uid, set-gid and sticky bits."""
    uid: int
    gid: int
    size: int
    """Size of a file, holes included; 0 for everything else."""
    mtime_ns: int
    link_target: bytes
    """Target of a symbolic link, as written."""
    device: tuple[int, int]
    """Major and minor number of a device."""
    xattrs: Mapping[bytes, bytes] = field(hash=False)
    links: int
    """How many names in the view it has; 1 for a directory."""
    inode: tuple[int, int]
    """Equal for the names of one file, and for no others of the view: position of the layer, and a number in it."""
    layer: Digest | None
    """Where it comes from; a directory that several layers have, from the uppermost. None for a root that none has."""
    sparse: tuple[tuple[int, int], ...] | None
    """The regions (offset, length) that are no holes. None if no holes are known yet: `View.regions` knows them all."""
    entry: TarEntry | None = field(hash=False, repr=False)
    """The entry that holds its attributes and contents; None for a directory that only its contents imply."""

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.kind is EntryKind.DIRECTORY

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind is EntryKind.FILE

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.kind is EntryKind.SYMLINK
