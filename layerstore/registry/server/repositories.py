"""Repositories: what of a store belongs to which name, and so what a request may see.

A repository has the images that its tags name, those that were pushed to it by digest, and all that hangs on both; and
the blobs that were uploaded to it and wait for their manifest. Nothing else of the store can be reached through it.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, InvalidManifestError, LayerstoreError
from layerstore.objects import Image, Lease
from layerstore.oci.closure import Walker
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor, Index, Manifest, parse_image
from layerstore.registry.server.links import Links
from layerstore.store import Store

BLOB_TTL_SECONDS = 24 * 3600
"""How long a blob without a manifest is kept at least."""
_LEASE_SECONDS = 3600
"""For so long a lease is given to blobs; each later one ends as much later."""
_CONTENTS_MAX = 20_000
"""Images whose contents are remembered. They never change."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image names, itself included."""

    documents: frozenset[Digest]
    """Manifests, indexes and configs."""
    blobs: frozenset[Digest]
    descriptor: Descriptor
    """As a list of referrers has it, annotations included."""
    subject: Digest | None

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.documents or digest in self.blobs


class Repositories:
    """The repositories of a store. Its methods may be called from several threads at once."""

    def __init__(self, store: Store, links: Links, *, blob_ttl: float = BLOB_TTL_SECONDS) -> None:
        self.store = store
        self.links = links
        self._blob_ttl = blob_ttl
        self._contents: OrderedDict[Digest, Contents] = OrderedDict()
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
        return self.store.tags.of_repository(repository)

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
        return reference if any(reference in self.contents(one).documents for one in self.roots(repository)) else None

    def manifest(self, digest: Digest) -> tuple[bytes, str] | None:
        """The bytes and the media type of a manifest or index of the store; None if it is something else."""
        try:
            data = self.store.read_document(digest)
            return data, parse_image(data).media_type
        except (BlobNotFoundError, InvalidManifestError):
            return None

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

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """The manifests of a repository that refer to one, which need not be there."""
        found = {}
        for root in self.roots(repository):
            contents = self.contents(root)
            if contents.subject == subject:
                found[root] = contents.descriptor
        fallback = self.tags(repository).get(f"{subject.algorithm}-{subject.encoded}"[:128])
        if fallback is not None and (listed := self.manifest(fallback)) is not None:
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
            self._contents[digest] = contents
            while len(self._contents) > _CONTENTS_MAX:
                self._contents.popitem(last=False)
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
        lease, expires = self.lease()
        if (repository, digest) in self._kept:
            return True
        if not self.store.keep_blob(digest, lease=lease):
            try:
                self.store.push_blob(self.store.read_document(digest), digest=digest, lease=lease)
            except BlobNotFoundError:
                return False
        self.add_blob(repository, digest, expires)
        return True

    def add_blob(self, repository: str, digest: Digest, expires: float) -> None:
        """Let a repository have a blob that is held by a lease until ``expires``."""
        self.links.add_blob(repository, digest, expires)
        with self._lock:
            self._kept.add((repository, digest))

    def forget_blob(self, repository: str, digest: Digest) -> None:
        """Let a repository no longer have an uploaded blob. The store's lease of it runs on."""
        self.links.remove_blob(repository, digest)
        with self._lock:
            self._kept.discard((repository, digest))

    def lease(self) -> tuple[Lease, float]:
        """A lease for what is uploaded now, and when it ends (seconds since 1970): in the blob's time at the least."""
        with self._lock:
            now = time.time()
            if self._lease is None or self._lease[1] - now < self._blob_ttl:
                ttl = self._blob_ttl + min(_LEASE_SECONDS, self._blob_ttl)
                self._lease = (self.store.lease(ttl), now + ttl)
                self._kept.clear()
            return self._lease

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
        if config.size > DOCUMENT_SIZE_MAX:
            return []
        try:
            return [b"".join(self.store.blob_blocks(config.digest))]
        except LayerstoreError:
            return []  # `put_image` says what is missing

    def _read_contents(self, digest: Digest) -> Contents:
        image: Image = self.store.images[digest]
        descriptor = image.descriptor
        walker = Walker(lambda one: self.store.read_document(one.digest), reads_configs=False)
        document = walker.document(descriptor)
        closure = walker.closure_of(descriptor, document)
        annotated = descriptor.model_copy(update={"annotations": document.annotations})
        subject = None if document.subject is None else document.subject.digest
        return Contents(frozenset(closure.documents), frozenset(closure.blob_digests), annotated, subject)
