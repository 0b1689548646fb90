"""A tree of inodes as a file system that can be read: what a view of layers and a container have in common."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self, overload

from layerstore.digest import Digest
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import (
    LinkLoopError,
    NotADirectoryInViewError,
    NotReadableError,
    PathNotFoundError,
)
from layerstore.union.globbing import matches, trail_path
from layerstore.union.inode import Inode
from layerstore.union.layer_index import join_path
from layerstore.union.node import Node
from layerstore.union.resolution import resolve

_ESCAPE = "surrogateescape"

FilePath = str | bytes
"""A path in a file system. Text stands for its UTF-8, with ``surrogateescape`` for what is none."""


class FileSystem(ABC):
    """The names of a file system and what stands behind them. Use it as a context manager, or call `close`.

    Paths are bytes or text (with ``surrogateescape`` for what is not UTF-8); all start at the root, with a slash in
    front or without. Symbolic links are followed inside the root, never out of it, and ``..`` of the root is the root.
    """

    @property
    @abstractmethod
    def root(self) -> Inode:
        """The root of the tree."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stat(self, path: FilePath) -> Node:
        """What a path leads to; symbolic links are followed."""
        return self._find(path)

    def lstat(self, path: FilePath) -> Node:
        """What stands at a path, be it a symbolic link."""
        return self._find(path, follow_last=False)

    def exists(self, path: FilePath) -> bool:
        """Whether a path leads to something."""
        return self._kind(path) is not None

    def is_dir(self, path: FilePath) -> bool:
        """Whether a path leads to a directory."""
        return self._kind(path) is EntryKind.DIRECTORY

    def is_file(self, path: FilePath) -> bool:
        """Whether a path leads to a regular file."""
        return self._kind(path) is EntryKind.FILE

    @overload
    def listdir(self, path: bytes) -> list[bytes]:
        """Names as bytes."""

    @overload
    def listdir(self, path: str = "/") -> list[str]:
        """Names as text."""

    def listdir(self, path: FilePath = "/") -> list[bytes] | list[str]:
        """The names in a directory, sorted by their bytes; of the type of ``path``."""
        _, children = self._directory(path)
        names = sorted(children)
        return names if isinstance(path, bytes) else [name.decode(errors=_ESCAPE) for name in names]

    def scandir(self, path: FilePath = "/") -> list[Node]:
        """What is in a directory, sorted by name."""
        return self._scan(*self._directory(path))

    def walk(self, path: FilePath = "/") -> Iterator[tuple[Node, list[Node], list[Node]]]:
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

    def nodes(self, path: FilePath = "/") -> Iterator[Node]:
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

    def readlink(self, path: FilePath) -> bytes:
        """The target of a symbolic link, as written."""
        node = self.lstat(path)
        if not node.is_symlink:
            raise NotReadableError(node.path)
        return node.link_target

    def read_bytes(self, path: FilePath) -> bytes:
        """All of a file."""
        node = self.stat(path)
        data = bytearray(node.size)
        with self.open_node(node) as file:
            count = file.readinto(data)
        return bytes(data) if count == len(data) else bytes(data[:count])

    def open(self, path: FilePath) -> io.BufferedReader:
        """A file as a seekable binary file. Only the frames that hold what is read are read."""
        return self.open_node(self.stat(path))

    @abstractmethod
    def open_node(self, node: Node) -> io.BufferedReader:
        """The contents of a regular file of this file system."""

    @abstractmethod
    def regions(self, node: Node) -> tuple[tuple[int, int], ...]:
        """The regions (offset, length) of a regular file that are no holes, in order, for every kind of sparse file."""

    @abstractmethod
    def node(self, path: bytes, inode: Inode) -> Node:
        """What a caller is told of an inode that stands at ``path``."""

    def xattrs(self, path: FilePath) -> dict[bytes, bytes]:
        """The extended attributes; symbolic links are followed."""
        return dict(self.stat(path).xattrs)

    def glob(self, pattern: FilePath) -> list[Node]:
        """What matches a pattern of ``*``, ``?``, ``[…]`` and ``**`` (any number of directories), sorted by path."""
        found = matches(self.root, path_bytes(pattern))
        return [self.node(path, found[path]) for path in sorted(found, key=lambda one: one.split(b"/"))]

    def layer_of(self, path: FilePath) -> Digest | None:
        """The layer that what a path leads to comes from."""
        return self.stat(path).layer

    def _find(self, path: FilePath, *, follow_last: bool = True) -> Node:
        trail = resolve(self.root, path_bytes(path), follow_last=follow_last)
        return self.node(trail_path(trail), trail[-1][1] if trail else self.root)

    def _kind(self, path: FilePath) -> EntryKind | None:
        try:
            trail = resolve(self.root, path_bytes(path))
        except (PathNotFoundError, NotADirectoryInViewError, LinkLoopError):
            return None
        return trail[-1][1].kind if trail else EntryKind.DIRECTORY

    def _directory(self, path: FilePath) -> tuple[Node, dict[bytes, Inode]]:
        """A directory and what is in it."""
        trail = resolve(self.root, path_bytes(path))
        inode = trail[-1][1] if trail else self.root
        if inode.children is None:
            raise NotADirectoryInViewError(path_bytes(path))
        return self.node(trail_path(trail), inode), inode.children

    def _scan(self, folder: Node, children: dict[bytes, Inode]) -> list[Node]:
        make, path = self.node, folder.path
        return [make(join_path(path, name), children[name]) for name in sorted(children)]


def path_bytes(path: FilePath) -> bytes:
    """A path as bytes."""
    return path if isinstance(path, bytes) else path.encode(errors=_ESCAPE)
