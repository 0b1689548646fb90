"""Making a blob again, bit for bit, from its recipe and the bytes of its layer.

`MemberStream` makes one member's DEFLATE stream, from its start or from a block inside it. It is also what a recipe is
proven with before it is kept, so what makes the blob again is what made it then, write for write or not: an encoder's
bytes do not depend on how its input is cut.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain

from layerstore.encodings.encoders import EncoderNumber
from layerstore.encodings.gzip_format import pack_trailer
from layerstore.encodings.ordered import run_in_order
from layerstore.encodings.recipe import Method, Recipe, Segment
from layerstore.errors import ContentDamagedError, InvalidOptionError

ReadLayer = Callable[[int], Iterable[bytes]]
"""Gives a layer's bytes from an offset on, to its end. Several threads call it at once if several are used."""

_STEP_SIZE = 1 << 18  # decoded bytes that are compressed at once
_BUFFER_SIZE = 1 << 23  # compressed bytes of each segment that may wait for the segments before it
_PGZIP_LEAD = 16385  # a block's dictionary is 16 KiB; a block that is not larger has none to give
_PGZIP = frozenset(
    number for number in EncoderNumber if EncoderNumber.KLAUSPOST_1_15_10 <= number <= EncoderNumber.KLAUSPOST_1_12_3
) - {EncoderNumber.GO_FLATE_1_27_ARM64}
_PIGZ = frozenset({EncoderNumber.PIGZ, EncoderNumber.PIGZ_INDEPENDENT})


def lead_size(method: Method) -> int:
    """How many bytes before a block must be known to begin with it; 0: this encoder cannot begin inside a member.

    pgzip's blocks need the dictionary, and pigz's are entered from the start of the block before. All other encoders
    make one stream, of which every byte may depend on all before it.
    """
    if method.number in _PGZIP and method.block_size > _PGZIP_LEAD:
        return _PGZIP_LEAD
    return method.block_size if method.number in _PIGZ else 0


class MemberStream:
    """The DEFLATE stream of a member, or what of it follows the ``lead``: the bytes before a block, see `lead_size`."""

    def __init__(self, method: Method, lead: bytes = b"") -> None:
        self._encoder = method.create()
        self._enters = bool(lead)
        if lead:
            self._encoder.write(lead)
            if method.number in _PGZIP:
                self._encoder.flush()  # ends the block early: the next one knows no more of it than this lead

    def write(self, data: bytes | memoryview) -> bytes:
        """Compress the data and return what came out."""
        if self._enters and data:
            # pigz ends a block when it knows that another one follows. What comes out belongs to the block before.
            self._encoder.write(data[:1])
            self._enters = False
            data = data[1:]
        return self._encoder.write(data)

    def flush(self) -> bytes:
        """What comes out when the tool flushes."""
        self._encoder.write(b"")  # otherwise zlib ignores a flush right behind another one
        return self._encoder.flush()

    def close_block(self) -> bytes:
        """The rest of a full block that another one follows. This stream is then of no more use."""
        return self._encoder.write(b"\0")  # the first byte of a block never comes out at once

    def finish(self) -> bytes:
        """The rest of the member's stream."""
        return self._encoder.finish()


def regenerate(recipe: Recipe, read: ReadLayer, start: int = 0, threads: int = 1) -> Iterator[bytes]:
    """The bytes of a blob from byte ``start`` on.

    What is made begins with the segment that ``start`` lies in: for encoders without blocks (Go's and klauspost's gzip,
    zlib, GNU gzip, ``pigz -p 1``) that is the start of a member. Several threads make several segments at once; with
    one, nothing runs ahead. Memory is bounded by a few MiB a thread.

    Args:
        recipe: How the blob is made.
        read: Gives the layer's bytes.
        start: Where in the blob to begin, at most its size.
        threads: How many make segments.

    Raises:
        EncoderUnavailableError: This installation cannot make the blob.
        ContentDamagedError: The layer is not the one that the recipe was made for. What was yielded of the last 4 MiB,
            or of the last member if that is longer, is then wrong.
        InvalidOptionError: There is no such start, or there are no threads.
    """
    if not 0 <= start <= recipe.size:
        raise InvalidOptionError(f"a blob of {recipe.size} bytes has no byte {start}")
    if threads < 1:
        raise InvalidOptionError(f"{threads} threads cannot make a blob")
    for method in recipe.encoders:
        method.create()
    return _regenerate(recipe, read, start, threads)


