"""Blobs on their way from a source to an open sink: several at once, each verified, each at most once."""

import os
import queue
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from layerstore.oci.documents import Descriptor
from layerstore.places.content import measured, verified
from layerstore.places.place import BlobWriter, DifferenceWriter, Source
from layerstore.progress import PROGRESS_SECONDS, OnProgress, Progress, Throttle

_AHEAD_BLOCKS = 4
_AHEAD_SIZE_MIN = 4 << 20
"""Bytes of a blob for which a thread of its own is worth it."""


@dataclass(slots=True)
class _Passage:
    """One blob. Counted by its thread, read by the one that reports."""

    descriptor: Descriptor
    done: int = 0
    ended: bool = False
    note: str = ""

    def count(self, size: int) -> None:
        self.done += size


class _Blocks:
    """A blob's blocks, for a sink that may have to begin anew: each time, the source is opened again."""

    def __init__(self, opened: Callable[[], AbstractContextManager[Iterator[bytes]]]) -> None:
        self._opened = opened
        self._stack = ExitStack()

    def __iter__(self) -> Iterator[bytes]:
        self._stack.close()
        return self._stack.enter_context(self._opened())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, traceback)


class _StoppedError(Exception):
    """Another blob has failed."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a transfer came to."""

    copied: int
    copied_bytes: int
    present: int
    present_bytes: int


def transfer(
    source: Source,
    writer: BlobWriter,
    blobs: Collection[Descriptor],
    *,
    jobs: int,
    total_name: str,
    on_progress: OnProgress | None = None,
    operation: str = "copy",
) -> Transferred:
    """Bring blobs into an open sink, ``jobs`` of them at a time.

    At the first error the others stop, and it is raised. ``on_progress`` is called from this thread, for each blob, and
    for all of them together under ``total_name``.
    """
    passages = [_Passage(descriptor) for descriptor in blobs]
    stopping = threading.Event()
    report = _Report(on_progress, passages, total_name, operation)

    # To hash once is enough; it is what a copy costs most for.
    check = measured if source.blobs_are_verified or writer.verifies_blobs else verified
    # A sink that verifies has threads of its own. Without a core to spare, more of them only get in each other's way.
    large = sum(descriptor.size >= _AHEAD_SIZE_MIN for descriptor in blobs)
    ahead = not writer.verifies_blobs and min(jobs, large) < (os.cpu_count() or 1)

    def pass_on(passage: _Passage) -> None:
        if stopping.is_set():
            raise _StoppedError
        descriptor = passage.descriptor
        if writer.has_blob(descriptor):
            passage.done = descriptor.size
            passage.note = "already there"
        elif isinstance(writer, DifferenceWriter) and writer.put_difference(descriptor, source):
            passage.done = descriptor.size
        else:
            is_ahead = ahead and descriptor.size >= _AHEAD_SIZE_MIN

            @contextmanager
            def opened() -> Iterator[Iterator[bytes]]:
                passage.done = 0
                with (
                    source.read_blob(descriptor) as blocks,
                    _read(check(descriptor, blocks, passage.count), is_ahead) as checked,
                ):
                    yield _stoppable(checked, stopping)

            with _Blocks(opened) as blocks:
                writer.put_blob(descriptor, blocks)
        passage.ended = True

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(pass_on, passage) for passage in passages}
        try:
            _wait(futures, report.tell)
        except BaseException:
            stopping.set()
            for future in futures:
                future.cancel()
            raise
    report.tell(last=True)
    present = [passage.descriptor.size for passage in passages if passage.note]
    copied = [passage.descriptor.size for passage in passages if not passage.note]
    return Transferred(len(copied), sum(copied), len(present), sum(present))


def _wait(futures: set[Future[None]], tell: Callable[[], None]) -> None:
    waiting = futures
    while waiting:
        ended, waiting = wait(waiting, PROGRESS_SECONDS, FIRST_EXCEPTION)
        for future in ended:
            future.result()
        tell()


def _read(blocks: Iterator[bytes], ahead: bool) -> AbstractContextManager[Iterator[bytes]]:
    return _read_ahead(blocks) if ahead else nullcontext(blocks)


@contextmanager
def _read_ahead(blocks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """The blocks; a thread reads and hashes them while those before are written. It is over when this is left."""
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD_BLOCKS)
    left = threading.Event()

    def run() -> None:
        last: BaseException | None = None
        try:
            for block in blocks:
                ready.put(block)
                if left.is_set():
                    return
        except BaseException as error:
            last = error
        ready.put(last)

    def given() -> Iterator[bytes]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield given()
    finally:
        left.set()
        while not ready.empty():
            ready.get_nowait()  # it may wait for room, and needs it once
        thread.join()


def _stoppable(blocks: Iterator[bytes], stopping: threading.Event) -> Iterator[bytes]:
    for block in blocks:
        if stopping.is_set():
            raise _StoppedError
        yield block


class _Report:
    """Tells progress: at most ten times a second for each blob, and at its end."""

    def __init__(
        self, on_progress: OnProgress | None, passages: list[_Passage], total_name: str, operation: str
    ) -> None:
        self._on_progress = on_progress
        self._passages = passages
        self._total = sum(passage.descriptor.size for passage in passages)
        self._total_name = total_name
        self._operation = operation
        self._told: dict[str, Progress] = {}
        self._throttle = Throttle()

    def tell(self, last: bool = False) -> None:
        if self._on_progress is None or not (last or self._throttle.is_due()):
            return
        for passage in self._passages:
            if passage.done or passage.ended:
                descriptor = passage.descriptor
                self._tell(
                    Progress(
                        self._operation, descriptor.digest.short, passage.done, descriptor.size, "bytes", passage.note
                    )
                )
        done = sum(passage.done for passage in self._passages)
        self._tell(Progress(self._operation, self._total_name, done, self._total))

    def _tell(self, progress: Progress) -> None:
        if self._on_progress is not None and self._told.get(progress.subject) != progress:
            self._told[progress.subject] = progress
            self._on_progress(progress)
