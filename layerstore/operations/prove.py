"""Proving: how the raw encodings of a store are made again; what stands proved is kept as a recipe alone.

The queue is the raw encodings themselves: each says which set of encoders was tried on it in vain. So it survives
everything, costs nothing to keep, and a new encoder puts what it may help back into it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import Enum

from layerstore.digest import Digest, digest_of_blocks
from layerstore.encodings.encoders import EncoderNumber, is_available
from layerstore.encodings.finding import find_recipe
from layerstore.encodings.recipe import ENCODER_SET, Recipe
from layerstore.encodings.regenerate import regenerate
from layerstore.errors import ContentDamagedError, EncoderUnavailableError, NotFoundError, UndecodableError
from layerstore.operations.counting import mark_dead
from layerstore.operations.pull import layer_blocks_from
from layerstore.operations.raw_files import file_blocks, is_raw_good, raw_path, remove_raw
from layerstore.operations.threads import worker_count
from layerstore.progress import PROGRESS_SECONDS, OnProgress, Progress
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import RecordKind
from layerstore.storage.records import NO_PLACE, EncodingRecord, EncodingState


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What a run of proofs came to."""

    proved: int
    """Encodings that are kept as recipes now."""
    bytes_freed: int
    """Of their raw files."""
    unproved: int
    """Encodings that no known encoder makes; they stay raw."""
    damaged: tuple[Digest, ...]
    """Encodings whose raw file or layer cannot be read."""
    seconds: float


def queued_encodings(store: OpenedStore) -> list[Digest]:
    """The raw encodings that this version's encoders were not tried on, those of the smallest blobs first."""
    with store.index.read() as transaction:
        found = [
            (record.size, digest)
            for digest, record in transaction.encodings.items()
            if record.state is EncodingState.RAW and record.tried < ENCODER_SET
        ]
    return [digest for _, digest in sorted(found)]


def prove_encodings(
    store: OpenedStore, digests: Iterable[Digest] | None = None, on_progress: OnProgress | None = None
) -> ProofReport:
    """Work off the queue, or those of ``digests`` that are in it. Others may use the store meanwhile.

    Raises `EncoderUnavailableError` where layerstore was installed without a compiler.
    """
    store.check_writable()
    if not all(map(is_available, EncoderNumber)):
        raise EncoderUnavailableError(
            "layerstore was installed without a compiler, so it has not all encoders to try; encodings stay raw"
        )
    started = time.monotonic()
    with store.lock("prove"):
        queue = queued_encodings(store)
        if digests is not None:
            wanted = set(digests)
            queue = [digest for digest in queue if digest in wanted]
        results = _prove_all(store, queue, on_progress)
    return ProofReport(
        proved=sum(result.outcome is _Outcome.PROVED for result in results),
        bytes_freed=sum(result.bytes_freed for result in results),
        unproved=sum(result.outcome is _Outcome.UNPROVED for result in results),
        damaged=tuple(result.digest for result in results if result.outcome is _Outcome.DAMAGED),
        seconds=time.monotonic() - started,
    )


class _Outcome(Enum):
    PROVED = 1
    UNPROVED = 2
    DAMAGED = 3
    GONE = 4
    """Collected, or proved by another process, meanwhile."""


@dataclass(frozen=True, slots=True)
class _Result:
    digest: Digest
    outcome: _Outcome
    bytes_freed: int = 0


class _StoppedError(Exception):
    """Another proof has failed, or the caller was interrupted."""


def _prove_all(store: OpenedStore, queue: list[Digest], on_progress: OnProgress | None) -> list[_Result]:
    """Prove several at once: an encoder keeps one core busy."""
    progress = _Progress(store, queue, on_progress)
    with ThreadPoolExecutor(worker_count()) as pool:
        waiting = [pool.submit(_prove, store, digest, progress.count) for digest in queue]
        futures = list(waiting)
        try:
            while waiting:
                ended, rest = wait(waiting, PROGRESS_SECONDS, FIRST_EXCEPTION)
                for future in ended:
                    future.result()
                waiting = list(rest)
                progress.tell()
        except BaseException:
            progress.stop()
            for future in futures:
                future.cancel()
            raise
    progress.finish()
    return [future.result() for future in futures]


