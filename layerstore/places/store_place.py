"""A store as a place."""

import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from layerstore.digest import Digest
from layerstore.errors import (
    BlobNotFoundError,
    EncoderUnavailableError,
    InvalidInputError,
    LayerNotFoundError,
    LeaseEndedError,
)
from layerstore.objects import Image, Lease
from layerstore.oci import media_types
from layerstore.oci.closure import Walker
from layerstore.oci.documents import Descriptor
from layerstore.oci.reference import Reference
from layerstore.places.content import verified_document
from layerstore.places.place import DifferenceSource, LayoutFiles, Root, Sink, Source, Writer, named_roots
from layerstore.store import Store

RESUME_SECONDS = 24 * 3600
"""How long a copy into a store that was interrupted can go on where it was."""
_IMAGES_LOOKED_AT = 200
_LAYERS_MAX = 64
"""Layers that one side says it has. Each costs some 75 bytes a blob to say."""
_FREE_SIZE = 64 << 20
_RATIO_MAX = 1100
_RENEW_SECONDS = RESUME_SECONDS / 4
"""When to renew the lease: each time rewrites all that it holds."""

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

    def layers_like(self, repository: str, blob: Digest | None = None) -> list[Digest]:
        """Layers that an image of a repository in a registry is likely to have something in common with.

        The registry is told of them, so they are only those of images that have a name of that registry, that are
        called as the repository is, or are of a repository here that has an image with ``blob``; the newest first.
        """
        near = Reference(repository, "latest")
        names = {Reference.parse(tag).name for image in self._images_with(blob) for tag in image.tags}

        def is_near(tag: str) -> bool:
            reference = Reference.parse(tag)
            is_called_so = reference.path.rpartition("/")[2] == near.path.rpartition("/")[2]
            is_of_registry = near.domain and reference.domain == near.domain
            return bool(reference.name in names or is_called_so or is_of_registry)

        found: dict[Digest, None] = {}
        for digest in list(reversed(list(self.store.images)))[:_IMAGES_LOOKED_AT]:
            image = self.store.images.get(digest)  # it may be deleted meanwhile
            if image is not None and any(map(is_near, image.tags)):
                found.update(dict.fromkeys(layer.diff_id for layer in image.layers))
            if len(found) >= _LAYERS_MAX:
                break
        return [one for one in found if one in self.store.layers][:_LAYERS_MAX]

    def _images_with(self, blob: Digest | None) -> list[Image]:
        owner = None if blob is None else self.store.encodings.get(blob) or self.store.layers.get(blob)
        return [] if owner is None else owner.images

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """See `Sink`. Each image comes in one step, and those before it remain if one is refused.

        After an error, the blobs that were completed are kept for a day, so that the copy can go on.
        """
        writer = _StoreWriter(self)
        try:
            yield writer
            writer.publish()
        except BaseException:
            if not writer.has_put:
                writer.end()
            raise
        writer.end()


def as_place(place: P | Store) -> P | StorePlace:
    """A place as it is, a store as one."""
    return StorePlace(place) if isinstance(place, Store) else place


class _StoreWriter:
    verifies_blobs = True

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self._store = store = place.store
        self._lease = _LongLease(store)
        self.has_put = False
        self._held: set[Digest] = set()
        self._roots: list[tuple[Root, Mapping[Digest, bytes]]] = []

    def expect(self, sizes: Mapping[Digest, int]) -> None:
        """See `Writer`."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `Writer`."""
        has = self._store.keep_blob(descriptor.digest, lease=self._lease.renewed())
        if has:
            self._held.add(descriptor.digest)
        return has

    def put_difference(self, descriptor: Descriptor, source: Source) -> bool:
        """See `DifferenceWriter`."""
        if not isinstance(source, DifferenceSource):
            return False
        have = [] if source.repository is None else self._place.layers_like(source.repository)
        if not have:
            return False
        with source.open_difference(descriptor, have) as blocks:
            if blocks is None:
                return False
            try:
                difference = self._store.open_difference(blocks)
                if difference.size > _FREE_SIZE + _RATIO_MAX * descriptor.size:
                    return False  # no blob of that size decodes to so much
                self._store.push_difference(difference, digest=descriptor.digest, lease=self._lease.renewed())
            except (InvalidInputError, LayerNotFoundError, EncoderUnavailableError):
                return False  # the blob itself tells whether anything is wrong
        self._held.add(descriptor.digest)
        self.has_put = True
        return True

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        """See `Writer`."""
        lease = self._lease.renewed()
        if media_types.LAYER_COMPRESSIONS.get(descriptor.media_type) == "none":
            # It is the layer itself, whatever it looks like: a layer may be any bytes.
            self._store.push_layer(blocks, decode="never", expected=descriptor.digest, lease=lease)
        else:
            self._store.push_blob(blocks, digest=descriptor.digest, lease=lease)
        self._held.add(descriptor.digest)
        self.has_put = True

    def put_root(self, root: Root, documents: Mapping[Digest, bytes]) -> None:
        """See `Writer`."""
        self._roots.append((root, documents))

    def resemble(self, files: LayoutFiles) -> None:
        """See `Writer`."""

    def publish(self) -> None:
        """Make all that was put images of the store."""
        for root, documents in self._roots:
            self._keep_blobs(root, documents)
            digest = root.descriptor.digest
            others = [data for one, data in documents.items() if one != digest]
            self._store.put_image(documents[digest], documents=others, digest=digest, tag=root.name)

    def end(self) -> None:
        """Let go of what no image keeps."""
        self._lease.end()

    def _keep_blobs(self, root: Root, documents: Mapping[Digest, bytes]) -> None:
        """Make sure of the compressed blobs: an image is put also without them, as long as their layers are there."""
        closure = Walker(lambda one: documents[one.digest], reads_configs=False).closure(root.descriptor)
        needed = {blob.descriptor.digest for blob in closure.blobs if not blob.may_be_missing}
        lease = self._lease.renewed()
        for digest in closure.blob_digests:
            # `keep_blob` says no also to one that is there and could be mended or decoded if it were pushed again.
            if self._store.keep_blob(digest, lease=lease) or self._store.has_blob(digest):
                continue
            if digest in needed or digest in self._held:
                raise BlobNotFoundError(f"blob {digest} was collected meanwhile; copy {root.name or 'it'} again")


class _LongLease:
    """A lease that lasts however long a copy takes, if it is asked for each time that it is used."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._lease = store.lease(RESUME_SECONDS)
        # The clock that the lease's end is told by; it also goes on while the machine sleeps.
        self._renewed = time.time()

    def renewed(self) -> Lease:
        """The lease, with most of its time before it. It is another one if the time was over: what that held may go."""
        with self._lock:
            now = time.time()
            if now - self._renewed >= _RENEW_SECONDS:
                try:
                    self._lease.renew(RESUME_SECONDS)
                except LeaseEndedError:
                    self._lease = self._store.lease(RESUME_SECONDS)
                self._renewed = now
            return self._lease

    def end(self) -> None:
        """End it."""
        self._lease.end()
