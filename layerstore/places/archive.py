"""An OCI image layout in a tar, as skopeo's ``oci-archive:`` has it (image-layout.md allows the tar)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, InvalidInputError
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor, parse_index
from layerstore.places.content import verified_document
from layerstore.places.index_file import (
    EMPTY_INDEX,
    INDEX_NAME,
    LAYOUT_NAME,
    check_layout_file,
    index_roots,
    read_index,
    with_roots,
)
from layerstore.places.names import repository_of
from layerstore.places.place import LayoutFiles, Root, Writer
from layerstore.places.tar_reader import LazyTarReader, TarReader
from layerstore.places.tar_writer import TarWriter, blob_path, new_file


class OCIArchive:
    """A `Source`, of a tar that may be compressed with gzip or zstd, and a `Sink`, of a new tar."""

    names_are_references = False
    blobs_are_verified = False
    jobs = 4

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = str(self.path)
        self.repository = repository_of(self.path.name)
        self._tar = LazyTarReader(self.path)

    def roots(self) -> list[Root]:
        """The entries of ``index.json``. Raises `InvalidInputError` if the file is no archive of a layout."""
        return index_roots(read_index(self.layout_files().index, self.name))

    def layout_files(self) -> LayoutFiles:
        """Both files. Raises `InvalidInputError` as `roots` does."""
        with self._tar.opened() as tar:
            return layout_files_in(tar, self.name)

    def read_document(self, descriptor: Descriptor) -> bytes:
        """See `Source`."""
        with self.read_blob(descriptor) as blocks:
            return verified_document(descriptor, blocks)

    def blob_size(self, digest: Digest) -> int | None:
        """See `Source`. Raises `InvalidInputError` for a blob that is no regular file, or is cut."""
        with self._tar.opened() as tar:
            return blob_size_in(tar, digest)

    @contextmanager
    def read_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """See `Source`. Raises `InvalidInputError` for a blob that is no regular file, or is cut."""
        with self._tar.opened() as tar:
            yield blob_blocks_in(tar, descriptor)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """See `Sink`. Raises `ConflictError` if the file exists."""
        with new_file(self.path) as file:
            writer = TarWriter(file, self.name)
            yield writer
            writer.finish(with_roots(parse_index(EMPTY_INDEX), writer.roots), {})


def layout_files_in(tar: TarReader, place: str) -> LayoutFiles:
    """The files of a layout in a tar. Raises `InvalidInputError` if they are missing or of another version."""
    try:
        layout = tar.small(LAYOUT_NAME, DOCUMENT_SIZE_MAX)
        check_layout_file(layout, place)
        return LayoutFiles(layout, tar.small(INDEX_NAME, DOCUMENT_SIZE_MAX))
    except BlobNotFoundError as error:
        raise InvalidInputError(f"{place} is no OCI archive, or it is cut: {error}") from None


def blob_size_in(tar: TarReader, digest: Digest) -> int | None:
    """The size of a blob that is where a layout has it."""
    try:
        return tar.plain(blob_path(digest)).size
    except BlobNotFoundError:
        return None


def blob_blocks_in(tar: TarReader, descriptor: Descriptor) -> Iterator[bytes]:
    """The bytes of a blob, and one more if it is longer than its descriptor says."""
    return tar.blocks(tar.plain(blob_path(descriptor.digest)), descriptor.size + 1)
