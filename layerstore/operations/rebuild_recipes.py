"""Which recipes found in packs are live, and the counts that follow from them: the first half of a rebuild.

A recipe is live if its layer's record is there and the journal does not call it dropped. Recipes without a record are
those of pushes that were given up, except where the record itself was damaged: then hashing what the recipe gives
tells which layer it is.
"""

import time
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from layerstore.digest import Digest, hasher
from layerstore.errors import DamagedError
from layerstore.operations.survey import FrameCopy, Survey
from layerstore.storage.frames import Frame, decode_frame, decode_meta
from layerstore.storage.packs import RECORD_HEAD, PackReader
from layerstore.storage.recipe import Run, Segment, decode_segment
from layerstore.storage.records import NO_PLACE, FrameRecord, FrameState, LayerRecord, Place

_FRAMES_CACHED = 16
_LAYER_RECORD_SIZE = RECORD_HEAD.size + 33 + len(LayerRecord(0, NO_PLACE, 0, 0, 0, 0).encode())
"""Bytes of a layer's record in a pack; its meta is a packed sha256 digest."""


@dataclass(frozen=True, slots=True)
class LayerDamage:
    """A layer that does not come back. Pushing it again does."""

    diff_id: Digest
    reason: str


@dataclass(slots=True)
class Recipes:
    """What the survey's recipes come to."""

    layers: dict[Digest, LayerRecord] = field(default_factory=dict)
    """The live ones. A zero place means that the layer's record must be written again."""
    damaged: list[LayerDamage] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)
    """Recipes of layers that another recipe stands for: they are as good as dropped."""
    counts: "dict[int, array[int]]" = field(default_factory=dict)
    """References to each position, for the frames that have any."""

    @property
    def numbers(self) -> set[int]:
        """The numbers of the live recipes."""
        return {record.number for record in self.layers.values()}


class _UnusableError(Exception):
    """A recipe cannot be used, whatever is pushed."""


