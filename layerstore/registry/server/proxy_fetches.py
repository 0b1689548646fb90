"""Blobs on their way from upstream: each is fetched once, by whichever worker process is first, into a file.

Everybody who waits for it, in any process, is served from that file as it grows. The process that fetches holds a lock
on the file, so that the others notice its death. What state it is in, its mode says, which all who have it open see:

* ``rwx``: it grows. Its last bytes are held back, since nobody knows yet whether it is right.
* ``rw-``: it is whole and has its digest. It is given to the store meanwhile, and then has this name no more.
* ``---``: it was given up; so was a file that grows and is not locked.

A file is made under another name and linked when it is locked, and only who holds its lock removes it: so whatever has
the name is on its way, or nobody cares for it any more.
"""

import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from uuid import uuid4

from layerstore.digest import Digest, hasher
from layerstore.errors import DigestMismatchError, LayerstoreError, RegistryError, StoreClosedError
from layerstore.os_errors import translate_os_errors
from layerstore.registry.server.logs import log
from layerstore.registry.server.proxy_measures import count_failed_fetch, count_fetch

Source = Callable[[], AbstractContextManager[Iterator[bytes]]]
"""Opens the bytes of a blob at upstream."""

_GIVEN_UP = 0o000
_BLOCK_SIZE = 256 << 10
_HELD_BACK = 64 << 10
"""Bytes at the end that nobody gets before the digest is known."""
_POLL_SECONDS = 0.01
_BREATH_SECONDS = 1.0
"""So often does who waits let its caller see whether anybody still listens, and look whether the fetch still lives."""
_PUSHES_MAX = 4
_PACE_SECONDS = 60.0
_BYTES_PER_SECOND_MIN = 1000.0
"""What comes more slowly than this for `_PACE_SECONDS` would keep its turn from others for days."""


