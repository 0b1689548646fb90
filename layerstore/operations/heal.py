"""Bringing lost chunks back in place: the frame is written anew, under its number, with what is known again."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from layerstore.errors import ContentDamagedError
from layerstore.operations.counting import mark_dead
from layerstore.storage.frames import EncodedFrame, Positions, encode_frame, read_frame_meta
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PackWriter, RecordKind
from layerstore.storage.records import CountsRecord, FrameRecord, FrameState, Place


@dataclass(frozen=True, slots=True)
class _Healed:
    number: int
    before: FrameRecord
    frame: EncodedFrame
    place: Place
    newly_lost: list[int]
    """Positions that were present, and turned out to be damaged as well."""


def heal_chunks(store: OpenedStore, writer: PackWriter, chunks: Mapping[bytes, bytes | memoryview]) -> int:
    """Store the bytes of lost chunks again where their recipes look for them; how many were healed.

    ``chunks`` maps ChunkIDs to verified bytes; those that are not lost (any more) are left out. The writer must have
    nothing uncommitted.
    """
    with store.index.read() as transaction:
        lost: dict[int, dict[int, bytes]] = {}
        for identity in chunks:
            where = transaction.lost.get(identity)
            if where is not None:
                lost.setdefault(where[0], {})[where[1]] = identity
        records = {number: transaction.frames[number] for number in lost}
    healed = [_rewrite(store, writer, number, records[number], positions, chunks) for number, positions in lost.items()]
    writer.sync()

    def change(transaction: Transaction) -> int:
        done = 0
        for one in healed:
            if transaction.frames.get(one.number) != one.before:
                mark_dead(transaction, writer.number, one.place.size)
                continue
            replace_frame(transaction, one.number, one.before, one.frame, one.place)
            for position, identity in lost[one.number].items():
                done += one.frame.states[position] == FrameState.PRESENT and transaction.lost.delete(identity)
            for position in one.newly_lost:
                transaction.lost.put(one.frame.ids[position], (one.number, position))
        writer.commit(transaction)
        return done

    done = store.index.write(change)
    writer.committed_now()
    for one in healed:
        store.frames.forget(one.number)
    return done


def replace_frame(
    transaction: Transaction, number: int, before: FrameRecord, frame: EncodedFrame, place: Place
) -> None:
    """Let a frame's number stand for its newly written form; the old place is dead."""
    counts = transaction.counts[number]
    mark_dead(transaction, before.place.pack, before.place.size - counts.dead_bytes)
    transaction.frames.put(number, frame.record(place))
    transaction.counts.put(number, CountsRecord(0, counts.counts))
    transaction.touched_frames.put(number, None)


def _rewrite(
    store: OpenedStore,
    writer: PackWriter,
    number: int,
    record: FrameRecord,
    healing: dict[int, bytes],
    chunks: Mapping[bytes, bytes | memoryview],
) -> _Healed:
    ids = _known_ids(store, number, record)
    try:
        old = store.frames.read(number, cached=False)
    except ContentDamagedError:
        old = None
    states = bytearray(record.states)
    present: list[bytes | memoryview] = []
    newly_lost = []
    for position, state in enumerate(record.states):
        if position in healing:
            states[position] = FrameState.PRESENT
            present.append(chunks[healing[position]])
        elif state == FrameState.PRESENT and old is not None:
            present.append(old.run(position, 1))
        elif state == FrameState.PRESENT:
            states[position] = FrameState.LOST
            newly_lost.append(position)
    positions = Positions(array("I", record.lengths), bytes(states))
    frame = encode_frame(present, ids, store.config.compression_level, positions)
    place = writer.append(RecordKind.FRAME, frame.codec, number, frame.meta, frame.body)
    return _Healed(number, record, frame, place, newly_lost)


def _known_ids(store: OpenedStore, number: int, record: FrameRecord) -> list[bytes]:
    """The ChunkIDs of all positions: from the pack or, where its head is damaged, the long way round."""
    try:
        return read_frame_meta(store.packs, number, record).ids
    except ContentDamagedError:
        return search_ids(store, number, len(record.lengths))


def search_ids(store: OpenedStore, number: int, positions: int) -> list[bytes]:
    """The ChunkIDs of a frame from the chunk table: this reads all of it. Holes get zeros."""
    ids = [bytes(32)] * positions
    with store.index.read() as transaction:
        for identity, (frame, position) in transaction.chunks.items():
            if frame == number and position < positions:
                ids[position] = identity
    return ids
