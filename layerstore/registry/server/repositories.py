"""Repositories: what of a store belongs to which name, and so what a request may see.

A repository has the images that its tags name, those that were pushed to it by digest, and all that hangs on both; and
the blobs that were uploaded to it and wait for their manifest. Nothing else of the store can be reached through it.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, InvalidManifestError, LayerstoreError, LeaseEndedError
from layerstore.objects import Image, Lease
from layerstore.oci.closure import Walker
from layerstore.oci.documents import CONFIG_SIZE_MAX, Descriptor, Index, Manifest, parse_image
from layerstore.registry.protocol import is_tag_name
from layerstore.registry.server.links import Links
from layerstore.store import Store

T = TypeVar("T")

BLOB_TTL_SECONDS = 24 * 3600
"""How long a blob without a manifest is kept at least."""
_LEASE_SECONDS = 3600
"""For so long a lease is given to blobs; each later one ends as much later."""
_FOR_EVER = 1 << 40
_CONTENTS_SIZE_MAX = 256 << 20
"""About how many bytes the contents of images take that are remembered. They never change."""
_CONTENTS_SIZE = 4000
"""About what those of a small image take."""
_MEDIA_TYPES_MAX = 10_000
LARGE_DOCUMENT_SIZE = 1 << 20
"""Documents of more bytes are handled few at a time: to parse one takes up to 200 MB."""
LARGE_DOCUMENTS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image names, itself included."""

    documents: frozenset[Digest]
    """Manifests, indexes and configs."""
    images: frozenset[Digest]
    """The manifests and indexes of them: what hangs on these was looked for when they were put."""
    blobs: frozenset[Digest]
    """Without those that may be missing: to name one of these takes nothing."""
    layers: frozenset[Digest]
    """What the blobs decode to, whatever configs say."""
    descriptor: Descriptor
    """As a list of referrers has it, annotations included."""
    subject: Digest | None

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        names = len(self.documents) + len(self.images) + len(self.blobs) + len(self.layers)
        annotated = sum(200 + len(name) + len(value) for name, value in self.descriptor.annotations.items())
        return _CONTENTS_SIZE + 200 * names + 4 * annotated

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.documents or digest in self.blobs


