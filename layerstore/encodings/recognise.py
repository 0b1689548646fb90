"""Which encoder made a gzip member: guessed from its header, then tried on its beginning.

`read_beginning` takes a member's first bytes apart, `guess` orders all encoders by how likely they are, and `probe`
tells which of them make the beginning. Only one that makes the whole member, and is compared with it to the last byte,
is known to have made it: some differ late (pgzip's versions after up to 390 KB of output, pigz from zlib after 54 KB).
`Comparison` does that for all that are left in one pass.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from layerstore.encodings.encoders import Encoder, EncoderNumber, create_encoder, is_available
from layerstore.encodings.gzip_format import GzipHeader, parse_header
from layerstore.errors import UndecodableError

BEGINNING_SIZE = 1 << 19
"""So much of a member is enough to tell the known encoders apart, as far as that can be done without all of it."""

DECODED_SIZE_MAX = 1 << 24
"""`read_beginning` decodes no more than this of a member that compresses very well.

It is more than any encoder takes before it writes something: GNU gzip collects 32,767 matches of up to 258 bytes.
"""

_FIRST_STEP_SIZE = 1 << 15  # most encoders that are wrong show it in what they make of this much
_STEP_SIZE = 1 << 18


@dataclass(frozen=True, slots=True)
class Candidate:
    """An encoder with its options."""

    number: EncoderNumber
    level: int
    block_size: int

    def create(self) -> Encoder:
        """Begin a stream."""
        return create_encoder(self.number, self.level, self.block_size)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first bytes of a member. They are all of it if it is ``complete``; ``decoded`` may end before ``deflate``."""

    header: GzipHeader
    deflate: bytes
    decoded: bytes
    complete: bool


def read_beginning(head: bytes) -> Beginning:
    """Take apart what a member begins with: its first `BEGINNING_SIZE` bytes, or all of it if it is shorter.

    Raises `UndecodableError` when it is no gzip member or is damaged.
    """
    parsed = parse_header(head)
    if parsed is None:
        raise UndecodableError("the gzip stream ends in a member's header")
    header, header_size = parsed
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    deflate = head[header_size:]
    try:
        decoded = decoder.decompress(deflate, DECODED_SIZE_MAX)
    except zlib.error as error:
        raise UndecodableError(f"damaged gzip stream: {error}") from error
    if decoder.eof:
        deflate = deflate[: len(deflate) - len(decoder.unused_data)]
    return Beginning(header, deflate, decoded, decoder.eof)


@dataclass(frozen=True, slots=True)
class _Family:
    """Encoders with the same options: tools of one origin, in several versions."""

    numbers: tuple[EncoderNumber, ...]
    levels: tuple[int, ...]  # the likeliest first
    block_sizes: tuple[int, ...] = (0,)

    def candidates(self, levels: Iterable[int]) -> Iterator[Candidate]:
        for level in levels:
            for block_size in self.block_sizes:
                for number in self.numbers:
                    yield Candidate(number, level, block_size)


_ZLIB_LEVELS = (6, 9, 1, 5, 7, 8, 4, 3, 2)
_KLAUSPOST = (
    EncoderNumber.KLAUSPOST_1_15_10,
    EncoderNumber.KLAUSPOST_1_18_2,
    EncoderNumber.KLAUSPOST_1_20_4,
    EncoderNumber.KLAUSPOST_1_18_1,
)
_KLAUSPOST_ARM64 = (
    EncoderNumber.KLAUSPOST_1_15_10_ARM64,
    EncoderNumber.KLAUSPOST_1_18_2_ARM64,
    EncoderNumber.KLAUSPOST_1_18_1_ARM64,
)
_KLAUSPOST_LEVELS = (5, 1, 6, 3, 4, 2, 0, -2)
_PIGZ_BLOCK_SIZE = 1 << 17

_GO = _Family((EncoderNumber.GO_FLATE, EncoderNumber.GO_FLATE_1_27), (6, 9, 1, 5, 7, 8, 4, 3, 2, 0, -2))
_KLAUSPOST_STREAM = _Family(_KLAUSPOST, _KLAUSPOST_LEVELS)
_PGZIP = _Family(_KLAUSPOST, _KLAUSPOST_LEVELS, (1 << 20, 1 << 18))
_KLAUSPOST_OLD = _Family((EncoderNumber.KLAUSPOST_1_15_0, EncoderNumber.KLAUSPOST_1_12_3), (5,), (1 << 20, 0, 1 << 18))
_ZLIB = _Family((EncoderNumber.ZLIB,), _ZLIB_LEVELS)
_GNU_GZIP = _Family((EncoderNumber.GNU_GZIP,), _ZLIB_LEVELS)
_PIGZ = _Family((EncoderNumber.PIGZ,), _ZLIB_LEVELS, (_PIGZ_BLOCK_SIZE,))
_PIGZ_RARE = _Family((EncoderNumber.PIGZ_ONE_THREAD, EncoderNumber.PIGZ_INDEPENDENT), _ZLIB_LEVELS, (_PIGZ_BLOCK_SIZE,))
# On arm64 about one block in a million is another one: these are for the blobs where the others fail late.
_ARM64 = (
    _Family((EncoderNumber.GO_FLATE_1_27_ARM64,), _GO.levels),
    _Family(_KLAUSPOST_ARM64, _KLAUSPOST_LEVELS, (1 << 20, 0, 1 << 18)),
)

