"""How a compressed blob is made again from its uncompressed layer, and the bytes in which that is kept.

A gzip blob (RFC 1952) is members, and perhaps bytes behind the last one. Of each member a recipe has the header as it
stands, the encoder of its DEFLATE stream (RFC 1951), where that was flushed, and how many bytes of the layer it holds.
Its trailer, CRC and size, follows from these bytes. The blob is cut into segments, each of which can be made alone: at
the start of a member, and inside a member where its encoder begins a block that depends on little before it.

The bytes are those of FORMAT.md, "Recipes of encodings".
"""

import functools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from layerstore.encodings.encoders import Encoder, create_encoder
from layerstore.encodings.gzip_format import HEADER_SIZE_MAX, parse_header
from layerstore.encodings.varints import Reader, encode_number, unzigzag, zigzag
from layerstore.errors import EncoderUnavailableError, IndexDamagedError, InvalidOptionError, UndecodableError

ENCODER_SET = 1
"""Raised whenever an encoder is added or one is recognised better: what no encoder made before is worth another try."""

TRAILING_SIZE_MAX = 1 << 16
"""So many bytes behind the last member are kept in a recipe."""

SEGMENT_SIZE = 1 << 22
"""A segment is ended at the first opportunity after so many bytes of the blob."""

_VERSION = 1
_LEVEL_MAX = 64
_BLOCK_SIZE_MAX = 1 << 30
_NOT_FLUSHED, _FLUSHED_AT_END, _FLUSHED = range(3)


class Method(NamedTuple):
    """An encoder with its options. The number may be one that this version does not know."""

    number: int
    level: int
    block_size: int

    def create(self) -> Encoder:
        """Begin a stream. Raises `EncoderUnavailableError` where this installation cannot make it."""
        try:
            return create_encoder(*self)
        except InvalidOptionError as error:  # a newer version may know what this one does not
            raise EncoderUnavailableError(str(error)) from error


@dataclass(frozen=True, slots=True)
class MemberRun:
    """Consecutive members that have all in common but their content."""

    method: Method
    header: bytes
    decoded_sizes: tuple[int, ...]
    flushes: tuple[tuple[int, ...], ...] = ()
    """For each member how many bytes come before each of its flushes. Empty: none is flushed."""


