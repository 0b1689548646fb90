"""An upload: a layer on its way in, committed batch by batch, seen by nobody until the last one publishes it."""

import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from layerstore.chunking import Chunker
from layerstore.digest import Digest
from layerstore.errors import ConflictError, LeaseEndedError
from layerstore.operations.batch import Batch
from layerstore.operations.counting import add_references
from layerstore.operations.heal import heal_chunks
from layerstore.operations.keeping import drop_upload
from layerstore.storage.frames import EncodedFrame, encode_frame
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PackWriter, RecordKind
from layerstore.storage.recipe import Ref, Segment, encode_segment
from layerstore.storage.records import (
    NO_PLACE,
    UNTIL_RELEASED,
    CountsRecord,
    FrameRecord,
    LayerRecord,
    SegmentRecord,
)

_FRAME_CHUNKS_MAX = 8192


@dataclass(frozen=True, slots=True)
class Holder:
    """Who keeps a pushed layer: a session, until it is released, or a dated lease."""

    name: bytes
    is_lease: bool


@dataclass(slots=True)
class UploadTotals:
    """What an upload has come to so far."""

    bytes_new: int = 0
    """Uncompressed bytes of chunks that the store did not have."""
    bytes_stored: int = 0
    """Bytes that were added to packs."""
    chunks_new: int = 0
    chunks_reused: int = 0


