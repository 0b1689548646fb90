"""Moving records that are no frames: recipe segments, layers, manifests and configs. The index has their bytes, too."""

from dataclasses import replace

from layerstore.digest import Digest
from layerstore.operations.counting import mark_dead
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PackRecordHead, PackWriter, RecordKind
from layerstore.storage.records import NO_PLACE, Place


def copy_record(store: OpenedStore, head: PackRecordHead, writer: PackWriter) -> Place | None:
    """Append a record that is no frame anew, from the index's bytes; None if the index does not point to it."""
    with store.index.read() as transaction:
        if head.kind is RecordKind.SEGMENT:
            segment = transaction.recipes.get((head.number, int.from_bytes(head.meta, "big")))
            body = segment.data if segment is not None and segment.place == head.place else None
        elif head.kind is RecordKind.LAYER:
            layer = transaction.layers.get(Digest.unpack(head.meta))
            is_here = layer is not None and layer.place == head.place
            body = replace(layer, place=NO_PLACE).encode() if layer is not None and is_here else None
        elif head.kind is RecordKind.ENCODING:
            encoding = transaction.encodings.get(Digest.unpack(head.meta))
            is_here = encoding is not None and encoding.place == head.place
            body = replace(encoding, place=NO_PLACE).encode() if encoding is not None and is_here else None
        else:
            blob = transaction.blobs.get(Digest.unpack(head.meta))
            body = blob.data if blob is not None and blob.place == head.place else None
    if body is None:
        return None
    return writer.append(head.kind, head.codec, head.number, head.meta, body)


def switch_record(transaction: Transaction, head: PackRecordHead, place: Place) -> None:
    """Let the index point to the copy; the record at ``head``, or the copy if it is not needed any more, is dead."""
    switched = False
    if head.kind is RecordKind.SEGMENT:
        key = (head.number, int.from_bytes(head.meta, "big"))
        segment = transaction.recipes.get(key)
        if switched := segment is not None and segment.place == head.place:
            transaction.recipes.put(key, replace(segment, place=place))
    elif head.kind is RecordKind.LAYER:
        diff_id = Digest.unpack(head.meta)
        layer = transaction.layers.get(diff_id)
        if switched := layer is not None and layer.place == head.place:
            transaction.layers.put(diff_id, replace(layer, place=place))
    elif head.kind is RecordKind.ENCODING:
        digest = Digest.unpack(head.meta)
        encoding = transaction.encodings.get(digest)
        if switched := encoding is not None and encoding.place == head.place:
            transaction.encodings.put(digest, replace(encoding, place=place))
    else:
        digest = Digest.unpack(head.meta)
        blob = transaction.blobs.get(digest)
        if switched := blob is not None and blob.place == head.place:
            transaction.blobs.put(digest, replace(blob, place=place))
    dead = head.place if switched else place
    mark_dead(transaction, dead.pack, dead.size)
