"""Finding the recipe of a blob: its members are taken one by one, and of each every byte is made again.

Of each member the beginning is tried with what made the members before it, then with all encoders, the likeliest first,
until one makes it. That one goes on with the whole member, a segment at a time as `regenerate` does, while it is
read. Where it fails late, the next one that makes the beginning has its turn, and the member is read again.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from layerstore.encodings.encoders import EncoderNumber, is_available
from layerstore.encodings.gzip_format import Event, GzipHeader, MemberData, MemberEnd, MemberStart, TrailingData, scan
from layerstore.encodings.recipe import SEGMENT_SIZE, TRAILING_SIZE_MAX, MemberRun, Method, Recipe, Segment
from layerstore.encodings.recognise import BEGINNING_SIZE, DECODED_SIZE_MAX, guess
from layerstore.encodings.regenerate import MemberStream, lead_size
from layerstore.errors import EncoderUnavailableError, UndecodableError

OpenBlob = Callable[[], Iterable[bytes]]
"""Reads a blob from its start, each time it is called."""

RECIPE_SIZE_MAX = 1 << 22
"""A larger recipe is none: the blob has too many members, or too much stands in their headers."""

_FIRST_STEP_SIZE = 1 << 15  # most encoders that are wrong show it in what they make of this much
_STEP_SIZE = 1 << 18


def find_recipe(open_blob: OpenBlob) -> Recipe | None:
    """How the blob is made again, after all of it was made again and compared; None if no known encoder makes it.

    The blob is read once, and again from the start for each encoder that makes the beginning of a long member but not
    the rest. It is not read to its end when the answer is None. Memory is bounded: the first 512 KiB of a member and
    what they decode to (about 16 MiB at most), and what an encoder holds back.

    Raises:
        UndecodableError: The blob is no gzip, or damaged as far as it was read.
        EncoderUnavailableError: Layerstore was installed without a compiler.
    """
    if not any(map(is_available, EncoderNumber)):
        raise EncoderUnavailableError("layerstore was installed without a compiler, so it has no encoders to try")
    return _Finder(open_blob).find()


class _Way(NamedTuple):
    """What may have made a member."""

    method: Method
    flushes: bool  # wherever there may have been a flush


@dataclass
class _Log:
    """The segments so far, and the one that is being made."""

    segments: list[Segment] = field(default_factory=list)
    offset: int = 0  # in the blob, of what is made next
    begun: Segment = field(default_factory=lambda: Segment(0, 0, 0, 0, 0))

    @property
    def is_due(self) -> bool:
        """Whether another segment should begin."""
        return self.offset - self.begun.offset >= SEGMENT_SIZE

    def add(self, made: bytes) -> None:
        self.offset += len(made)
        self.begun = replace(self.begun, crc32=zlib.crc32(made, self.begun.crc32))

    def begin(self, member: int, member_offset: int = 0, member_crc32: int = 0) -> None:
        self.segments.append(self.begun)
        self.begun = Segment(self.offset, member, member_offset, member_crc32, 0)

    def copy(self) -> "_Log":
        return replace(self, segments=list(self.segments))


class _Trial:
    """One way of making a member's DEFLATE stream, compared with it while it is read."""

    def __init__(self, way: _Way, member: int, log: _Log) -> None:
        self.log = log
        self.way = way
        self.flushes: list[int] = []
        self._decoded_size = 0
        self._member = member
        self._stream = MemberStream(way.method)
        self._lead_size = lead_size(way.method)
        self._lead = b""
        self._crc32 = 0
        self._made = bytearray()  # but not compared yet
        self._expected = bytearray()  # but not made yet

    def add(self, event: MemberData) -> bool:
        """Go on with the next bytes. False: they are not what is made this way."""
        self._expected += event.deflate
        start = 0
        while start < len(event.data):
            end = start + self._step_size()
            self._write(event.data[start:end])
            start = end
            if not self._agrees():
                return False
        if self.way.flushes and event.at_flush:
            self._emit(self._stream.flush())
            self.flushes.append(self._decoded_size)
        return self._agrees()

    def finish(self) -> bool:
        """The member has ended: was it made to its last byte?"""
        self._emit(self._stream.finish())
        return self._agrees() and not self._made and not self._expected

    def _step_size(self) -> int:
        """How much is compressed before the next look at it. A step ends where a block ends."""
        size = _STEP_SIZE if self._decoded_size else _FIRST_STEP_SIZE
        return min(size, self._to_block_end()) if self._lead_size else size

    def _to_block_end(self) -> int:
        return self.way.method.block_size - self._decoded_size % self.way.method.block_size

    def _write(self, data: bytes) -> None:
        if self._lead_size:
            if self.log.is_due and self._to_block_end() == self.way.method.block_size:
                self._begin_segment()
            self._lead = (self._lead + data)[-self._lead_size :]
        self._crc32 = zlib.crc32(data, self._crc32)
        self._decoded_size += len(data)
        self._emit(self._stream.write(data))

    def _begin_segment(self) -> None:
        self._emit(self._stream.close_block())
        self.log.begin(self._member, self._decoded_size, self._crc32)
        self._stream = MemberStream(self.way.method, self._lead)

    def _emit(self, made: bytes) -> None:
        self.log.add(made)
        self._made += made

    def _agrees(self) -> bool:
        size = min(len(self._made), len(self._expected))
        if self._made[:size] != self._expected[:size]:
            return False
        del self._made[:size], self._expected[:size]
        return True


