"""Where in a container's tree a path leads to that may not be there yet."""

from dataclasses import dataclass

from layerstore.containers.errors import UnchangeableError
from layerstore.containers.tree import MergedInode
from layerstore.directories import NAME_LENGTH_MAX, PATH_LENGTH_MAX
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import LinkLoopError, NotADirectoryInViewError
from layerstore.union.globbing import trail_path
from layerstore.union.inode import Inode, Trail
from layerstore.union.layer_index import join_path
from layerstore.union.resolution import LINKS_MAX, resolve


@dataclass(frozen=True, slots=True)
class Spot:
    """A name in a directory, and what has it. The root is the spot without a name."""

    trail: Trail
    """The way to the directory."""
    parent: MergedInode
    name: bytes
    child: MergedInode | None

    @property
    def folder(self) -> bytes:
        """The path of the directory."""
        return trail_path(self.trail)

    @property
    def path(self) -> bytes:
        """The path."""
        return join_path(self.folder, self.name)

    @property
    def is_covering(self) -> bool:
        """Whether the image has something under the name, which would show if there were nothing."""
        lower = self.parent.lower
        return lower is not None and lower.children is not None and self.name in lower.children


def find_spot(root: MergedInode, path: bytes, *, follow: bool) -> Spot:
    """The spot that a path leads to; with ``follow`` through a link at its end, be it to nothing.

    Raises `PathNotFoundError` if the directory is not there, `NotADirectoryInViewError`, `LinkLoopError`, and
    `UnchangeableError` for a name that no file can have.
    """
    start: Trail = []
    rest = path
    for _ in range(LINKS_MAX + 1):
        stripped = rest.rstrip(b"/")
        folder, slash, name = stripped.rpartition(b"/")
        if name in (b"", b".", b".."):
            trail = resolve(root, rest, start=start)
            return _spot(root, trail[:-1], trail[-1][0]) if trail else Spot([], root, b"", root)
        trail = resolve(root, folder + slash, start=start)
        spot = _spot(root, trail, name)
        if spot.child is None or spot.child.kind is not EntryKind.SYMLINK or not (follow or rest != stripped):
            if rest != stripped and spot.child is not None and spot.child.children is None:
                raise NotADirectoryInViewError(path)
            return _checked(spot)
        assert spot.child.entry is not None, "links have their target there"
        start, rest = trail, spot.child.entry.link_target
    raise LinkLoopError(path)


def _spot(root: MergedInode, trail: Trail, name: bytes) -> Spot:
    parent: Inode = trail[-1][1] if trail else root
    assert isinstance(parent, MergedInode), "the tree is of such"
    if parent.children is None:
        raise NotADirectoryInViewError(join_path(trail_path(trail), name))
    return Spot(trail, parent, name, parent.children.get(name))


def _checked(spot: Spot) -> Spot:
    if b"\0" in spot.name or len(spot.name) > NAME_LENGTH_MAX or len(spot.path) > PATH_LENGTH_MAX:
        raise UnchangeableError(spot.path[:200], "no file can have such a name")
    return spot
