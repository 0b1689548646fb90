"""The closure of an image: all documents and blobs that hang on the manifest or index that names it.

An image owns its whole closure: the manifests and configs of an index are counted as its documents, and the layers of
all its platforms are kept by it. So deleting an image needs to know of no other one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, ImageNotFoundError, IndexDamagedError, InvalidManifestError
from layerstore.oci.config import parse_config
from layerstore.oci.documents import Descriptor, Manifest, parse_image
from layerstore.oci.media_types import CONFIGS, INDEXES, MANIFESTS, NONDISTRIBUTABLE_LAYERS
from layerstore.storage.index import Transaction

DOCUMENTS_MAX = 10_000
"""Documents of one image."""
DEPTH_MAX = 8
"""How deep indexes may lie in indexes."""

ReadDocument = Callable[[Digest], bytes | None]
"""The bytes of a document; None if they are not there."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that a manifest names as one of its layers."""

    descriptor: Descriptor
    diff_id: Digest | None
    """What the config says that it decodes to; None in an artifact, which has no such config."""

    @property
    def may_be_missing(self) -> bool:
        """Whether it is fetched from elsewhere, as licences of some base layers demand."""
        return self.descriptor.media_type in NONDISTRIBUTABLE_LAYERS


@dataclass(slots=True)
class Closure:
    """What hangs on one root."""

    root: Digest
    documents: dict[Digest, bytes] = field(default_factory=dict)
    """Manifests, indexes and configs, each once, those that name others before them."""
    blobs: list[Blob] = field(default_factory=list)
    """In the order of the manifests; one may come more than once."""
    diff_ids: dict[Digest, None] = field(default_factory=dict)
    """The layers that configs name, each once, in order."""
    config: Digest | None = None
    """That of the root, if it is a manifest."""
    contradiction: str = ""
    """Where a config and its manifest do not fit each other."""

    @property
    def needed_diff_ids(self) -> list[Digest]:
        """The layers without which the image is not whole."""
        optional = {blob.diff_id for blob in self.blobs if blob.may_be_missing}
        return [diff_id for diff_id in self.diff_ids if diff_id not in optional]

    @property
    def blob_digests(self) -> tuple[Digest, ...]:
        """The blobs that manifests name, each once, in order."""
        return tuple(dict.fromkeys(blob.descriptor.digest for blob in self.blobs))


def gather(root: Digest, read: ReadDocument) -> Closure:
    """Read everything that hangs on ``root``.

    Raises `InvalidManifestError` for documents that are none or too many, and `BlobNotFoundError` if one is missing.
    """
    closure = Closure(root)
    _gather(closure, root, read, 0, None)
    return closure


def _gather(closure: Closure, digest: Digest, read: ReadDocument, depth: int, media_type: str | None) -> None:
    if digest in closure.documents:
        return
    data = _read(closure, digest, read)
    document = parse_image(data)
    if media_type is not None and document.media_type != media_type:
        raise InvalidManifestError(f"{digest} is called {media_type}, but calls itself {document.media_type}")
    if isinstance(document, Manifest):
        _gather_manifest(closure, digest, document, read)
        return
    if depth >= DEPTH_MAX:
        raise InvalidManifestError(f"indexes lie in each other more than {DEPTH_MAX} deep")
    for child in document.manifests:
        if child.media_type in MANIFESTS | INDEXES:
            _gather(closure, child.digest, read, depth + 1, child.media_type)
        else:
            closure.blobs.append(Blob(child, None))  # image-index.md: an index may name anything


def _gather_manifest(closure: Closure, digest: Digest, manifest: Manifest, read: ReadDocument) -> None:
    data = closure.documents.get(manifest.config.digest)
    if data is None:
        data = _read(closure, manifest.config.digest, read)
    if digest == closure.root:
        closure.config = manifest.config.digest
    diff_ids = parse_config(data).diff_ids if manifest.config.media_type in CONFIGS else ()
    closure.diff_ids.update(dict.fromkeys(diff_ids))
    closure.blobs += [Blob(one, diff_id) for one, diff_id in zip_longest(manifest.layers, diff_ids) if one is not None]
    if diff_ids and len(diff_ids) != len(manifest.layers):
        closure.contradiction = (
            f"the config {manifest.config.digest} names {len(diff_ids)} layers, its manifest {len(manifest.layers)}"
        )


def _read(closure: Closure, digest: Digest, read: ReadDocument) -> bytes:
    if len(closure.documents) >= DOCUMENTS_MAX:
        raise InvalidManifestError(f"an image of more than {DOCUMENTS_MAX} documents is not accepted")
    data = read(digest)
    if data is None:
        raise BlobNotFoundError(f"there is no document {digest}, which an image needs")
    closure.documents[digest] = data
    return data


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
