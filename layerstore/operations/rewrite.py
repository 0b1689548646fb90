"""The lower half of collection: dead frames go, dead packs are unlinked, thin packs are written anew."""

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from layerstore.digest import Digest
from layerstore.errors import ContentDamagedError
from layerstore.operations.counting import mark_dead
from layerstore.operations.dead_frames import forget_chunk, remove_some_dead_frames
from layerstore.operations.forecast import dead_bytes, is_thin
from layerstore.operations.relocate import copy_record, switch_record
from layerstore.storage.frames import (
    EncodedFrame,
    FrameMeta,
    Positions,
    decode_meta,
    encode_frame,
)
from layerstore.storage.index import Transaction
from layerstore.storage.layout import translate_os_errors
from layerstore.storage.leases import LiveLeases
from layerstore.storage.locks import FileLock
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PACK_HEADER, PackRecordHead, PackScan, PackWriter, RecordKind
from layerstore.storage.records import CountsRecord, FrameRecord, FrameState, PackRecord, Place

_BYTES_PER_BATCH = 16 << 20
_RECORDS_PER_BATCH = 100
"""However small they are: to switch one takes a tenth of a millisecond under the writer lock."""
_DEAD_SHARE_MIN = 0.1
"""A frame whose dead share is smaller is copied as it is: compressing it again would cost more than it gives."""


@dataclass(slots=True)
class _MovedFrame:
    number: int
    before: FrameRecord
    after: FrameRecord
    holes: list[tuple[int, bytes]]
    """Positions that became holes, with their ChunkIDs."""


@dataclass(slots=True)
class _MovedRecord:
    head: PackRecordHead
    place: Place


class PackCollector:
    """Removes dead frames and packs, and counts what that gave back."""

    def __init__(self, store: OpenedStore) -> None:
        self._store = store
        self.frames = 0
        self.packs = 0
        self.bytes_freed = 0
        self.packs_rewritten = 0
        self.bytes_freed_by_rewriting = 0
        self.postponed = 0

    def remove_orphans(self) -> None:
        """Unlink packs that an interrupted collection left, and files that a push died over before the index knew.

        Cut off what such a push appended to packs that have room.
        """
        if LiveLeases.look(self._store.layout.leases).everything:
            return
        layout = self._store.layout
        with self._store.index.read() as transaction:
            dead = dict(transaction.dead_packs.items())
            known = set(transaction.packs) | dead.keys()
        for number, size in dead.items():
            self._unlink(number)
            self.packs += 1
            self.bytes_freed += size
        with translate_os_errors(f"cannot read {layout.packs}"):
            paths = list(layout.packs.iterdir())
        for path in paths:
            pack = layout.pack_number(path)
            if pack is None or pack in known:
                continue
            lock = FileLock.acquire(path, blocking=False, create=False)
            if lock is None:
                continue
            with self._store.index.read() as transaction:
                registered = pack in transaction.packs
            if not registered:
                path.unlink(missing_ok=True)
            lock.release()
        PackWriter(layout, self._store.index, self._store.config).cut_tails()

    def drop_blob(self, transaction: Transaction, digest: Digest) -> None:
        """One image less uses a blob."""
        record = transaction.blobs[digest]
        if record.count > 1:
            transaction.blobs.put(digest, replace(record, count=record.count - 1))
            return
        transaction.blobs.delete(digest)
        mark_dead(transaction, record.place.pack, record.place.size)

    def remove_dead_frames(self, tell: Callable[[], None]) -> None:
        """Work off the list of frames whose counts reached or left zero."""
        while True:
            looked_at, removed = remove_some_dead_frames(self._store)
            self.frames += removed
            if not looked_at:
                return
            tell()

    def remove_packs(self, tell: Callable[[], None]) -> None:
        """Unlink packs that are dead and rewrite thin ones, among those whose dead bytes grew."""
        with self._store.index.read() as transaction:
            # Dead packs first: one that is open would otherwise be given what is copied out of a thin one.
            touched = sorted(transaction.touched_packs, key=lambda number: not _is_dead(transaction.packs.get(number)))
        if LiveLeases.look(self._store.layout.leases).everything:
            self.postponed += len(touched)  # a backup copies packs just now
            return
        with self._store.pack_writer() as writer:
            for number in touched:
                if not self._remove_or_rewrite(number, writer):
                    self.postponed += 1
                tell()

    def _remove_or_rewrite(self, number: int, writer: PackWriter) -> bool:
        with self._store.index.read() as transaction:
            record = transaction.packs.get(number)
        if record is not None and is_thin(record.size, record.dead_bytes):
            if writer.number == number:
                writer.close()  # it appends to this very pack, and will find another
            lock = FileLock.acquire(self._store.layout.pack(number), blocking=False, create=False)
            if lock is None:
                return not self._store.layout.pack(number).exists()
            try:
                if _is_dead(record):
                    self._remove(number, rewritten_bytes=None)
                    return True
                written = self._rewrite(number, record.size, lock, writer)
                return self._remove(number, rewritten_bytes=written)
            finally:
                lock.release()

        def settle(transaction: Transaction) -> None:
            transaction.touched_packs.delete(number)

        self._store.index.write(settle)
        return True

    def _remove(self, number: int, rewritten_bytes: int | None) -> bool:
        """Forget a pack and unlink it, if really nothing in it is needed."""

        def change(transaction: Transaction) -> int | None:
            record = transaction.packs.get(number)
            if record is None or not _is_dead(record):
                return None
            forget_pack(transaction, number, record.size)
            return record.size

        size = self._store.index.write(change)
        if size is None:
            return False
        self._unlink(number)
        if rewritten_bytes is None:
            self.packs += 1
            self.bytes_freed += size
        else:
            self.packs_rewritten += 1
            self.bytes_freed_by_rewriting += size - rewritten_bytes
        return True

    def _unlink(self, number: int) -> None:
        # Readers that still have the file open go on reading it; others look the frame up again.
        with translate_os_errors(f"cannot remove pack {number}"):
            self._store.layout.pack(number).unlink(missing_ok=True)
        self._store.packs.forget(number)
        self._store.index.write(lambda transaction: transaction.dead_packs.delete(number))

    def _rewrite(self, number: int, size: int, lock: FileLock, writer: PackWriter) -> int:
        """Copy what is live out of a pack; how many bytes that took."""
        before = writer.appended
        for heads in _batches(PackScan.of(lock.descriptor, number, size).records()):
            frames: list[_MovedFrame] = []
            records: list[_MovedRecord] = []
            for head in heads:
                if head.kind is RecordKind.FRAME:
                    moved = self._copy_frame(head, lock, writer)
                    frames += [moved] if moved else []
                else:
                    place = copy_record(self._store, head, writer)
                    records += [_MovedRecord(head, place)] if place else []
            if not frames and not records:
                continue
            writer.sync()

            self._store.index.write(partial(_switch, writer=writer, frames=frames, records=records))
            writer.committed_now()
        return writer.appended - before

    def _copy_frame(self, head: PackRecordHead, lock: FileLock, writer: PackWriter) -> _MovedFrame | None:
        with self._store.index.read() as transaction:
            record = transaction.frames.get(head.number)
            counts = transaction.counts.get(head.number)
        if record is None or counts is None or record.place != head.place:
            return None
        meta = decode_meta(head.meta)
        encoded, holes = self._without_dead(head.number, record, counts, meta)
        if encoded is None:
            body = os.pread(lock.descriptor, head.body_size, head.body_offset)
            encoded = EncodedFrame(meta.ids, record.lengths, record.states, record.codec, record.digest, body)
        place = writer.append(RecordKind.FRAME, encoded.codec, head.number, encoded.meta, encoded.body)
        return _MovedFrame(head.number, record, encoded.record(place), holes)

    def _without_dead(
        self, number: int, record: FrameRecord, counts: CountsRecord, meta: FrameMeta
    ) -> tuple[EncodedFrame | None, list[tuple[int, bytes]]]:
        """The frame without its dead chunks; None where that is not worth it, or the frame is damaged."""
        if dead_bytes(record, counts.counts) < _DEAD_SHARE_MIN * record.place.size:
            return None, []
        try:
            frame = self._store.frames.read(number, cached=False)
        except ContentDamagedError:
            return None, []
        states = bytearray(record.states)
        holes, present = [], []
        for position, count in enumerate(counts.counts):
            if count == 0 and states[position] != FrameState.HOLE:
                states[position] = FrameState.HOLE
                holes.append((position, meta.ids[position]))
            elif states[position] == FrameState.PRESENT:
                present.append(frame.run(position, 1))
        positions = Positions(array("I", record.lengths), bytes(states))
        return encode_frame(present, meta.ids, self._store.config.compression_level, positions), holes


