"""The gzip format (RFC 1952), taken apart so that it can be put together again byte for byte.

A blob is members, one after the other, and perhaps bytes behind the last one that are none. A member is a header, a raw
DEFLATE stream (RFC 1951) and a trailer of 8 bytes. `scan` goes through a blob of any size in bounded memory; the header
it reports has a `GzipHeader.to_bytes` that gives the very bytes back.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from layerstore.errors import UndecodableError

MAGIC = b"\x1f\x8b"
HEADER_SIZE_MAX = 1 << 17
"""Longer headers are refused. The format sets no limit to a member's name and comment."""

OUTPUT_SIZE_MAX = 1 << 20
"""The largest block of decoded or trailing bytes that `scan` yields."""

_DEFLATE = 8
_FIXED_SIZE = 10  # of the part of the header that is always there
_TRAILER_SIZE = 8
_IS_TEXT, _HAS_CRC, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT = 1, 2, 4, 8, 16
_RESERVED = 0xE0
# The first slices of a member are small: a decoder copies what it leaves, and a blob may have many tiny members.
_SLICE_SIZE_MIN = 1 << 12
_SLICE_SIZE_MAX = 1 << 18
_FLUSH = b"\0\0\xff\xff"  # the end of an empty stored block (RFC 1951, 3.2.4): it ends a sync flush
_LAST_BLOCK = b"\3\0"  # an empty one with fixed codes
_CUTS_MAX = 1 << 14  # of one member at such bytes: they may also be codes, or content that was stored


@dataclass(frozen=True, slots=True)
class GzipHeader:
    """A member's header. ``name`` and ``comment`` stand without the zero byte that ends them; None: there is none."""

    modified: int = 0
    extra_flags: int = 0
    operating_system: int = 255
    is_text: bool = False
    extra: bytes | None = None
    name: bytes | None = None
    comment: bytes | None = None
    has_crc: bool = False

    def to_bytes(self) -> bytes:
        """The header as it stands in the member."""
        flags = (
            (_IS_TEXT if self.is_text else 0)
            | (_HAS_CRC if self.has_crc else 0)
            | (_HAS_EXTRA if self.extra is not None else 0)
            | (_HAS_NAME if self.name is not None else 0)
            | (_HAS_COMMENT if self.comment is not None else 0)
        )
        data = MAGIC + struct.pack("<BBIBB", _DEFLATE, flags, self.modified, self.extra_flags, self.operating_system)
        if self.extra is not None:
            data += struct.pack("<H", len(self.extra)) + self.extra
        for text in (self.name, self.comment):
            if text is not None:
                data += text + b"\0"
        if self.has_crc:
            data += struct.pack("<H", zlib.crc32(data) & 0xFFFF)
        return data


def parse_header(data: bytes) -> tuple[GzipHeader, int] | None:
    """The header that ``data`` begins with and its size; None while it is not complete.

    Raises `UndecodableError` when there is no header, or one that is damaged or longer than `HEADER_SIZE_MAX`.
    """
    if not data.startswith(MAGIC[: len(data)]):
        raise UndecodableError("the stream is not gzip")
    if len(data) < _FIXED_SIZE:
        return None
    method, flags, modified, extra_flags, operating_system = struct.unpack_from("<BBIBB", data, len(MAGIC))
    if method != _DEFLATE or flags & _RESERVED:
        raise UndecodableError(f"gzip header with unknown method {method} or flags {flags:#04x}")
    fields = _Fields(data[:HEADER_SIZE_MAX])
    try:
        extra = fields.sized() if flags & _HAS_EXTRA else None
        name = fields.terminated() if flags & _HAS_NAME else None
        comment = fields.terminated() if flags & _HAS_COMMENT else None
        header = GzipHeader(
            modified=modified,
            extra_flags=extra_flags,
            operating_system=operating_system,
            is_text=bool(flags & _IS_TEXT),
            extra=extra,
            name=name,
            comment=comment,
            has_crc=bool(flags & _HAS_CRC),
        )
        if flags & _HAS_CRC:
            fields.take(2)
    except _IncompleteError:
        if len(data) >= HEADER_SIZE_MAX:
            raise UndecodableError(f"gzip header of more than {HEADER_SIZE_MAX} bytes") from None
        return None
    if header.has_crc and header.to_bytes() != data[: fields.position]:
        raise UndecodableError("gzip header with a wrong CRC")
    return header, fields.position