def _regenerate(recipe: Recipe, read: ReadLayer, start: int, threads: int) -> Iterator[bytes]:
    plan = _plan(recipe, start)
    blocks: Iterator[bytes]
    skipped = start - plan[0].segment.offset
    sources = [partial(_make_part, recipe, part, read) for part in plan]
    if threads == 1 or len(plan) == 1:
        blocks = chain.from_iterable(source() for source in sources)
    else:
        blocks = run_in_order(sources, threads, _BUFFER_SIZE)
    for block in blocks:
        if skipped < len(block):
            yield block[skipped:] if skipped else block
        skipped = max(0, skipped - len(block))


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment, the one behind it, and where both lie in the layer and in the blob."""

    segment: Segment
    following: Segment | None
    decoded_start: int
    size: int


def _plan(recipe: Recipe, start: int) -> list[_Part]:
    """The segments from the one on that ``start`` lies in."""
    member_starts = list(accumulate((member.decoded_size for member in recipe.members()), initial=0))
    ends = [segment.offset for segment in recipe.segments[1:]] + [recipe.size]
    return [
        _Part(segment, following, member_starts[segment.member] + segment.member_offset, end - segment.offset)
        for segment, following, end in zip(recipe.segments, (*recipe.segments[1:], None), ends, strict=True)
        if end > start or following is None
    ]


def _make_part(recipe: Recipe, part: _Part, read: ReadLayer) -> Iterator[bytes]:
    """One segment. Raises `ContentDamagedError` when it is not what it must be."""
    size = crc32 = 0
    for block in _make_segment(recipe, part, read):
        size += len(block)
        crc32 = zlib.crc32(block, crc32)
        if size > part.size:
            break
        if block:
            yield block
    if (size, crc32) != (part.size, part.segment.crc32):
        raise ContentDamagedError("the layer's content does not make the blob that its recipe was written for")


def _make_segment(recipe: Recipe, part: _Part, read: ReadLayer) -> Iterator[bytes]:
    index, at, crc32 = part.segment.member, part.segment.member_offset, part.segment.member_crc32
    following = part.following
    lead_wanted = lead_size(next(recipe.members(index)).method) if at else 0
    layer = _Layer(read(part.decoded_start - lead_wanted))
    lead = b"".join(map(bytes, layer.take(lead_wanted)))
    for member in recipe.members(index):
        if following is not None and (index, at) == (following.member, following.member_offset):
            return
        if not at:
            yield member.header
        stream = MemberStream(member.method, lead)
        lead = b""
        stop = following.member_offset if following is not None and index == following.member else 0
        ends = [(flush, True) for flush in member.flushes] + [(stop or member.decoded_size, False)]
        for end, flushed in ends:
            for data in layer.take(end - at):
                crc32 = zlib.crc32(data, crc32)
                yield stream.write(data)
            at = end
            if flushed:
                yield stream.flush()
        if stop:
            yield stream.close_block()
            return
        yield stream.finish() + pack_trailer(crc32, member.decoded_size)
        index, at, crc32 = index + 1, 0, 0
    layer.end()
    yield recipe.trailing


class _Layer:
    """The layer's bytes, taken in order."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        """The next bytes, in pieces of at most `_STEP_SIZE`."""
        while size:
            while not self._rest:
                block = next(self._blocks, None)
                if block is None:
                    raise ContentDamagedError(f"the layer ends {size} bytes too early for its recipe")
                self._rest = memoryview(block)
            piece = self._rest[: min(size, _STEP_SIZE)]
            self._rest = self._rest[len(piece) :]
            size -= len(piece)
            yield piece

    def end(self) -> None:
        """Nothing must follow."""
        if self._rest or any(self._blocks):
            raise ContentDamagedError("the layer goes on behind the end of its recipe")