class Follower:
    """A blob on its way, for one who waits for it. It is to be closed."""

    def __init__(self, digest: Digest, descriptor: int, size: int) -> None:
        self._digest = digest
        self._descriptor = descriptor
        self._size = size

    def blocks(self, start: int, length: int) -> Generator[bytes, None, None]:
        """Some of the bytes as they come, empty now and then where none do. Closes the file at the end.

        A part of the blob is given when the whole has been compared. Raises `RegistryError` if the blob does not come.
        """
        offset, end = start, start + length
        waits_for_whole = length < self._size or not length
        looked = time.monotonic()
        try:
            while True:
                ready, is_whole = self._ready()
                if is_whole and offset == end:
                    return
                if offset < min(ready, end) and (is_whole or not waits_for_whole):
                    block = os.pread(self._descriptor, min(_BLOCK_SIZE, min(ready, end) - offset), offset)
                    offset += len(block)
                    yield block
                    continue
                time.sleep(_POLL_SECONDS)
                if time.monotonic() - looked > _BREATH_SECONDS:
                    if self._is_abandoned():
                        raise self._lost()
                    yield b""
                    looked = time.monotonic()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _ready(self) -> tuple[int, bool]:
        """How many bytes may be given, and whether the blob is whole."""
        status = os.fstat(self._descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if mode == _GIVEN_UP:
            raise self._lost()
        if not mode & stat.S_IXUSR:
            if status.st_size != self._size:
                raise self._lost()  # upstream told this one another size than the one who fetched it
            return self._size, True
        return min(status.st_size, self._size - _HELD_BACK), False

    def _is_abandoned(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return bool(os.fstat(self._descriptor).st_mode & stat.S_IXUSR)

    def _lost(self) -> RegistryError:
        return RegistryError(f"the blob {self._digest} did not come from upstream as it should")


class Fetches:
    """All blobs on their way. Its methods may be called from several threads at once."""

    def __init__(self, folder: Path, keep: Callable[[Digest, Path], None]) -> None:
        """``keep`` puts a file that has the right bytes into the store, and tells those who wanted it."""
        self._folder = folder
        self._keep = keep
        self._stopping = threading.Event()
        # These finish what they do before the store is closed; the threads that fetch are left to themselves.
        self._pushes = ThreadPoolExecutor(_PUSHES_MAX, thread_name_prefix="keep")
        with translate_os_errors(f"cannot make {folder}"):
            folder.mkdir(mode=0o700, exist_ok=True)
            for path in folder.iterdir():
                self._sweep(path)

    def follow(
        self, digest: Digest, size: int, source: Source, has_come: Callable[[], bool], turns: threading.Semaphore
    ) -> Follower | None:
        """Wait for a blob of ``size`` bytes, fetching it from ``source`` unless that is done already.

        ``turns`` bounds how many are fetched at once; a slow upstream registry must not use up those of another.
        ``has_come`` is asked when nobody else can fetch it any more: if it is in the store now, None is given.
        """
        path = self._folder / f"{digest.algorithm}-{digest.encoded}"
        while True:
            with translate_os_errors(f"cannot use {path}"):
                descriptor = self._joined(path)
                if descriptor is not None:
                    return Follower(digest, descriptor, size)
                begun = self._begun(path)
            if begun is None:
                continue
            try:
                if has_come():
                    return None
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                work = _Fetch(digest, size, path, begun)
                begun = -1
                threading.Thread(target=self._run, args=(work, source, turns), name="fetch", daemon=True).start()
                return Follower(digest, descriptor, size)
            finally:
                if begun >= 0:
                    path.unlink(missing_ok=True)
                    os.close(begun)

    def close(self) -> None:
        """Give up what is on its way, and wait until nothing is put into the store any more."""
        self._stopping.set()
        self._pushes.shutdown(wait=True, cancel_futures=True)

    def _joined(self, path: Path) -> int | None:
        """The file of a fetch that somebody is at; None if there is none any more."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return descriptor
        try:
            _unlink_own(path, descriptor)
        finally:
            os.close(descriptor)
        return None

    def _begun(self, path: Path) -> int | None:
        """A new file, locked before anyone sees it; None if somebody else was faster."""
        draft = path.with_name(f"{path.name}.{uuid4()}")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whatever the process does not let new files have.
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | stat.S_IXUSR)
            os.link(draft, path)
        except (BlockingIOError, FileExistsError, FileNotFoundError):
            # Who starts and sweeps may just be looking at the draft.
            os.close(descriptor)
            return None
        finally:
            draft.unlink(missing_ok=True)
        return descriptor

    def _run(self, work: "_Fetch", source: Source, turns: threading.Semaphore) -> None:
        begun = time.monotonic()
        try:
            with turns:
                work.receive(source, self._stopping)
            seconds = time.monotonic() - begun
            count_fetch(work.size, seconds)
            log(logging.INFO, "fetched a blob", digest=work.digest, bytes=work.size, seconds=round(seconds, 3))
            with suppress(RuntimeError, CancelledError):  # the server ends: it is no longer kept
                self._pushes.submit(self._keep, work.digest, work.path).result()
        except (LayerstoreError, OSError) as error:
            count_failed_fetch()
            log(logging.WARNING, f"a blob was not fetched: {error}", digest=work.digest)
        finally:
            work.end()

    def _sweep(self, path: Path) -> None:
        """Remove what a process that is no more has left."""
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _unlink_own(path, descriptor)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)


class Pace:
    """How fast upstream gives a blob. What happens to the bytes here is not counted against it."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._size = 0

    def watched(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks. Raises `RegistryError` when they come too slowly."""
        while True:
            begun = time.monotonic()
            block = next(blocks, None)
            self._waited += time.monotonic() - begun
            if block is None:
                return
            self._size += len(block)
            if self._waited >= _PACE_SECONDS:
                if self._size < self._waited * _BYTES_PER_SECOND_MIN:
                    raise RegistryError(f"upstream gave {self._size} bytes in {self._waited:.0f} seconds: too slowly")
                self._waited, self._size = 0.0, 0
            yield block


class _Fetch:
    """One blob that this process fetches."""

    def __init__(self, digest: Digest, size: int, path: Path, descriptor: int) -> None:
        self.digest = digest
        self.size = size
        self.path = path
        self._descriptor = descriptor
        self._is_whole = False

    def receive(self, source: Source, stopping: threading.Event) -> None:
        """Write the bytes as they come, and compare their digest."""
        state = hasher(self.digest.algorithm)
        offset = 0
        pace = Pace()
        with source() as blocks:
            for block in pace.watched(blocks):
                if stopping.is_set():
                    raise StoreClosedError("the server ends")
                if offset + len(block) > self.size:
                    raise RegistryError(f"more than the {self.size} bytes came that were announced")
                state.update(block)
                self._write(block, offset)
                offset += len(block)
        actual = Digest.from_raw(self.digest.algorithm, state.digest())
        if offset != self.size or actual != self.digest:
            raise DigestMismatchError(self.digest, actual)
        os.fchmod(self._descriptor, stat.S_IMODE(os.fstat(self._descriptor).st_mode) & ~stat.S_IXUSR)
        self._is_whole = True

    def end(self) -> None:
        """Remove the file. Who has it open reads on, if it is whole."""
        try:
            _unlink_own(self.path, self._descriptor)
            if not self._is_whole:
                os.fchmod(self._descriptor, _GIVEN_UP)
        finally:
            os.close(self._descriptor)

    def _write(self, block: bytes, offset: int) -> None:
        view = memoryview(block)
        with translate_os_errors(f"cannot write {self.path}"):
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                offset += written
                view = view[written:]


def _unlink_own(path: Path, descriptor: int) -> None:
    """Remove a name, if it is still that of the file whose lock is held."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            path.unlink()