class RecipeSorter:
    """Finds the live recipes of a survey."""

    def __init__(self, survey: Survey, packs: PackReader, dropped: set[int]) -> None:
        self._survey = survey
        self._packs = packs
        self._dropped = dropped
        self._cache: OrderedDict[int, Frame] = OrderedDict()

    def sort(self, wanted: set[Digest]) -> Recipes:
        """The live recipes and their counts. ``wanted``: the layers that images need."""
        found = Recipes()
        candidates: dict[Digest, list[LayerRecord]] = {}
        for number, (diff_id, record) in sorted(self._survey.layers.items()):
            if number not in self._dropped:
                candidates.setdefault(diff_id, []).append(record)
        for diff_id, records in candidates.items():
            self._choose(found, diff_id, records)
        if self._survey.damaged:
            self._recover(found, wanted)
        for record in found.layers.values():
            self._count(found.counts, record.number)
        found.damaged = [damage for damage in found.damaged if damage.diff_id not in found.layers]
        known = found.layers.keys() | {damage.diff_id for damage in found.damaged}
        found.damaged += [LayerDamage(one, "no pack has its record") for one in sorted(wanted - known)]
        return found

    def segments(self, number: int) -> Iterator[tuple[int, Segment]]:
        """Offset and segment, in order, as far as they follow each other. Raises `DamagedError`."""
        places = self._survey.segments.get(number, {})
        offset = 0
        while offset in places:
            segment = decode_segment(read_body(self._packs, places[offset]))
            yield offset, segment
            if segment.size == 0:
                return
            offset += segment.size

    def _choose(self, found: Recipes, diff_id: Digest, records: list[LayerRecord]) -> None:
        """Of several recipes for one layer (a push died over the same content), the one with the least damage."""
        usable: list[tuple[int, int, LayerRecord]] = []
        reason = ""
        for record in records:
            try:
                usable.append((self._damaged_references(record.number, record.size), record.number, record))
            except _UnusableError as error:
                reason = str(error)
        if not usable:
            found.damaged.append(LayerDamage(diff_id, reason))
            return
        _, _, best = min(usable, key=lambda entry: entry[:2])
        found.layers[diff_id] = best
        found.superseded += [number for _, number, _ in usable if number != best.number]

    def _damaged_references(self, number: int, size: int) -> int:
        """How many references meet damage that a push can heal. Raises `_UnusableError`."""
        damaged = end = 0
        try:
            for offset, segment in self.segments(number):
                end = offset + segment.size
                damaged += sum(self._damage_of(run) for run in segment.runs)
        except DamagedError as error:
            raise _UnusableError(str(error)) from None
        if end != size:
            raise _UnusableError(f"its recipe is there for {end} of {size} bytes only")
        return damaged

    def _damage_of(self, run: Run) -> int:
        copies = self._survey.frames.get(run.frame)
        if copies is None:
            raise _UnusableError(f"no pack has frame {run.frame}, which its recipe refers to")
        last = run.first + run.chunks
        if any(copy.is_sound and not copy.states and copy.positions >= last for copy in copies):
            return 0
        damaged = 0
        for position in range(run.first, last):
            states = [(copy.state(position), copy.is_sound) for copy in copies]
            if all(state is FrameState.HOLE for state, _ in states):
                raise _UnusableError("its recipe refers to chunks that a collection has taken away")
            damaged += (FrameState.PRESENT, True) not in states
        return damaged

    def _recover(self, found: Recipes, wanted: set[Digest]) -> None:
        """Give layers whose records are damaged their recipes back."""
        survey = self._survey
        expected = (wanted | set(survey.headless_layers.values())) - found.layers.keys()
        orphans = survey.segments.keys() - survey.layers.keys() - self._dropped
        for number in sorted(orphans):
            followed = self._is_followed_by_damaged_record(number)
            if not (followed or expected):
                continue
            try:
                diff_id, record = self._hash(number)
                usable = self._damaged_references(number, record.size) == 0
            except (DamagedError, _UnusableError):
                continue  # what a push that was given up has left, or too damaged to tell
            if usable and diff_id not in found.layers and (followed or diff_id in expected):
                found.layers[diff_id] = record
        empty = Digest.of(b"")
        for number, diff_id in survey.headless_layers.items():
            if diff_id == empty and diff_id not in found.layers and number not in self._dropped:
                found.layers[diff_id] = LayerRecord(number, NO_PLACE, 0, 0, 0, time.time_ns())
        found.damaged += [
            LayerDamage(diff_id, "its record is damaged and its recipe is not whole")
            for number, diff_id in survey.headless_layers.items()
            if number not in self._dropped and number not in survey.layers
        ]

    def _is_followed_by_damaged_record(self, number: int) -> bool:
        """Whether, behind the last segment, a layer's record was written and is damaged.

        Its size tells it from the torn first frame of a batch that a push died over: then the recipe is not whole.
        """
        places = self._survey.segments[number]
        last = places[max(places)]
        return self._survey.damaged.get((last.pack, last.offset + last.size)) == _LAYER_RECORD_SIZE

    def _hash(self, number: int) -> tuple[Digest, LayerRecord]:
        """The layer that a recipe gives. Raises `DamagedError` if it gives none."""
        state = hasher("sha256")
        size = skeleton_size = references = 0
        for offset, segment in self.segments(number):
            streams = (self._joined(segment.skeleton), self._joined(segment.payload))
            starts = [0, 0]
            for index, length in enumerate(segment.pieces):
                stream = index % 2
                state.update(streams[stream][starts[stream] : starts[stream] + length])
                starts[stream] += length
            size = offset + segment.size
            skeleton_size += starts[0]
            references += segment.references
        record = LayerRecord(number, NO_PLACE, size, skeleton_size, references, time.time_ns())
        return Digest.from_raw("sha256", state.digest()), record

    def _joined(self, runs: list[Run]) -> memoryview:
        return memoryview(b"".join([self._frame(run.frame).run(run.first, run.chunks) for run in runs]))

    def _frame(self, number: int) -> Frame:
        frame = self._cache.get(number)
        if frame is None:
            copies = self._survey.frames.get(number, [])
            copy = max(copies, key=lambda copy: (copy.is_sound, not copy.states, copy.place.pack), default=None)
            if copy is None or not copy.is_sound:
                raise _UnusableError
            head = self._packs.read_head(copy.place)
            meta = decode_meta(head.meta)
            record = FrameRecord(copy.place, head.codec, meta.digest, meta.lengths, meta.states)
            frame = self._cache[number] = decode_frame(record, read_body(self._packs, copy.place))
            if len(self._cache) > _FRAMES_CACHED:
                self._cache.popitem(last=False)
        return frame

    def _count(self, counts: "dict[int, array[int]]", number: int) -> None:
        for _, segment in self.segments(number):
            for frame, first, chunks in segment.runs:
                of_frame = counts.get(frame)
                if of_frame is None:
                    positions = max(copy.positions for copy in self._survey.frames[frame])
                    of_frame = counts[frame] = array("I", bytes(4 * positions))
                for position in range(first, first + chunks):
                    of_frame[position] += 1


def choose_copy(copies: list[FrameCopy], counts: "array[int] | None") -> FrameCopy:
    """The copy of a frame that serves best: what recipes refer to is present, and little else.

    A higher pack number alone would not do: a copy that a collection made, and gave up because a chunk came into use
    again, has a hole there.
    """

    def rank(copy: FrameCopy) -> tuple[bool, int, int, int, int]:
        served = 0
        if copy.is_sound and counts is not None:
            served = sum(1 for i, n in enumerate(counts) if n and copy.state(i) is FrameState.PRESENT)
        return (copy.is_sound, served, -copy.place.size, copy.place.pack, copy.place.offset)

    return max(copies, key=rank) if len(copies) > 1 else copies[0]


def read_body(packs: PackReader, place: Place) -> bytes:
    """The body of the record at ``place``."""
    head = packs.read_head(place)
    return packs.read(place.pack, head.body_offset, head.body_size)
