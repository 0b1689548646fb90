"""The closure of a manifest or index: all documents and blobs that hang on it.

There is one walk and one set of limits for every place, so that what one of them takes, all of them do.
"""

from collections.abc import Callable, KeysView
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, InvalidManifestError
from layerstore.oci.config import parse_config
from layerstore.oci.documents import (
    CONFIG_SIZE_MAX,
    DOCUMENT_SIZE_MAX,
    Descriptor,
    Index,
    Manifest,
    Platform,
    parse_image,
    parse_index,
    parse_manifest,
)
from layerstore.oci.media_types import CONFIGS, INDEXES, MANIFESTS, NONDISTRIBUTABLE_LAYERS

DOCUMENTS_MAX = 10_000
"""Documents that one walker reads."""
DOCUMENT_BYTES_MAX = 128 << 20
"""Bytes of all of them, which are held in memory."""
DEPTH_MAX = 8
"""Indexes within each other."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that a manifest or index names: a layer, or whatever else is no document."""

    descriptor: Descriptor
    diff_id: Digest | None
    """What the config says that it decodes to; None where no config speaks of it, as in an artifact."""

    @property
    def may_be_missing(self) -> bool:
        """Whether it is fetched from elsewhere, as licences of some base layers demand."""
        return self.descriptor.media_type in NONDISTRIBUTABLE_LAYERS


@dataclass
class Closure:
    """What hangs on one root. Of a blob that may be missing here and is needed there, the stricter holds."""

    root: Digest
    documents: dict[Digest, bytes] = field(default_factory=dict)
    """Manifests, indexes and configs, each once, those that name others before them."""
    images: set[Digest] = field(default_factory=set)
    """The manifests and indexes among them: what was walked. A config may look like one, and is none."""
    blobs: list[Blob] = field(default_factory=list)
    """In the order of the manifests; one may come more than once."""
    diff_ids: dict[Digest, None] = field(default_factory=dict)
    """The layers that configs name, each once, in order."""
    config: Digest | None = None
    """That of the root, if it is a manifest whose config is a document."""
    contradiction: str = ""
    """Where a config and its manifest do not fit each other."""

    # These are asked for once the walk is over, and then for every layer.

    @cached_property
    def needed_diff_ids(self) -> KeysView[Digest]:
        """The layers without which the image is not whole."""
        optional = {blob.diff_id for blob in self.blobs if blob.may_be_missing}
        optional.difference_update(blob.diff_id for blob in self.blobs if not blob.may_be_missing)
        return {diff_id: None for diff_id in self.diff_ids if diff_id not in optional}.keys()

    @cached_property
    def needed_blob_digests(self) -> KeysView[Digest]:
        """The blobs that no config speaks of, and without which the root is not whole."""
        needed = [blob for blob in self.blobs if blob.diff_id is None and not blob.may_be_missing]
        return {blob.descriptor.digest: None for blob in needed}.keys()

    @property
    def blob_digests(self) -> tuple[Digest, ...]:
        """The blobs that manifests and indexes name, each once, in order."""
        return tuple(dict.fromkeys(blob.descriptor.digest for blob in self.blobs))


