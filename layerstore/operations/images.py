"""Images: put, tag, delete into the trash, bring back."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from layerstore.digest import Digest, reads_as_digest
from layerstore.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidManifestError,
    InvalidOptionError,
    InvalidReferenceError,
    LayerNotFoundError,
    TagNotFoundError,
)
from layerstore.oci.closure import Closure, gather
from layerstore.oci.documents import CONFIG_SIZE_MAX, Index, parse_image
from layerstore.oci.media_types import LAYER_COMPRESSIONS
from layerstore.oci.reference import DEFAULT_TAG, Reference
from layerstore.operations.closure import kept_by, stored_diff_id
from layerstore.operations.counting import mark_dead
from layerstore.operations.keeping import release
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
    """The two documents of an image of one platform, as exact bytes."""

    manifest: bytes
    config: bytes


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


def put_image(
    store: OpenedStore,
    root: bytes,
    documents: Iterable[bytes],
    *,
    digest: Digest | None = None,
    tag: str | None = None,
    believe_blobs: bool = False,
) -> Digest:
    """Make an image of blobs that are in the store; from here on it keeps them. Putting it again changes nothing.

    ``root`` is a manifest or an index and ``digest`` its digest, sha256 unless given; ``documents`` are the others that
    hang on it, as far as the store does not have them. With ``believe_blobs`` the blobs must all be there, and it does
    not matter what the config says of them. Raises `InvalidManifestError`, and `LayerNotFoundError` if a
    layer is missing: then nothing was changed.
    """
    digest = digest or Digest.of(root)
    closure = _closure_of(store, digest, [root, *documents])
    check = _check_blobs if believe_blobs else _check_contents
    name = new_tag(tag) if tag is not None else None
    holders_over = _holders_over(store, closure)

    def change(transaction: Transaction, writer: PackWriter, places: dict[Digest, Place]) -> None:
        events: list[Event] = []
        if digest in transaction.trash:
            events += _restore(transaction, digest, ())  # made anew, it has none but the tag that is asked for
        elif digest not in transaction.images:
            for one, data in closure.documents.items():
                _put_blob(transaction, one, data, places)
            record = ImageRecord(transaction.next_number("next_image"), time.time_ns(), closure.config, 0)
            transaction.images.put(digest, record)
            events.append(image_event(digest, record))
        check(transaction, closure)
        _take_contents(transaction, closure, holders_over)
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
            places = _append_missing(store, writer, closure.documents)
            try:
                store.journal.write(store.index, partial(change, writer=writer, places=places))
            except _StaleError:
                writer.rewind()
                continue
            writer.committed_now()
            break
    store.journal.sync()
    return digest


def _closure_of(store: OpenedStore, digest: Digest, given: list[bytes]) -> Closure:
    """Everything that hangs on the image, of what was given and what the store has; checked."""
    by_digest: dict[Digest, bytes] = {}
    algorithms: set[str] = set()

    def read(wanted: Digest) -> bytes | None:
        if wanted.algorithm not in algorithms:
            algorithms.add(wanted.algorithm)
            by_digest.update({Digest.of(data, wanted.algorithm): data for data in given})
        data = by_digest.get(wanted)
        if data is None:
            with store.index.read() as transaction:
                record = transaction.blobs.get(wanted)
            data = None if record is None else record.data
        return data

    if read(digest) is None:
        raise DigestMismatchError(digest, Digest.of(given[0], digest.algorithm))
    try:
        closure = gather(digest, read)
    except BlobNotFoundError as error:
        raise InvalidManifestError(f"{error}; it was not given, and the store does not have it") from None
    needed = set(closure.documents.values())
    for data in given:
        if data not in needed:
            raise InvalidManifestError(f"nothing of the image names the config or manifest {Digest.of(data)}")
    return closure


class _StaleError(Exception):
    """A blob that was there when we looked has been collected since."""


def _append_missing(store: OpenedStore, writer: PackWriter, blobs: Mapping[Digest, bytes]) -> dict[Digest, Place]:
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


def _holders_over(store: OpenedStore, closure: Closure) -> set[bytes]:
    """Sessions that hold one of the contents and are no more, and our own: an image may take over what they hold.

    A holder that was seen before the look at the living, and is not among them, is dead for good. One that comes
    later is none of ours to judge.
    """
    with store.index.read() as transaction:
        prefixes = [number.to_bytes(8, "big") for number in kept_by(transaction, closure)]
        seen = {key[1] for prefix in prefixes for key, _ in transaction.holds.items_with_prefix(prefix)}
    return (seen - LiveLeases.look(store.layout.leases).sessions) | {store.session.name}


def _check_blobs(transaction: Transaction, closure: Closure) -> None:
    """Raise `LayerNotFoundError` if a blob is missing, or its layer is."""
    for blob in closure.blobs:
        digest = blob.descriptor.digest
        layer = stored_diff_id(transaction, digest)
        if not blob.may_be_missing and (layer is None or layer not in transaction.layers):
            raise LayerNotFoundError(f"the store has no blob {digest}; push it before you make an image of it")


def _check_contents(transaction: Transaction, closure: Closure) -> None:
    """Raise if a layer or blob is missing, or is not what the config says."""
    if closure.contradiction:
        raise InvalidManifestError(closure.contradiction)
    for diff_id in closure.needed_diff_ids:
        layer_record(transaction, diff_id)
    for blob in closure.blobs:
        digest = blob.descriptor.digest
        encoding = transaction.encodings.get(digest)
        actual = encoding.diff_id if encoding is not None else None
        if actual is None and LAYER_COMPRESSIONS.get(blob.descriptor.media_type) == "none":
            actual = digest if digest.algorithm == "sha256" else None
        if actual is not None and blob.diff_id is not None and actual != blob.diff_id:
            raise InvalidManifestError(f"blob {digest} decodes to {actual}; the config says {blob.diff_id}")
        if blob.diff_id is None and not blob.may_be_missing and encoding is None and digest not in transaction.layers:
            raise LayerNotFoundError(f"the store has no blob {digest}; push it before you make an image of it")


def _take_contents(transaction: Transaction, closure: Closure, holders_over: set[bytes]) -> None:
    """Let the image keep its layers and encodings."""
    for number in kept_by(transaction, closure):
        transaction.layer_images.put((number, closure.root), None)
        # The image keeps it now. Holds of other running sessions, and of leases, stay.
        prefix = number.to_bytes(8, "big")
        for (held, holder), end in list(transaction.holds.items_with_prefix(prefix)):
            if end == UNTIL_RELEASED and holder in holders_over:
                transaction.holds.delete((held, holder))


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
    """The documents of an image that is there or in the trash, or of a part of one.

    Raises `InvalidManifestError` for an index.
    """
    record = transaction.blobs.get(digest)
    if record is None:
        raise ImageNotFoundError(f"the store has no image {digest}")
    document = parse_image(record.data)
    if isinstance(document, Index):
        raise InvalidManifestError(f"{digest} is an index of several images; name one of them by its platform")
    config = transaction.blobs.get(document.config.digest)
    if config is None and document.config.size > CONFIG_SIZE_MAX:
        raise InvalidManifestError(f"the config of {digest} is too large for a document")
    return ImageDocuments(record.data, transaction.blobs[document.config.digest].data)


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


def remove_tag(store: OpenedStore, tag: str, only_from: Digest | None = None) -> None:
    """Remove one tag; the image stays. Raises `TagNotFoundError`, also if it names another image than ``only_from``."""
    name = canonical_tag(tag)

    def change(transaction: Transaction) -> None:
        digest = transaction.tags.get(name)
        if digest is None or only_from not in (None, digest):
            raise TagNotFoundError(f"the store has no tag {name}" + ("" if only_from is None else f" of {only_from}"))
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


def delete_image(
    store: OpenedStore, digest: Digest, ttl_seconds: float, only_tags: Collection[str] | None = None
) -> list[str]:
    """Move an image with all its tags into the trash; the tags. It keeps its layers until it leaves the trash.

    With ``only_tags`` it loses those of them that it has, and stays if it has any other. Raises `InvalidOptionError`
    for a time that is negative, or over ten years.
    """
    if not 0 <= ttl_seconds <= TTL_SECONDS_MAX:
        raise InvalidOptionError(f"the trash keeps an image for 0 to {TTL_SECONDS_MAX} seconds, not {ttl_seconds}")

    def change(transaction: Transaction) -> list[str]:
        if digest not in transaction.images:
            raise ImageNotFoundError(f"the store has no image {digest}")
        has = tags_of(transaction, digest)
        tags = has if only_tags is None else [tag for tag in has if tag in only_tags]
        for tag in tags:
            _remove_tag(transaction, tag, digest)
        if len(tags) < len(has):
            store.journal.append(transaction, [untag_event(tag) for tag in tags])
            return tags
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
        release(transaction, "layer", diff_id, record.number)

    store.index.write(change)
