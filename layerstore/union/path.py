"""Paths of a file system as objects, like those of `pathlib` and `importlib.resources`."""

import errno
import inspect
import io
import os
import posixpath
from collections.abc import Iterator
from functools import total_ordering
from pathlib import PurePosixPath
from typing import IO, Literal, Protocol, TypeAlias, cast, overload

from layerstore.errors import InvalidInputError, InvalidOptionError, ReadOnlyError
from layerstore.union.errors import LinkLoopError, NotADirectoryInViewError, PathNotFoundError
from layerstore.union.node import Node

_ESCAPE = "surrogateescape"
_ENCODING = "utf-8"
_MAGIC = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})


class ReadOnlyFilesError(OSError, ReadOnlyError):
    """Something was to be written where nothing ever changes (EROFS)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.EROFS, os.strerror(errno.EROFS), path)


class Files(Protocol):
    """What a path needs of its file system. Every `FileSystem` has it; naming that class would make a cycle."""

    def stat(self, path: bytes) -> Node:
        """What a path leads to."""

    def lstat(self, path: bytes) -> Node:
        """What stands at a path."""

    def exists(self, path: bytes) -> bool:
        """Whether a path leads to something."""

    def is_dir(self, path: bytes) -> bool:
        """Whether a path leads to a directory."""

    def is_file(self, path: bytes) -> bool:
        """Whether a path leads to a regular file."""

    def listdir(self, path: bytes) -> list[bytes]:
        """The names in a directory."""

    def readlink(self, path: bytes) -> bytes:
        """The target of a symbolic link."""

    def read_bytes(self, path: bytes) -> bytes:
        """All of a file."""

    def glob(self, pattern: bytes) -> list[Node]:
        """What matches a pattern."""

    def open(self, path: bytes) -> io.BufferedReader:
        """A file, to be read."""


class _WritableFiles(Protocol):
    """A file system that opens files to write in them, too."""

    def open(self, path: bytes, mode: str) -> IO[bytes]: ...


AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | ImagePath"
"""What is taken for a path: text stands for its UTF-8, with ``surrogateescape`` for what is none."""


@total_ordering
class ImagePath:
    """A path in a file system of layers, made by ``path`` of it. It never changes, and nothing need be at it.

    It is used like a `pathlib.Path`, and wherever a `importlib.resources.abc.Traversable` is wanted. It always starts
    at the root of its file system; links and ``..`` lead nowhere else. Since it names nothing on this machine it has no
    ``__fspath__``: `open` of the built-ins cannot mistake it. Names that are not UTF-8 are kept by ``surrogateescape``.
    """

    __slots__ = ("_files", "_pure")

    def __init__(self, files: Files, path: AnyPath = "/") -> None:
        self._files = files
        self._pure = PurePosixPath("/" + _text(path).lstrip("/"))

    # --- the path as such ---------------------------------------------------------------------------------------------

    @property
    def pure(self) -> PurePosixPath:
        """The path without its file system."""
        return self._pure

    @property
    def name(self) -> str:
        """The last part; empty for the root."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """What stands behind the last dot of the name, and the dot; empty if there is none."""
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes of the name."""
        return self._pure.suffixes

    @property
    def parts(self) -> tuple[str, ...]:
        """The names on the way; the first is ``/``."""
        return self._pure.parts

    @property
    def parent(self) -> "ImagePath":
        """The path without its last part; the root's is the root. Links and ``..`` are not looked at."""
        return self._at(self._pure.parent)

    @property
    def parents(self) -> tuple["ImagePath", ...]:
        """The parent, its parent, and so on to the root."""
        return tuple(self._at(path) for path in self._pure.parents)

    def joinpath(self, *parts: AnyPath) -> "ImagePath":
        """The path with more behind it. As in `pathlib`, a part that begins with a slash begins at the root."""
        return self._at(self._pure.joinpath(*(_text(part) for part in parts)))

    def __truediv__(self, part: AnyPath) -> "ImagePath":
        return self.joinpath(part)

    def with_name(self, name: str) -> "ImagePath":
        """The path with another last part."""
        return self._at(self._pure.with_name(name))

    def with_suffix(self, suffix: str) -> "ImagePath":
        """The path with another suffix, or with none."""
        return self._at(self._pure.with_suffix(suffix))

    def relative_to(self, other: AnyPath) -> PurePosixPath:
        """The path from ``other`` on. Raises `ValueError` if it does not lie there, as `pathlib` does."""
        return self._pure.relative_to(ImagePath(self._files, other)._pure)

    def is_relative_to(self, other: AnyPath) -> bool:
        """Whether the path is ``other`` or lies in it. Links and ``..`` are not looked at."""
        return self._pure.is_relative_to(ImagePath(self._files, other)._pure)

    def __str__(self) -> str:
        return str(self._pure)

    def __bytes__(self) -> bytes:
        return str(self._pure).encode(errors=_ESCAPE)

    def __repr__(self) -> str:
        return f"<ImagePath {str(self)!r} of {self._files!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImagePath):
            return NotImplemented
        return self._files is other._files and self._pure == other._pure

    def __hash__(self) -> int:
        return hash((id(self._files), self._pure))

    def __lt__(self, other: object) -> bool:
        """Sorted part by part by the bytes, as everything that lists a file system is."""
        if not isinstance(other, ImagePath) or self._files is not other._files:
            return NotImplemented
        return bytes(self).split(b"/") < bytes(other).split(b"/")

    # --- what is at the path ------------------------------------------------------------------------------------------

    def stat(self) -> Node:
        """What it leads to; symbolic links are followed."""
        return self._files.stat(bytes(self))

    def lstat(self) -> Node:
        """What stands there, be it a symbolic link."""
        return self._files.lstat(bytes(self))

    def uid(self) -> int:
        """The number of the user that what it leads to belongs to. Names are a matter of the image's /etc/passwd."""
        return self.stat().uid

    def gid(self) -> int:
        """The number of the group."""
        return self.stat().gid

    def exists(self) -> bool:
        """Whether it leads to something."""
        return self._files.exists(bytes(self))

    def is_dir(self) -> bool:
        """Whether it leads to a directory."""
        return self._files.is_dir(bytes(self))

    def is_file(self) -> bool:
        """Whether it leads to a regular file."""
        return self._files.is_file(bytes(self))

    def is_symlink(self) -> bool:
        """Whether a symbolic link stands there."""
        try:
            return self.lstat().is_symlink
        except (PathNotFoundError, NotADirectoryInViewError, LinkLoopError):
            return False

    def readlink(self) -> PurePosixPath:
        """The target of the symbolic link that stands there, which may be relative."""
        return PurePosixPath(self._files.readlink(bytes(self)).decode(errors=_ESCAPE))

    def resolve(self, strict: bool = False) -> "ImagePath":
        """The same place without links and ``..``.

        What is not there is kept as it is; with ``strict`` it raises `PathNotFoundError` or `NotADirectoryInViewError`.
        """
        here, rest = self, ""
        while True:
            try:
                found = "/" + self._files.stat(bytes(here)).path.decode(errors=_ESCAPE)
                return self._at(PurePosixPath(posixpath.normpath(posixpath.join(found, rest))))
            except (PathNotFoundError, NotADirectoryInViewError):
                if strict:
                    raise
            here, rest = here.parent, posixpath.join(here.name, rest)

    def iterdir(self) -> Iterator["ImagePath"]:
        """What is in the directory, sorted by name."""
        names = self._files.listdir(bytes(self))
        return (self._at(self._pure / name.decode(errors=_ESCAPE)) for name in names)

    def glob(self, pattern: str) -> Iterator["ImagePath"]:
        """What below the directory matches a pattern of ``*``, ``?``, ``[…]`` and ``**``, sorted.

        Links to directories are followed on the way, but not by ``**``; what lies behind one is given at its own place.
        """
        if not pattern or pattern.startswith("/"):
            raise InvalidInputError(f"{pattern!r} is no pattern of something below a directory")
        if not self.is_dir():
            return iter(())
        top = self._files.stat(bytes(self)).path
        escaped = top.decode(errors=_ESCAPE).translate(_MAGIC)
        found = self._files.glob(f"{escaped}/{pattern}".encode(errors=_ESCAPE))
        return (self._seen_from(top, node.path) for node in found)

    def rglob(self, pattern: str) -> Iterator["ImagePath"]:
        """`glob` in the directory and in all below it."""
        if pattern.startswith("/"):
            raise InvalidInputError(f"{pattern!r} is no pattern of something below a directory")
        return self.glob(f"**/{pattern}")

    def read_bytes(self) -> bytes:
        """All of the file."""
        return self._files.read_bytes(bytes(self))

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """All of the file as text; UTF-8 unless told otherwise, whatever this machine's locale."""
        with self.open(encoding=encoding, errors=errors, newline=newline) as file:
            return file.read()

    @overload
    def open(
        self,
        mode: Literal["r", "rt"] = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper:
        """As text."""

    @overload
    def open(self, mode: Literal["rb"]) -> io.BufferedReader:
        """As bytes."""

    @overload
    def open(
        self, mode: str, *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> IO[str] | IO[bytes]:
        """In another mode."""

    def open(
        self, mode: str = "r", *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> IO[str] | IO[bytes]:
        """The file, seekable; as text it is UTF-8 unless told otherwise.

        Modes that write are for file systems that take them; of all others they raise `ReadOnlyFilesError`.
        """
        if not _is_mode(mode):
            raise InvalidOptionError(f"{mode!r} is no mode to open a file in")
        is_binary = "b" in mode
        if is_binary and not (encoding is errors is newline is None):
            raise InvalidOptionError("a binary file has no encoding, no errors and no newline")
        file = self._open_binary(mode)
        return file if is_binary else io.TextIOWrapper(file, encoding or _ENCODING, errors, newline)

    def _open_binary(self, mode: str) -> IO[bytes]:
        if not set(mode) & set("wax+"):
            return self._files.open(bytes(self))
        if "mode" not in inspect.signature(self._files.open).parameters:
            raise ReadOnlyFilesError(bytes(self))
        return cast(_WritableFiles, self._files).open(bytes(self), mode.replace("t", "").replace("b", "") + "b")

    def _at(self, path: PurePosixPath) -> "ImagePath":
        made = object.__new__(ImagePath)
        made._files, made._pure = self._files, path
        return made

    def _seen_from(self, top: bytes, path: bytes) -> "ImagePath":
        """The path of what was found, through this one if it lies there."""
        prefix = top + b"/" if top else b""
        if path == top or path.startswith(prefix):
            return self._at(self._pure / path[len(prefix) :].decode(errors=_ESCAPE))
        return ImagePath(self._files, path)


def _is_mode(mode: str) -> bool:
    """Whether the built-in `open` would take it, too."""
    letters = set(mode)
    return (
        len(letters) == len(mode)
        and letters <= set("rwaxbt+")
        and len(letters & set("rwax")) == 1
        and not letters >= {"b", "t"}
    )


def _text(path: AnyPath) -> str:
    if isinstance(path, ImagePath):
        return str(path)
    return path.decode(errors=_ESCAPE) if isinstance(path, bytes) else os.fspath(path)
