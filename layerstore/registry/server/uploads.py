"""Uploads: blobs on their way in. Their bytes are collected in a file, which any worker process can go on with.

What is in the file is no blob yet, and is seen by nobody but who uploads it. Only when all bytes have the digest that
was promised does the store get them: knowing a digest is not enough to get, or to claim, what it names.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from layerstore.digest import Digest, Hasher, PromisedDigest, hasher
from layerstore.errors import DigestMismatchError, OversizedError
from layerstore.objects import Lease
from layerstore.os_errors import translate_os_errors
from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.ahead import Ahead
from layerstore.registry.server.links import Links
from layerstore.registry.server.problems import ProblemError, upload_unknown
from layerstore.registry.server.repositories import Repositories
from layerstore.registry.server.turns import Turns

UPLOAD_TTL_SECONDS = 24 * 3600
"""How long an upload may stand still before it is given up."""
_BLOCK_SIZE = 1 << 20
_SMALL_SIZE = 4 << 20
"""What is not larger takes little memory, and would wait for minutes behind two large layers: a config, for example."""
_STATES_MAX = 1000


@dataclass(slots=True)
class _Hashed:
    """How far the bytes of an upload are hashed."""

    state: Hasher
    size: int = 0


class OpenUpload:
    """An upload that bytes are added to; nobody else does so until it is closed."""

    def __init__(
        self, path: Path, descriptor: int, hashed: _Hashed, on_growth: "Callable[[OpenUpload], None] | None" = None
    ) -> None:
        self.path = path
        self._descriptor = descriptor
        self._hashed = hashed
        self._on_growth = on_growth
        self.size = os.fstat(descriptor).st_size

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        view = memoryview(data)
        with translate_os_errors(f"cannot write {self.path}"):
            while view:
                written = os.pwrite(self._descriptor, view, self.size)
                if self._hashed.size == self.size:
                    self._hashed.state.update(view[:written])
                    self._hashed.size += written
                self.size += written
                view = view[written:]
        if self._on_growth is not None:
            self._on_growth(self)

    def digest(self, algorithm: str) -> Digest:
        """The digest of all bytes."""
        with translate_os_errors(f"cannot read {self.path}"):
            while self._hashed.size < self.size:
                block = os.pread(self._descriptor, _BLOCK_SIZE, self._hashed.size)
                if not block:
                    break
                self._hashed.state.update(block)
                self._hashed.size += len(block)
        return Digest.from_raw(algorithm, self._hashed.state.digest())


class Uploads:
    """All uploads. Its methods may be called from several threads at once."""

    def __init__(self, repositories: Repositories, folder: Path, *, pushes: int, size_max: int) -> None:
        """``pushes`` is how many blobs are put into the store at the same time, ``size_max`` the bytes of one blob."""
        self._repositories = repositories
        self._links: Links = repositories.links
        self._folder = folder
        self.turns = Turns(pushes)
        self.size_max = size_max
        self.last_used = float("-inf")
        """When this process had an upload last, by the monotonic clock."""
        self._hashed: dict[tuple[str, str], _Hashed] = {}
        self._ahead: dict[str, Ahead] = {}
        self._is_closed = False
        self._lock = threading.Lock()
        with translate_os_errors(f"cannot make {folder}"):
            folder.mkdir(mode=0o700, exist_ok=True)

    def begin(self, repository: str, algorithm: str) -> str:
        """Begin an upload; its id."""
        identifier = str(uuid4())
        path = self._path(identifier)
        with translate_os_errors(f"cannot write {path}"):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        self._links.add_upload(identifier, repository, algorithm)
        return identifier

    def algorithm(self, repository: str, identifier: str) -> str:
        """The digest algorithm that an upload was begun with. Raises `ProblemError` if there is none such."""
        found = self._links.upload(identifier)
        if found is None or found[0] != repository:
            raise upload_unknown()
        return found[1]

    def size(self, repository: str, identifier: str) -> int:
        """How many bytes an upload has. Raises `ProblemError` if there is none such."""
        self.algorithm(repository, identifier)
        try:
            return self._path(identifier).stat().st_size
        except FileNotFoundError:
            raise upload_unknown() from None

    @contextmanager
    def opened(
        self, repository: str, identifier: str, algorithm: str | None = None, *, goes_ahead: bool = True
    ) -> Iterator[OpenUpload]:
        """An upload, to add bytes to. Raises `ProblemError` if there is none such, or if someone else adds to it.

        ``goes_ahead``: the bytes are those of a blob, which the store may have while they come.
        """
        algorithm = algorithm or self.algorithm(repository, identifier)
        self.algorithm(repository, identifier)
        path = self._path(identifier)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise upload_unknown() from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ProblemError(
                    409, ErrorCode.BLOB_UPLOAD_INVALID, "another request adds to this upload; try again"
                ) from None
            # What the store has taken has another name there, and keeps this one until the upload is forgotten.
            if not _is_only_name(path, os.fstat(descriptor)):
                raise upload_unknown()
            self.last_used = time.monotonic()
            on_growth = partial(self._go_ahead, algorithm=algorithm) if goes_ahead else None
            yield OpenUpload(path, descriptor, self._hash_state(identifier, algorithm), on_growth)
        finally:
            self.last_used = time.monotonic()
            os.close(descriptor)

    def finish(self, repository: str, upload: OpenUpload, digest: Digest) -> None:
        """Make a blob of an upload that is open. With another digest it is gone, and `DigestMismatchError` raised."""
        identifier = upload.path.name
        actual = upload.digest(digest.algorithm)
        if actual != digest:
            self.forget(identifier)
            raise DigestMismatchError(digest, actual)
        with self._lock:
            ahead = self._ahead.pop(identifier, None)
        try:
            expires = None if ahead is None else ahead.finish(digest, upload.size)
            if expires is None or not self._repositories.is_long_enough(expires):
                # One that was begun ahead long ago is there already, and comes under a new lease.
                with self.turns.turn() if upload.size > _SMALL_SIZE else nullcontext():
                    expires = self._push(upload.path, upload.path, digest)
        except OversizedError:
            self.forget(identifier)  # or each further try would decode it again
            raise
        self._repositories.add_blob(repository, digest, expires)
        self.forget(identifier)

    def close(self) -> None:
        """Give up what was begun ahead, and wait for that."""
        with self._lock:
            self._is_closed = True
            begun = list(self._ahead.values())
            self._ahead.clear()
        for ahead in begun:
            ahead.give_up()
        for ahead in begun:
            ahead.join()

    def _go_ahead(self, upload: OpenUpload, algorithm: str) -> None:
        """Let the store have what has come of an upload, if it is large and it is its turn."""
        if upload.size <= _SMALL_SIZE:
            return
        identifier = upload.path.name
        with self._lock:
            ahead = self._ahead.get(identifier)
            if ahead is None and not self._is_closed and self.turns.take():
                self._ahead[identifier] = self._begun(upload, algorithm)
        if ahead is not None:
            ahead.extend(upload.size)

    def _begun(self, upload: OpenUpload, algorithm: str) -> Ahead:
        try:
            # Another process may have finished those of this one that were given up.
            for key in [key for key, one in self._ahead.items() if one.is_over and not self._path(key).exists()]:
                del self._ahead[key]
            return Ahead(upload.path, upload.size, algorithm, partial(self._push, upload.path), self.turns)
        except BaseException:
            self.turns.give_back()
            raise

    def _push(self, path: Path, source: Path | Callable[[], Iterator[bytes]], digest: Digest | PromisedDigest) -> float:
        """Push a blob that is or comes to be in a file; when the lease ends that holds it (seconds since 1970)."""
        store = self._repositories.store

        def push(lease: Lease) -> None:
            blocks = source if isinstance(source, Path) else source()
            store.push_blob(blocks, digest=digest, lease=lease, give_file=path)

        return self._repositories.under_lease(push)[1]

    def cancel(self, repository: str, identifier: str) -> None:
        """End an upload. Raises `ProblemError` if there is none such."""
        self.algorithm(repository, identifier)
        self.forget(identifier)

    def remove_abandoned(self) -> int:
        """Remove the uploads that stand still; how many."""
        removed = 0
        limit = time.time() - UPLOAD_TTL_SECONDS
        known = set(self._links.uploads(limit))
        for path in list(self._folder.iterdir()):
            with suppress(FileNotFoundError):
                is_known = path.name in known or self._links.upload(path.name) is None
                if is_known and path.stat().st_mtime < limit and not _is_locked(path):
                    self.forget(path.name)
                    removed += 1
        for identifier in known:
            if not self._path(identifier).exists():  # a power cut, or the store is a backup: they have no files
                self._links.remove_upload(identifier)
        return removed

    def forget(self, identifier: str) -> None:
        """Remove all that is kept of an upload."""
        with translate_os_errors("cannot remove an upload"):
            self._path(identifier).unlink(missing_ok=True)
        self._links.remove_upload(identifier)
        with self._lock:
            for key in [key for key in self._hashed if key[0] == identifier]:
                del self._hashed[key]
            ahead = self._ahead.pop(identifier, None)
        if ahead is not None:
            ahead.give_up()

    def _hash_state(self, identifier: str, algorithm: str) -> _Hashed:
        with self._lock:
            while len(self._hashed) >= _STATES_MAX:
                del self._hashed[next(iter(self._hashed))]
            return self._hashed.setdefault((identifier, algorithm), _Hashed(hasher(algorithm)))

    def _path(self, identifier: str) -> Path:
        return self._folder / identifier


def _is_only_name(path: Path, status: os.stat_result) -> bool:
    try:
        return status.st_nlink == 1 and path.stat().st_ino == status.st_ino
    except FileNotFoundError:
        return False


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
