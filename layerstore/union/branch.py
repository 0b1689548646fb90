"""Some files and directories of a file system, as one of their own."""

import io
import stat
from collections.abc import Mapping
from dataclasses import replace

from layerstore.tar.entries import EntryKind
from layerstore.union.file_system import FileSystem
from layerstore.union.globbing import trail_path
from layerstore.union.inode import Inode
from layerstore.union.node import Node
from layerstore.union.resolution import resolve

_RIGHTS = stat.S_ISUID | stat.S_ISGID


class Branch(FileSystem):
    """What stands at some paths of another file system, each under a name in a root of its own.

    With ``as_root`` everything seems to be root's, and gives no rights: set-uid and set-gid bits and capabilities were
    those of the owner that it had.
    """

    def __init__(self, files: FileSystem, paths: Mapping[bytes, bytes], *, as_root: bool = False) -> None:
        self._files = files
        self._as_root = as_root
        self._root = Inode(EntryKind.DIRECTORY, None, -1, 0)
        self._places: dict[bytes, bytes] = {}
        assert self._root.children is not None, "it is a directory"
        for name, path in paths.items():
            trail = resolve(files.root, path)
            self._root.children[name] = trail[-1][1] if trail else files.root
            self._places[name] = trail_path(trail)

    @property
    def root(self) -> Inode:
        """The root, which has nothing but the chosen names."""
        return self._root

    def close(self) -> None:
        """Nothing: the file system that it belongs to is its owner's."""

    def node(self, path: bytes, inode: Inode) -> Node:
        """What a caller is told of an inode that stands at ``path``."""
        if inode is self._root:
            return Node(b"", EntryKind.DIRECTORY, 0o755, 0, 0, 0, 0, b"", (0, 0), {}, 1, (-1, 0), None, None, None)
        node = replace(self._files.node(self._place(path), inode), path=path)
        if not self._as_root:
            return node
        xattrs = {name: value for name, value in node.xattrs.items() if not name.startswith(b"security.")}
        return replace(node, uid=0, gid=0, mode=node.mode & ~_RIGHTS, xattrs=xattrs)

    def open_node(self, node: Node) -> io.BufferedReader:
        """The contents of a regular file."""
        return self._files.open_node(self._there(node))

    def regions(self, node: Node) -> tuple[tuple[int, int], ...]:
        """The regions (offset, length) of a regular file that are no holes, in order."""
        return self._files.regions(self._there(node))

    def _there(self, node: Node) -> Node:
        return replace(node, path=self._place(node.path))

    def _place(self, path: bytes) -> bytes:
        name, slash, rest = path.partition(b"/")
        place = self._places[name]
        return (place + slash + rest) if place else rest
