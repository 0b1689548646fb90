"""The closures of images in a store, and what they keep.

An image owns its whole closure: the manifests and configs of an index are counted as its documents, and the layers of
all its platforms are kept by it. So deleting an image needs to know of no other one.
"""

from collections.abc import Callable, Iterator

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, ImageNotFoundError, IndexDamagedError, InvalidManifestError
from layerstore.oci.closure import Closure, gather
from layerstore.storage.index import Transaction


def stored_closure(transaction: Transaction, digest: Digest) -> Closure:
    """The closure of an image that is there, in the trash, or part of one."""

    def read(one: Digest) -> bytes | None:
        record = transaction.blobs.get(one)
        return None if record is None else record.data

    if digest not in transaction.blobs and digest not in transaction.images and digest not in transaction.trash:
        raise ImageNotFoundError(f"the store has no image {digest}")
    try:
        return gather(digest, read)
    except (BlobNotFoundError, InvalidManifestError) as error:
        raise IndexDamagedError(f"image {digest}: {error}; run `layerstore verify`") from error


def needed_layers(closure: Closure, diff_id_of: Callable[[Digest], Digest | None]) -> list[Digest]:
    """The layers without which an image is not whole.

    A blob that is there says itself what it decodes to (``diff_id_of``): its config may claim anything. What the config
    says counts for the others.
    """
    needed: dict[Digest, None] = {}
    for blob in closure.blobs:
        if not blob.may_be_missing:
            layer = diff_id_of(blob.descriptor.digest) or blob.diff_id
            if layer is not None:
                needed[layer] = None
    return list(needed)


def stored_diff_id(transaction: Transaction, blob: Digest) -> Digest | None:
    """The layer that a blob of the store decodes to, which may be missing; None if there is no such blob."""
    encoding = transaction.encodings.get(blob)
    if encoding is not None:
        return encoding.diff_id
    return blob if blob in transaction.layers else None


def layers_of(transaction: Transaction, digest: Digest) -> tuple[Digest, ...]:
    """The layers of everything that hangs on an image and is in the store, each once."""
    closure = stored_closure(transaction, digest)
    found = dict.fromkeys(one for one in closure.diff_ids if one in transaction.layers)
    for blob in closure.blob_digests:
        encoding = transaction.encodings.get(blob)
        if encoding is not None:
            found[encoding.diff_id] = None
        elif blob in transaction.layers:
            found[blob] = None
    return tuple(found)


def kept_by(transaction: Transaction, closure: Closure) -> dict[int, Digest]:
    """What an image keeps, as far as it is there: number and digest of its layers and of its encodings."""
    return dict(_kept_by(transaction, closure))


def _kept_by(transaction: Transaction, closure: Closure) -> Iterator[tuple[int, Digest]]:
    for diff_id in closure.diff_ids:
        layer = transaction.layers.get(diff_id)
        if layer is not None:
            yield layer.number, diff_id
    for digest in closure.blob_digests:
        encoding = transaction.encodings.get(digest)
        if encoding is not None:
            yield encoding.number, digest
        layer = transaction.layers.get(digest)
        if layer is not None:
            yield layer.number, digest
