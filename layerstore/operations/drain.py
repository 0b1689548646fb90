"""Draining: giving back the references of a recipe that is no longer needed, segment by segment."""

from layerstore.operations.counting import add_references, mark_dead
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import decode_segment

_REFERENCES_MAX = 6000
"""References given back in one transaction; it bounds how long the writer lock is held."""


def drain(store: OpenedStore, number: int) -> int:
    """Take back every reference of a dropped recipe; how many there were. An interrupted drain can be resumed."""
    total = 0
    done = False
    while not done:
        count, done = store.index.write(lambda transaction: _drain_some(transaction, number))
        total += count
    return total


def _drain_some(transaction: Transaction, number: int) -> tuple[int, bool]:
    count = 0
    keys = []
    for key, record in transaction.recipes.items((number, 0)):
        if key[0] != number or count >= _REFERENCES_MAX:
            break
        segment = decode_segment(record.data)
        add_references(transaction, segment.runs, -1)
        mark_dead(transaction, record.place.pack, record.place.size)
        count += segment.references
        keys.append(key)
    for key in keys:
        transaction.recipes.delete(key)
    following = next(transaction.recipes.items((number, 0)), None)
    done = following is None or following[0][0] != number
    if done:
        transaction.dropped.delete(number)
    return count, done
