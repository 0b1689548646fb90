"""What keeps a layer: the images that it is part of, and the holds of those who pushed it."""

import time

from layerstore.digest import Digest
from layerstore.operations.counting import mark_dead
from layerstore.storage.index import Transaction
from layerstore.storage.journal import Event, drop_layer_event
from layerstore.storage.records import UNTIL_RELEASED, LayerRecord


def holds_of(transaction: Transaction, number: int) -> dict[bytes, int]:
    """The live holds on a layer: holder and end."""
    now = time.time_ns()
    found = {}
    for (_, holder), end in transaction.holds.items_with_prefix(number.to_bytes(8, "big")):
        if end == UNTIL_RELEASED or end > now:
            found[holder] = end
    return found


def images_of(transaction: Transaction, number: int) -> list[Digest]:
    """The images that a layer is part of, those in the trash included."""
    return [digest for (_, digest), _ in transaction.layer_images.items_with_prefix(number.to_bytes(8, "big"))]


def is_kept(transaction: Transaction, number: int) -> bool:
    """Whether anything keeps the layer."""
    prefix = number.to_bytes(8, "big")
    return any(True for _ in transaction.layer_images.items_with_prefix(prefix)) or bool(holds_of(transaction, number))


def loosen(transaction: Transaction, diff_id: Digest, number: int) -> None:
    """Something that kept a layer is gone: if it was the last, put the layer on collection's list."""
    if not is_kept(transaction, number):
        transaction.loose_layers.put(number, diff_id)


def loosen_numbers(transaction: Transaction, numbers: set[int]) -> None:
    """`loosen` for layers of which only the numbers are known."""
    for diff_id, record in list(transaction.layers.items()):
        if record.number in numbers:
            loosen(transaction, diff_id, record.number)


def drop_layer(transaction: Transaction, diff_id: Digest, record: LayerRecord) -> Event:
    """Take a layer out of sight; its recipe waits to be drained. The event is for the journal."""
    transaction.layers.delete(diff_id)
    transaction.loose_layers.delete(record.number)
    holders = [key for key, _ in transaction.holds.items_with_prefix(record.number.to_bytes(8, "big"))]
    for key in holders:
        transaction.holds.delete(key)
    transaction.dropped.put(record.number, None)
    transaction.graves.put((record.place.pack, record.number), None)
    mark_dead(transaction, record.place.pack, record.place.size)
    return drop_layer_event(record.number)