class _IncompleteError(Exception):
    """A field of the header goes beyond the bytes that are there."""


class _Fields:
    """Reads what follows the fixed part of a header."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = _FIXED_SIZE

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            raise _IncompleteError
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def sized(self) -> bytes:
        return self.take(int.from_bytes(self.take(2), "little"))

    def terminated(self) -> bytes:
        end = self._data.find(b"\0", self.position)
        if end < 0:
            raise _IncompleteError
        return self.take(end + 1 - self.position)[:-1]


@dataclass(frozen=True, slots=True)
class MemberStart:
    """A member begins at byte ``offset`` of the blob; its DEFLATE stream follows ``header_size`` bytes later."""

    offset: int
    header: GzipHeader
    header_size: int


@dataclass(frozen=True, slots=True)
class MemberData:
    """The next decoded bytes of the member, and the next bytes of its DEFLATE stream, which were read to get there."""

    data: bytes
    deflate: bytes
    at_flush: bool = False
    """Whether the DEFLATE bytes end here as a sync flush does, so that the decoded ones end where it was.

    Some tools end their blocks in the same way. The last block of a member does not count.
    """


@dataclass(frozen=True, slots=True)
class MemberEnd:
    """The member's trailer was read, and is right for its ``decoded_size`` bytes."""

    deflate_size: int
    decoded_size: int
    crc32: int

    def trailer(self) -> bytes:
        """The trailer's 8 bytes."""
        return pack_trailer(self.crc32, self.decoded_size)


@dataclass(frozen=True, slots=True)
class TrailingData:
    """Bytes behind the last member: they do not begin with a member's magic number."""

    data: bytes


Event = MemberStart | MemberData | MemberEnd | TrailingData


def scan(blocks: Iterable[bytes]) -> Iterator[Event]:
    """What a gzip blob, which comes in ``blocks``, consists of, in its order.

    For every member `MemberStart`, any number of `MemberData` and `MemberEnd`; then any number of `TrailingData`.
    Raises `UndecodableError` as soon as something is damaged, cut or not gzip; what was yielded before for the same
    member is then not to be trusted.
    """
    source = _Source(blocks)
    while True:
        yield from _scan_member(source)
        following = source.peek(len(MAGIC))
        if not following:
            return
        if following != MAGIC:
            break
    while data := source.take(OUTPUT_SIZE_MAX):
        yield TrailingData(bytes(data))


def _scan_member(source: "_Source") -> Iterator[Event]:
    start = source.offset
    header, header_size = _read_header(source)
    yield MemberStart(start, header, header_size)
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    crc32 = decoded_size = 0
    slice_size = _SLICE_SIZE_MIN
    cuts = 0
    waiting = False  # whether there may be decoded bytes for which no input is needed
    while not decoder.eof:
        taken = source.take(0) if waiting else _take_slice(source, slice_size, cuts < _CUTS_MAX)
        is_flush = taken == _FLUSH
        cuts += is_flush
        slice_size = _SLICE_SIZE_MIN if is_flush else min(2 * slice_size, _SLICE_SIZE_MAX)
        data = _inflate(decoder, taken)
        if not data and not taken and not waiting:
            raise UndecodableError("the gzip stream ends in the middle of a member")
        unused = len(decoder.unused_data) if decoder.eof else len(decoder.unconsumed_tail)
        source.give_back(unused)
        waiting = len(data) == OUTPUT_SIZE_MAX and not unused
        crc32 = zlib.crc32(data, crc32)
        decoded_size += len(data)
        deflate = bytes(taken[: len(taken) - unused])
        yield MemberData(data, deflate, at_flush=is_flush and not data and _is_between_blocks(decoder))
    end = MemberEnd(source.offset - start - header_size, decoded_size, crc32)
    if (trailer := source.peek(_TRAILER_SIZE)) != end.trailer():
        missing = len(trailer) < _TRAILER_SIZE
        raise UndecodableError(f"gzip member with {'an incomplete' if missing else 'a wrong'} CRC or size at its end")
    source.take(_TRAILER_SIZE)
    yield end


