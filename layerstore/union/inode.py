"""What a view is made of: inodes, and directories that give them names."""

from collections.abc import Iterator

from layerstore.tar.entries import EntryKind, TarEntry


class Inode:
    """A file of the union. Hard links are several names of one inode."""

    __slots__ = ("children", "entry", "kind", "layer", "links", "number")

    def __init__(self, kind: EntryKind, entry: TarEntry | None, layer: int, number: int) -> None:
        self.kind = kind
        self.entry = entry
        """What has its attributes and contents; None for a directory that is only implied."""
        self.layer = layer
        """Position in the stack of the layer that it comes from; -1 for a root that no layer has."""
        self.number = number
        """Counts the inodes of a layer."""
        self.links = 1
        self.children: dict[bytes, Inode] | None = {} if kind is EntryKind.DIRECTORY else None
        """What is in a directory; None for everything else."""


Trail = list[tuple[bytes, Inode]]
"""The way from the root to an inode: the names and inodes below the root, without links and dots."""


def leaves(root: Inode) -> Iterator[Inode]:
    """Everything below ``root`` that is no directory, each as often as it has names."""
    stack = [root]
    while stack:
        children = stack.pop().children
        assert children is not None, "only directories are put there"
        for child in children.values():
            if child.children is None:
                yield child
            else:
                stack.append(child)