class Member(NamedTuple):
    """One member of a run."""

    method: Method
    header: bytes
    decoded_size: int
    flushes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the blob that can be made alone. It ends where the next one begins."""

    offset: int
    """Where it begins in the blob."""
    member: int
    """Index of the member it begins in, over all runs."""
    member_offset: int
    """How many decoded bytes of this member come before it; 0: it begins with the member's header."""
    member_crc32: int
    """CRC-32 of these bytes."""
    crc32: int
    """CRC-32 of the segment's own bytes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one blob is made again. The module describes the bytes it is kept in."""

    size: int
    """Bytes of the blob."""
    runs: tuple[MemberRun, ...]
    trailing: bytes
    """What stands behind the last member."""
    segments: tuple[Segment, ...]

    @property
    def decoded_size(self) -> int:
        """Bytes of the layer."""
        return sum(sum(run.decoded_sizes) for run in self.runs)

    @property
    def encoders(self) -> tuple[Method, ...]:
        """The encoders it needs, each once, with their levels and block sizes."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    @property
    def is_available(self) -> bool:
        """Whether this installation can make the blob."""
        return all(map(_is_available, self.encoders))

    def members(self, first: int = 0) -> Iterator[Member]:
        """The members from an index on."""
        for run in self.runs:
            count = len(run.decoded_sizes)
            for index in range(first, count):
                yield Member(
                    run.method, run.header, run.decoded_sizes[index], run.flushes[index] if run.flushes else ()
                )
            first = max(0, first - count)

    def to_bytes(self) -> bytes:
        """The recipe as it is kept."""
        methods = {method: index for index, method in enumerate(self.encoders)}
        headers = {header: index for index, header in enumerate(dict.fromkeys(run.header for run in self.runs))}
        data = bytearray([_VERSION])
        data += _numbers(self.size, len(methods))
        for method in methods:
            data += _numbers(method.number, zigzag(method.level), method.block_size)
        data += _numbers(len(headers))
        for header in headers:
            data += _numbers(len(header)) + header
        data += _numbers(len(self.runs))
        for run in self.runs:
            data += _numbers(methods[run.method], headers[run.header]) + _write_members(run)
        others = self.trailing.lstrip(b"\0")
        data += _numbers(len(self.trailing) - len(others), len(others)) + others
        data += _numbers(len(self.segments)) + self.segments[0].crc32.to_bytes(4, "little")
        for before, segment in pairwise(self.segments):
            data += _numbers(segment.member - before.member, segment.member_offset, segment.offset - before.offset)
            if segment.member_offset:
                data += segment.member_crc32.to_bytes(4, "little")
            data += segment.crc32.to_bytes(4, "little")
        return bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Recipe":
        """Read what `to_bytes` wrote. Raises `IndexDamagedError` for everything that it cannot have written."""
        reader = Reader(data)
        if reader.take(1)[0] != _VERSION:
            raise IndexDamagedError(f"recipe of the unknown version {data[0]}")
        size = reader.number(minimum=1)
        methods = [_read_method(reader) for _ in range(reader.count())]
        headers = [_read_header(reader) for _ in range(reader.count())]
        runs = tuple(_read_run(reader, methods, headers) for _ in range(reader.count(minimum=1)))
        zeros = reader.number(maximum=TRAILING_SIZE_MAX)
        trailing = bytes(zeros) + reader.take(reader.number(maximum=TRAILING_SIZE_MAX - zeros))
        segments = _read_segments(reader, runs, size)
        reader.end()
        recipe = cls(size, runs, trailing, segments)
        if recipe.to_bytes() != data:
            raise IndexDamagedError("recipe that is not in its one form")
        return recipe


@functools.cache
def _is_available(method: Method) -> bool:
    try:
        method.create()
    except EncoderUnavailableError:
        return False
    return True


def _numbers(*values: int) -> bytes:
    return b"".join(map(encode_number, values))


def _write_members(run: MemberRun) -> bytes:
    count = len(run.decoded_sizes)
    if not run.flushes:
        return _numbers(_NOT_FLUSHED, count, *run.decoded_sizes)
    if run.flushes == tuple((size,) for size in run.decoded_sizes):
        return _numbers(_FLUSHED_AT_END, count, *run.decoded_sizes)
    data = _numbers(_FLUSHED, count)
    for decoded_size, flushes in zip(run.decoded_sizes, run.flushes, strict=True):
        data += _numbers(decoded_size, len(flushes), *(end - start for start, end in pairwise((0, *flushes))))
    return data


def _read_method(reader: Reader) -> Method:
    number = reader.number()
    level = unzigzag(reader.number(maximum=_LEVEL_MAX))
    return Method(number, level, reader.number(maximum=_BLOCK_SIZE_MAX))


def _read_header(reader: Reader) -> bytes:
    header = reader.take(reader.number(maximum=HEADER_SIZE_MAX))
    try:
        parsed = parse_header(header)
    except UndecodableError as error:
        raise IndexDamagedError(f"recipe with a bad header: {error}") from error
    if parsed is None or parsed[1] != len(header):
        raise IndexDamagedError("recipe with a header of a wrong size")
    return header


def _read_run(reader: Reader, methods: list[Method], headers: list[bytes]) -> MemberRun:
    method = methods[reader.number(maximum=len(methods) - 1)]
    header = headers[reader.number(maximum=len(headers) - 1)]
    flushed = reader.number(maximum=_NOT_FLUSHED if method.block_size else _FLUSHED)
    sizes: list[int] = []
    flushes: list[tuple[int, ...]] = []
    for _ in range(reader.count(minimum=1)):
        sizes.append(reader.number())
        if flushed == _FLUSHED:
            flushes.append(tuple(accumulate(reader.number(maximum=sizes[-1]) for _ in range(reader.count()))))
            if flushes[-1] and flushes[-1][-1] > sizes[-1]:
                raise IndexDamagedError("recipe with a flush behind the end of its member")
        elif flushed == _FLUSHED_AT_END:
            flushes.append((sizes[-1],))
    return MemberRun(method, header, tuple(sizes), tuple(flushes))


def _read_segments(reader: Reader, runs: tuple[MemberRun, ...], size: int) -> tuple[Segment, ...]:
    count = reader.count(minimum=1)
    segments = [Segment(0, 0, 0, 0, reader.crc32())]
    members = [(run.method.block_size, decoded_size) for run in runs for decoded_size in run.decoded_sizes]
    for _ in range(count - 1):
        before = segments[-1]
        member = before.member + reader.number(maximum=len(members) - 1 - before.member)
        block_size, decoded_size = members[member]
        member_offset = reader.number(maximum=decoded_size)
        offset = before.offset + reader.number(minimum=1)
        if offset >= size or (member, member_offset) <= (before.member, before.member_offset):
            raise IndexDamagedError("recipe with segments out of order")
        if member_offset and (member_offset == decoded_size or not block_size or member_offset % block_size):
            raise IndexDamagedError("recipe with a segment that begins inside a block")
        member_crc32 = reader.crc32() if member_offset else zlib.crc32(b"")
        segments.append(Segment(offset, member, member_offset, member_crc32, reader.crc32()))
    return tuple(segments)
