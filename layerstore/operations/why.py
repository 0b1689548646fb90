"""Why something is kept: the images, tags, holds and leases behind it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from layerstore.digest import Digest, reads_as_digest
from layerstore.errors import NotFoundError
from layerstore.oci.closure import Closure
from layerstore.operations.closure import stored_closure
from layerstore.operations.images import resolve, tags_of
from layerstore.operations.keeping import encodings_of, holds_of, images_of
from layerstore.storage.containers import container_leases
from layerstore.storage.index import Transaction
from layerstore.storage.leases import LiveLeases
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import NEVER


@dataclass(frozen=True, slots=True)
class Why:
    """What keeps a layer, an encoding or an image. Without reasons, the next collection takes it."""

    digest: Digest
    kind: str
    """``layer``, ``encoding``, ``image`` or ``trash`` (a deleted image)."""
    reasons: tuple[str, ...]
    images: tuple[Digest, ...] = ()
    tags: tuple[str, ...] = ()


def why(store: OpenedStore, text: str) -> Why:
    """What keeps the layer or image that ``text`` names by digest or tag. Raises `NotFoundError`."""
    live = LiveLeases.look(store.layout.leases)
    containers = container_leases(store.layout.root)
    with store.index.read() as transaction:
        if reads_as_digest(text):
            digest = Digest(text)
            layer = transaction.layers.get(digest)
            if layer is not None:
                return _why_kept(transaction, "layer", digest, layer.number, live, containers)
            encoding = transaction.encodings.get(digest)
            if encoding is not None:
                return _why_kept(transaction, "encoding", digest, encoding.number, live, containers)
            if digest in transaction.trash:
                return _why_trash(transaction, digest)
            if digest not in transaction.images:
                raise NotFoundError(f"the store has no layer, encoding or image {digest}")
        else:
            digest = resolve(transaction, text)
        tags = tuple(tags_of(transaction, digest))
        reasons = [f"tag {tag}" for tag in tags] or ["it was not deleted; images are kept without a tag, too"]
        return Why(digest, "image", tuple(reasons), (digest,), tags)


def _why_kept(
    transaction: Transaction, kind: str, kept: Digest, number: int, live: LiveLeases, containers: dict[bytes, str]
) -> Why:
    images = images_of(transaction, number)
    reasons = []
    tags: list[str] = []
    for digest in images:
        own = tags_of(transaction, digest)
        tags += own
        position = _position(stored_closure(transaction, digest), kept)
        where = f"layer {position} of image {digest}" if position else f"image {digest}"
        if digest in transaction.trash:
            where += f", which is in the trash until {_moment(transaction.trash[digest].expires)}"
        reasons.append(f"{where} ({', '.join(own)})" if own else where)
    for holder, end in holds_of(transaction, number).items():
        if holder in containers:
            reasons.append(f"container {containers[holder]} stands on it")
        elif end == NEVER:
            reasons.append("held for a container that is not here; the next collection ends that")
        elif end:
            reasons.append(f"pushed under lease {holder.hex()}, which ends {_moment(end)}")
        else:
            state = "a running process" if holder in live.sessions else "a process that has ended"
            reasons.append(f"pushed by {state}, and neither made part of an image nor released since")
    reasons += [f"encoding {digest} is made of it" for digest in encodings_of(transaction, number)]
    if number in live.layers:
        reasons.append("it is being read")
    return Why(kept, kind, tuple(reasons), tuple(images), tuple(tags))


def _position(closure: Closure, kept: Digest) -> int:
    """The place of a layer, from 1; 0 in an index, where there are several."""
    for position, blob in enumerate(closure.blobs if closure.config else (), 1):
        if kept in (blob.diff_id, blob.descriptor.digest):
            return position
    return 0


def _why_trash(transaction: Transaction, digest: Digest) -> Why:
    record = transaction.trash[digest]
    reason = f"deleted {_moment(record.deleted)}, kept in the trash until {_moment(record.expires)}"
    return Why(digest, "trash", (reason,), (digest,), record.tags)


def _moment(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(sep=" ", timespec="seconds")