_UNIX = 3
_UNKNOWN = 255
_BEST, _FASTEST = 2, 4  # extra flags
_GO_ZERO_TIME = 0x886E0900  # the year 1, cut to 32 bits: pgzip writes it where Go's own gzip writes 0


def _families(header: GzipHeader) -> tuple[_Family, ...]:
    """The families, those first whose tools write such a header."""
    if header.operating_system == _UNKNOWN:
        if header.modified == _GO_ZERO_TIME:
            return _PGZIP, _KLAUSPOST_STREAM, _KLAUSPOST_OLD, _GO, _ZLIB, _PIGZ, _GNU_GZIP, _PIGZ_RARE
        if header.modified == 0 and header.name is None:
            return _GO, _KLAUSPOST_STREAM, _ZLIB, _PGZIP, _KLAUSPOST_OLD, _PIGZ, _GNU_GZIP, _PIGZ_RARE
        return _ZLIB, _GO, _KLAUSPOST_STREAM, _PGZIP, _KLAUSPOST_OLD, _PIGZ, _GNU_GZIP, _PIGZ_RARE
    if header.operating_system == _UNIX:
        return _GNU_GZIP, _PIGZ, _ZLIB, _PIGZ_RARE, _GO, _KLAUSPOST_STREAM, _PGZIP, _KLAUSPOST_OLD
    return _ZLIB, _GNU_GZIP, _PIGZ, _GO, _KLAUSPOST_STREAM, _PGZIP, _KLAUSPOST_OLD, _PIGZ_RARE


def guess(header: GzipHeader) -> Iterator[Candidate]:
    """Every encoder and level, each once, the likeliest first.

    All known tools note the best and the fastest level (9 and 1) in the header and no other one, so the levels that do
    not fit the note come after all that do.
    """
    marked = {_BEST: (9,), _FASTEST: (1,)}.get(header.extra_flags)
    fitting, others = [], []
    for family in (*_families(header), *_ARM64):
        fits = [level for level in family.levels if (level in marked if marked else level not in (1, 9))]
        fitting.append(family.candidates(fits))
        others.append(family.candidates([level for level in family.levels if level not in fits]))
    return chain(*fitting, *others)


def probe(beginning: Beginning, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Those candidates that make the beginning, in their order. One that is not available here makes nothing.

    Each is tried when it is asked for: whoever is content with the first pays for no more.
    """
    return (candidate for candidate in candidates if is_available(candidate.number) and _makes(candidate, beginning))


def _makes(candidate: Candidate, beginning: Beginning) -> bool:
    comparison = Comparison([candidate])
    comparison.expect(beginning.deflate)
    start, end = 0, _FIRST_STEP_SIZE
    while start < len(beginning.decoded) and comparison.candidates and not comparison.all_met:
        comparison.add(beginning.decoded[start:end])
        start, end = end, end + _STEP_SIZE
    return bool(comparison.finish() if beginning.complete else comparison.candidates)


class _Stream:
    """What one candidate makes, and how far it was compared."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.encoder = candidate.create()
        self.made = bytearray()  # made, but not compared yet
        self.position = 0  # in the member's DEFLATE stream

    def agrees(self, expected: memoryview) -> bool:
        """Compare what was made with the bytes of the member that are to come, as far as both are there."""
        size = min(len(self.made), len(expected))
        if self.made[:size] != expected[:size]:
            return False
        del self.made[:size]
        self.position += size
        return True


class Comparison:
    """What candidates make of a member, compared with it while it is read: those that differ drop out.

    Memory is bounded by what the encoders hold back: one block of each.
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._streams = [_Stream(candidate) for candidate in candidates]
        self._expected = bytearray()  # from the position of the slowest stream on
        self._start = 0

    @property
    def candidates(self) -> list[Candidate]:
        """Those that agree so far, in their order."""
        return [stream.candidate for stream in self._streams]

    @property
    def all_met(self) -> bool:
        """Whether all that is expected has been made by all that are left."""
        return not self._expected

    def expect(self, deflate: bytes) -> None:
        """Add the next bytes of the member's DEFLATE stream. They must not come later than what they decode to."""
        self._expected += deflate

    def add(self, decoded: bytes) -> None:
        """Add the next decoded bytes."""
        for stream in self._streams:
            stream.made += stream.encoder.write(decoded)
        self._compare()

    def finish(self) -> list[Candidate]:
        """The member has ended: those candidates that make it to its last byte."""
        end = self._start + len(self._expected)
        for stream in self._streams:
            stream.made += stream.encoder.finish()
        self._compare()
        self._streams = [stream for stream in self._streams if not stream.made and stream.position == end]
        return self.candidates

    def _compare(self) -> None:
        with memoryview(self._expected) as expected:
            self._streams = [s for s in self._streams if s.agrees(expected[s.position - self._start :])]
        slowest = min((stream.position for stream in self._streams), default=self._start + len(self._expected))
        del self._expected[: slowest - self._start]
        self._start = slowest
