"""Push: content becomes a layer. Hashing, cutting, compressing and committing run at the same time."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from layerstore.decoding import Encoding, decode, detect
from layerstore.digest import Digest, PromisedDigest, hasher
from layerstore.errors import DigestMismatchError, LayerstoreError, UndecodableError
from layerstore.operations.batch import Batch, Batcher
from layerstore.operations.drain import drain
from layerstore.operations.source import Source, spooled
from layerstore.operations.threads import worker_count
from layerstore.operations.upload import Holder, Upload, UploadTotals
from layerstore.progress import OnProgress, Progress, Throttle
from layerstore.storage.opened import OpenedStore
from layerstore.tar.splitter import TarSplitter

_HASH_QUEUE = 4


Decoder = Callable[[Iterable[bytes]], Iterable[bytes]]


class Decode(StrEnum):
    """Whether a push decodes gzip and zstd."""

    AUTO = "auto"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to."""

    diff_id: Digest
    size: int
    """Bytes of the layer, decoded."""
    already_present: bool
    totals: UploadTotals
    encoding: Encoding | None = None
    """How the source was compressed, if it was decoded. The compressed bytes themselves are not kept."""
    undecodable: str = ""
    """Why a source that looked compressed is kept as the bytes it is."""


def push(
    store: OpenedStore,
    source: Source,
    *,
    holder: Holder,
    decode_mode: Decode = Decode.AUTO,
    expected: Digest | None = None,
    on_progress: OnProgress | None = None,
) -> Pushed:
    """Store the layer that ``source`` holds.

    ``expected``, if given, must be the digest of the source's bytes as they are; otherwise `DigestMismatchError` is
    raised and nothing becomes visible.
    """
    encoding = detect(source.peek()) if decode_mode is Decode.AUTO else None
    report = Report(on_progress, source)
    if encoding is None:
        return push_blocks(store, report.count(source.blocks()), None, holder, expected, report)
    with spooled(source, store.layout.temporary) as again:
        try:
            pushed = push_blocks(store, report.count(again.blocks()), decode, holder, expected, report)
            return replace(pushed, encoding=encoding)
        except UndecodableError as error:
            again.rewind()
            report.restart()
            pushed = push_blocks(store, report.count(again.blocks()), None, holder, expected, report)
            return replace(pushed, undecodable=str(error))


def push_blocks(
    store: OpenedStore,
    blocks: Iterable[bytes],
    decoder: Decoder | None,
    holder: Holder,
    expected: Digest | PromisedDigest | None,
    report: "Report",
) -> Pushed:
    """Store what ``decoder`` makes of the blocks as a layer; ``expected`` is the digest of the blocks themselves."""
    source_hash = _HashThread(expected.algorithm) if expected and (decoder or expected.algorithm != "sha256") else None
    layer_hash = _HashThread("sha256")
    try:
        if source_hash:
            blocks = source_hash.tee(blocks)
        content = decoder(blocks) if decoder else blocks
        with store.pack_writer() as writer, ThreadPoolExecutor(worker_count()) as pool:
            turn = threading.Lock()
            upload = Upload(store, writer, pool, holder, turn)
            try:
                last = _commit_batches(upload, layer_hash.tee(content), turn)
                diff_id = Digest.from_raw("sha256", layer_hash.finish())
                if expected is not None:
                    actual = Digest.from_raw(expected.algorithm, source_hash.finish()) if source_hash else diff_id
                    promised = resolved(expected)
                    if actual != promised:
                        raise DigestMismatchError(promised, actual)
                is_new = upload.publish(last, diff_id)
            except BaseException:
                with suppress(LayerstoreError):
                    _forget(store, upload)
                raise
            if not is_new:
                _forget(store, upload)
            size = layer_hash.size
    finally:
        layer_hash.stop()
        if source_hash:
            source_hash.stop()
    report.finish("already present" if not is_new else "")
    return Pushed(diff_id, size, not is_new, upload.totals)


def resolved(expected: Digest | PromisedDigest) -> Digest:
    """The digest itself. For one that was promised, when all bytes were read."""
    return expected if isinstance(expected, Digest) else expected.resolve()


def _commit_batches(upload: Upload, content: Iterable[bytes], turn: threading.Lock) -> Batch:
    """Commit all batches but the last, which is returned. One is committed while the next one is filled."""
    splitter = TarSplitter()
    batcher = Batcher()
    committing: Future[None] | None = None
    with ThreadPoolExecutor(1) as committer:
        for block in content:
            with turn:
                full = list(batcher.add(splitter.feed(block)))
            while full:
                batch = full.pop(0)
                if committing is not None:
                    committing.result()
                committing = committer.submit(upload.commit, batch)
                del batch
        full = list(batcher.add(splitter.finish()))
        if committing is not None:
            committing.result()
    for batch in full:
        upload.commit(batch)
    return batcher.finish()


def _forget(store: OpenedStore, upload: Upload) -> None:
    number = upload.abandon()
    if number is not None:
        drain(store, number)


class _HashThread:
    """Hashes blocks on a thread of its own, while they go on to their reader."""

    def __init__(self, algorithm: str) -> None:
        self._state = hasher(algorithm)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_HASH_QUEUE)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._stopped = False
        self.size = 0

    def tee(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Give every block on, and hash it."""
        for block in blocks:
            self._queue.put(block)
            self.size += len(block)
            yield block

    def finish(self) -> bytes:
        """The digest of all blocks."""
        self.stop()
        return self._state.digest()

    def stop(self) -> None:
        """End the thread."""
        if not self._stopped:
            self._stopped = True
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            self._state.update(block)


class Report:
    """Tells the progress of a push at most ten times a second."""

    def __init__(self, on_progress: OnProgress | None, source: Source) -> None:
        self._on_progress = on_progress
        self._source = source
        self._done = 0
        self._throttle = Throttle()
        self._last: Progress | None = None

    def count(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Give every block on, and count it."""
        for block in blocks:
            self._done += len(block)
            if self._on_progress is not None and self._throttle.is_due():
                self._tell("")
            yield block

    def restart(self) -> None:
        """The source is read anew."""
        self._done = 0

    def finish(self, note: str) -> None:
        """The last report."""
        self._tell(note)

    def _tell(self, note: str) -> None:
        progress = Progress("push", self._source.name, self._done, self._source.size, "bytes", note)
        if self._on_progress is not None and progress != self._last:
            self._last = progress
            self._on_progress(progress)
