"""A store as a place."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError
from layerstore.objects import Lease
from layerstore.oci.documents import Descriptor
from layerstore.places.content import verified_document
from layerstore.places.place import LayoutFiles, Root, Sink, Source, Writer, named_roots
from layerstore.store import Store

RESUME_SECONDS = 24 * 3600
"""How long a copy into a store that was interrupted can go on where it was."""

P = TypeVar("P", bound=Source | Sink)


class StorePlace:
    """A `Source` and `Sink` of an open store, which stays open."""

    names_are_references = True
    blobs_are_verified = True
    # A push keeps two cores busy; several at once also compress twice what they have in common.
    jobs = max(1, min(4, (os.cpu_count() or 2) // 2))
    repository: str | None = None

    def __init__(self, store: Store) -> None:
        self.store = store
        self.name = f"the store at {store.path}"

    def roots(self) -> list[Root]:
        """The images of the store, once for each tag."""
        result = []
        for digest in self.store.images:
            image = self.store.images[digest]
            result += named_roots(image.descriptor, image.tags)
        return result

    def layout_files(self) -> LayoutFiles | None:
        """See `Source`."""
        return None

    def read_document(self, descriptor: Descriptor) -> bytes:
        """See `Source`."""
        return verified_document(descriptor, [self.store.read_document(descriptor.digest)])

    def blob_size(self, digest: Digest) -> int | None:
        """See `Source`."""
        return self.store.blob_size(digest) if self.store.has_blob(digest) else None

    @contextmanager
    def read_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        if not self.store.has_blob(descriptor.digest):
            raise BlobNotFoundError(f"there is no blob {descriptor.digest} in {self.name}")
        blocks = self.store.blob_blocks(descriptor.digest)
        try:
            yield blocks
        finally:
            if isinstance(blocks, Generator):
                blocks.close()  # what it holds is to be let go of now

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """See `Sink`. Each image comes in one step, and those before it remain if one is refused.

        After an error, the blobs that were completed are kept for a day, so that the copy can go on.
        """
        lease = self.store.lease(RESUME_SECONDS)
        writer = _StoreWriter(self.store, lease)
        try:
            yield writer
            writer.publish()
        except BaseException:
            if not writer.has_put:
                lease.end()
            raise
        lease.end()


def as_place(place: P | Store) -> P | StorePlace:
    """A place as it is, a store as one."""
    return StorePlace(place) if isinstance(place, Store) else place


class _StoreWriter:
    verifies_blobs = True

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self.has_put = False
        self._roots: list[tuple[Root, Mapping[Digest, bytes]]] = []

    def expect(self, sizes: Mapping[Digest, int]) -> None:
        """See `Writer`."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `Writer`."""
        return self._store.keep_blob(descriptor.digest, lease=self._lease)

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        """See `Writer`."""
        self._lease.renew(RESUME_SECONDS)
        self._store.push_blob(blocks, digest=descriptor.digest, lease=self._lease)
        self.has_put = True

    def put_root(self, root: Root, documents: Mapping[Digest, bytes]) -> None:
        """See `Writer`."""
        self._roots.append((root, documents))

    def resemble(self, files: LayoutFiles) -> None:
        """See `Writer`."""

    def publish(self) -> None:
        """Make all that was put images of the store."""
        for root, documents in self._roots:
            others = [data for digest, data in documents.items() if digest != root.descriptor.digest]
            digest = root.descriptor.digest
            self._store.put_image(documents[digest], documents=others, digest=digest, tag=root.name)