class _Form(NamedTuple):
    """What the members of a run have in common: it is kept once."""

    header: GzipHeader
    method: Method
    is_flushed: bool
    is_flushed_at_end: bool


@dataclass
class _Run:
    """The members of a run so far."""

    form: _Form
    decoded_sizes: list[int] = field(default_factory=list)
    flushes: list[tuple[int, ...]] = field(default_factory=list)

    def finish(self) -> MemberRun:
        flushes = tuple(self.flushes) if self.form.is_flushed else ()
        return MemberRun(self.form.method, self.form.header.to_bytes(), tuple(self.decoded_sizes), flushes)


class _Finder:
    """Goes through the members of one blob."""

    def __init__(self, open_blob: OpenBlob) -> None:
        self._open_blob = open_blob
        self._log = _Log()
        self._members = 0
        self._runs: list[_Run] = []
        self._known: list[_Way] = []  # what made the members so far, the last one first

    def find(self) -> Recipe | None:
        events = scan(self._open_blob())
        trailing = b""
        while (event := next(events, None)) is not None:
            if isinstance(event, TrailingData):
                trailing += event.data
            elif isinstance(event, MemberStart) and self._members < RECIPE_SIZE_MAX:
                following = self._add_member(event.header, events)
                if following is None:
                    return None
                events = following
            if len(trailing) > TRAILING_SIZE_MAX or self._members == RECIPE_SIZE_MAX:
                return None
        self._log.add(trailing)
        runs = tuple(run.finish() for run in self._runs)
        recipe = Recipe(self._log.offset, runs, trailing, (*self._log.segments, self._log.begun))
        return recipe if len(recipe.to_bytes()) <= RECIPE_SIZE_MAX else None

    def _add_member(self, header: GzipHeader, events: Iterator[Event]) -> Iterator[Event] | None:
        """Find what makes the member whose start was read. Returns the events behind it, None if nothing makes it."""
        offset = self._log.offset
        if self._log.is_due:
            self._log.begin(self._members)
        self._log.add(header.to_bytes())
        beginning, end = _read_beginning(events)
        may_flush = any(event.at_flush for event in beginning)
        joined = [_join(beginning)]  # there may be thousands of flushes, which are nothing to most ways
        read_on = False
        for way in self._ways(header, may_flush, end is not None):
            trial = _Trial(way, self._members, self._log.copy())
            if not all(map(trial.add, beginning if way.flushes else joined)):
                continue
            if read_on:  # the events behind the beginning are gone
                events = self._reopen(offset)
                trial = _Trial(way, self._members, self._log.copy())
            read_on = end is None
            found = _run_to_end(trial, events) if end is None else end
            if found is not None and trial.finish():
                self._end_member(header, trial, found)
                return events
        return None

    def _ways(self, header: GzipHeader, may_flush: bool, is_complete: bool) -> Iterator[_Way]:
        """Everything that may have made the member, the likeliest first. Only encoders without blocks are flushed."""
        known = tuple(self._known)
        yield from known
        methods = [Method(int(c.number), c.level, c.block_size) for c in guess(header) if is_available(c.number)]
        ways = [_Way(method, flushes) for method in methods for flushes in (False, True)[: 1 + may_flush]]
        if not may_flush and not is_complete:
            ways += [_Way(method, flushes=True) for method in methods]  # only later than in the beginning
        yield from (way for way in ways if way not in known and not (way.flushes and way.method.block_size))

    def _end_member(self, header: GzipHeader, trial: _Trial, end: MemberEnd) -> None:
        self._log = trial.log
        self._log.add(end.trailer())
        self._members += 1
        flushes = tuple(trial.flushes)
        form = _Form(header, trial.way.method, bool(flushes), flushes == (end.decoded_size,))
        if not self._runs or self._runs[-1].form != form:
            self._runs.append(_Run(form))
        self._runs[-1].decoded_sizes.append(end.decoded_size)
        self._runs[-1].flushes.append(flushes)
        if trial.way in self._known:
            self._known.remove(trial.way)
        self._known.insert(0, trial.way)

    def _reopen(self, offset: int) -> Iterator[Event]:
        """The events of the blob from within the member that begins at ``offset`` on."""
        events = scan(_skip(self._open_blob(), offset))
        if not isinstance(next(events, None), MemberStart):
            raise UndecodableError("the blob changed while it was read")
        return events


def _read_beginning(events: Iterator[Event]) -> tuple[list[MemberData], MemberEnd | None]:
    """A member's first bytes, and its end if they are all of it."""
    read: list[MemberData] = []
    deflate_size = decoded_size = 0
    while deflate_size < BEGINNING_SIZE and decoded_size < DECODED_SIZE_MAX:
        event = next(events)
        if not isinstance(event, MemberData):
            assert isinstance(event, MemberEnd)
            return read, event
        read.append(event)
        deflate_size += len(event.deflate)
        decoded_size += len(event.data)
    return read, None


def _join(events: list[MemberData]) -> MemberData:
    return MemberData(b"".join(event.data for event in events), b"".join(event.deflate for event in events))


def _run_to_end(trial: _Trial, events: Iterator[Event]) -> MemberEnd | None:
    """Give the trial the rest of the member. None: it differs before the end."""
    while isinstance(event := next(events), MemberData):
        if not trial.add(event):
            return None
    assert isinstance(event, MemberEnd)
    return event


def _skip(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        if size < len(block):
            yield block[size:]
        size = max(0, size - len(block))
