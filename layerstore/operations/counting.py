"""Reference counts of chunks: taking and giving back, in the transaction that causes it."""

from array import array
from collections.abc import Iterable

from layerstore.errors import IndexDamagedError
from layerstore.storage.index import Transaction
from layerstore.storage.recipe import Run

_COUNT_MAX = 2**32 - 1


def add_references(transaction: Transaction, runs: Iterable[Run], sign: int) -> None:
    """Add ``sign`` (1 or -1) to the count of every position of every run.

    A frame with a count that reached or left zero is put on the list that collection works off.
    """
    by_frame: dict[int, list[Run]] = {}
    for run in runs:
        by_frame.setdefault(run.frame, []).append(run)
    for frame in sorted(by_frame):
        record = transaction.counts[frame]
        counts = record.counts
        if _add(frame, counts, by_frame[frame], sign):
            transaction.touched_frames.put(frame, None)
        transaction.counts.put(frame, record)


def _add(frame: int, counts: "array[int]", runs: list[Run], sign: int) -> bool:
    touched = False
    try:
        for _, first, count in runs:
            for position in range(first, first + count):
                before = counts[position]
                counts[position] = before + sign
                touched |= before + min(sign, 0) == 0
    except (IndexError, OverflowError):
        raise IndexDamagedError(f"the counts of frame {frame} contradict a recipe; run `layerstore verify`") from None
    return touched


def mark_dead(transaction: Transaction, pack: int, size: int) -> None:
    """Note that ``size`` more bytes of a pack are needed by nothing (fewer, if negative)."""
    record = transaction.packs.get(pack)
    if record is None:
        return  # the pack was damaged and dropped; there is nothing left to account for
    transaction.packs.put(pack, record.with_dead(size))
    if size > 0:
        transaction.touched_packs.put(pack, None)
