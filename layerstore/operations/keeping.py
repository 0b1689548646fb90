"""What keeps a layer or an encoding: the images that it is part of, and the holds of those who pushed it.

Both have numbers from one counter, and what keeps them is told by number. A layer is also kept by its encodings.
"""

import time
from itertools import islice

from layerstore.digest import Digest
from layerstore.errors import LayerInUseError
from layerstore.operations.counting import mark_dead
from layerstore.storage.index import Transaction
from layerstore.storage.journal import Event, drop_layer_event
from layerstore.storage.recipe import decode_segment
from layerstore.storage.records import UNTIL_RELEASED, EncodingRecord, LayerRecord


def holds_of(transaction: Transaction, number: int) -> dict[bytes, int]:
    """The live holds on a layer: holder and end."""
    now = time.time_ns()
    found = {}
    for (_, holder), end in transaction.holds.items_with_prefix(number.to_bytes(8, "big")):
        if end == UNTIL_RELEASED or end > now:
            found[holder] = end
    return found


def images_of(transaction: Transaction, number: int) -> list[Digest]:
    """The images that a layer or encoding is part of, those in the trash included."""
    return [digest for (_, digest), _ in transaction.layer_images.items_with_prefix(number.to_bytes(8, "big"))]


def encodings_of(transaction: Transaction, number: int) -> list[Digest]:
    """The encodings of a layer."""
    return [digest for (_, digest), _ in transaction.layer_encodings.items_with_prefix(number.to_bytes(8, "big"))]


def is_kept(transaction: Transaction, number: int) -> bool:
    """Whether anything keeps the layer or encoding."""
    prefix = number.to_bytes(8, "big")
    return (
        any(True for _ in transaction.layer_images.items_with_prefix(prefix))
        or any(True for _ in transaction.layer_encodings.items_with_prefix(prefix))
        or bool(holds_of(transaction, number))
    )


def loosen(transaction: Transaction, digest: Digest, number: int) -> None:
    """Something that kept a layer or encoding is gone: if it was the last, put it on collection's list."""
    if not is_kept(transaction, number) and number in (
        record.number for record in (transaction.layers.get(digest), transaction.encodings.get(digest)) if record
    ):
        transaction.loose_layers.put(number, digest)


def release(transaction: Transaction, what: str, digest: Digest, number: int) -> None:
    """End the holds of those who pushed a layer or encoding, leases aside. Raises `LayerInUseError`."""
    users = images_of(transaction, number)
    if users:
        raise LayerInUseError(f"{what} {digest} belongs to {len(users)} images; `layerstore why` names them")
    for key, end in list(transaction.holds.items_with_prefix(number.to_bytes(8, "big"))):
        if end == UNTIL_RELEASED:
            transaction.holds.delete(key)
    loosen(transaction, digest, number)


def end_holds(transaction: Transaction, lease: bytes, count: int) -> bool:
    """End the holds of a lease, at most ``count`` of them; whether all are gone."""
    held = list(islice(transaction.lease_layers.items_with_prefix(lease), count))
    for (_, number), diff_id in held:
        transaction.lease_layers.delete((lease, number))
        transaction.holds.delete((number, lease))
        loosen(transaction, diff_id, number)
    return len(held) < count


def has_lost(transaction: Transaction, number: int) -> bool:
    """Whether a layer lacks chunks that were found damaged."""
    if not len(transaction.lost):
        return False
    frames = {frame for _, (frame, _) in transaction.lost.items()}
    return any(
        run.frame in frames
        for (owner, _), record in transaction.recipes.items_with_prefix(number.to_bytes(8, "big"))
        if owner == number
        for run in decode_segment(record.data).runs
    )


def drop_upload(transaction: Transaction, number: int) -> bool:
    """Give an upload up; its recipe waits to be drained. False if it is none any more: published, or dropped."""
    if not transaction.uploads.delete(number):
        return False
    transaction.dropped.put(number, None)
    return True


def drop_layer(transaction: Transaction, diff_id: Digest, record: LayerRecord) -> Event:
    """Take a layer out of sight; its recipe waits to be drained. The event is for the journal."""
    transaction.layers.delete(diff_id)
    transaction.dropped.put(record.number, None)
    return _bury(transaction, record)


def drop_encoding(transaction: Transaction, digest: Digest, record: EncodingRecord) -> Event:
    """Forget an encoding; its file, if it is raw, is removed after the transaction. The event is for the journal."""
    transaction.encodings.delete(digest)
    layer = transaction.layers.get(record.diff_id)
    if layer is not None:
        transaction.layer_encodings.delete((layer.number, digest))
        loosen(transaction, record.diff_id, layer.number)
    return _bury(transaction, record)


def _bury(transaction: Transaction, record: LayerRecord | EncodingRecord) -> Event:
    transaction.loose_layers.delete(record.number)
    holders = [holder for (_, holder), _ in transaction.holds.items_with_prefix(record.number.to_bytes(8, "big"))]
    for holder in holders:
        transaction.holds.delete((record.number, holder))
        transaction.lease_layers.delete((holder, record.number))
    transaction.graves.put((record.place.pack, record.number), None)
    mark_dead(transaction, record.place.pack, record.place.size)
    return drop_layer_event(record.number)