def _prove(store: OpenedStore, digest: Digest, count: Callable[[Iterable[bytes]], Iterator[bytes]]) -> _Result:
    with store.index.read() as transaction:
        record = transaction.encodings.get(digest)
    if record is None or record.state is not EncodingState.RAW:
        return _Result(digest, _Outcome.GONE)
    try:
        after = _with_recipe(store, digest, record, count)
    except (ContentDamagedError, NotFoundError):
        return _Result(digest, _Outcome.DAMAGED if _is_there(store, digest, record) else _Outcome.GONE)
    if not _switch(store, digest, record, after):
        return _Result(digest, _Outcome.GONE)
    if after.state is EncodingState.RAW:
        return _Result(digest, _Outcome.UNPROVED)
    return _Result(digest, _Outcome.PROVED, remove_raw(store, digest))


def _is_there(store: OpenedStore, digest: Digest, record: EncodingRecord) -> bool:
    with store.index.read() as transaction:
        now = transaction.encodings.get(digest)
    return now is not None and now.number == record.number and now.state is record.state


def _with_recipe(
    store: OpenedStore, digest: Digest, record: EncodingRecord, count: Callable[[Iterable[bytes]], Iterator[bytes]]
) -> EncodingRecord:
    """The record with a recipe that stands proved, or with the note that there is none."""
    path = raw_path(store.layout, digest)
    try:
        recipe = find_recipe(lambda: count(file_blocks(path)))
    except UndecodableError:
        recipe = None  # zstd
    except FileNotFoundError:
        raise ContentDamagedError(f"the raw file of encoding {digest} is missing") from None
    if recipe is not None:
        _compare(store, digest, record, recipe, count)
        return replace(record, state=EncodingState.RECIPE, recipe=recipe.to_bytes())
    if not is_raw_good(store, digest):
        raise ContentDamagedError(f"the raw file of encoding {digest} is damaged")
    return replace(record, tried=ENCODER_SET)


def _compare(
    store: OpenedStore,
    digest: Digest,
    record: EncodingRecord,
    recipe: Recipe,
    count: Callable[[Iterable[bytes]], Iterator[bytes]],
) -> None:
    """Make the blob from what is really on disk, as whoever pulls it will. Only then may the raw file go."""
    store.frames.clear()
    store.packs.close()
    kept = Recipe.from_bytes(recipe.to_bytes())
    made = count(regenerate(kept, lambda offset: layer_blocks_from(store, record.diff_id, offset)))
    if digest_of_blocks(made, digest.algorithm) != digest:
        raise ContentDamagedError(f"encoding {digest} is not what its layer gives")


def _switch(store: OpenedStore, digest: Digest, before: EncodingRecord, after: EncodingRecord) -> bool:
    """Let the encoding be kept in another way, durably. False: it was dropped meanwhile, and stays so."""
    with store.pack_writer() as writer:
        body = replace(after, place=NO_PLACE).encode()
        place = writer.append(RecordKind.ENCODING, 0, after.number, digest.pack(), body)
        writer.sync()

        def change(transaction: Transaction) -> bool:
            now = transaction.encodings.get(digest)
            if now is None or now.number != before.number:
                return False
            transaction.encodings.put(digest, replace(after, place=place))
            mark_dead(transaction, now.place.pack, now.place.size)
            writer.commit(transaction)
            return True

        done = store.index.write(change)
        if done:
            writer.committed_now()
        return done


class _Progress:
    """Counts on the threads that prove, and tells on the one that called: bytes of blobs, read once and made once."""

    def __init__(self, store: OpenedStore, queue: list[Digest], on_progress: OnProgress | None) -> None:
        with store.index.read() as transaction:
            records = [transaction.encodings.get(digest) for digest in queue]
        self._total = 2 * sum(record.size for record in records if record is not None)
        self._name = str(store.layout.root)
        self._on_progress = on_progress
        self._done = 0
        self._stopped = False

    def count(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Give every block on, and count it."""
        for block in blocks:
            if self._stopped:
                raise _StoppedError
            self._done += len(block)
            yield block

    def stop(self) -> None:
        """Let all that counts end."""
        self._stopped = True

    def finish(self) -> None:
        """The last report."""
        self._done = self._total
        self.tell()

    def tell(self) -> None:
        """Say how far it has come."""
        if self._on_progress is not None:
            self._on_progress(Progress("prove", self._name, min(self._done, self._total), self._total, "bytes"))
