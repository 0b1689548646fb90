"""An OCI layout as a tar whose bytes depend on nothing but the images in it."""

import os
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.digest import Digest
from layerstore.errors import ConflictError
from layerstore.oci.documents import Descriptor, Index
from layerstore.os_errors import translate_os_errors
from layerstore.places.files import names_in_directory, opened_directory, remove_leftovers, temporary_within, write_all
from layerstore.places.index_file import (
    BLOBS_NAME,
    INDEX_NAME,
    LAYOUT_FILE,
    LAYOUT_NAME,
    index_bytes,
)
from layerstore.places.place import LayoutFiles, Root

_END_SIZE = 2 * tarfile.BLOCKSIZE
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755


class TarWriter:
    """A `Writer`. Where each blob lies is settled beforehand, so that they can come in any order and at the same time.

    Members are sorted by name; times, owners and modes are always the same.
    """

    verifies_blobs = False

    def __init__(self, file: int, place: str) -> None:
        self._file = file
        self._place = place
        self._offsets: dict[Digest, int] = {}
        self._end = 0
        self._lock = threading.Lock()
        self._written: set[Digest] = set()
        self._resembled: LayoutFiles | None = None
        self.roots: list[Root] = []
        self.documents: dict[Digest, bytes] = {}

    def expect(self, sizes: Mapping[Digest, int]) -> None:
        """See `Writer`."""
        with translate_os_errors(f"cannot write {self._place}"):
            self._put_folder(BLOBS_NAME)
            algorithm = None
            for digest in sorted(sizes):
                if digest.algorithm != algorithm:
                    algorithm = digest.algorithm
                    self._put_folder(f"{BLOBS_NAME}/{algorithm}")
                self._end = write_all(self._file, _header(blob_path(digest), sizes[digest]), self._end)
                self._offsets[digest] = self._end
                self._end += sizes[digest] + _padding(sizes[digest])

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `Writer`."""
        return descriptor.digest in self._written

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        """See `Writer`."""
        with translate_os_errors(f"cannot write {self._place}"):
            offset = self._offsets[descriptor.digest]
            for block in blocks:
                offset = write_all(self._file, block, offset)
        with self._lock:
            self._written.add(descriptor.digest)

    def put_root(self, root: Root, documents: Mapping[Digest, bytes]) -> None:
        """See `Writer`."""
        with self._lock:
            self.roots.append(root)
            self.documents.update(documents)

    def resemble(self, files: LayoutFiles) -> None:
        """See `Writer`."""
        self._resembled = files

    def finish(self, index: Index, more: Mapping[str, bytes]) -> None:
        """Write the documents, the files of the layout, and ``more`` files, by name."""
        files = {
            INDEX_NAME: index_bytes(index, self._resembled),
            LAYOUT_NAME: LAYOUT_FILE if self._resembled is None else self._resembled.layout,
            **more,
        }
        with translate_os_errors(f"cannot write {self._place}"):
            for digest, data in self.documents.items():
                write_all(self._file, data, self._offsets[digest])
            for name in sorted(files):
                self._put_file(name, files[name])
            # A file that ends in a hole reads as zeros: so do the padding of members and the end of the archive.
            total = self._end + _END_SIZE
            os.ftruncate(self._file, total + -total % tarfile.RECORDSIZE)
            os.fsync(self._file)

    def _put_folder(self, name: str) -> None:
        self._end = write_all(self._file, _header(name, None), self._end)

    def _put_file(self, name: str, data: bytes) -> None:
        self._end = write_all(self._file, _header(name, len(data)), self._end)
        self._end = write_all(self._file, data, self._end) + _padding(len(data))


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """A descriptor of a file that is at ``path`` when the block is left without an error, and else nowhere.

    Raises `ConflictError` if something is there already, before or in the meantime.
    """
    place = str(path)
    folder = path.parent
    with translate_os_errors(f"cannot write {place}"):
        if os.path.lexists(path):
            raise ConflictError(f"{place} exists already: archives are not changed, choose a new name")
        made_folder = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with opened_directory(folder) as directory:
            remove_leftovers(directory)
            with temporary_within(directory) as (file, name):
                yield file
                with translate_os_errors(f"cannot write {place}"):
                    try:
                        _move(name, path.name, directory)
                    except FileExistsError:
                        raise ConflictError(f"{place} has come into being in the meantime") from None
                    os.fsync(directory)
    except BaseException:
        if made_folder:
            with suppress(OSError):
                folder.rmdir()
        raise


def _move(name: str, new_name: str, directory: int) -> None:
    """Give a file its new name, which nothing has."""
    try:
        os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=directory)  # a rename would replace
    except (PermissionError, NotImplementedError) as error:
        # A file system without hard links.
        if new_name in names_in_directory(directory):
            raise FileExistsError from error
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=directory)


def blob_path(digest: Digest) -> str:
    """Where a blob is in a layout."""
    return f"{BLOBS_NAME}/{digest.algorithm}/{digest.encoded}"


def _header(name: str, size: int | None) -> bytes:
    info = tarfile.TarInfo(name)
    info.mode = _FILE_MODE
    if size is None:
        info.type = tarfile.DIRTYPE
        info.name += "/"
        info.mode = _FOLDER_MODE
    else:
        info.size = size
    # GNU's format has sizes over 8 GiB without a second header, so that all headers are of one block.
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE
