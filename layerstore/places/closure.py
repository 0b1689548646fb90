"""What hangs on a root: the manifests of an index, configs and layers."""

from dataclasses import dataclass, field

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, InvalidManifestError
from layerstore.oci import media_types
from layerstore.oci.documents import (
    DOCUMENT_SIZE_MAX,
    Descriptor,
    Index,
    Manifest,
    parse_index,
    parse_manifest,
)
from layerstore.places.content import check_document_size, verified_document
from layerstore.places.place import Source
from layerstore.places.platforms import normalized

DOCUMENTS_MAX = 10_000
"""Documents of one copy."""

DOCUMENT_BYTES_MAX = 128 << 20
"""Bytes of all documents of one copy, which are held in memory."""

DEPTH_MAX = 4
"""Indexes within each other."""


@dataclass(slots=True)
class Closure:
    """All that one root needs."""

    documents: dict[Digest, bytes] = field(default_factory=dict)
    """Manifests, indexes and configs."""
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    """Layers, and whatever else is no document."""


class Walker:
    """Reads the documents of a source, each once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read: dict[Digest, bytes] = {}
        self._bytes = 0

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        """The manifest or index of a descriptor.

        Raises `InvalidManifestError` if it is none, is too much, or calls itself something else than its descriptor
        does: what can be read as two things means different content to different programs (CVE-2021-41190).
        """
        data = self.read(descriptor)
        try:
            parsed: Manifest | Index
            if descriptor.media_type in media_types.MANIFESTS:
                parsed = parse_manifest(data)
            elif descriptor.media_type in media_types.INDEXES:
                parsed = parse_index(data)
            else:
                raise InvalidManifestError(
                    f"its media type is {descriptor.media_type[:120]!r}, not that of a manifest or index"
                )
            if "media_type" in parsed.model_fields_set and parsed.media_type != descriptor.media_type:
                raise InvalidManifestError(
                    f"it calls itself {parsed.media_type}, its descriptor calls it {descriptor.media_type}"
                )
        except InvalidManifestError as error:
            raise InvalidManifestError(f"{descriptor.digest} in {self._source.name}: {error}") from None
        return parsed

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document, verified."""
        known = self._read.get(descriptor.digest)
        if known is None:
            check_document_size(descriptor)
            self._bytes += descriptor.size
            if len(self._read) >= DOCUMENTS_MAX or self._bytes > DOCUMENT_BYTES_MAX:
                raise InvalidManifestError(
                    f"{self._source.name} has too many documents for one copy: more than {DOCUMENTS_MAX}, "
                    f"or {DOCUMENT_BYTES_MAX} bytes"
                )
            known = self._read[descriptor.digest] = verified_document(
                descriptor, [self._source.read_document(descriptor)]
            )
        elif len(known) != descriptor.size:
            raise InvalidManifestError(f"{descriptor.digest} has {len(known)} bytes, not {descriptor.size} as is said")
        return known

    def closure(self, root: Descriptor) -> Closure:
        """All that hangs on a root. Raises `BlobNotFoundError` if a document is missing; layers are not looked for."""
        closure = Closure()
        self._visit(root, closure, 0)
        return closure

    def _visit(self, descriptor: Descriptor, closure: Closure, depth: int) -> None:
        if descriptor.digest in closure.documents:
            return
        document = self.document(descriptor)
        closure.documents[descriptor.digest] = self.read(descriptor)
        if isinstance(document, Manifest):
            if document.config.size <= DOCUMENT_SIZE_MAX:
                closure.documents[document.config.digest] = self.read(document.config)
            else:
                _add_blob(closure, document.config)
            for layer in document.layers:
                _add_blob(closure, layer)
            return
        if depth == DEPTH_MAX:
            raise InvalidManifestError(f"{descriptor.digest}: more than {DEPTH_MAX} indexes within each other")
        for child in document.manifests:
            if not _is_document(child):
                _add_blob(closure, child)  # an index may list anything (image-index.md, "manifests")
                continue
            try:
                self._visit(child, closure, depth + 1)
            except BlobNotFoundError as error:
                raise _missing(child, descriptor, error) from None


def _is_document(descriptor: Descriptor) -> bool:
    return descriptor.media_type in media_types.MANIFESTS or descriptor.media_type in media_types.INDEXES


def _add_blob(closure: Closure, descriptor: Descriptor) -> None:
    known = closure.blobs.setdefault(descriptor.digest, descriptor)
    if known.size != descriptor.size:
        raise InvalidManifestError(f"{descriptor.digest} is said to have {known.size} and {descriptor.size} bytes")
    # Of a layer that may be absent here and must not be there, the stricter holds.
    if known.media_type in media_types.NONDISTRIBUTABLE_LAYERS:
        closure.blobs[descriptor.digest] = descriptor


def _missing(child: Descriptor, index: Descriptor, error: BlobNotFoundError) -> BlobNotFoundError:
    if child.platform is None:
        return BlobNotFoundError(f"{error}, which the index {index.digest} lists")
    return BlobNotFoundError(
        f"{error}, which the index {index.digest} lists for {normalized(child.platform)}: "
        "copy one platform that is there (--platform)"
    )
