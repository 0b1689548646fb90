"""Raw files: encodings that are kept as they came, each in a file of its own under its digest.

Compressed bytes share nothing with each other, so that cutting them into chunks would only cost; and a file gives its
room back the moment that it is no longer needed.

A file is put in place and removed only inside a write transaction that looks at the encoding's record, and not removed
while its writer has it locked: so a file that has just come cannot fall to one who saw that there was none. What a
crash leaves without a record is an orphan.
"""

import fcntl
import os
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from layerstore.digest import Digest, digest_of_blocks
from layerstore.errors import InvalidDigestError
from layerstore.storage.index import Transaction
from layerstore.storage.layout import Layout, sync_directory, sync_file, translate_os_errors
from layerstore.storage.leases import LiveLeases
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import EncodingState

_BLOCK_SIZE = 1 << 20
_NEW = "new-"


def file_name(digest: Digest) -> str:
    """What the file of a blob is called, in ``raw`` and in ``cache``."""
    return f"{digest.algorithm}-{digest.encoded}"


def digest_of_file(path: Path) -> Digest | None:
    """The inverse of `file_name`; None for a file of another kind."""
    algorithm, _, encoded = path.name.partition("-")
    try:
        return Digest(f"{algorithm}:{encoded}")
    except InvalidDigestError:
        return None


def raw_path(layout: Layout, digest: Digest) -> Path:
    """Where the raw bytes of an encoding lie."""
    return layout.raw / file_name(digest)


def raw_size(store: OpenedStore, digest: Digest) -> int | None:
    """The bytes of a raw file; None if it is not there."""
    try:
        return raw_path(store.layout, digest).stat().st_size
    except FileNotFoundError:
        return None


def raw_encodings(store: OpenedStore) -> list[Digest]:
    """The encodings that are kept raw."""
    with store.index.read() as transaction:
        return [digest for digest, record in transaction.encodings.items() if record.state is EncodingState.RAW]


def is_raw_good(store: OpenedStore, digest: Digest) -> bool:
    """Whether a raw file is there and has the bytes of its digest."""
    try:
        return digest_of_blocks(file_blocks(raw_path(store.layout, digest)), digest.algorithm) == digest
    except FileNotFoundError:
        return False


class NewFile:
    """A file on its way in; nobody sees it until it is installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        self._descriptor = self._open()
        self.size = 0

    @property
    def contents(self) -> Path:
        """Where its bytes can be read before it is installed."""
        return self.path

    def _open(self) -> int:
        return _create_locked(self.path)

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        view = memoryview(data)
        with translate_os_errors(f"cannot write {self.path}"):
            while view:
                written = os.write(self._descriptor, view)
                self.size += written
                view = view[written:]

    def reserve(self, size: int) -> None:
        """Give it the size that it is going to have."""
        with translate_os_errors(f"cannot write {self.path}"):
            os.ftruncate(self._descriptor, size)

    def tee(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Give every block on, and keep it."""
        for block in blocks:
            self.write(block)
            yield block

    def sync(self) -> None:
        """Make it durable."""
        with translate_os_errors(f"cannot write {self.path}"):
            sync_file(self._descriptor)

    def install(self, target: Path) -> None:
        """Give it its name, durably. A second call does nothing."""
        with translate_os_errors(f"cannot write {target}"):
            if self.path != target:
                self.path.replace(target)
                self.path = target
                sync_directory(target.parent)

    def close(self, *, remove: bool) -> None:
        """Close it; with ``remove``, as if it had never been. A process that was forked takes nothing away."""
        if remove and self._pid == os.getpid():
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


