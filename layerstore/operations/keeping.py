"""What keeps a layer: the images that it is part of, and the holds of those who pushed it."""

import time
from itertools import islice

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
    record = transaction.layers.get(diff_id)
    if record is not None and record.number == number and not is_kept(transaction, number):
        transaction.loose_layers.put(number, diff_id)


def end_holds(transaction: Transaction, lease: bytes, count: int) -> bool:
    """End the holds of a lease, at most ``count`` of them; whether all are gone."""
    held = list(islice(transaction.lease_layers.items_with_prefix(lease), count))
    for (_, number), diff_id in held:
        transaction.lease_layers.delete((lease, number))
        transaction.holds.delete((number, lease))
        loosen(transaction, diff_id, number)
    return len(held) < count


def drop_upload(transaction: Transaction, number: int) -> bool:
    """Give an upload up; its recipe waits to be drained. False if it is none any more: published, or dropped."""
    if not transaction.uploads.delete(number):
        return False
    transaction.dropped.put(number, None)
    return True


def drop_layer(transaction: Transaction, diff_id: Digest, record: LayerRecord) -> Event:
    """Take a layer out of sight; its recipe waits to be drained. The event is for the journal."""
    transaction.layers.delete(diff_id)
    transaction.loose_layers.delete(record.number)
    holders = [holder for (_, holder), _ in transaction.holds.items_with_prefix(record.number.to_bytes(8, "big"))]
    for holder in holders:
        transaction.holds.delete((record.number, holder))
        transaction.lease_layers.delete((holder, record.number))
    transaction.dropped.put(record.number, None)
    transaction.graves.put((record.place.pack, record.number), None)
    mark_dead(transaction, record.place.pack, record.place.size)
    return drop_layer_event(record.number)
