"""Images: put, tag, delete into the trash, bring back."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from layerstore.digest import Digest, reads_as_digest
from layerstore.errors import (
    ImageNotFoundError,
    InvalidManifestError,
    InvalidOptionError,
    InvalidReferenceError,
    LayerInUseError,
    LayerNotFoundError,
    TagNotFoundError,
)
from layerstore.oci.config import ImageConfig, parse_config
from layerstore.oci.documents import parse_manifest
from layerstore.oci.reference import DEFAULT_TAG, Reference
from layerstore.operations.counting import mark_dead
from layerstore.operations.keeping import images_of, loosen
from layerstore.operations.leases import TTL_SECONDS_MAX
from layerstore.storage.index import Transaction
from layerstore.storage.journal import Event, image_event, tag_event, trash_event, untag_event
from layerstore.storage.leases import LiveLeases
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PackWriter, RecordKind
from layerstore.storage.records import UNTIL_RELEASED, BlobRecord, ImageRecord, LayerRecord, Place, TrashRecord

_TRASH_HINT = "; it is in the trash, and `layerstore undelete` brings it back"


@dataclass(frozen=True, slots=True)
class ImageDocuments:
    """The two documents of an image, as exact bytes."""

    manifest: bytes
    config: bytes

    @property
    def digest(self) -> Digest:
        """The image's digest: that of its manifest."""
        return Digest.of(self.manifest)


def canonical_tag(text: str) -> str:
    """``name:tag``, with the default tag added. Raises `InvalidReferenceError`."""
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise InvalidReferenceError(f"{text!r} names a digest; a tag is needed here")
    return str(reference)


def new_tag(text: str) -> str:
    """`canonical_tag` of a tag that is to be set. Raises `InvalidReferenceError` also for what reads as a digest."""
    name = canonical_tag(text)
    if reads_as_digest(name):
        raise InvalidReferenceError(f"{text!r} cannot be a tag: it begins as a digest does")
    return name


def put_image(store: OpenedStore, documents: ImageDocuments, tag: str | None = None) -> Digest:
    """Make an image of layers that are in the store; from here on it keeps them. Putting it again changes nothing.

    Raises `InvalidManifestError`, and `LayerNotFoundError` if a layer is missing: then nothing was changed.
    """
    diff_ids = _checked_diff_ids(documents)
    digest, config_digest = documents.digest, Digest.of(documents.config)
    name = new_tag(tag) if tag is not None else None
    holders_over = _holders_over(store, diff_ids)

    def change(transaction: Transaction, writer: PackWriter, places: dict[Digest, Place]) -> None:
        events: list[Event] = []
        if digest in transaction.trash:
            events += _restore(transaction, digest, ())  # made anew, it has none but the tag that is asked for
        elif digest not in transaction.images:
            _put_blob(transaction, digest, documents.manifest, places)
            _put_blob(transaction, config_digest, documents.config, places)
            record = ImageRecord(transaction.next_number("next_image"), time.time_ns(), config_digest, 0)
            transaction.images.put(digest, record)
            events.append(image_event(digest, record))
        for diff_id in diff_ids:
            _take_layer(transaction, diff_id, digest, holders_over)
        if name is not None:
            events += _set_tag(transaction, name, digest)
        for one, place in places.items():
            blob = transaction.blobs.get(one)
            if blob is None or blob.place != place:
                mark_dead(transaction, place.pack, place.size)  # another process was faster
        writer.commit(transaction)
        store.journal.append(transaction, events)

    with store.pack_writer() as writer:
        while True:
            places = _append_missing(store, writer, {digest: documents.manifest, config_digest: documents.config})
            try:
                store.journal.write(store.index, partial(change, writer=writer, places=places))
            except _StaleError:
                writer.rewind()
                continue
            writer.committed_now()
            break
    store.journal.sync()
    return digest


def _checked_diff_ids(documents: ImageDocuments) -> list[Digest]:
    promised = parse_manifest(documents.manifest).config.digest
    if Digest.of(documents.config, promised.algorithm) != promised:
        raise InvalidManifestError(f"the manifest names the config {promised}; the one given has another digest")
    return list(parse_config(documents.config).diff_ids)


class _StaleError(Exception):
    """A blob that was there when we looked has been collected since."""


def _append_missing(store: OpenedStore, writer: PackWriter, blobs: dict[Digest, bytes]) -> dict[Digest, Place]:
    """Put those documents into a pack, durably, that the store does not have."""
    with store.index.read() as transaction:
        missing = [digest for digest in blobs if digest not in transaction.blobs]
    places = {one: writer.append(RecordKind.BLOB, 0, 0, one.pack(), blobs[one]) for one in missing}
    writer.sync()
    return places


