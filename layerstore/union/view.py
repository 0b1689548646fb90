"""A stack of layers as one file system that can be read."""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self, overload

from layerstore.digest import Digest
from layerstore.storage.opened import OpenedStore
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import (
    IsADirectoryInViewError,
    LinkLoopError,
    NotADirectoryInViewError,
    NotReadableError,
    PathNotFoundError,
)
from layerstore.union.globbing import matches, trail_path
from layerstore.union.inode import Inode
from layerstore.union.layer_index import join_path, read_layer_index
from layerstore.union.node import Node
from layerstore.union.reading import Contents, FileReader, SharedLayer
from layerstore.union.resolution import resolve
from layerstore.union.tree import build_tree

_BUFFER_SIZE_MAX = 1 << 16
_IMPLIED_MODE = 0o755
_ESCAPE = "surrogateescape"


ViewPath = str | bytes
"""A path in a view. Text stands for its UTF-8, with ``surrogateescape`` for what is none."""


class View:
    """A stack of layers as one read-only file system. Use it as a context manager: it keeps its layers from collection.

    Paths are bytes or text (with ``surrogateescape`` for what is not UTF-8); all start at the root, with a slash in
    front or without. Symbolic links are followed inside the view, never out of it, and ``..`` of the root is the root.
    """

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

    def close(self) -> None:
        """End the leases: no contents can be read any more, also of files that are open. A second call does nothing."""
        self._closing.close()

    def __repr__(self) -> str:
        return f"<View of {len(self.layers)} layers>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stat(self, path: ViewPath) -> Node:
        """What a path leads to; symbolic links are followed."""
        return self._find(path)

    def lstat(self, path: ViewPath) -> Node:
        """What stands at a path, be it a symbolic link."""
        return self._find(path, follow_last=False)

    def exists(self, path: ViewPath) -> bool:
        """Whether a path leads to something."""
        return self._kind(path) is not None

    def is_dir(self, path: ViewPath) -> bool:
        """Whether a path leads to a directory."""
        return self._kind(path) is EntryKind.DIRECTORY

    def is_file(self, path: ViewPath) -> bool:
        """Whether a path leads to a regular file."""
        return self._kind(path) is EntryKind.FILE

    @overload
    def listdir(self, path: bytes) -> list[bytes]:
        """Names as bytes."""

    @overload
    def listdir(self, path: str = "/") -> list[str]:
        """Names as text."""

    def listdir(self, path: ViewPath = "/") -> list[bytes] | list[str]:
        """The names in a directory, sorted by their bytes; of the type of ``path``."""
        _, children = self._directory(path)
        names = sorted(children)
        return names if isinstance(path, bytes) else [name.decode(errors=_ESCAPE) for name in names]

    def scandir(self, path: ViewPath = "/") -> list[Node]:
        """What is in a directory, sorted by name."""
        return self._scan(*self._directory(path))

    def walk(self, path: ViewPath = "/") -> Iterator[tuple[Node, list[Node], list[Node]]]:
        """Each directory from ``path`` down, its directories and everything else in it, all sorted by name.

        Top-down; what the caller takes out of the list of directories is not entered. Symbolic links are not followed.
        """
        stack = [self._directory(path)]
        while stack:
            folder, children = stack.pop()
            found = self._scan(folder, children)
            directories = [node for node in found if node.is_dir]
            yield folder, directories, [node for node in found if not node.is_dir]
            for node in reversed(directories):
                below = children[node.name].children
                assert below is not None, "it is a directory"
                stack.append((node, below))

    def nodes(self, path: ViewPath = "/") -> Iterator[Node]:
        """Everything below a directory, depth first, sorted by name; a directory before what is in it."""
        top, children = self._directory(path)
        stack = [(iter(self._scan(top, children)), children)]
        while stack:
            nodes, children = stack[-1]
            node = next(nodes, None)
            if node is None:
                stack.pop()
                continue
            yield node
            below = children[node.name].children
            if below is not None:
                stack.append((iter(self._scan(node, below)), below))

    def readlink(self, path: ViewPath) -> bytes:
        """The target of a symbolic link, as written."""
        node = self.lstat(path)
        if not node.is_symlink:
            raise NotReadableError(node.path)
        return node.link_target

    def read_bytes(self, path: ViewPath) -> bytes:
        """All of a file."""
        contents = self._contents(self.stat(path))
        data = bytearray(contents.size)
        contents.read_into(memoryview(data), 0)
        return bytes(data)

    def open(self, path: ViewPath) -> io.BufferedReader:
        """A file as a seekable binary file. Only the frames that hold what is read are read."""
        return self.open_node(self.stat(path))

    def open_node(self, node: Node) -> io.BufferedReader:
        """The contents of a regular file of this view."""
        contents = self._contents(node)
        return io.BufferedReader(FileReader(contents), max(1, min(contents.size, _BUFFER_SIZE_MAX)))

    def regions(self, node: Node) -> tuple[tuple[int, int], ...]:
        """The regions (offset, length) of a regular file that are no holes, in order, for every kind of sparse file."""
        return self._contents(node).regions

    def xattrs(self, path: ViewPath) -> dict[bytes, bytes]:
        """The extended attributes; symbolic links are followed."""
        return dict(self.stat(path).xattrs)

    def glob(self, pattern: ViewPath) -> list[Node]:
        """What matches a pattern of ``*``, ``?``, ``[…]`` and ``**`` (any number of directories), sorted by path."""
        found = matches(self._root, _to_bytes(pattern))
        return [self._node(path, found[path]) for path in sorted(found, key=lambda one: one.split(b"/"))]

    def layer_of(self, path: ViewPath) -> Digest | None:
        """The layer that what a path leads to comes from."""
        return self.stat(path).layer

    def _find(self, path: ViewPath, *, follow_last: bool = True) -> Node:
        trail = resolve(self._root, _to_bytes(path), follow_last=follow_last)
        return self._node(trail_path(trail), trail[-1][1] if trail else self._root)

    def _kind(self, path: ViewPath) -> EntryKind | None:
        try:
            trail = resolve(self._root, _to_bytes(path))
        except (PathNotFoundError, NotADirectoryInViewError, LinkLoopError):
            return None
        return trail[-1][1].kind if trail else EntryKind.DIRECTORY

    def _directory(self, path: ViewPath) -> tuple[Node, dict[bytes, Inode]]:
        """A directory and what is in it."""
        trail = resolve(self._root, _to_bytes(path))
        inode = trail[-1][1] if trail else self._root
        if inode.children is None:
            raise NotADirectoryInViewError(_to_bytes(path))
        return self._node(trail_path(trail), inode), inode.children

    def _scan(self, folder: Node, children: dict[bytes, Inode]) -> list[Node]:
        make, path = self._node, folder.path
        return [make(join_path(path, name), children[name]) for name in sorted(children)]

    def _contents(self, node: Node) -> Contents:
        if node.is_dir:
            raise IsADirectoryInViewError(node.path)
        if not node.is_file or node.entry is None or node.layer is None:
            raise NotReadableError(node.path)
        return Contents(self._opened[node.layer], node.entry)

    def _node(self, path: bytes, inode: Inode) -> Node:
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


def _to_bytes(path: ViewPath) -> bytes:
    return path if isinstance(path, bytes) else path.encode(errors=_ESCAPE)
