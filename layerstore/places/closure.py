"""What hangs on the roots of a source, each document verified."""

from collections.abc import Iterable

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, InvalidManifestError
from layerstore.oci import closure
from layerstore.oci.closure import Closure
from layerstore.oci.documents import Descriptor, Index, Manifest
from layerstore.oci.media_types import NONDISTRIBUTABLE_LAYERS
from layerstore.places.content import verified_document
from layerstore.places.place import Source


class Walker(closure.Walker):
    """Reads the documents of a source, each once. Configs may be anything: a copy does not ask what is in them."""

    def __init__(self, source: Source) -> None:
        super().__init__(
            lambda descriptor: verified_document(descriptor, [source.read_document(descriptor)]), reads_configs=False
        )
        self._name = source.name

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document, verified."""
        data = super().read(descriptor)
        if len(data) != descriptor.size:
            raise InvalidManifestError(f"{descriptor.digest} has {len(data)} bytes, not {descriptor.size} as is said")
        return data

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        """See `layerstore.oci.closure.Walker`."""
        try:
            return super().document(descriptor)
        except InvalidManifestError as error:
            raise InvalidManifestError(f"{self._name}: {error}") from None

    def closure_of(self, root: Descriptor, document: Manifest | Index) -> Closure:
        """See `layerstore.oci.closure.Walker`. Raises `InvalidManifestError` also for a blob that has two sizes."""
        try:
            found = super().closure_of(root, document)
        except BlobNotFoundError as error:
            if isinstance(document, Index) and any(child.platform is not None for child in document.manifests):
                raise BlobNotFoundError(f"{error}: copy one platform that is there") from None
            raise
        blobs_of([found])
        return found


def blobs_of(closures: Iterable[Closure]) -> dict[Digest, Descriptor]:
    """The blobs of closures, each once. Raises `InvalidManifestError` if one is said to have two sizes."""
    found: dict[Digest, Descriptor] = {}
    for one in closures:
        for blob in one.blobs:
            descriptor = blob.descriptor
            known = found.setdefault(descriptor.digest, descriptor)
            if known.size != descriptor.size:
                raise InvalidManifestError(
                    f"{descriptor.digest} is said to have {known.size} and {descriptor.size} bytes"
                )
            # Of a layer that may be absent here and must not be there, the stricter holds.
            if known.media_type in NONDISTRIBUTABLE_LAYERS:
                found[descriptor.digest] = descriptor
    return found
