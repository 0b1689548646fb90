"""The members of a tar, found by name and read where they lie: nothing is extracted."""

import io
import os
import posixpath
import stat
import tarfile
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from layerstore.decoding import decode, detect
from layerstore.errors import BlobNotFoundError, InvalidInputError, OversizedError, UndecodableError
from layerstore.os_errors import translate_os_errors
from layerstore.places.files import file_blocks, write_all

MEMBERS_MAX = 250_000
"""Members of one archive."""

DECODED_RATIO_MAX = 200
DECODED_SIZE_FREE = 1 << 30
"""A compressed archive may become so many times as large as it is, or so many bytes, whichever is more."""

_HEADER_READ_MAX = 1 << 20  # extended headers are read into memory
_LINKS_MAX = 16


@dataclass(frozen=True, slots=True)
class Member:
    """What one name in the archive is."""

    offset: int
    size: int
    target: str | None
    """The name that a symbolic or hard link stands for, as names of members are; empty if that lies outside."""
    is_regular: bool


class TarReader:
    """An open archive. Compressed ones are decoded into a temporary file first.

    Of members with the same name the last counts, as if they were extracted. Names that are absolute or have ``..``
    are not there at all. The file is closed when the object is no more used.
    """

    def __init__(self, path: Path, place: str) -> None:
        """Raises `InvalidInputError` for what is no tar, or cut or malformed, `OversizedError` for a bomb."""
        self._place = place
        self._file = _open(path, place)
        self._close = weakref.finalize(self, os.close, self._file)
        with translate_os_errors(f"cannot read {place}"):
            self._size = os.fstat(self._file).st_size
            if detect(os.pread(self._file, 4, 0)) is not None:
                self._decode()
        self.repeated: set[str] = set()
        """Names of several members."""
        self._members: dict[str, Member] = {}
        for name, member in self._scan():
            if name in self._members:
                self.repeated.add(name)
            self._members[name] = member

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def member(self, name: str) -> Member:
        """The regular file of a name, over links inside the archive.

        Raises `BlobNotFoundError` if there is none, and `InvalidInputError` for what is no file, a link that leads out
        of the archive or in circles, and a file that is cut.
        """
        shown = f"{name[:200]!r} in {self._place}"
        for _ in range(_LINKS_MAX):
            member = self._members.get(name)
            if member is None:
                raise BlobNotFoundError(f"there is no {shown}")
            if member.target is None:
                break
            if not member.target:
                raise InvalidInputError(f"{shown} is a link that leads out of the archive")
            name = member.target
        else:
            raise InvalidInputError(f"{shown} is behind more than {_LINKS_MAX} links")
        if not member.is_regular:
            raise InvalidInputError(f"{shown} is no regular file")
        if member.offset + member.size > self._size:
            raise InvalidInputError(f"{self._place} is cut: it ends in the middle of {name[:200]!r}")
        return member

    def plain(self, name: str) -> Member:
        """As `member`, but a link is refused."""
        member = self._members.get(name)
        if member is not None and member.target is not None:
            raise InvalidInputError(f"{name[:200]!r} in {self._place} is a link, not a regular file")
        return self.member(name)

    def small(self, name: str, size_max: int) -> bytes:
        """A whole file that has to be there once. Raises `InvalidInputError`, `BlobNotFoundError`."""
        if name in self.repeated:
            raise InvalidInputError(f"{self._place} has several members {name!r}")
        member = self.plain(name)
        if member.size > size_max:
            raise OversizedError(
                f"{name} in {self._place} has {member.size} bytes: more than {size_max} are not accepted"
            )
        return b"".join(self.blocks(member, member.size))

    def blocks(self, member: Member, size_max: int) -> Iterator[bytes]:
        """At most the first bytes of a member. Members can be read at the same time."""
        with translate_os_errors(f"cannot read {self._place}"):
            yield from file_blocks(self._file, member.offset, min(member.size, size_max))

    def _decode(self) -> None:
        limit = max(DECODED_SIZE_FREE, self._size * DECODED_RATIO_MAX)
        size = 0
        with tempfile.TemporaryFile() as file:
            decoded = os.dup(file.fileno())
        close = weakref.finalize(self, os.close, decoded)
        try:
            for block in decode(file_blocks(self._file, 0, self._size)):
                if size + len(block) > limit:
                    raise OversizedError(
                        f"{self._place} decodes to more than {limit} bytes: decode it yourself if that is meant"
                    )
                size = write_all(decoded, block, size)
        except UndecodableError as error:
            raise InvalidInputError(f"{self._place}: {error}") from None
        self._close()
        self._file, self._close, self._size = decoded, close, size

    def _scan(self) -> Iterator[tuple[str, Member]]:
        """All members with names that stay inside. Raises `InvalidInputError`."""
        try:
            # The file object only has what tarfile uses for reading.
            with tarfile.open(fileobj=cast("IO[bytes]", _Headers(self._file)), mode="r:") as tar:
                place = -1
                count = 0
                while (info := tar.next()) is not None:
                    count += 1
                    # A negative size would lead tarfile back to where it was (CVE-2025-8194).
                    if info.size < 0 or info.offset <= place:
                        raise InvalidInputError(f"{self._place} is no valid tar: a member has a negative size")
                    if count > MEMBERS_MAX:
                        raise InvalidInputError(f"{self._place} has more than {MEMBERS_MAX} members")
                    place = info.offset
                    name = _inside(info.name)
                    if name:
                        yield name, _member(info, name)
                    tar.members.clear()  # type: ignore[attr-defined]  # all members would be held in memory
        except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
            raise InvalidInputError(f"{self._place} is no valid tar: {error}") from None


def _open(path: Path, place: str) -> int:
    with translate_os_errors(f"cannot read {place}"):
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidInputError(f"there is no file {place}") from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise InvalidInputError(f"{place} is no regular file")
        return file


def _member(info: tarfile.TarInfo, name: str) -> Member:
    if info.issym():
        target = (
            "" if info.linkname.startswith("/") else _inside(posixpath.join(posixpath.dirname(name), info.linkname))
        )
    elif info.islnk():
        target = _inside(info.linkname)
    else:
        # A sparse file lies in the archive otherwise than its bytes are.
        return Member(info.offset_data, info.size, None, info.isreg() and not info.issparse())
    return Member(0, 0, target, False)


def _inside(name: str) -> str:
    """The name without ``.`` and ``..``; empty if it is absolute or leads out."""
    if name.startswith("/") or "\0" in name:
        return ""
    normal = posixpath.normpath(name)
    return "" if normal in (".", "..") or normal.startswith("../") else normal


class _Headers(io.RawIOBase):
    """What tarfile reads of the file: headers, and nothing large."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_READ_MAX:
            raise ValueError(f"an extended header of {size} bytes")
        data = os.pread(self._file, size, self._position)
        self._position += len(data)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < 0:
            raise ValueError("a member at a negative position")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position


class LazyTarReader:
    """Opens an archive when it is first read, once for all threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reader: TarReader | None = None

    @contextmanager
    def opened(self) -> Iterator[TarReader]:
        """The open archive."""
        with self._lock:
            if self._reader is None:
                self._reader = TarReader(self._path, str(self._path))
        yield self._reader