class _StaleError(Exception):
    """What the batch relied on changed before the writer lock was ours."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame that is in the pack. Its body is not kept: a batch has up to 32 MiB of them."""

    number: int
    ids: list[bytes]
    record: FrameRecord


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A batch that is in the pack, ready for its transaction."""

    looked_up_at: int
    """Number of the last transaction that the look-up saw."""
    known: dict[bytes, Ref]
    new: dict[bytes, memoryview]
    frames: list[_Frame]
    segment: Segment | None
    segment_record: SegmentRecord | None
    publish_as: Digest | None
    layer: LayerRecord | None


class Upload:
    """Commits the batches of one layer in order. It is used from one thread."""

    def __init__(
        self,
        store: OpenedStore,
        writer: PackWriter,
        pool: ThreadPoolExecutor,
        holder: Holder,
        turn: threading.Lock,
    ) -> None:
        """``turn`` is held while Python code runs on the index: every call into LMDB lets go of the interpreter, and
        would get it back from a busy thread only after milliseconds."""
        self._store = store
        self._writer = writer
        self._pool = pool
        self._holder = holder
        self._turn = turn
        self._chunker = Chunker()
        self._session = store.session.name
        self._number = store.take_numbers("next_layer", 1)
        self._offset = 0
        self._skeleton_size = 0
        self._references = 0
        self._has_committed = False
        self.totals = UploadTotals()

    def commit(self, batch: Batch) -> None:
        """Make a batch durable, still invisible."""
        batch.seal(self._chunker)
        self._commit(batch, None)

    def publish(self, batch: Batch, diff_id: Digest) -> bool:
        """Commit the last batch and make the layer visible. False if the store has this layer already, held then."""
        batch.seal(self._chunker)
        return self._commit(batch, diff_id)

    def abandon(self) -> int | None:
        """Give up what was committed. The number of the recipe that is to be drained now, if there is one."""
        if not self._has_committed:
            return None
        self._has_committed = False
        self._writer.rewind()
        # False: it was published after all, just before a signal came, or collection was faster.
        is_dropped = self._store.index.write(partial(drop_upload, number=self._number))
        return self._number if is_dropped else None

    def _commit(self, batch: Batch, publish_as: Digest | None) -> bool:
        while True:
            refs, new, looked_up_at = self._look_up_and_heal(batch)
            if publish_as is not None and self._hold_existing(publish_as):
                return False
            prepared = self._prepare(batch, publish_as, refs, new, looked_up_at)
            self._writer.sync()
            try:
                self._write(batch, prepared)
                break
            except _StaleError:
                self._writer.rewind()
        self._count(batch, prepared)
        return True

    def _look_up_and_heal(self, batch: Batch) -> tuple[dict[bytes, Ref], dict[bytes, memoryview], int]:
        while True:
            with self._turn:
                refs, new, lost, looked_up_at = self._look_up(batch)
            if not lost:
                return refs, new, looked_up_at
            heal_chunks(self._store, self._writer, lost)

    def _prepare(
        self,
        batch: Batch,
        publish_as: Digest | None,
        refs: dict[bytes, Ref],
        new: dict[bytes, memoryview],
        looked_up_at: int,
    ) -> "_Prepared":
        """Append all that the batch needs to the pack."""
        known = dict(refs)
        frames = []
        for number, frame in self._encode(new):
            place = self._writer.append(RecordKind.FRAME, frame.codec, number, frame.meta, frame.body)
            frames.append(_Frame(number, frame.ids, frame.record(place)))
            for position, identity in enumerate(frame.ids):
                refs[identity] = Ref(number, position)
        segment = record = layer = None
        if batch.size:
            segment = batch.segment(refs)
            data = encode_segment(segment)
            meta = self._offset.to_bytes(8, "big")
            record = SegmentRecord(self._writer.append(RecordKind.SEGMENT, 0, self._number, meta, data), data)
        if publish_as is not None:
            layer = self._append_layer(batch, publish_as)
        return _Prepared(looked_up_at, known, new, frames, segment, record, publish_as, layer)

    def _write(self, batch: Batch, prepared: "_Prepared") -> None:
        """Run the transaction: with the turn until all is put, without it while the commit waits for the disk."""
        has_turn = self._turn.acquire()

        def change(transaction: Transaction) -> None:
            nonlocal has_turn
            self._apply(transaction, batch, prepared)
            if has_turn:
                has_turn = False
                self._turn.release()

        try:
            self._store.index.write(change)
        finally:
            if has_turn:
                self._turn.release()

    def _apply(self, transaction: Transaction, batch: Batch, prepared: "_Prepared") -> None:
        """Commit what was prepared. Raises `_StaleError` if it does not fit any more."""
        if prepared.publish_as is not None and prepared.publish_as in transaction.layers:
            raise _StaleError
        if self._offset and self._number not in transaction.uploads:
            raise ConflictError("this upload was collected, as if its process were dead; push again")
        _recheck(transaction, prepared)
        _put_frames(transaction, prepared, batch)
        if prepared.segment is not None and prepared.segment_record is not None:
            own = {one.number for one in prepared.frames}
            add_references(transaction, [run for run in prepared.segment.runs if run.frame not in own], 1)
            transaction.recipes.put((self._number, self._offset), prepared.segment_record)
        self._writer.commit(transaction)
        if prepared.publish_as is None or prepared.layer is None:
            transaction.uploads.put(self._number, self._session)
            return
        transaction.layers.put(prepared.publish_as, prepared.layer)
        transaction.uploads.delete(self._number)
        hold_layer(transaction, prepared.publish_as, self._number, self._holder)

    def _count(self, batch: Batch, prepared: "_Prepared") -> None:
        self._has_committed = True
        self._writer.committed_now()
        self.totals.bytes_stored = self._writer.appended
        self.totals.bytes_new += sum(map(len, prepared.new.values()))
        self.totals.chunks_new += len(prepared.new)
        self.totals.chunks_reused += batch.references - len(prepared.new)
        self._offset += batch.size
        self._skeleton_size += batch.skeleton_size
        self._references += batch.references

    def _look_up(self, batch: Batch) -> tuple[dict[bytes, Ref], dict[bytes, memoryview], dict[bytes, memoryview], int]:
        """Where each chunk is that is here; the bytes of new and of lost ones; which state of the index says so."""
        refs: dict[bytes, Ref] = {}
        new: dict[bytes, memoryview] = {}
        lost: dict[bytes, memoryview] = {}
        with self._store.index.read() as transaction:
            looked_up_at = transaction.number
            any_lost = len(transaction.lost) > 0
            get = transaction.chunks.get
            for identity, data in batch.chunks.items():
                place = get(identity)
                if place is None:
                    new[identity] = data
                    continue
                refs[identity] = Ref(*place)
                if any_lost and identity in transaction.lost:
                    lost[identity] = data
        return refs, new, lost, looked_up_at

    def _encode(self, new: dict[bytes, memoryview]) -> Iterator[tuple[int, EncodedFrame]]:
        groups = list(_group(new, self._store.config.frame_size))
        if not groups:
            return
        level = self._store.push_level
        first = self._store.take_numbers("next_frame", len(groups))
        frames = self._pool.map(lambda ids: encode_frame([new[one] for one in ids], ids, level), groups)
        yield from enumerate(frames, first)

    def _append_layer(self, batch: Batch, diff_id: Digest) -> LayerRecord:
        size = self._offset + batch.size
        skeleton_size = self._skeleton_size + batch.skeleton_size
        references = self._references + batch.references
        created = time.time_ns()
        record = LayerRecord(self._number, NO_PLACE, size, skeleton_size, references, created)
        # The place inside is zero, as it is what the record is about to get.
        place = self._writer.append(RecordKind.LAYER, 0, self._number, diff_id.pack(), record.encode())
        return LayerRecord(self._number, place, size, skeleton_size, references, created)

    def _hold_existing(self, diff_id: Digest) -> bool:
        """Hold a layer that is there, in the transaction that finds it: later it might be collected before it is."""

        def change(transaction: Transaction) -> bool:
            record = transaction.layers.get(diff_id)
            if record is not None:
                hold_layer(transaction, diff_id, record.number, self._holder)
            return record is not None

        with self._store.index.read() as transaction:
            if diff_id not in transaction.layers:
                return False
        return self._store.index.write(change)


def _recheck(transaction: Transaction, prepared: _Prepared) -> None:
    """Under the writer lock: is everything still as it was looked up?"""
    if transaction.number == prepared.looked_up_at + 1:
        return  # nobody has committed anything in between
    any_lost = len(transaction.lost) > 0
    for identity, ref in prepared.known.items():
        if transaction.chunks.get(identity) != ref or (any_lost and identity in transaction.lost):
            raise _StaleError
    for identity in prepared.new:
        if identity in transaction.chunks:
            raise _StaleError


def _put_frames(transaction: Transaction, prepared: _Prepared, batch: Batch) -> None:
    if not prepared.frames:
        return
    counts = Counter(batch.payload_ids)
    counts.update(batch.skeleton_ids)
    rows = []
    for frame in prepared.frames:
        transaction.frames.put(frame.number, frame.record)
        frame_counts = array("I", [counts[identity] for identity in frame.ids])
        transaction.counts.put(frame.number, CountsRecord(0, frame_counts))
        rows += [(identity, (frame.number, position)) for position, identity in enumerate(frame.ids)]
    transaction.chunks.put_many(rows)


def hold_layer(transaction: Transaction, diff_id: Digest, number: int, holder: Holder) -> None:
    """Keep a layer for its pusher. Raises `LeaseEndedError` if the lease it was pushed under is over."""
    end = UNTIL_RELEASED
    if holder.is_lease:
        lease = transaction.leases.get(holder.name)
        if lease is None or lease.expires <= time.time_ns():
            raise LeaseEndedError("the lease ended before the push did; push again under a new one")
        end = lease.expires
        transaction.lease_layers.put((holder.name, number), diff_id)
    transaction.holds.put((number, holder.name), end)


def _group(chunks: dict[bytes, memoryview], frame_size: int) -> Iterable[list[bytes]]:
    ids: list[bytes] = []
    size = 0
    for identity, data in chunks.items():
        ids.append(identity)
        size += len(data)
        if size >= frame_size or len(ids) >= _FRAME_CHUNKS_MAX:
            yield ids
            ids, size = [], 0
    if ids:
        yield ids
