"""What would be freed: the counts, recomputed in memory as if images and layers were gone.

It costs time and memory in proportion to what goes, not to the store.
"""

from array import array
from dataclasses import dataclass, field

from layerstore.digest import Digest
from layerstore.operations.closure import kept_by, stored_closure
from layerstore.operations.keeping import encodings_of, holds_of
from layerstore.storage.index import Transaction
from layerstore.storage.packs import PACK_HEADER
from layerstore.storage.recipe import decode_segment
from layerstore.storage.records import CountsRecord, EncodingState, FrameRecord, FrameState

LIVE_SHARE_MIN = 0.75
"""A pack with a smaller share of live bytes is rewritten."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What goes away, and the bytes that the file system gets back."""

    chunks: int
    frames: int
    packs: int
    bytes_freed: int
    """Exact: the bytes of packs that go away whole, and of raw encodings."""
    packs_rewritten: int
    bytes_freed_by_rewriting: int
    """An estimate: packs that are partly live are written anew without what is dead."""
    raw_bytes: int = 0
    """Those of `bytes_freed` that raw encodings have."""


@dataclass(slots=True)
class Forecast:
    """Collects what goes; `freed` says what that frees."""

    transaction: Transaction
    layers: dict[Digest, int] = field(default_factory=dict)
    """Layers that go, with their numbers."""
    encodings: dict[Digest, int] = field(default_factory=dict)
    """Encodings that go, with the bytes of those that are kept raw."""
    ended_leases: frozenset[bytes] = frozenset()
    """Leases without end that hold nothing any more: what had them is gone."""
    _images: set[Digest] = field(default_factory=set)
    _blob_users: dict[Digest, int] = field(default_factory=dict)
    _witness: dict[int, Digest | None] = field(default_factory=dict)
    """Of each layer that was looked at, the first image that keeps it; all images before it are gone."""
    _counts: "dict[int, array[int]]" = field(default_factory=dict)
    _changed: set[int] = field(default_factory=set)
    """Frames whose counts changed since their dead bytes were taken."""
    _frame_dead: dict[int, int] = field(default_factory=dict)
    _dead: dict[int, int] = field(default_factory=dict)
    _dead_total: int = 0
    _recipes: set[int] = field(default_factory=set)

    def drop_image(self, digest: Digest) -> None:
        """As if the image, which may be in the trash, were gone for good."""
        if digest in self._images:
            return
        self._images.add(digest)
        transaction = self.transaction
        closure = stored_closure(transaction, digest)
        for blob in closure.documents:
            record = transaction.blobs[blob]
            users = self._blob_users[blob] = self._blob_users.get(blob, record.count) - 1
            if users == 0:
                self._add_dead(record.place.pack, record.place.size)
        for one in kept_by(transaction, closure).values():
            self.drop_if_loose(one)

    def drop_if_loose(self, digest: Digest) -> None:
        """As if the layer and the encoding of that digest were gone, unless something keeps them."""
        self._drop_encoding_if_loose(digest)
        self._drop_layer_if_loose(digest)

    def _drop_encoding_if_loose(self, digest: Digest) -> None:
        record = self.transaction.encodings.get(digest)
        if record is None or digest in self.encodings or self._is_used(record.number):
            return
        self.encodings[digest] = record.size if record.state is EncodingState.RAW else 0
        self._add_dead(record.place.pack, record.place.size)
        self._drop_layer_if_loose(record.diff_id)

    def _drop_layer_if_loose(self, diff_id: Digest) -> None:
        record = self.transaction.layers.get(diff_id)
        if record is None or diff_id in self.layers or self._is_used(record.number):
            return
        if not self.encodings.keys() >= set(encodings_of(self.transaction, record.number)):
            return
        self.layers[diff_id] = record.number
        self._add_dead(record.place.pack, record.place.size)
        self.drop_recipe(record.number)

    def drop_recipe(self, number: int) -> None:
        """As if a recipe had been drained."""
        if number in self._recipes:
            return
        self._recipes.add(number)
        for key, record in self.transaction.recipes.items((number, 0)):
            if key[0] != number:
                break
            self._add_dead(record.place.pack, record.place.size)
            for frame, first, count in decode_segment(record.data).runs:
                counts = self._counts_of(frame)
                self._changed.add(frame)
                for position in range(first, first + count):
                    counts[position] -= 1

    def touch_frame(self, number: int) -> None:
        """Take the frame's counts as they are."""
        if number in self.transaction.counts:
            self._counts_of(number)

    def touch_pack(self, number: int) -> None:
        """Take the pack's dead bytes as they are."""
        self._add_dead(number, 0)

    def dead_bytes_added(self) -> int:
        """How many stored bytes are dead that were live before, those of raw encodings among them."""
        self._take_dead_bytes()
        return self._dead_total + sum(self.encodings.values())

    def freed(self) -> Freed:
        """What collection would free now."""
        packs = bytes_freed = rewritten = estimate = 0
        chunks = sum(counts.count(0) for counts in self._counts.values())
        frames = sum(not any(counts) for counts in self._counts.values())
        self._take_dead_bytes()
        for number, more in self._dead.items():
            pack = self.transaction.packs.get(number)
            if pack is None:
                continue
            pack = pack.with_dead(more)
            if pack.dead_bytes >= pack.size - PACK_HEADER.size:
                packs += 1
                bytes_freed += pack.size
            elif is_thin(pack.size, pack.dead_bytes):
                rewritten += 1
                estimate += pack.dead_bytes
        raw = sum(self.encodings.values())
        return Freed(chunks, frames, packs, bytes_freed + raw, rewritten, estimate, raw)

    def _take_dead_bytes(self) -> None:
        for number in self._changed:
            record = self.transaction.frames[number]
            dead = dead_bytes(record, self._counts[number]) - self.transaction.counts[number].dead_bytes
            self._add_dead(record.place.pack, dead - self._frame_dead.get(number, 0))
            self._frame_dead[number] = dead
        self._changed.clear()

    def _is_used(self, number: int) -> bool:
        return self._is_in_an_image(number) or bool(holds_of(self.transaction, number).keys() - self.ended_leases)

    def _is_in_an_image(self, number: int) -> bool:
        """Whether an image that stays has the layer. A base of many images is not searched anew for each of them."""
        rows = self.transaction.layer_images
        if number not in self._witness:
            first = next(rows.items_with_prefix(number.to_bytes(8, "big")), None)
            self._witness[number] = first[0][1] if first is not None else None
        witness = self._witness[number]
        if witness is None or witness not in self._images:
            return witness is not None
        found = None
        for (owner, image), _ in rows.items((number, witness)):
            if owner != number:
                break
            if image not in self._images:
                found = image
                break
        self._witness[number] = found
        return found is not None

    def _counts_of(self, frame: int) -> "array[int]":
        counts = self._counts.get(frame)
        if counts is None:
            counts = self._counts[frame] = array("q", self.transaction.counts[frame].counts)
            self._changed.add(frame)
        return counts

    def _add_dead(self, pack: int, size: int) -> None:
        self._dead[pack] = self._dead.get(pack, 0) + size
        self._dead_total += size


def dead_bytes(record: FrameRecord, counts: "array[int]") -> int:
    """The stored bytes of a frame that nothing needs: all, or the dead share of its contents."""
    if not any(counts):
        return record.place.size
    states = record.states
    dead = total = 0
    for length, state, count in zip(record.lengths, states, counts, strict=True):
        if state == FrameState.PRESENT:
            total += length
            dead += 0 if count else length
    return record.place.size * dead // total if total else 0


def is_thin(size: int, dead: int) -> bool:
    """Whether a pack of ``size`` bytes should be rewritten."""
    return dead > (1 - LIVE_SHARE_MIN) * size


def updated_counts(record: FrameRecord, counts: CountsRecord) -> tuple[CountsRecord, int]:
    """The counts record with its dead bytes brought up to date, and by how much they grew."""
    dead = dead_bytes(record, counts.counts)
    return CountsRecord(dead, counts.counts), dead - counts.dead_bytes