class Repositories:
    """The repositories of a store. Its methods may be called from several threads at once."""

    def __init__(self, store: Store, links: Links, *, blob_ttl: float = BLOB_TTL_SECONDS) -> None:
        self.store = store
        self.links = links
        self._blob_ttl = blob_ttl
        self._contents: OrderedDict[Digest, Contents] = OrderedDict()
        self._contents_size = 0
        self._media_types: OrderedDict[Digest, str] = OrderedDict()
        self._large_turns = threading.BoundedSemaphore(LARGE_DOCUMENTS_AT_ONCE)
        self._turn = threading.local()
        self._lock = threading.Lock()
        self._lease: tuple[Lease, float] | None = None
        self._kept: set[tuple[str, Digest]] = set()

    def names(self) -> list[str]:
        """The repositories that have an image, in bytewise order."""
        names = {tag.rpartition(":")[0] for tag in self.store.tags}
        names.update(name for name in self.links.repositories() if name not in names and self.roots(name))
        return sorted(names)

    def tags(self, repository: str) -> dict[str, Digest]:
        """The tags of a repository, in bytewise order, and what they name."""
        found = self.store.tags.of_repository(repository)
        # To the tags of "localhost" belong, as texts, those of "localhost:5000/app".
        return {tag: digest for tag, digest in found.items() if is_tag_name(tag)}

    def roots(self, repository: str) -> list[Digest]:
        """The images of a repository: those with a tag, and those that were pushed by digest; each once."""
        found = dict.fromkeys(self.tags(repository).values())
        untagged = [one for one in self.links.manifests(repository) if one not in found]
        found.update(dict.fromkeys(one for one in untagged if one in self.store.images))
        return list(found)

    def is_known(self, repository: str) -> bool:
        """Whether a repository has anything at all."""
        return self.links.has_blobs(repository) or bool(self.roots(repository))

    def resolve(self, repository: str, reference: Digest | str) -> Digest | None:
        """The digest of the manifest that a tag or a digest means in a repository; None if there is none."""
        if not isinstance(reference, Digest):
            return self.tags(repository).get(reference)
        if self.links.has_manifest(repository, reference) and reference in self.store.images:
            return reference
        return reference if any(reference in self.contents(one).images for one in self.roots(repository)) else None

    def manifest(self, digest: Digest) -> tuple[bytes, str] | None:
        """The bytes and the media type of a manifest or index of the store; None if it is something else."""
        try:
            data = self.store.read_document(digest)
            return data, self._media_type(digest, data)
        except (BlobNotFoundError, InvalidManifestError):
            return None

    @contextmanager
    def turn_to_parse(self, size: int) -> Iterator[None]:
        """Wait until so few other large documents are being parsed that memory suffices for one of ``size`` bytes."""
        if size <= LARGE_DOCUMENT_SIZE or getattr(self._turn, "is_held", False):
            yield
            return
        with self._large_turns:
            self._turn.is_held = True
            try:
                yield
            finally:
                self._turn.is_held = False

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Whether a repository has a blob, which may be one of its documents as well."""
        if self.links.blob_expires(repository, digest) > time.time() and self._is_stored(digest):
            return True
        return any(digest in self.contents(root) for root in self.roots(repository)) and self._is_stored(digest)

    def users_of(self, repository: str, digest: Digest) -> list[Digest]:
        """The images of a repository that name a blob or document, other than itself."""
        return [one for one in self.roots(repository) if one != digest and digest in self.contents(one)]

    def repositories_of(self, digest: Digest) -> list[str]:
        """The repositories that have an image, by tag or by digest."""
        names = {tag.rpartition(":")[0] for tag in self.store.images[digest].tags}
        return sorted(names.union(self.links.repositories_with(digest)))

    def layers_with(self, repository: str, digest: Digest) -> set[Digest]:
        """The layers that blobs decode to of those images of a repository that a manifest is part of, or is.

        A config may name any layer. What is not among these must not be shown for it.
        """
        proper = [contents for root in self.roots(repository) if digest in (contents := self.contents(root)).images]
        return {layer for contents in proper for layer in contents.layers}

    def readable_layers(
        self, repository: str, layers: Sequence[Digest], may_read: Callable[[str], bool]
    ) -> list[Digest]:
        """Those of some layers that blobs of this repository, or of another that may be read, decode to."""
        own = {layer for root in self.roots(repository) for layer in self.contents(root).layers}
        return [one for one in layers if one in own or self._is_layer_readable(one, may_read)]

    def _is_layer_readable(self, layer: Digest, may_read: Callable[[str], bool]) -> bool:
        found = self.store.layers.get(layer)
        # That a config names the layer is a claim; what counts is that a blob of the image is it.
        images = [] if found is None else [one.digest for one in found.images]
        proper = [one for one in images if layer in self.contents(one).layers]
        return any(may_read(name) for image in proper for name in self.repositories_of(image))

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """The manifests of a repository that refer to one, which need not be there."""
        found = {}
        for root in self.roots(repository):
            contents = self.contents(root)
            if contents.subject == subject:
                found[root] = contents.descriptor
        fallback = self.tags(repository).get(f"{subject.algorithm[:32]}-{subject.encoded[:64]}")
        if fallback is not None and (listed := self.manifest(fallback)) is not None:
            with self.turn_to_parse(len(listed[0])):
                document = parse_image(listed[0])
            if isinstance(document, Index):
                found.update((one.digest, one) for one in document.manifests if one.digest not in found)
        return list(found.values())

    def contents(self, digest: Digest) -> Contents:
        """What an image names. Raises `ImageNotFoundError` if the store has none of that digest."""
        with self._lock:
            known = self._contents.get(digest)
            if known is not None:
                self._contents.move_to_end(digest)
                return known
        contents = self._read_contents(digest)
        with self._lock:
            if digest not in self._contents:
                self._contents_size += contents.weight
            self._contents[digest] = contents
            while self._contents_size > _CONTENTS_SIZE_MAX and len(self._contents) > 1:
                self._contents_size -= self._contents.popitem(last=False)[1].weight
        return contents

    def names_with_blob(self, digest: Digest) -> list[str]:
        """The repositories that have a blob, as far as they can be found without looking through all of them."""
        names = set(self.links.repositories_with_blob(digest))
        for owner in (self.store.layers.get(digest), self.store.encodings.get(digest)):
            for image in [] if owner is None else owner.images:
                names.update(self.repositories_of(image.digest))
        return sorted(names)

    def keep_blob(self, repository: str, digest: Digest) -> bool:
        """Whether the store has a blob whole; if so, the repository has it for a while, whatever is deleted."""
        is_kept = (repository, digest) in self._kept and self._is_lease_young()
        if is_kept and self.links.blob_expires(repository, digest) > time.time():  # another worker may have deleted it
            return True

        def keep(lease: Lease) -> bool:
            if self.store.keep_blob(digest, lease=lease):
                return True
            try:
                self.store.push_blob(self.store.read_document(digest), digest=digest, lease=lease)
            except BlobNotFoundError:
                return False
            return True

        is_kept, expires = self.under_lease(keep)
        if is_kept:
            self.add_blob(repository, digest, expires)
        return is_kept

    def add_blob(self, repository: str, digest: Digest, expires: float) -> None:
        """Let a repository have a blob that is held by a lease until ``expires``."""
        self.links.add_blob(repository, digest, expires)
        with self._lock:
            self._kept.add((repository, digest))

    def add_owned_blob(self, repository: str, digest: Digest) -> None:
        """Let a repository have a blob that was uploaded to it for as long as the store has it."""
        self.links.add_blob(repository, digest, _FOR_EVER)

    def forget_blob(self, repository: str, digest: Digest) -> None:
        """Let a repository no longer have an uploaded blob. The store's lease of it runs on."""
        self.links.remove_blob(repository, digest)
        with self._lock:
            self._kept.discard((repository, digest))

    def under_lease(self, push: Callable[[Lease], T]) -> tuple[T, float]:
        """Call a function with a lease for what is uploaded now; what it gives, and when the lease ends.

        That is in seconds since 1970, and not before the time of a blob is over.
        """
        lease, expires = self._current_lease()
        try:
            return push(lease), expires
        except LeaseEndedError:  # someone else has ended it
            with self._lock:
                if self._lease is not None and self._lease[0] is lease:
                    self._lease = None
        lease, expires = self._current_lease()
        return push(lease), expires

    def is_long_enough(self, expires: float) -> bool:
        """Whether a blob that is held until then (seconds since 1970) is held about as long as one that comes now."""
        return expires - time.time() > 0.9 * self._blob_ttl

    def _current_lease(self) -> tuple[Lease, float]:
        with self._lock:
            if self._lease is None or not self._is_lease_young():
                ttl = self._blob_ttl + min(_LEASE_SECONDS, self._blob_ttl)
                self._lease = (self.store.lease(ttl), time.time() + ttl)
                self._kept.clear()
            return self._lease

    def _is_lease_young(self) -> bool:
        lease = self._lease
        return lease is not None and lease[1] - time.time() >= self._blob_ttl

    def put_manifest(self, repository: str, data: bytes, digest: Digest, tags: Sequence[str]) -> None:
        """Put a manifest or index whose blobs are there, under all tags. Raises as `Store.put_image`."""
        self.links.add_manifest(repository, digest)
        documents = self._missing_documents(data)
        names: list[str | None] = [f"{repository}:{tag}" for tag in tags]
        for name in names or [None]:
            self.store.put_image(data, documents=documents, digest=digest, tag=name, believe_blobs=True)
            documents = []
        # Whoever deleted the manifest meanwhile has taken the first row away.
        self.links.add_manifest(repository, digest)

    def delete_manifest(self, repository: str, digest: Digest) -> None:
        """Take a manifest and its tags from a repository; when no other one has it, it goes into the trash."""
        with self.links.exclusive():
            self.links.remove_manifest(repository, digest)
            tags = [f"{repository}:{tag}" for tag, named in self.tags(repository).items() if named == digest]
            if self.links.repositories_with(digest):
                for tag in tags:
                    self.store.tags.discard(tag, digest)
            elif digest in self.store.images:
                self.store.delete_image(digest, only_tags=tags)

    def _media_type(self, digest: Digest, data: bytes) -> str:
        with self._lock:
            known = self._media_types.get(digest)
            if known is not None:
                self._media_types.move_to_end(digest)
                return known
        with self.turn_to_parse(len(data)):
            found = parse_image(data).media_type
        with self._lock:
            self._media_types[digest] = found
            while len(self._media_types) > _MEDIA_TYPES_MAX:
                self._media_types.popitem(last=False)
        return found

    def _is_stored(self, digest: Digest) -> bool:
        if self.store.has_blob(digest):
            return True
        try:
            self.store.blob_size(digest)  # a document
        except BlobNotFoundError:
            return False
        return True

    def _missing_documents(self, data: bytes) -> list[bytes]:
        """The config that a manifest names, which came as a blob; the manifests of an index are there."""
        document = parse_image(data)
        if not isinstance(document, Manifest):
            return []
        config = document.config
        try:
            self.store.read_document(config.digest)
            return []
        except BlobNotFoundError:
            pass
        if config.size > CONFIG_SIZE_MAX:
            return []
        try:
            return [b"".join(self.store.blob_blocks(config.digest))]
        except LayerstoreError:
            return []  # `put_image` says what is missing

    def _read_contents(self, digest: Digest) -> Contents:
        image: Image = self.store.images[digest]
        walker = Walker(lambda one: self.store.read_document(one.digest), reads_configs=False)
        with self.turn_to_parse(self.store.blob_size(digest)):
            descriptor = image.descriptor
            document = walker.document(descriptor)
            closure = walker.closure_of(descriptor, document)
        artifact_type = document.artifact_type
        if artifact_type is None and isinstance(document, Manifest):
            artifact_type = document.config.media_type  # spec.md, "Listing Referrers"
        subject = None if document.subject is None else document.subject.digest
        # Only lists of referrers show annotations, and of those that refer to nothing they would be kept in vain.
        annotations = {} if subject is None else document.annotations
        annotated = descriptor.model_copy(update={"annotations": annotations, "artifact_type": artifact_type})
        blobs = frozenset(blob.descriptor.digest for blob in closure.blobs if not blob.may_be_missing)
        layers = frozenset(layer for blob in blobs if (layer := self._layer_of(blob)) is not None)
        return Contents(frozenset(closure.documents), frozenset(closure.images), blobs, layers, annotated, subject)

    def _layer_of(self, blob: Digest) -> Digest | None:
        encoding = self.store.encodings.get(blob)
        if encoding is not None:
            return encoding.layer.diff_id
        return blob if blob in self.store.layers else None
