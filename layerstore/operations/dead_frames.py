"""Removing frames that no recipe refers to any more.

Their rows in the chunk table go first, in the order of the table, so that each of its pages is written once, not once
a transaction. A frame whose rows are gone is still whole: should a push refer to it in between, it stays.
"""

from functools import partial

from layerstore.errors import ContentDamagedError
from layerstore.operations.counting import mark_dead
from layerstore.operations.forecast import updated_counts
from layerstore.storage.frames import read_frame_meta
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import FrameRecord

_POSITIONS_MAX = 100_000
"""Positions that are looked at together; each takes about 200 bytes of memory."""
_ROWS_PER_TRANSACTION = 1000
_FRAMES_PER_TRANSACTION = 200

_Row = tuple[bytes, tuple[int, int]]


def remove_some_dead_frames(store: OpenedStore) -> tuple[int, int]:
    """Take a part of the frames whose counts reached or left zero: how many were looked at, how many removed."""
    with store.index.read() as transaction:
        touched, dead = _next_touched(transaction)
    rows = sorted(_rows(store, dead))
    revived: set[int] = set()
    for start in range(0, len(rows), _ROWS_PER_TRANSACTION):
        some = rows[start : start + _ROWS_PER_TRANSACTION]
        revived |= store.index.write(partial(_delete_rows, rows=some))
    numbers = [number for number in touched if number not in revived]
    removed = 0
    for start in range(0, len(numbers), _FRAMES_PER_TRANSACTION):
        some_numbers = numbers[start : start + _FRAMES_PER_TRANSACTION]
        removed += store.index.write(partial(_settle, numbers=some_numbers, dead=dead))
    for number in dead:
        store.frames.forget(number)
    return len(touched), removed


def _next_touched(transaction: Transaction) -> tuple[list[int], dict[int, FrameRecord]]:
    """The next frames on the list, and those of them that nothing refers to."""
    touched: list[int] = []
    dead: dict[int, FrameRecord] = {}
    positions = 0
    for number in transaction.touched_frames:
        touched.append(number)
        record = transaction.frames.get(number)
        counts = transaction.counts.get(number)
        if record is not None and counts is not None and not any(counts.counts):
            dead[number] = record
            positions += len(record.lengths)
        if positions >= _POSITIONS_MAX or len(touched) >= _POSITIONS_MAX:
            break
    return touched, dead


def _rows(store: OpenedStore, frames: dict[int, FrameRecord]) -> list[_Row]:
    rows: list[_Row] = []
    unreadable = set()
    for number, record in frames.items():
        try:
            ids = read_frame_meta(store.packs, number, record).ids
        except ContentDamagedError:
            unreadable.add(number)
            continue
        rows += [(identity, (number, position)) for position, identity in enumerate(ids)]
    if unreadable:
        # Damage must not stop collection: find the ChunkIDs the long way round.
        with store.index.read() as transaction:
            rows += [(identity, where) for identity, where in transaction.chunks.items() if where[0] in unreadable]
    return rows


def _delete_rows(transaction: Transaction, rows: list[_Row]) -> set[int]:
    """Delete the rows of frames that are still dead; the frames that are not."""
    any_lost = len(transaction.lost) > 0
    is_dead: dict[int, bool] = {}
    for identity, where in rows:
        number = where[0]
        if number not in is_dead:
            counts = transaction.counts.get(number)
            is_dead[number] = counts is not None and not any(counts.counts)
        if is_dead[number]:
            forget_chunk(transaction, identity, where, any_lost)
    return {number for number, dead in is_dead.items() if not dead}


def _settle(transaction: Transaction, numbers: list[int], dead: dict[int, FrameRecord]) -> int:
    """Remove frames whose rows are gone; note the dead share of the others. How many were removed."""
    removed = 0
    for number in numbers:
        record = transaction.frames.get(number)
        counts = transaction.counts.get(number)
        if record is None or counts is None:
            transaction.touched_frames.delete(number)
            continue
        is_dead = not any(counts.counts)
        if is_dead and number not in dead:
            continue  # it died just now, and its rows are still there: it is for the next round
        transaction.touched_frames.delete(number)
        updated, grown = updated_counts(record, counts)
        mark_dead(transaction, record.place.pack, grown)
        if is_dead:
            transaction.frames.delete(number)
            transaction.counts.delete(number)
            removed += 1
        else:
            transaction.counts.put(number, updated)
    return removed


def forget_chunk(transaction: Transaction, identity: bytes, where: tuple[int, int], any_lost: bool) -> None:
    """Delete the rows of a chunk that point to a position which is about to go."""
    if transaction.chunks.get(identity) == where:
        transaction.chunks.delete(identity)
    if any_lost and transaction.lost.get(identity) == where:
        transaction.lost.delete(identity)
