"""What differs between two file systems, path by path."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from layerstore.union.file_system import FileSystem
from layerstore.union.inode import Inode
from layerstore.union.layer_index import join_path
from layerstore.union.node import Node

_BLOCK_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """A path at which two file systems show different things."""

    kind: str
    """``added``, ``modified`` or ``deleted``."""
    path: bytes
    old: Node | None
    """What was there; None if nothing was."""
    new: Node | None
    """What is there; None if nothing is."""


def find_changes(
    old: FileSystem,
    new: FileSystem,
    *,
    same: Callable[[Node, Node], bool],
    untouched: Callable[[Inode], bool] = lambda _: False,
) -> Iterator[Change]:
    """The changes from one file system to the other, each directory before what is in it, sorted by name.

    ``same`` says of two nodes at one path whether a user would see a difference, contents included; of the root nobody
    is told who sees another time alone. What is ``untouched`` in the new one is the old one's, with all below it.
    """
    roots = old.node(b"", old.root), new.node(b"", new.root)
    if not same(roots[0], replace(roots[1], mtime_ns=roots[0].mtime_ns)):
        yield Change("modified", b"", *roots)
    stack = [_pairs(b"", old.root, new.root)]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
            continue
        path, was, now = pair
        if now is not None and untouched(now):
            continue
        change = _compare(
            path, None if was is None else old.node(path, was), None if now is None else new.node(path, now), same
        )
        if change is not None:
            yield change
        if any(one is not None and one.children for one in (was, now)):
            stack.append(_pairs(path, was, now))


def attributes(node: Node) -> tuple[object, ...]:
    """What a user sees of a node beside its contents and its names."""
    owner = node.uid, node.gid
    return node.kind, node.mode, owner, node.size, node.mtime_ns, node.link_target, node.device, dict(node.xattrs)


def same_bytes(old: FileSystem, was: Node, new: FileSystem, now: Node) -> bool:
    """Whether two nodes of one kind and size have the same contents."""
    if not was.is_file or not was.size:
        return True
    with old.open_node(was) as one, new.open_node(now) as other:
        while True:
            ours, theirs = one.read(_BLOCK_SIZE), other.read(_BLOCK_SIZE)
            if ours != theirs or not ours:
                return ours == theirs


def _pairs(path: bytes, was: Inode | None, now: Inode | None) -> Iterator[tuple[bytes, Inode | None, Inode | None]]:
    before = (was.children if was is not None else None) or {}
    after = (now.children if now is not None else None) or {}
    for name in sorted(before.keys() | after.keys()):
        yield join_path(path, name), before.get(name), after.get(name)


def _compare(path: bytes, was: Node | None, now: Node | None, same: Callable[[Node, Node], bool]) -> Change | None:
    if was is None:
        return Change("added", path, None, now)
    if now is None:
        return Change("deleted", path, was, None)
    return None if same(was, now) else Change("modified", path, was, now)