def _take_slice(source: "_Source", size: int, cut: bool) -> memoryview:
    """The next bytes: if they are to be ``cut``, those that end a flush come alone."""
    if not cut:
        return source.take(size)
    source.peek(len(_FLUSH))  # so that a flush is not cut by the blocks that the blob comes in
    taken = source.take(size)
    data = bytes(taken)
    end = data.find(_FLUSH)
    if end == 0:
        end = len(_FLUSH)
    elif end < 0:
        end = next((len(data) - part for part in (3, 2, 1) if data.endswith(_FLUSH[:part])), len(data))
    if end == 0:  # the blob ends with what may be the beginning of a flush
        return taken
    source.give_back(len(data) - end)
    return taken[:end]


class _Decoder(Protocol):
    """What `zlib.decompressobj` returns: its type has no public name."""

    @property
    def eof(self) -> bool: ...

    def copy(self) -> "_Decoder": ...

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes: ...


def _is_between_blocks(decoder: _Decoder) -> bool:
    """Whether a block may begin with the next byte: a last one that is empty then ends the stream.

    Without that the four bytes of a flush prove nothing: codes for runs of zeros look the same.
    """
    if decoder.eof:
        return False
    following = decoder.copy()
    try:
        return not following.decompress(_LAST_BLOCK, 1) and following.eof
    except zlib.error:
        return False


def _inflate(decoder: _Decoder, data: memoryview) -> bytes:
    try:
        return decoder.decompress(data, OUTPUT_SIZE_MAX)
    except zlib.error as error:
        raise UndecodableError(f"damaged gzip stream: {error}") from error


def _read_header(source: "_Source") -> tuple[GzipHeader, int]:
    size = _SLICE_SIZE_MIN
    while True:
        data = source.peek(size)
        parsed = parse_header(data)
        if parsed is not None:
            source.take(parsed[1])
            return parsed
        if len(data) < size:
            raise UndecodableError("the gzip stream ends in a member's header")
        size *= 2


def pack_trailer(crc32: int, size: int) -> bytes:
    """The trailer of a member of which this is the CRC and the decoded size."""
    return struct.pack("<II", crc32, size & 0xFFFFFFFF)


class _Source:
    """The blob as it comes in: hands out bytes, and takes back those that were not used."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._view = memoryview(b"")
        self._position = 0
        self.offset = 0  # in the blob, of the byte that comes next

    def peek(self, size: int) -> bytes:
        """The next bytes: ``size`` of them, or fewer at the end."""
        missing = size - (len(self._view) - self._position)
        if missing > 0:
            parts = [bytes(self._view[self._position :])]
            while missing > 0 and (block := next(self._blocks, None)) is not None:
                parts.append(block)
                missing -= len(block)
            self._view = memoryview(b"".join(parts))
            self._position = 0
        return bytes(self._view[self._position : self._position + size])

    def take(self, size: int) -> memoryview:
        """Go past the next bytes: at most ``size`` of them, and none only at the end."""
        while self._position == len(self._view):
            block = next(self._blocks, None)
            if block is None:
                break
            self._view = memoryview(block)
            self._position = 0
        taken = self._view[self._position : self._position + size]
        self._position += len(taken)
        self.offset += len(taken)
        return taken

    def give_back(self, size: int) -> None:
        """Return the last ``size`` bytes that were taken at once."""
        self._position -= size
        self.offset -= size
