"""What a container has changed of its image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from layerstore.containers.tree import UPPER, MergedInode
from layerstore.union.inode import Inode
from layerstore.union.layer_index import join_path
from layerstore.union.node import Node


@dataclass(frozen=True, slots=True)
class FileChange:
    """A path at which a container shows something else than its image."""

    kind: str
    """``added``, ``modified`` or ``deleted``; of a deleted directory only its own path is told."""
    path: bytes
    old: Node | None
    new: Node | None


class Compared(Protocol):
    """A container, as far as its changes are concerned."""

    @property
    def root(self) -> Inode:
        """The root of its tree."""

    @property
    def lower_root(self) -> Inode:
        """The root of its image's."""

    def node(self, path: bytes, inode: Inode) -> Node:
        """What an inode of either tree is, at its path."""

    def same_contents(self, old: Node, new: Node) -> bool:
        """Whether a file of the image and one of the container have the same bytes."""


def find_changes(container: Compared) -> Iterator[FileChange]:
    """The changes, sorted by the names of each directory; a directory before what is in it.

    The root itself counts as changed only if more than its time is another.
    """
    root = container.root
    assert isinstance(root, MergedInode), "a container's tree"
    old, new = container.node(b"", container.lower_root), container.node(b"", root)
    if _attributes(old, with_time=False) != _attributes(new, with_time=False):
        yield FileChange("modified", b"", old, new)
    yield from _below(container, b"", container.lower_root, root)


def _below(container: Compared, path: bytes, lower: Inode | None, here: MergedInode) -> Iterator[FileChange]:
    stack = [_pairs(path, lower, here)]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
            continue
        path, lower, new = pair
        if new is None:
            assert lower is not None, "a pair has something"
            yield FileChange("deleted", path, container.node(path, lower), None)
        elif new.layer == UPPER:  # what is not in the upper directory is the image's, with all below it
            change = _compare(container, path, lower, new)
            if change is not None:
                yield change
            if new.children is not None:
                stack.append(_pairs(path, lower, new))


def _pairs(
    path: bytes, lower: Inode | None, here: MergedInode
) -> Iterator[tuple[bytes, Inode | None, MergedInode | None]]:
    before = (lower.children if lower is not None else None) or {}
    after = here.children or {}
    for name in sorted(before.keys() | after.keys()):
        yield join_path(path, name), before.get(name), after.get(name)


def _compare(container: Compared, path: bytes, lower: Inode | None, here: MergedInode) -> FileChange | None:
    new = container.node(path, here)
    if lower is None:
        return FileChange("added", path, None, new)
    old = container.node(path, lower)
    # A file that was copied up has one name; several were made here, and all of them belong to the change.
    if _attributes(old) == _attributes(new) and (new.is_dir or new.links == 1) and container.same_contents(old, new):
        return None
    return FileChange("modified", path, old, new)


def _attributes(node: Node, *, with_time: bool = True) -> tuple[object, ...]:
    time = node.mtime_ns if with_time else 0
    xattrs = dict(node.xattrs)
    return node.kind, node.mode, node.uid, node.gid, node.size, time, node.link_target, node.device, xattrs
