"""Paths to inodes, as the kernel walks them, inside a root that nothing leads out of.

See POSIX.1-2017, 4.13 "Pathname Resolution".
"""

from collections.abc import Callable

from layerstore.tar.entries import EntryKind
from layerstore.union.errors import LinkLoopError, NotADirectoryInViewError, PathNotFoundError
from layerstore.union.inode import Inode, Trail

LINKS_MAX = 40
"""How many symbolic links one path may lead through; as in Linux."""

Make = Callable[[Inode, bytes], Inode]
"""Makes a directory of that name in a directory, whatever is there."""


def resolve(
    root: Inode, path: bytes, *, follow_last: bool = True, start: Trail | None = None, make: Make | None = None
) -> Trail:
    """The way from the root to what ``path`` leads to; empty for the root itself.

    A relative path begins at the end of ``start``. With ``make``, directories that are missing, and whatever stands in
    the place of one, are made. Raises `PathNotFoundError`, `NotADirectoryInViewError`, `LinkLoopError`.
    """
    walk = _Walk(root, path, start)
    todo = walk.todo
    while todo:
        part = todo.pop()
        children = walk.here.children
        if children is None:
            raise NotADirectoryInViewError(path)
        if part == b"..":
            walk.ascend()
        elif part and part != b".":
            child = children.get(part)
            if child is not None and child.kind is EntryKind.SYMLINK and (todo or follow_last):
                walk.follow(child)
                continue
            if make is not None and (child is None or (todo and child.children is None)):
                child = make(walk.here, part)
            if child is None:
                raise PathNotFoundError(path)
            walk.trail.append((part, child))
            walk.here = child
    return walk.trail


class _Walk:
    """How far the walk has come, and what of the path is left."""

    __slots__ = ("_links", "_path", "_root", "here", "todo", "trail")

    def __init__(self, root: Inode, path: bytes, start: Trail | None) -> None:
        self._root = root
        self._path = path
        self._links = 0
        self.trail: Trail = [] if start is None or path.startswith(b"/") else list(start)
        self.here = self.trail[-1][1] if self.trail else root
        self.todo = path.split(b"/")
        """The parts that are left, the next one last."""
        self.todo.reverse()

    def ascend(self) -> None:
        if self.trail:
            self.trail.pop()
        self.here = self.trail[-1][1] if self.trail else self._root

    def follow(self, link: Inode) -> None:
        assert link.entry is not None, "only directories are implied"
        target = link.entry.link_target
        self._links += 1
        if self._links > LINKS_MAX:
            raise LinkLoopError(self._path)
        if not target:
            raise PathNotFoundError(self._path)
        if target.startswith(b"/"):
            self.trail = []
            self.here = self._root
        self.todo += reversed(target.split(b"/"))