class Walker:
    """Reads documents, each once, and finds what hangs on them."""

    def __init__(self, read: Callable[[Descriptor], bytes], *, reads_configs: bool) -> None:
        """``read`` gives the bytes of a document, or raises `BlobNotFoundError`.

        Without ``reads_configs`` nothing is said of DiffIDs, and configs may be anything.
        """
        self._source = read
        self._reads_configs = reads_configs
        self._known: dict[Digest, bytes] = {}
        self._size = 0

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document. Raises `InvalidManifestError` if it is too large, or one too many."""
        known = self._known.get(descriptor.digest)
        if known is not None:
            return known
        _check_size(descriptor.digest, descriptor.size)
        if len(self._known) >= DOCUMENTS_MAX or self._size + descriptor.size > DOCUMENT_BYTES_MAX:
            raise InvalidManifestError(
                f"these are too many documents: more than {DOCUMENTS_MAX}, or {DOCUMENT_BYTES_MAX} bytes"
            )
        data = self._source(descriptor)
        _check_size(descriptor.digest, len(data))
        self._size += len(data)
        self._known[descriptor.digest] = data
        return data

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        """The manifest or index of a descriptor.

        Raises `InvalidManifestError` if it is none, is too much, or calls itself something else than its descriptor
        does: what can be read as two things means different content to different programs (CVE-2021-41190).
        """
        data = self.read(descriptor)
        called = descriptor.media_type
        try:
            parsed: Manifest | Index
            if called in MANIFESTS:
                parsed = parse_manifest(data)
            elif called in INDEXES:
                parsed = parse_index(data)
            else:
                raise InvalidManifestError(f"its media type is {called[:120]!r}, not that of a manifest or index")
            if "media_type" in parsed.model_fields_set and parsed.media_type != called:
                raise InvalidManifestError(f"it calls itself {parsed.media_type}, its descriptor calls it {called}")
        except InvalidManifestError as error:
            raise InvalidManifestError(f"{descriptor.digest}: {error}") from None
        return parsed

    def closure(self, root: Descriptor) -> Closure:
        """All that hangs on a root. Raises `BlobNotFoundError` if a document is missing; blobs are not looked for."""
        return self.closure_of(root, self.document(root))

    def closure_of(self, root: Descriptor, document: Manifest | Index) -> Closure:
        """`closure`, of a root that is parsed already."""
        return _Walk(self, root.digest, self._reads_configs).over(root, document)


class _Walk:
    """One closure on its way."""

    def __init__(self, walker: Walker, root: Digest, reads_configs: bool) -> None:
        self._walker = walker
        self._reads_configs = reads_configs
        self._closure = Closure(root)
        # Not those in `Closure.documents`: a manifest may have been read before as the config of another one.
        self._visited: dict[Digest, str] = {}

    def over(self, root: Descriptor, document: Manifest | Index) -> Closure:
        self._visit(root, document, 0)
        return self._closure

    def _visit(self, descriptor: Descriptor, document: Manifest | Index, depth: int) -> None:
        self._visited[descriptor.digest] = descriptor.media_type
        self._closure.documents[descriptor.digest] = self._walker.read(descriptor)
        self._closure.images.add(descriptor.digest)
        if isinstance(document, Manifest):
            self._visit_manifest(descriptor.digest, document)
            return
        if depth >= DEPTH_MAX:
            raise InvalidManifestError(f"{descriptor.digest}: indexes lie in each other more than {DEPTH_MAX} deep")
        for child in document.manifests:
            if child.media_type not in MANIFESTS | INDEXES:
                self._closure.blobs.append(Blob(child, None))  # image-index.md: an index may name anything
                continue
            try:
                self._visit_child(child, depth + 1)
            except BlobNotFoundError as error:
                platform = "" if child.platform is None else f" for {_shown(child.platform)}"
                raise BlobNotFoundError(f"{error}, which the index {descriptor.digest} lists{platform}") from None

    def _visit_child(self, child: Descriptor, depth: int) -> None:
        called = self._visited.get(child.digest)
        if called is None:
            self._visit(child, self._walker.document(child), depth)
            return
        if called != child.media_type:
            raise InvalidManifestError(f"{child.digest} is called {called} and {child.media_type}")
        self._walker.read(child)  # whatever the walker demands of a descriptor holds for this one, too

    def _visit_manifest(self, digest: Digest, manifest: Manifest) -> None:
        closure, config = self._closure, manifest.config
        diff_ids: tuple[Digest, ...] = ()
        if config.size > CONFIG_SIZE_MAX:
            closure.blobs.append(Blob(config, None))
        else:
            data = closure.documents[config.digest] = self._walker.read(config)
            if digest == closure.root:
                closure.config = config.digest
            if self._reads_configs and config.media_type in CONFIGS:
                diff_ids = parse_config(data).diff_ids
        closure.diff_ids.update(dict.fromkeys(diff_ids))
        pairs = zip_longest(manifest.layers, diff_ids)
        closure.blobs += [Blob(layer, diff_id) for layer, diff_id in pairs if layer is not None]
        if diff_ids and len(diff_ids) != len(manifest.layers):
            closure.contradiction = (
                f"the config {config.digest} names {len(diff_ids)} layers, its manifest {len(manifest.layers)}"
            )


def gather(root: Digest, read: Callable[[Digest], bytes | None]) -> Closure:
    """Everything that hangs on ``root``, of documents whose digests are vouched for.

    ``read`` gives None for a document that is not there. Raises `InvalidManifestError` for documents that are none or
    too many, and `BlobNotFoundError` if one is missing.
    """

    def found(digest: Digest) -> bytes:
        data = read(digest)
        if data is None:
            raise BlobNotFoundError(f"there is no document {digest}, which an image needs")
        return data

    data = found(root)
    document = parse_image(data)
    descriptor = Descriptor(media_type=document.media_type, digest=root, size=len(data))
    walker = Walker(lambda one: data if one.digest == root else found(one.digest), reads_configs=True)
    return walker.closure_of(descriptor, document)


def _check_size(digest: Digest, size: int) -> None:
    if size > DOCUMENT_SIZE_MAX:
        raise InvalidManifestError(f"{digest} has {size} bytes: documents over {DOCUMENT_SIZE_MAX} are not accepted")


def _shown(platform: Platform) -> str:
    return "/".join(part[:40] for part in (platform.os, platform.architecture, platform.variant) if part)
