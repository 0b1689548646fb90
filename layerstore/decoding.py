"""Decoding of compressed streams: gzip (RFC 1952) and zstd (RFC 8878), recognised by content, checked to the last byte.

A stream is members (gzip) or frames (zstd), one after the other, and nothing else. Zero bytes behind the last one,
which `gzip` tolerates, are refused like any other trailing bytes: what is not part of the decoded stream could not be
reproduced from it.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Protocol, cast

from isal import igzip_lib, isal_zlib

from layerstore._zstd import zstd
from layerstore.errors import UndecodableError

OUTPUT_BLOCK_SIZE = 1 << 20
"""Size of the blocks that `decode` returns, except for the last and for streams of thousands of tiny members."""

WINDOW_LOG_MAX = 27
"""zstd frames that need a window over 2 to this power (128 MiB) are refused."""

_GZIP_MAGIC = b"\x1f\x8b"
_MAGIC_SIZE = 4
_INFLATE_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # isal's stub calls it an instance
# A decoder copies what it does not consume of its input. The first slices of a member are small, so that a stream of
# tiny members costs time in proportion to its size.
_FIRST_SLICE_SIZE = 1 << 12
_SLICE_SIZE_MAX = 1 << 18
# So many parts are a block of output however small they are: each costs memory of its own.
_PARTS_MAX = 4096


class Encoding(Enum):
    """How a stream is compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"


def detect(head: bytes) -> Encoding | None:
    """The encoding of a stream that begins with ``head`` (4 bytes are enough), or None if it is none we know."""
    if head.startswith(b"\x1f\x8b\x08"):
        return Encoding.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return Encoding.ZSTD
    # A skippable frame may come first, as pzstd writes it.
    if len(head) >= _MAGIC_SIZE and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return Encoding.ZSTD
    return None


def decode(blocks: Iterable[bytes], *, ignore_trailing: bool = False) -> Iterator[bytes]:
    """Decode a gzip or zstd stream, as it comes in ``blocks``.

    With ``ignore_trailing``, what follows the last gzip member is read and left out, as `gzip` and `unpigz` do.

    Memory is bounded by the window and a few blocks, whatever the ratio of compression. Raises `UndecodableError`,
    after what came before has been returned: a stream is known to be good only at the end of the iteration.
    """
    source = _Source(blocks)
    encoding = detect(source.head)
    if encoding is None:
        raise UndecodableError("the stream is neither gzip nor zstd")
    output = _Output()
    while not source.at_end():
        if ignore_trailing and encoding is Encoding.GZIP and source.offset and not source.begins_with(_GZIP_MAGIC):
            source.drain()
            break
        member: _Member = _GzipMember(source) if encoding is Encoding.GZIP else _ZstdFrame(source)
        while not member.ended:
            try:
                data = member.step(output.room)
            except (_INFLATE_ERROR, zstd.ZstdError) as error:
                raise UndecodableError(f"damaged {encoding.value} stream: {error}") from error
            if not data and not member.ended and member.starved and source.at_end():
                raise UndecodableError(f"the {encoding.value} stream ends in the middle of a member")
            output.add(data)
            if output.full:
                yield output.take()
    if output.room < OUTPUT_BLOCK_SIZE:
        yield output.take()


class _Source:
    """The input: hands out slices, takes back what was not used of the last one."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        head = b""
        for block in self._blocks:
            head += block
            if len(head) >= _MAGIC_SIZE:
                break
        self.head = head[:_MAGIC_SIZE]
        self._view = memoryview(head)
        self._position = 0
        self._taken_before = 0

    def at_end(self) -> bool:
        """Whether no byte is left. Reads on if it has to."""
        while self._position >= len(self._view):
            block = next(self._blocks, None)
            if block is None:
                return True
            self._taken_before += self._position
            self._view = memoryview(block)
            self._position = 0
        return False

    @property
    def offset(self) -> int:
        """How many bytes were taken."""
        return self._taken_before + self._position

    def begins_with(self, start: bytes) -> bool:
        """Whether these bytes come next."""
        while len(self._view) - self._position < len(start):
            block = next(self._blocks, None)
            if block is None:
                return False
            self._taken_before += self._position
            self._view = memoryview(bytes(self._view[self._position :]) + block)
            self._position = 0
        return self._view[self._position : self._position + len(start)] == start

    def drain(self) -> None:
        """Read to the end, for nothing."""
        for _ in self._blocks:
            pass
        self._position = len(self._view)

    def take(self, size: int) -> memoryview:
        """The next bytes, at most ``size``; none at the end."""
        if self.at_end():
            return memoryview(b"")
        data = self._view[self._position : self._position + size]
        self._position += len(data)
        return data

    def give_back(self, size: int) -> None:
        """Return the last ``size`` bytes that were taken."""
        self._position -= size


class _Output:
    """Gathers one block of output."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.room = OUTPUT_BLOCK_SIZE

    def add(self, data: bytes) -> None:
        """Add ``data``, which fits in `room`."""
        if data:
            self._parts.append(data)
            self.room -= len(data)

    @property
    def full(self) -> bool:
        """Whether the block is to be taken before anything is added."""
        return not self.room or len(self._parts) >= _PARTS_MAX

    def take(self) -> bytes:
        """What has been gathered."""
        block = b"".join(self._parts)
        self._parts = []
        self.room = OUTPUT_BLOCK_SIZE
        return block


class _Member(Protocol):
    """One gzip member or zstd frame."""

    @property
    def ended(self) -> bool:
        """Whether it is decoded to its end, and what follows was given back."""
        ...

    @property
    def starved(self) -> bool:
        """Whether only more input can bring it forward."""
        ...

    def step(self, size_max: int) -> bytes:
        """Take some input and decode at most ``size_max`` bytes; none is not the end."""
        ...


class _GzipMember:
    starved = True

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._inflater = isal_zlib.decompressobj(wbits=31)
        self._slice_size = _FIRST_SLICE_SIZE

    @property
    def ended(self) -> bool:
        return self._inflater.eof

    def step(self, size_max: int) -> bytes:
        # At the end of the input the slice is empty, and what zlib still holds comes out.
        data = self._inflater.decompress(self._source.take(self._slice_size), size_max)
        self._source.give_back(len(self._inflater.unconsumed_tail) + len(self._inflater.unused_data))
        self._slice_size = min(2 * self._slice_size, _SLICE_SIZE_MAX)
        return data


class _ZstdFrame:
    def __init__(self, source: _Source) -> None:
        self._source = source
        self._decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX})
        self._slice_size = _FIRST_SLICE_SIZE

    @property
    def ended(self) -> bool:
        return self._decompressor.eof

    @property
    def starved(self) -> bool:
        return self._decompressor.needs_input

    def step(self, size_max: int) -> bytes:
        decompressor = self._decompressor
        if decompressor.needs_input:
            data = decompressor.decompress(self._source.take(self._slice_size), size_max)
            self._slice_size = min(2 * self._slice_size, _SLICE_SIZE_MAX)
        else:
            data = decompressor.decompress(b"", size_max)
        if decompressor.eof:
            self._source.give_back(len(decompressor.unused_data))
        return data
