"""A stack of layers as one file system that can be read."""

import io
from collections.abc import Sequence
from contextlib import ExitStack, closing

from layerstore.digest import Digest
from layerstore.storage.opened import OpenedStore
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import IsADirectoryInViewError, NotReadableError
from layerstore.union.file_system import FileSystem
from layerstore.union.inode import Inode
from layerstore.union.layer_index import read_layer_index
from layerstore.union.node import Node
from layerstore.union.reading import Contents, FileReader, SharedLayer
from layerstore.union.tree import build_tree

_BUFFER_SIZE_MAX = 1 << 16
_IMPLIED_MODE = 0o755


class View(FileSystem):
    """A stack of layers as one read-only file system, which keeps its layers from collection until it is closed."""

    def __init__(self, store: OpenedStore, layers: Sequence[Digest]) -> None:
        self.layers = tuple(layers)
        """The DiffIDs, the lowest first."""
        with ExitStack() as stack:
            opened = {
                diff_id: stack.enter_context(closing(SharedLayer(store, diff_id)))
                for diff_id in dict.fromkeys(self.layers)
            }
            self._root = build_tree(self.layers, [read_layer_index(store, diff_id) for diff_id in self.layers])
            self._opened = opened
            self._closing = stack.pop_all()

    @property
    def root(self) -> Inode:
        """The root of the merged tree."""
        return self._root

    def close(self) -> None:
        """End the leases: no contents can be read any more, also of files that are open. A second call does nothing."""
        self._closing.close()

    def __repr__(self) -> str:
        return f"<View of {len(self.layers)} layers>"

    def open_node(self, node: Node) -> io.BufferedReader:
        """The contents of a regular file of this view."""
        contents = self.contents(node)
        return io.BufferedReader(FileReader(contents), max(1, min(contents.size, _BUFFER_SIZE_MAX)))

    def regions(self, node: Node) -> tuple[tuple[int, int], ...]:
        """The regions (offset, length) of a regular file that are no holes, in order, for every kind of sparse file."""
        return self.contents(node).regions

    def contents(self, node: Node) -> Contents:
        """Where the contents of a regular file of this view are, to be read at any offset."""
        if node.is_dir:
            raise IsADirectoryInViewError(node.path)
        if not node.is_file or node.entry is None or node.layer is None:
            raise NotReadableError(node.path)
        return Contents(self._opened[node.layer], node.entry)

    def node(self, path: bytes, inode: Inode) -> Node:
        """What a caller is told of an inode that stands at ``path``."""
        entry = inode.entry
        layer = self.layers[inode.layer] if inode.layer >= 0 else None
        if entry is None:
            key = (inode.layer, inode.number)
            return Node(path, inode.kind, _IMPLIED_MODE, 0, 0, 0, 0, b"", (0, 0), {}, 1, key, layer, None, None)
        return Node(
            path,
            inode.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size if inode.kind is EntryKind.FILE else 0,
            entry.mtime_ns,
            entry.link_target,
            entry.device,
            entry.xattrs,
            inode.links,
            (inode.layer, inode.number),
            layer,
            None if entry.sparse is None else tuple(entry.sparse),
            entry,
        )
