"""Where a push takes its bytes from: a path, a file object, bytes, or an iterable of blocks."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from layerstore.errors import InvalidInputError
from layerstore.storage.layout import translate_os_errors

BLOCK_SIZE = 1 << 20


@runtime_checkable
class Readable(Protocol):
    """A binary file object; it needs no `seek`."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; empty at the end."""
        ...


LayerSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""What a layer can be pushed from."""


class Source:
    """The blocks of a source, which can be read again from the beginning.

    What can not seek is written to an unlinked temporary file on the way, but only while that may be needed: a
    compressed stream shows only at its end whether it can be decoded.
    """

    def __init__(self, read: Callable[[int], bytes], name: str, size: int | None, rewind: Callable[[], None] | None):
        self.name = name
        self.size = size
        """Bytes of the source as it is, if known."""
        self._read = read
        self._rewind = rewind
        self._peeked: bytes | None = None

    def blocks(self) -> Iterator[bytes]:
        """The source's bytes as they are."""
        if self._peeked is not None:
            block, self._peeked = self._peeked, None
            yield block
        while block := self._read_whole():
            yield block

    def peek(self) -> bytes:
        """The first block, which `blocks` will give again."""
        if self._peeked is None:
            self._peeked = self._read_whole()
        return self._peeked

    def rewind(self) -> None:
        """Begin anew. Only a source with `can_rewind` can."""
        assert self._rewind is not None
        self._rewind()
        self._peeked = None

    @property
    def can_rewind(self) -> bool:
        """Whether `rewind` works."""
        return self._rewind is not None

    def _read_whole(self) -> bytes:
        # Pipes and sockets give what they have; small blocks would cost per block.
        block = self._read(BLOCK_SIZE)
        if not isinstance(block, bytes):
            block = self._as_bytes(block)
        if block and len(block) < BLOCK_SIZE:
            parts = [block]
            size = len(block)
            while size < BLOCK_SIZE and (more := self._read(BLOCK_SIZE - size)):
                parts.append(self._as_bytes(more))
                size += len(more)
            block = b"".join(parts)
        return block

    def _as_bytes(self, block: object) -> bytes:
        if isinstance(block, (bytes, bytearray, memoryview)):
            return bytes(block)
        raise InvalidInputError(f"{self.name} gives {type(block).__name__}, not bytes; open it in binary mode")


@contextmanager
def open_source(source: LayerSource | Iterable[bytes], name: str | None = None) -> Iterator[Source]:
    """Open what was given to a push. Raises `InvalidInputError` for what can't be read."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source).cast("B")
        yield _from_bytes(view, name or f"{len(view)} bytes")
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with translate_os_errors(f"cannot read {path}"):
            if path.is_dir():
                raise InvalidInputError(f"{path} is a directory; push it with push_tree")
            file = path.open("rb", buffering=0)
        with file:
            yield _from_file(file, name or str(path))
    elif isinstance(source, Readable):
        yield _from_file(source, name or str(getattr(source, "name", "stream")))
    elif isinstance(source, Iterable):
        yield _from_iterator(iter(source), name or "stream")
    else:
        raise InvalidInputError(f"cannot push from {type(source).__name__}: give a path, a binary file object or bytes")


def _from_bytes(view: memoryview, name: str) -> Source:
    offset = 0

    def read(size: int) -> bytes:
        nonlocal offset
        block = bytes(view[offset : offset + size])
        offset += len(block)
        return block

    def rewind() -> None:
        nonlocal offset
        offset = 0

    return Source(read, name, len(view), rewind)


def _from_file(file: Readable, name: str) -> Source:
    size, rewind = None, None
    try:
        start = file.tell()  # type: ignore[attr-defined]
        size = file.seek(0, os.SEEK_END) - start  # type: ignore[attr-defined]
        file.seek(start)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        pass  # a pipe, a socket, a response: it is read once
    else:

        def rewind() -> None:
            file.seek(start)  # type: ignore[attr-defined]

    def read(count: int) -> bytes:
        with translate_os_errors(f"cannot read {name}"):
            return file.read(count)

    return Source(read, name, size, rewind)


def _from_iterator(blocks: Iterator[bytes], name: str) -> Source:
    rest = memoryview(b"")

    def read(size: int) -> bytes:
        nonlocal rest
        while not rest:
            rest = memoryview(b"")  # lets go of the last block: its owner may want to resize it
            try:
                block = next(blocks)
            except StopIteration:
                return b""
            if not isinstance(block, (bytes, bytearray, memoryview)):
                return block  # the caller says what is wrong with it
            rest = memoryview(block).cast("B")
        # A view, because to copy what is left for every block read would cost the square of the size.
        part, rest = rest[:size], rest[size:]
        return bytes(part)

    return Source(read, name, None, None)


@contextmanager
def spooled(source: Source, folder: Path) -> Iterator[Source]:
    """A source that can be rewound: ``source`` itself, or one that keeps a copy of what it reads in ``folder``."""
    if source.can_rewind:
        yield source
        return
    with translate_os_errors("cannot make a temporary file"):
        spool = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed below
    with spool:
        yield _Spooled(source, spool)


class _Spooled(Source):
    def __init__(self, source: Source, spool: BinaryIO) -> None:
        super().__init__(self._read_on, source.name, source.size, self._back)
        self._peeked = source._peeked
        self._source = source
        self._spool = spool
        self._keep(source.peek())
        self._replaying = False

    def _read_on(self, size: int) -> bytes:
        if self._replaying:
            block = self._spool.read(size)
            if block:
                return block
            self._replaying = False
        block = self._as_bytes(self._source._read(size))
        self._keep(block)
        return block

    def _keep(self, block: bytes) -> None:
        view = memoryview(block)
        with translate_os_errors("cannot write a temporary file"):
            while view:
                view = view[self._spool.write(view) :]

    def _back(self) -> None:
        self._spool.seek(0)
        self._replaying = True