def _put_blob(transaction: Transaction, digest: Digest, data: bytes, places: dict[Digest, Place]) -> None:
    record = transaction.blobs.get(digest)
    if record is not None:
        transaction.blobs.put(digest, replace(record, count=record.count + 1))
        return
    place = places.get(digest)
    if place is None:
        raise _StaleError
    transaction.blobs.put(digest, BlobRecord(place, 1, data))


def layer_record(transaction: Transaction, diff_id: Digest) -> LayerRecord:
    """The record of a layer that an image is made of. Raises `LayerNotFoundError`."""
    layer = transaction.layers.get(diff_id)
    if layer is None:
        raise LayerNotFoundError(f"the store has no layer {diff_id}; push it before you make an image of it")
    return layer


def _holders_over(store: OpenedStore, diff_ids: Iterable[Digest]) -> set[bytes]:
    """Sessions that hold one of the layers and are no more, and our own: an image may take over what they hold.

    A holder that was seen before the look at the living, and is not among them, is dead for good. One that comes
    later is none of ours to judge.
    """
    with store.index.read() as transaction:
        numbers = [record.number for one in diff_ids if (record := transaction.layers.get(one)) is not None]
        prefixes = [number.to_bytes(8, "big") for number in numbers]
        seen = {key[1] for prefix in prefixes for key, _ in transaction.holds.items_with_prefix(prefix)}
    return (seen - LiveLeases.look(store.layout.leases).sessions) | {store.session.name}


def _take_layer(transaction: Transaction, diff_id: Digest, image: Digest, holders_over: set[bytes]) -> None:
    layer = layer_record(transaction, diff_id)
    transaction.layer_images.put((layer.number, image), None)
    # The image keeps the layer now. Holds of other running sessions, and of leases, stay.
    prefix = layer.number.to_bytes(8, "big")
    for (number, holder), end in list(transaction.holds.items_with_prefix(prefix)):
        if end == UNTIL_RELEASED and holder in holders_over:
            transaction.holds.delete((number, holder))


def resolve(transaction: Transaction, text: str) -> Digest:
    """The image digest for a tag, a digest, ``name@digest`` or a unique beginning of a digest's hex.

    A tag that reads as the beginning of a digest is the tag. Raises `ImageNotFoundError` or `InvalidReferenceError`.
    """
    if reads_as_digest(text):
        digest = Digest(text)
    elif (by_prefix := _resolve_prefix(transaction, text)) is not None:
        digest = by_prefix
    else:
        reference = Reference.parse(text)
        if reference.digest is not None:
            digest = reference.digest
        else:
            found = transaction.tags.get(str(reference))
            if found is None:
                in_trash = any(str(reference) in record.tags for _, record in transaction.trash.items())
                hint = _TRASH_HINT if in_trash else "; `layerstore images` lists them"
                raise ImageNotFoundError(f"the store has no image {reference}{hint}")
            digest = found
    if digest not in transaction.images:
        hint = _TRASH_HINT if digest in transaction.trash else ""
        raise ImageNotFoundError(f"the store has no image {text}{hint}")
    return digest


