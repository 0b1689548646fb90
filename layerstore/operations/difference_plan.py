"""What of a layer is in others: found by their recipes, since one chunk is in a store only once.

No byte of the layers is read for it. A layer's tar is two streams, skeleton and payload, that interleave in pieces;
chunks are parts of the streams, copies are parts of the tar.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from layerstore.operations.difference_format import BASES_MAX, Copy, Instruction, Take
from layerstore.operations.pull import RecipeReader
from layerstore.storage.recipe import Ref

_STREAMS = 2
_TAKE_SIZE_MAX = 1 << 20
"""So that the literals of a few instructions are never too much to be held in memory."""


class LaidOutLayer:
    """Where each chunk of a layer is in its streams, and each piece of the streams in its tar."""

    def __init__(self, reader: RecipeReader) -> None:
        self.size = reader.record.size
        self.chunks: tuple[list[Ref], list[Ref]] = ([], [])
        """The chunks of the skeleton, and of the payload."""
        self.starts: tuple[list[int], list[int]] = ([0], [0])
        """Where each chunk begins in its stream, and where the last one ends."""
        self.pieces: list[tuple[int, int, int]] = []
        """Stream, offset there, and size of each piece, in the order of the tar."""
        self._piece_starts: tuple[list[int], list[int]] = ([], [])
        self._piece_places: tuple[list[int], list[int]] = ([], [])
        place, ends = 0, [0, 0]
        for _, segment in reader.segments():
            lengths = reader.frame_lengths(segment.runs)
            for stream, runs in enumerate((segment.skeleton, segment.payload)):
                end = self.starts[stream][-1]
                for frame, first, count in runs:
                    sizes = lengths[frame]
                    for position in range(first, first + count):
                        self.chunks[stream].append(Ref(frame, position))
                        end += sizes[position]
                        self.starts[stream].append(end)
            for index, size in enumerate(segment.pieces):
                if size:
                    stream = index % _STREAMS
                    self.pieces.append((stream, ends[stream], size))
                    self._piece_starts[stream].append(ends[stream])
                    self._piece_places[stream].append(place)
                    ends[stream] += size
                    place += size

    def places(self, stream: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Where bytes of a stream are in the tar, and how many are together."""
        starts, places = self._piece_starts[stream], self._piece_places[stream]
        index = bisect_right(starts, offset) - 1
        while size:
            inside = offset - starts[index]
            end = starts[index + 1] if index + 1 < len(starts) else offset + size
            count = min(size, end - offset)
            yield places[index] + inside, count
            offset += count
            size -= count
            index += 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How a layer is made out of bases."""

    instructions: list[Instruction]
    literals: tuple[list[Ref], list[Ref]]
    """The chunks that no base has, of skeleton and payload."""
    copied: int
    """Bytes that come from bases."""


def choose_bases(target: RecipeReader, candidates: Sequence[RecipeReader]) -> list[int]:
    """The indexes of the candidates that have most of the target's frames, each counted once."""
    missing = _frames(target)
    frames = [_frames(one).keys() & missing.keys() for one in candidates]
    chosen: list[int] = []
    while missing and len(chosen) < BASES_MAX:
        gains = [sum(missing[frame] for frame in one if frame in missing) for one in frames]
        best = max(range(len(gains)), key=gains.__getitem__, default=None)
        if best is None or not gains[best]:
            break
        chosen.append(best)
        for frame in frames[best]:
            missing.pop(frame, None)
    return chosen


def _frames(reader: RecipeReader) -> dict[int, int]:
    """The frames of a layer, and how many of its chunks each has."""
    counts: dict[int, int] = {}
    for _, segment in reader.segments():
        for run in segment.runs:
            counts[run.frame] = counts.get(run.frame, 0) + run.chunks
    return counts


def make_plan(target: LaidOutLayer, bases: Sequence[LaidOutLayer]) -> Plan:
    """How ``target`` is made out of ``bases``; where several have the same, it is the first."""
    known: dict[Ref, tuple[int, int, int]] = {}
    for index in reversed(range(len(bases))):
        base = bases[index]
        for stream in range(_STREAMS):
            known.update(
                (ref, (index, stream, start))
                for ref, start in zip(base.chunks[stream], base.starts[stream], strict=False)
            )
    literals = tuple([ref for ref in chunks if ref not in known] for chunks in target.chunks)
    instructions = list(_merged(_steps(target, bases, known)))
    copied = sum(one.size for one in instructions if isinstance(one, Copy))
    return Plan(instructions, (literals[0], literals[1]), copied)


def _steps(
    target: LaidOutLayer, bases: Sequence[LaidOutLayer], known: dict[Ref, tuple[int, int, int]]
) -> Iterator[Instruction]:
    position = [0, 0]  # the chunk of each stream that the next piece begins in
    for stream, begin, size in target.pieces:
        chunks, starts = target.chunks[stream], target.starts[stream]
        index, end = position[stream], begin + size
        offset = begin
        while offset < end:
            while starts[index + 1] <= offset:
                index += 1
            count = min(end, starts[index + 1]) - offset
            found = known.get(chunks[index])
            if found is None:
                yield Take(stream, count)
            else:
                base, base_stream, start = found
                for place, length in bases[base].places(base_stream, start + offset - starts[index], count):
                    yield Copy(base, place, length)
            offset += count
        position[stream] = index


def _merged(steps: Iterable[Instruction]) -> Iterator[Instruction]:
    last: Instruction | None = None
    for step in steps:
        joined = None if last is None else _joined(last, step)
        if joined is None and last is not None:
            yield last
        last = step if joined is None else joined
    if last is not None:
        yield last


def _joined(first: Instruction, second: Instruction) -> Instruction | None:
    """Both as one, if they can be."""
    if isinstance(first, Copy) and isinstance(second, Copy):
        follows = first.base == second.base and first.offset + first.size == second.offset
        return first._replace(size=first.size + second.size) if follows else None
    if isinstance(first, Take) and isinstance(second, Take):
        fits = first.stream == second.stream and first.size + second.size <= _TAKE_SIZE_MAX
        return first._replace(size=first.size + second.size) if fits else None
    return None
