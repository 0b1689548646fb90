"""The closures of images in a store, and what they keep.

An image owns its whole closure: the manifests and configs of an index are counted as its documents, and the layers of
all its platforms are kept by it. So deleting an image needs to know of no other one.
"""

from collections.abc import Callable, Iterator

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, ImageNotFoundError, IndexDamagedError, InvalidManifestError
from layerstore.oci.closure import Closure, gather
from layerstore.oci.documents import Descriptor
from layerstore.oci.media_types import LAYER_COMPRESSIONS
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


def stack_of(transaction: Transaction, digest: Digest) -> list[Digest]:
    """The layers of an image of one platform, the lowest first, as its config names them.

    Raises `InvalidManifestError` for an index, and if a blob that is there is another layer than the config says: it
    may have been put without a look at that, and show what is none of its own.
    """
    closure = stored_closure(transaction, digest)
    if closure.config is None:
        raise InvalidManifestError(f"{digest} is no image of one platform, so it has no files")
    if closure.contradiction:
        raise InvalidManifestError(closure.contradiction)
    for blob in closure.blobs:
        actual = _proper_diff_id(transaction, blob.descriptor)
        if actual is not None and blob.diff_id is not None and actual != blob.diff_id:
            raise InvalidManifestError(
                f"blob {blob.descriptor.digest} of image {digest} decodes to {actual}; its config says {blob.diff_id}"
            )
    return [blob.diff_id for blob in closure.blobs if blob.diff_id is not None]


def _proper_diff_id(transaction: Transaction, descriptor: Descriptor) -> Digest | None:
    """The layer that a blob is beyond doubt: one that says it is compressed may only be kept as the bytes it is."""
    encoding = transaction.encodings.get(descriptor.digest)
    if encoding is not None:
        return encoding.diff_id
    is_plain = LAYER_COMPRESSIONS.get(descriptor.media_type) == "none" and descriptor.digest.algorithm == "sha256"
    return descriptor.digest if is_plain else None


def stored_diff_id(transaction: Transaction, blob: Digest) -> Digest | None:
    """The layer that a blob of the store decodes to, which may be missing; None if there is no such blob."""
    encoding = transaction.encodings.get(blob)
    if encoding is not None:
        return encoding.diff_id
    return blob if blob in transaction.layers else None


def layers_of(transaction: Transaction, digest: Digest) -> list[Digest]:
    """The layers of everything that hangs on an image and is in the store, each once."""
    closure = stored_closure(transaction, digest)
    found = dict.fromkeys(one for one in closure.diff_ids if one in transaction.layers)
    for blob in closure.blob_digests:
        encoding = transaction.encodings.get(blob)
        if encoding is not None:
            found[encoding.diff_id] = None
        elif blob in transaction.layers:
            found[blob] = None
    return list(found)


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
