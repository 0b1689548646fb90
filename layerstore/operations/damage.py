"""Finding damaged frames, and marking what they lost, so that a push or `repair` can bring it back."""

from array import array
from contextlib import suppress
from dataclasses import dataclass

from layerstore.errors import ContentDamagedError, IndexDamagedError, LayerstoreError
from layerstore.operations.heal import replace_frame, search_ids
from layerstore.storage.frames import (
    EncodedFrame,
    FrameDamagedError,
    Positions,
    chunk_id,
    decode_body,
    encode_frame,
    read_frame_meta,
)
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import RecordKind
from layerstore.storage.records import FrameRecord, FrameState, Place


@dataclass(frozen=True, slots=True)
class FrameCheck:
    """What reading a frame from disk has shown."""

    number: int
    record: FrameRecord
    ids: list[bytes] | None
    """The ChunkIDs of its positions, or None if its head is damaged."""
    bad: frozenset[int]
    """Positions that should be present and cannot be read."""
    reason: str
    size_read: int

    @property
    def is_good(self) -> bool:
        """Whether everything is as it was stored."""
        return not self.bad and not self.reason


def check_frame(store: OpenedStore, number: int) -> FrameCheck | None:
    """Read a frame from disk and compare every chunk with its ChunkID. None if the frame is gone by now."""
    record = _record(store, number)
    while record is not None:
        check = _check(store, number, record)
        again = _record(store, number)
        if check is not None and (check.is_good or again == record):
            return check
        record = again  # collection moved the frame while we looked
    return None


def _record(store: OpenedStore, number: int) -> FrameRecord | None:
    with store.index.read() as transaction:
        return transaction.frames.get(number)


def _check(store: OpenedStore, number: int, record: FrameRecord) -> FrameCheck | None:
    try:
        frame = store.frames.read(number, cached=False)
        reason = ""
    except FrameDamagedError as error:
        frame, reason = None, error.reason
    except IndexDamagedError:
        if _record(store, number) is None:
            return None
        raise
    try:
        meta = read_frame_meta(store.packs, number, record)
    except ContentDamagedError as error:
        present = _present(record)
        return FrameCheck(number, record, None, present if frame is None else frozenset(), reason or str(error), 0)
    if frame is not None:
        try:
            store.packs.check_record(record.place)
        except ContentDamagedError as error:
            reason = str(error)  # whoever rebuilds the index would not take it, though it can still be decoded
    content = frame.content if frame is not None else _salvage(store, record)
    bad = _bad_positions(record, meta.ids, content)
    return FrameCheck(number, record, meta.ids, bad, reason, record.place.size)


def _present(record: FrameRecord) -> frozenset[int]:
    return frozenset(i for i, state in enumerate(record.states) if state == FrameState.PRESENT)


def _salvage(store: OpenedStore, record: FrameRecord) -> bytes:
    """What can still be decoded of a damaged frame; its chunks are checked one by one."""
    head_size = 32 + 32 + 37 * len(record.lengths)
    place = record.place
    try:
        body = store.packs.read(place.pack, place.offset + head_size, place.size - head_size)
        return decode_body(record.codec, body, record.content_size)
    except ContentDamagedError:
        return b""


def _bad_positions(record: FrameRecord, ids: list[bytes], content: bytes) -> frozenset[int]:
    view = memoryview(content)
    bad = set()
    start = 0
    for position, (length, state) in enumerate(zip(record.lengths, record.states, strict=True)):
        if state != FrameState.PRESENT:
            continue
        if chunk_id(view[start : start + length]) != ids[position]:
            bad.add(position)
        start += length
    return frozenset(bad)


def mark_lost(store: OpenedStore, check: FrameCheck) -> int:
    """Write a damaged frame anew with what is still good; the other positions become lost. How many did."""
    if check.is_good:
        return 0
    ids = check.ids or search_ids(store, check.number, len(check.record.lengths))
    content = memoryview(_salvage(store, check.record))
    states = bytearray(check.record.states)
    present: list[bytes | memoryview] = []
    start = 0
    for position, (length, state) in enumerate(zip(check.record.lengths, check.record.states, strict=True)):
        if state != FrameState.PRESENT:
            continue
        if position in check.bad:
            states[position] = FrameState.LOST
        else:
            present.append(content[start : start + length])
        start += length
    positions = Positions(array("I", check.record.lengths), bytes(states))
    frame = encode_frame(present, ids, store.config.compression_level, positions)
    with store.pack_writer() as writer:
        place = writer.append(RecordKind.FRAME, frame.codec, check.number, frame.meta, frame.body)
        writer.sync()

        def change(transaction: Transaction) -> int | None:
            lost = _switch(transaction, check, frame, place)
            if lost is not None:
                writer.commit(transaction)
            return lost

        lost = store.index.write(change)
        if lost is not None:
            writer.committed_now()
    store.frames.forget(check.number)
    return lost or 0


def _switch(transaction: Transaction, check: FrameCheck, frame: EncodedFrame, place: Place) -> int | None:
    if transaction.frames.get(check.number) != check.record:
        return None  # moved, healed or collected meanwhile
    replace_frame(transaction, check.number, check.record, frame, place)
    for position in check.bad:
        transaction.lost.put(frame.ids[position], (check.number, position))
        # A chunk row that could not be read back is made whole again on the way.
        if frame.ids[position] not in transaction.chunks:
            transaction.chunks.put(frame.ids[position], (check.number, position))
    return len(check.bad)


def note_damage(store: OpenedStore, number: int) -> None:
    """Mark what a frame has lost, after a read of it failed; a store that can only be read stays as it is."""
    if store.read_only:
        return
    with suppress(LayerstoreError):  # the failed read is what the caller is to hear of
        check = check_frame(store, number)
        if check is not None:
            mark_lost(store, check)