class GivenFile(NewFile):
    """A file that somebody fills and gives away; what is written to it is only counted.

    It gets a second name when it is synced, and is its giver's alone until then. Where it can have none, it is copied.
    """

    def __init__(self, path: Path, given: Path) -> None:
        self._given = given
        super().__init__(path)

    @property
    def contents(self) -> Path:
        """Where its bytes can be read before it is synced."""
        return self._given

    def write(self, data: bytes | memoryview) -> None:
        """Count what is there."""
        self.size += len(data)

    def sync(self) -> None:
        """Take it over, and make it durable."""
        with translate_os_errors(f"cannot write {self.path}"):
            try:
                # If its giver has it locked, that lock keeps others from it.
                with suppress(BlockingIOError):
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.link(self._given, self.path)
            except OSError:
                self._copy()
        super().sync()

    def _open(self) -> int:
        return os.open(self._given, os.O_RDWR | os.O_CLOEXEC)

    def _copy(self) -> None:
        copy = _create_locked(self.path)
        os.close(self._descriptor)
        self._descriptor = copy
        self.size = 0
        for block in file_blocks(self._given):
            super().write(block)


def _create_locked(path: Path) -> int:
    """Make a file that whoever cleans up leaves alone, as it is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # It may have been taken for a dead process's before it was locked.
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


@contextmanager
def new_file(folder: Path, given: Path | None = None) -> Iterator[NewFile]:
    """A file that is gone at the end unless it was installed; ``given`` itself where it can have a second name."""
    path = folder / f"{_NEW}{uuid4().hex}"
    with translate_os_errors(f"cannot make a file in {folder}"):
        file = NewFile(path) if given is None else GivenFile(path, given)
    try:
        yield file
    finally:
        file.close(remove=file.path == path)


def file_blocks(path: Path, start: int = 0) -> Iterator[bytes]:
    """The bytes of a file from an offset on. Raises `FileNotFoundError` at the first block."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while block := file.read(_BLOCK_SIZE):
            yield block


def remove_raw(store: OpenedStore, digest: Digest) -> int:
    """Remove a file that no record needs; its bytes. While a backup copies files it stays, as an orphan."""
    path = raw_path(store.layout, digest)
    if not path.exists() or LiveLeases.look(store.layout.leases).everything:
        return 0
    # Only the name goes while the lock is held: giving back the room of a large file takes a second.
    aside = store.layout.raw / f"{_NEW}{uuid4().hex}"

    def change(transaction: Transaction) -> int:
        record = transaction.encodings.get(digest)
        if record is not None and record.state is EncodingState.RAW:
            return 0
        return _move_aside(path, aside)

    with translate_os_errors(f"cannot remove {path}"):
        size = store.index.write(change)
        aside.unlink(missing_ok=True)
    return size


def remove_damaged_raw(store: OpenedStore, digest: Digest) -> bool:
    """Remove a raw file that has not the bytes of its digest, so that a push can bring them back. False: it is good."""
    path = raw_path(store.layout, digest)
    if is_raw_good(store, digest) or not path.exists():
        return False
    aside = store.layout.raw / f"{_NEW}{uuid4().hex}"
    with translate_os_errors(f"cannot remove {path}"):
        removed = store.index.write(lambda _: _move_aside(path, aside))
        aside.unlink(missing_ok=True)
    return bool(removed)


def _move_aside(path: Path, aside: Path) -> int:
    """Take a file's name away, unless a writer has just put it there; its bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        path.replace(aside)
        return os.fstat(descriptor).st_size
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)


def remove_orphans(store: OpenedStore, named: Callable[[], Container[Digest]]) -> None:
    """Remove raw files without a record, and what killed processes left of new ones.

    What images name stays (``named``): should a rebuild of the index have been cut off, `repair` makes use of it.
    """
    layout = store.layout
    with translate_os_errors(f"cannot clean {layout.root}"):
        for folder in (layout.raw, layout.cache):
            for path in folder.glob(f"{_NEW}*"):
                _remove_if_abandoned(path)
        digests = {digest for path in layout.raw.iterdir() if (digest := digest_of_file(path)) is not None}
    with store.index.read() as transaction:
        records = {digest: transaction.encodings.get(digest) for digest in digests}
    spared = named() if None in records.values() else ()
    for digest, record in records.items():
        if record is None and digest in spared:
            continue
        if record is None or record.state is not EncodingState.RAW:
            remove_raw(store, digest)


def _remove_if_abandoned(path: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        finally:
            os.close(descriptor)
