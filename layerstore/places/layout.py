"""An OCI image layout: a folder (OCI image specification 1.1, image-layout.md)."""

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, ConflictError, InvalidInputError
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor
from layerstore.os_errors import translate_os_errors
from layerstore.places.content import verified_document
from layerstore.places.files import (
    TEMPORARY_PREFIX,
    file_blocks,
    make_directory_within,
    names_in_directory,
    opened_directory,
    opened_within,
    remove_leftovers,
    replace_within,
    spool,
    temporary_within,
)
from layerstore.places.index_file import (
    BLOBS_NAME,
    EMPTY_INDEX,
    INDEX_NAME,
    LAYOUT_FILE,
    LAYOUT_NAME,
    check_layout_file,
    index_bytes,
    index_roots,
    read_index,
    with_roots,
)
from layerstore.places.names import repository_of
from layerstore.places.place import LayoutFiles, Root, Writer


class OCILayout:
    """A `Source` and `Sink`. Several processes may read and write one layout at the same time.

    Nothing is read or written over a symbolic link inside the folder.
    """

    names_are_references = False
    blobs_are_verified = False
    jobs = 4

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = str(self.path)
        self.repository = repository_of(self.path.absolute().name)

    def roots(self) -> list[Root]:
        """The entries of ``index.json``. Raises `InvalidInputError` if the folder is no layout."""
        return index_roots(read_index(self.layout_files().index, self.name))

    def layout_files(self) -> LayoutFiles:
        """Both files. Raises `InvalidInputError` if the folder is no layout, or one of a version that is not known."""
        with self._opened() as root:
            layout = _read_small(root, LAYOUT_NAME, self.name)
            check_layout_file(layout, self.name)
            return LayoutFiles(layout, _read_small(root, INDEX_NAME, self.name))

    def read_document(self, descriptor: Descriptor) -> bytes:
        """See `Source`."""
        with self.read_blob(descriptor) as blocks:
            return verified_document(descriptor, blocks)

    def blob_size(self, digest: Digest) -> int | None:
        """See `Source`. Raises `InvalidInputError` for a blob that is no regular file."""
        with self._opened() as root:
            try:
                with opened_within(root, _steps(digest), self._shown(digest)) as file:
                    return os.fstat(file).st_size
            except BlobNotFoundError:
                return None

    @contextmanager
    def read_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """See `Source`. Raises `InvalidInputError` for a blob that is no regular file."""
        with (
            self._opened() as root,
            opened_within(root, _steps(descriptor.digest), self._shown(descriptor.digest)) as file,
        ):
            # One byte more than there should be, so that a blob that is too long is noticed.
            yield _read_blocks(file, descriptor.size + 1, self.name)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """See `Sink`. A new or empty folder becomes a layout. Raises `ConflictError` for a folder of other things."""
        with ExitStack() as stack:
            with translate_os_errors(f"cannot write {self.name}"):
                begun = self._begin(stack)
            try:
                writer = _LayoutWriter(begun, self.name, stack)
                yield writer
                writer.publish()
            except BaseException:
                begun.take_back(self.path)
                raise
            if begun.made_folder:
                with translate_os_errors(f"cannot write {self.name}"), opened_directory(self.path / "..") as parent:
                    os.fsync(parent)

    def _begin(self, stack: ExitStack) -> "_Begun":
        while True:
            made_folder = not self.path.exists()
            if not made_folder and not self.path.is_dir():
                raise ConflictError(f"{self.name} is no folder: choose a new or empty one")
            self.path.mkdir(parents=True, exist_ok=True)
            root = stack.enter_context(opened_directory(self.path))
            with _locked(root):
                if not os.fstat(root).st_nlink:
                    continue  # another process has made it, and taken it back
                remove_leftovers(root)
                made_layout = _make_layout(root, self.name)
                make_directory_within(root, BLOBS_NAME)
                blobs = stack.enter_context(opened_directory(BLOBS_NAME, root))
                fcntl.flock(blobs, fcntl.LOCK_SH)
                return _Begun(root, blobs, made_folder, made_layout)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with translate_os_errors(f"cannot read {self.name}"), ExitStack() as stack:
            try:
                root = stack.enter_context(opened_directory(self.path))
            except (FileNotFoundError, NotADirectoryError):
                raise InvalidInputError(f"{self.name} is no OCI layout: there is no such folder") from None
            yield root

    def _shown(self, digest: Digest) -> str:
        return f"blob {digest} in {self.name}"