def forget_pack(transaction: Transaction, number: int, size: int) -> None:
    """Take a pack out of the index; its file is unlinked after the transaction, or by the next collection."""
    transaction.packs.delete(number)
    transaction.open_packs.delete(number)
    transaction.touched_packs.delete(number)
    transaction.dead_packs.put(number, size)
    for key in [key for key, _ in transaction.graves.items_with_prefix(number.to_bytes(8, "big"))]:
        transaction.graves.delete(key)


def _is_dead(record: PackRecord | None) -> bool:
    return record is not None and record.dead_bytes >= record.size - PACK_HEADER.size


def _batches(heads: Iterator[PackRecordHead]) -> Iterator[list[PackRecordHead]]:
    batch: list[PackRecordHead] = []
    size = 0
    for head in heads:
        batch.append(head)
        size += head.place.size + len(head.meta) * 100  # the meta stands for positions, which cost time under the lock
        if size >= _BYTES_PER_BATCH or len(batch) >= _RECORDS_PER_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _switch(
    transaction: Transaction, writer: PackWriter, frames: list[_MovedFrame], records: list[_MovedRecord]
) -> None:
    for frame in frames:
        _switch_frame(transaction, frame)
    for record in records:
        switch_record(transaction, record.head, record.place)
    writer.commit(transaction)


def _switch_frame(transaction: Transaction, moved: _MovedFrame) -> None:
    """Let a frame's number stand for its copy, if nothing has changed since it was copied."""
    record = transaction.frames.get(moved.number)
    counts = transaction.counts.get(moved.number)
    revived = counts is not None and any(counts.counts[position] for position, _ in moved.holes)
    if record != moved.before or counts is None or revived:
        mark_dead(transaction, moved.after.place.pack, moved.after.place.size)
        return
    mark_dead(transaction, record.place.pack, record.place.size - counts.dead_bytes)
    dead = dead_bytes(moved.after, counts.counts)
    transaction.frames.put(moved.number, moved.after)
    transaction.counts.put(moved.number, CountsRecord(dead, counts.counts))
    if dead:
        mark_dead(transaction, moved.after.place.pack, dead)
    any_lost = len(transaction.lost) > 0
    for position, identity in moved.holes:
        forget_chunk(transaction, identity, (moved.number, position), any_lost)
