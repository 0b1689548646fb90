"""A store as a place."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError
from layerstore.oci.documents import Descriptor
from layerstore.places.content import verified_document
from layerstore.places.place import LayoutFiles, Root, Writer, named_roots
from layerstore.store import Store


class StorePlace:
    """A `Source` and `Sink` of an open store, which stays open."""

    names_are_references = True
    repository = None

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

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `Source`."""
        return self.store.has_blob(descriptor.digest)

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
        """See `Sink`. Each image comes in one step, and those before it remain if one is refused."""
        writer = _StoreWriter(self.store)
        yield writer
        writer.publish()


class _StoreWriter:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._roots: list[tuple[Root, Mapping[Digest, bytes]]] = []

    def expect(self, sizes: Mapping[Digest, int]) -> None:
        """See `Writer`."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `Writer`."""
        return self._store.keep_blob(descriptor.digest)

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        """See `Writer`."""
        self._store.push_blob(blocks, digest=descriptor.digest)

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
