"""The tree that a container shows: the image's, with what is in the upper directory over it."""

from layerstore.containers.upper import UpperDirectory
from layerstore.directories import Directories
from layerstore.tar.entries import EntryKind, TarEntry
from layerstore.union.inode import Inode
from layerstore.union.layer_index import join_path


class MergedInode(Inode):
    """An inode of a container. Its `layer` is `UPPER` if it is in the upper directory, else the image's.

    Those of the upper directory have no attributes here: they are read from the disk whenever they are asked for.
    """

    __slots__ = ("lower",)

    lower: Inode | None
    """The directory of the image that shows through this one; None if none does, and for what is no directory."""
    children: "dict[bytes, MergedInode] | None"  # type: ignore[assignment]


UPPER = 1 << 30
"""The position of the container layer in the stack: above all others."""


def merged_tree(lower: Inode, upper: UpperDirectory, root: int) -> MergedInode:
    """The tree of an image with the upper directory ``root`` (a descriptor) over it."""
    top = shown_through(lower)
    top.layer = UPPER
    with Directories(root) as directories:
        stack = [(b"", top)]
        while stack:
            path, here = stack.pop()
            stack += [(join_path(path, name), child) for name, child in _apply(here, upper, directories.open(path))]
    return top


def _apply(here: MergedInode, upper: UpperDirectory, directory: int) -> list[tuple[bytes, MergedInode]]:
    """Put over a directory what the upper directory has in it; the directories among that."""
    assert here.children is not None, "it is a directory"
    found = []
    for scanned in upper.scan(directory):
        if scanned.kind is None:
            here.children.pop(scanned.name, None)
            continue
        old = here.children.get(scanned.name)
        new = upper_inode(scanned.kind, scanned.link_target)
        if scanned.kind is EntryKind.DIRECTORY:
            if old is not None and old.lower is not None and not scanned.is_opaque:
                new.lower, new.children = old.lower, old.children
            found.append((scanned.name, new))
        here.children[scanned.name] = new
    return found


def upper_inode(kind: EntryKind, link_target: bytes = b"") -> MergedInode:
    """An inode of the upper directory, with nothing showing through."""
    new = MergedInode(kind, None, UPPER, 0)
    new.lower = None
    if kind is EntryKind.SYMLINK:
        new.entry = _link_entry(link_target)
    return new


def shown_through(lower: Inode) -> MergedInode:
    """The inode, and all below it, of an image where nothing covers it."""
    top = _copy(lower)
    stack = [(lower, top)]
    while stack:
        old, new = stack.pop()
        if old.children is None:
            continue
        assert new.children is not None, "it is a directory, too"
        for name, child in old.children.items():
            copied = new.children[name] = _copy(child)
            if child.children:
                stack.append((child, copied))
    return top


def _copy(inode: Inode) -> MergedInode:
    new = MergedInode(inode.kind, inode.entry, inode.layer, inode.number)
    new.links = inode.links
    new.lower = inode if inode.children is not None else None
    return new


def _link_entry(target: bytes) -> TarEntry:
    """What the walk along a path needs to follow a link."""
    return TarEntry(
        path=b"",
        raw_path=b"",
        kind=EntryKind.SYMLINK,
        mode=0o777,
        uid=0,
        gid=0,
        uname=b"",
        gname=b"",
        size=0,
        mtime_ns=0,
        link_target=target,
        device=(0, 0),
        header_offset=0,
        payload_offset=0,
        payload_size=0,
        after_end=False,
    )
