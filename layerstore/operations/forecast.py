"""What would be freed: the counts, recomputed in memory as if images and layers were gone.

It costs time and memory in proportion to what goes, not to the store.
"""

from array import array
from dataclasses import dataclass, field

from layerstore.digest import Digest
from layerstore.operations.images import image_config
from layerstore.operations.keeping import holds_of, images_of
from layerstore.storage.index import Transaction
from layerstore.storage.packs import PACK_HEADER
from layerstore.storage.recipe import decode_segment
from layerstore.storage.records import CountsRecord, FrameRecord, FrameState

LIVE_SHARE_MIN = 0.75
"""A pack with a smaller share of live bytes is rewritten."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What goes away, and the bytes that the file system gets back."""

    chunks: int
    frames: int
    packs: int
    bytes_freed: int
    """Exact: the bytes of packs that go away whole."""
    packs_rewritten: int
    bytes_freed_by_rewriting: int
    """An estimate: packs that are partly live are written anew without what is dead."""


@dataclass(slots=True)
class Forecast:
    """Collects what goes; `freed` says what that frees."""

    transaction: Transaction
    layers: dict[Digest, int] = field(default_factory=dict)
    """Layers that go, with their numbers."""
    _images: set[Digest] = field(default_factory=set)
    _counts: "dict[int, array[int]]" = field(default_factory=dict)
    _dead: dict[int, int] = field(default_factory=dict)
    _recipes: set[int] = field(default_factory=set)

    def drop_image(self, digest: Digest) -> None:
        """As if the image, which may be in the trash, were gone for good."""
        if digest in self._images:
            return
        self._images.add(digest)
        transaction = self.transaction
        image = transaction.images.get(digest) or transaction.trash[digest].image
        for blob in (digest, image.config):
            record = transaction.blobs[blob]
            if record.count == 1 or self._all_users_go(blob):
                self._add_dead(record.place.pack, record.place.size)
        for diff_id in dict.fromkeys(image_config(transaction, digest).diff_ids):
            self.drop_layer_if_loose(diff_id)

    def drop_layer_if_loose(self, diff_id: Digest) -> None:
        """As if the layer were gone, unless something keeps it."""
        record = self.transaction.layers.get(diff_id)
        if record is None or diff_id in self.layers:
            return
        kept_by = set(images_of(self.transaction, record.number)) - self._images
        if kept_by or holds_of(self.transaction, record.number):
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
        """How many stored bytes are dead that were live before."""
        return sum(self._dead_by_pack().values())

    def freed(self) -> Freed:
        """What collection would free now."""
        packs = bytes_freed = rewritten = estimate = 0
        chunks = sum(counts.count(0) for counts in self._counts.values())
        frames = sum(not any(counts) for counts in self._counts.values())
        for number, more in self._dead_by_pack().items():
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
        return Freed(chunks, frames, packs, bytes_freed, rewritten, estimate)

    def _dead_by_pack(self) -> dict[int, int]:
        dead = dict(self._dead)
        for number, counts in self._counts.items():
            record = self.transaction.frames[number]
            more = dead_bytes(record, counts) - self.transaction.counts[number].dead_bytes
            dead[record.place.pack] = dead.get(record.place.pack, 0) + more
        return dead

    def _all_users_go(self, blob: Digest) -> bool:
        users = self.transaction.blobs[blob].count
        going = 0
        for digest in self._images:
            image = self.transaction.images.get(digest) or self.transaction.trash[digest].image
            going += blob in (digest, image.config)
        return going >= users

    def _counts_of(self, frame: int) -> "array[int]":
        counts = self._counts.get(frame)
        if counts is None:
            counts = self._counts[frame] = array("q", self.transaction.counts[frame].counts)
        return counts

    def _add_dead(self, pack: int, size: int) -> None:
        self._dead[pack] = self._dead.get(pack, 0) + size


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