def _resolve_prefix(transaction: Transaction, text: str) -> Digest | None:
    if len(text) < 12 or len(text) > 64 or not set(text) <= set("0123456789abcdef"):
        return None
    if (tagged := transaction.tags.get(f"{text}:{DEFAULT_TAG}")) is not None:
        return tagged  # what somebody has named so is what they mean
    packed = bytes([1]) + bytes.fromhex(text[: len(text) // 2 * 2])
    found = [d for d, _ in transaction.images.items_with_prefix(packed) if d.encoded.startswith(text)]
    return found[0] if len(found) == 1 else None


def documents_of(transaction: Transaction, digest: Digest) -> ImageDocuments:
    """The documents of an image that is there or in the trash."""
    image = transaction.images.get(digest)
    if image is None:
        trash = transaction.trash.get(digest)
        if trash is None:
            raise ImageNotFoundError(f"the store has no image {digest}")
        image = trash.image
    return ImageDocuments(transaction.blobs[digest].data, transaction.blobs[image.config].data)


def image_config(transaction: Transaction, digest: Digest) -> ImageConfig:
    """The parsed config of an image."""
    return parse_config(documents_of(transaction, digest).config)


def tags_of(transaction: Transaction, digest: Digest) -> list[str]:
    """The tags of an image, sorted."""
    return [tag for (_, tag), _ in transaction.image_tags.items_with_prefix(digest.pack())]


def set_tag(store: OpenedStore, tag: str, digest: Digest) -> None:
    """Let a tag name an image, durably. Raises `ImageNotFoundError`."""
    name = new_tag(tag)

    def change(transaction: Transaction) -> None:
        if digest not in transaction.images:
            raise ImageNotFoundError(f"the store has no image {digest}")
        store.journal.append(transaction, _set_tag(transaction, name, digest))

    store.journal.write(store.index, change)
    store.journal.sync()


def remove_tag(store: OpenedStore, tag: str) -> None:
    """Remove one tag; the image stays. Raises `TagNotFoundError`."""
    name = canonical_tag(tag)

    def change(transaction: Transaction) -> None:
        digest = transaction.tags.get(name)
        if digest is None:
            raise TagNotFoundError(f"the store has no tag {name}")
        _remove_tag(transaction, name, digest)
        store.journal.append(transaction, [untag_event(name)])

    store.journal.write(store.index, change)
    store.journal.sync()


def _set_tag(transaction: Transaction, name: str, digest: Digest) -> list[Event]:
    before = transaction.tags.get(name)
    if before == digest:
        return []
    if before is not None:
        _remove_tag(transaction, name, before)
    transaction.tags.put(name, digest)
    transaction.image_tags.put((digest, name), None)
    image = transaction.images[digest]
    transaction.images.put(digest, replace(image, tag_count=image.tag_count + 1))
    return [tag_event(name, digest)]


def _remove_tag(transaction: Transaction, name: str, digest: Digest) -> None:
    transaction.tags.delete(name)
    transaction.image_tags.delete((digest, name))
    image = transaction.images[digest]
    transaction.images.put(digest, replace(image, tag_count=image.tag_count - 1))


def delete_image(store: OpenedStore, digest: Digest, ttl_seconds: float) -> list[str]:
    """Move an image with all its tags into the trash; the tags. It keeps its layers until it leaves the trash.

    Raises `InvalidOptionError` for a time that is negative, or over ten years.
    """
    if not 0 <= ttl_seconds <= TTL_SECONDS_MAX:
        raise InvalidOptionError(f"the trash keeps an image for 0 to {TTL_SECONDS_MAX} seconds, not {ttl_seconds}")

    def change(transaction: Transaction) -> list[str]:
        if digest not in transaction.images:
            raise ImageNotFoundError(f"the store has no image {digest}")
        tags = tags_of(transaction, digest)
        for tag in tags:
            _remove_tag(transaction, tag, digest)
        now = time.time_ns()
        record = TrashRecord(transaction.images[digest], now, now + int(ttl_seconds * 1e9), tuple(tags))
        transaction.images.delete(digest)
        transaction.trash.put(digest, record)
        store.journal.append(transaction, [trash_event(digest, record)])
        return tags

    tags = store.journal.write(store.index, change)
    store.journal.sync()
    return tags


def undelete_image(store: OpenedStore, text: str) -> Digest:
    """Take an image out of the trash, with those of its tags that name nothing else now. ``text``: tag or digest."""

    def change(transaction: Transaction) -> Digest:
        digest = _find_in_trash(transaction, text)
        store.journal.append(transaction, _restore(transaction, digest, transaction.trash[digest].tags))
        return digest

    digest = store.journal.write(store.index, change)
    store.journal.sync()
    return digest


def _find_in_trash(transaction: Transaction, text: str) -> Digest:
    if reads_as_digest(text):
        digest = Digest(text)
        if digest in transaction.trash:
            return digest
        raise ImageNotFoundError(f"the trash has no image {digest}")
    name = canonical_tag(text)
    found = [(record.deleted, digest) for digest, record in transaction.trash.items() if name in record.tags]
    if not found:
        raise ImageNotFoundError(f"the trash has no image {name}")
    return max(found)[1]  # of several that had this tag, the one that was deleted last


def _restore(transaction: Transaction, digest: Digest, tags: Iterable[str]) -> list[Event]:
    record = transaction.trash[digest]
    image = replace(record.image, tag_count=0)
    transaction.trash.delete(digest)
    transaction.images.put(digest, image)
    events = [image_event(digest, image)]
    for tag in tags:
        if tag not in transaction.tags:
            events += _set_tag(transaction, tag, digest)
    return events


def release_layer(store: OpenedStore, diff_id: Digest) -> None:
    """End the holds of whoever pushed the layer. Raises `LayerInUseError` if images use it."""

    def change(transaction: Transaction) -> None:
        record = transaction.layers.get(diff_id)
        if record is None:
            raise LayerNotFoundError(f"the store has no layer {diff_id}")
        users = images_of(transaction, record.number)
        if users:
            raise LayerInUseError(f"layer {diff_id} belongs to {len(users)} images; `layerstore why` names them")
        for key, end in list(transaction.holds.items_with_prefix(record.number.to_bytes(8, "big"))):
            if end == UNTIL_RELEASED:
                transaction.holds.delete(key)
        loosen(transaction, diff_id, record.number)

    store.index.write(change)
