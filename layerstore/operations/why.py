"""Why something is kept: the images, tags, holds and leases behind it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from layerstore.digest import Digest, reads_as_digest
from layerstore.errors import NotFoundError
from layerstore.operations.images import image_config, resolve, tags_of
from layerstore.operations.keeping import holds_of, images_of
from layerstore.storage.index import Transaction
from layerstore.storage.leases import LiveLeases
from layerstore.storage.opened import OpenedStore


@dataclass(frozen=True, slots=True)
class Why:
    """What keeps a layer or an image. Without reasons, the next collection takes it."""

    digest: Digest
    kind: str
    """``layer``, ``image`` or ``trash`` (a deleted image)."""
    reasons: tuple[str, ...]
    images: tuple[Digest, ...] = ()
    tags: tuple[str, ...] = ()


def why(store: OpenedStore, text: str) -> Why:
    """What keeps the layer or image that ``text`` names by digest or tag. Raises `NotFoundError`."""
    live = LiveLeases.look(store.layout.leases)
    with store.index.read() as transaction:
        if reads_as_digest(text):
            digest = Digest(text)
            if digest in transaction.layers:
                return _why_layer(transaction, digest, live)
            if digest in transaction.trash:
                return _why_trash(transaction, digest)
            if digest not in transaction.images:
                raise NotFoundError(f"the store has no layer or image {digest}")
        else:
            digest = resolve(transaction, text)
        tags = tuple(tags_of(transaction, digest))
        reasons = [f"tag {tag}" for tag in tags] or ["it was not deleted; images are kept without a tag, too"]
        return Why(digest, "image", tuple(reasons), (digest,), tags)


def _why_layer(transaction: Transaction, diff_id: Digest, live: LiveLeases) -> Why:
    number = transaction.layers[diff_id].number
    images = images_of(transaction, number)
    reasons = []
    tags: list[str] = []
    for digest in images:
        own = tags_of(transaction, digest)
        tags += own
        position = list(image_config(transaction, digest).diff_ids).index(diff_id)
        where = f"layer {position + 1} of image {digest}"
        if digest in transaction.trash:
            where += f", which is in the trash until {_moment(transaction.trash[digest].expires)}"
        reasons.append(f"{where} ({', '.join(own)})" if own else where)
    for holder, end in holds_of(transaction, number).items():
        if end:
            reasons.append(f"pushed under lease {holder.hex()}, which ends {_moment(end)}")
        else:
            state = "a running process" if holder in live.sessions else "a process that has ended"
            reasons.append(f"pushed by {state}, and neither made part of an image nor released since")
    if number in live.layers:
        reasons.append("it is being read")
    return Why(diff_id, "layer", tuple(reasons), tuple(images), tuple(tags))


def _why_trash(transaction: Transaction, digest: Digest) -> Why:
    record = transaction.trash[digest]
    reason = f"deleted {_moment(record.deleted)}, kept in the trash until {_moment(record.expires)}"
    return Why(digest, "trash", (reason,), (digest,), record.tags)


def _moment(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(sep=" ", timespec="seconds")