@dataclass(frozen=True, slots=True)
class _Begun:
    """A layout that is open for writing. All who write it share a lock on its folder of blobs."""

    root: int
    blobs: int
    made_folder: bool
    made_layout: bool

    def take_back(self, path: Path) -> None:
        """Remove what was made for nothing: a layout without a blob, that nobody else is writing."""
        if not self.made_layout:
            return
        with suppress(OSError), _locked(self.root):
            fcntl.flock(self.blobs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _read_small(self.root, INDEX_NAME, "") != EMPTY_INDEX:
                return
            for algorithm in names_in_directory(self.blobs):
                os.rmdir(algorithm, dir_fd=self.blobs)
            os.rmdir(BLOBS_NAME, dir_fd=self.root)
            # The mark of a layout goes last: with it and without an index the folder still is one.
            os.unlink(INDEX_NAME, dir_fd=self.root)
            os.unlink(LAYOUT_NAME, dir_fd=self.root)
            if self.made_folder:
                path.rmdir()


def _read_blocks(file: int, size: int, place: str) -> Iterator[bytes]:
    # Whoever takes the blocks would call what goes wrong here an error of writing.
    with translate_os_errors(f"cannot read {place}"):
        yield from file_blocks(file, 0, size)


class _LayoutWriter:
    verifies_blobs = False

    def __init__(self, begun: _Begun, place: str, stack: ExitStack) -> None:
        """``stack`` closes what the writer opens."""
        self._begun = begun
        self._root = begun.root
        self._place = place
        self._stack = stack
        self._lock = threading.Lock()
        self._roots: list[Root] = []
        self._folders: dict[str, int] = {}
        self._resembled: LayoutFiles | None = None

    def expect(self, sizes: Mapping[Digest, int]) -> None:
        """See `Writer`."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether there is a regular file of the right size; what has another size is written anew."""
        try:
            with opened_within(self._root, _steps(descriptor.digest), str(descriptor.digest)) as file:
                return os.fstat(file).st_size == descriptor.size
        except (BlobNotFoundError, InvalidInputError):
            return False

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        """See `Writer`."""
        folder = self._folder(descriptor.digest.algorithm)
        with translate_os_errors(f"cannot write {self._place}"), temporary_within(self._root) as (file, name):
            spool(file, blocks)
            os.fsync(file)
            os.rename(name, descriptor.digest.encoded, src_dir_fd=self._root, dst_dir_fd=folder)

    def put_root(self, root: Root, documents: Mapping[Digest, bytes]) -> None:
        """See `Writer`."""
        for digest, data in documents.items():
            descriptor = root.descriptor.model_copy(update={"digest": digest, "size": len(data)})
            if not self._holds(descriptor, data):
                self.put_blob(descriptor, [data])
        with self._lock:
            self._roots.append(root)

    def _holds(self, descriptor: Descriptor, data: bytes) -> bool:
        """Whether a document is there as it should be: one that was damaged is written anew."""
        try:
            with opened_within(self._root, _steps(descriptor.digest), str(descriptor.digest)) as file:
                return b"".join(file_blocks(file, 0, len(data) + 1)) == data
        except (BlobNotFoundError, InvalidInputError):
            return False

    def resemble(self, files: LayoutFiles) -> None:
        """See `Writer`."""
        self._resembled = files

    def publish(self) -> None:
        """Add the roots to ``index.json``, after everything that they need is durable."""
        with translate_os_errors(f"cannot write {self._place}"), _locked(self._root):
            for folder in (*self._folders.values(), self._begun.blobs):
                os.fsync(folder)
            before = _read_small(self._root, INDEX_NAME, self._place)
            index = read_index(before, self._place)
            resembled = None if index.manifests else self._resembled
            after = with_roots(index, self._roots)
            if resembled is not None and self._begun.made_layout:
                replace_within(self._root, LAYOUT_NAME, resembled.layout)
            if after.manifests != index.manifests:
                replace_within(self._root, INDEX_NAME, index_bytes(after, resembled))

    def _folder(self, algorithm: str) -> int:
        with self._lock, translate_os_errors(f"cannot write {self._place}"):
            if algorithm not in self._folders:
                make_directory_within(self._begun.blobs, algorithm)
                self._folders[algorithm] = self._stack.enter_context(opened_directory(algorithm, self._begun.blobs))
            return self._folders[algorithm]


def _make_layout(root: int, place: str) -> bool:
    """Make sure that a folder, which is locked, is a layout; whether it has become one now."""
    names = {name for name in names_in_directory(root) if not name.startswith(TEMPORARY_PREFIX)}
    if LAYOUT_NAME in names:
        check_layout_file(_read_small(root, LAYOUT_NAME, place), place)
    elif names:
        raise ConflictError(f"{place} is not empty and no OCI layout: choose a new or empty folder")
    else:
        replace_within(root, LAYOUT_NAME, LAYOUT_FILE)
    if INDEX_NAME not in names:
        replace_within(root, INDEX_NAME, EMPTY_INDEX)
    return LAYOUT_NAME not in names


@contextmanager
def _locked(root: int) -> Iterator[None]:
    # A descriptor of its own: a lock belongs to the open file, so that threads with the same one would share it.
    with opened_directory(".", root) as own:
        fcntl.flock(own, fcntl.LOCK_EX)
        yield


def _read_small(root: int, name: str, place: str) -> bytes:
    try:
        with opened_within(root, (name,), f"{name} in {place}") as file:
            size = os.fstat(file).st_size
            if size > DOCUMENT_SIZE_MAX:
                raise InvalidInputError(
                    f"{name} in {place} has {size} bytes: more than {DOCUMENT_SIZE_MAX} are not accepted"
                )
            return b"".join(file_blocks(file, 0, size))
    except BlobNotFoundError:
        raise InvalidInputError(f"{place} is no OCI layout: it has no {name}") from None


def _steps(digest: Digest) -> tuple[str, str, str]:
    return BLOBS_NAME, digest.algorithm, digest.encoded
