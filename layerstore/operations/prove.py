"""Proving: how the raw encodings of a store are made again; what stands proved is kept as a recipe alone.

The queue is the raw encodings themselves: each says which set of encoders was tried on it in vain. So it survives
everything, costs nothing to keep, and a new encoder puts what it may help back into it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from layerstore.digest import Digest, hasher
from layerstore.encodings.encoders import EncoderNumber, is_available
from layerstore.encodings.finding import find_recipe
from layerstore.encodings.recipe import ENCODER_SET, Recipe
from layerstore.encodings.regenerate import regenerate
from layerstore.errors import ContentDamagedError, EncoderUnavailableError, UndecodableError
from layerstore.operations.counting import mark_dead
from layerstore.operations.pull import layer_blocks_from
from layerstore.operations.raw_files import file_blocks, is_raw_good, raw_path, remove_raw
from layerstore.progress import OnProgress, Progress
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import RecordKind
from layerstore.storage.records import EncodingRecord, EncodingState, Place

_NO_PLACE = Place(0, 0, 0)
_PROGRESS_SECONDS = 0.1


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
    proved = freed = unproved = 0
    damaged: list[Digest] = []
    with store.lock("prove"):
        queue = queued_encodings(store)
        if digests is not None:
            wanted = set(digests)
            queue = [digest for digest in queue if digest in wanted]
        report = _Report(store, queue, on_progress)
        for digest in queue:
            try:
                size = _prove(store, digest, report.count)
            except ContentDamagedError:
                damaged.append(digest)
                continue
            if size is None:
                unproved += 1
            else:
                proved += 1
                freed += size
        report.finish()
    return ProofReport(proved, freed, unproved, tuple(damaged), time.monotonic() - started)


def _prove(store: OpenedStore, digest: Digest, count: Callable[[Iterable[bytes]], Iterator[bytes]]) -> int | None:
    """Prove one encoding; the bytes of the raw file that went, None if it stays."""
    with store.index.read() as transaction:
        record = transaction.encodings.get(digest)
    if record is None or record.state is not EncodingState.RAW:
        return 0
    path = raw_path(store.layout, digest)
    try:
        recipe = find_recipe(lambda: count(file_blocks(path)))
    except UndecodableError:
        recipe = None  # zstd
    except FileNotFoundError:
        raise ContentDamagedError(f"the raw file of encoding {digest} is missing") from None
    if recipe is not None:
        _compare(store, digest, record, recipe)
        after = replace(record, state=EncodingState.RECIPE, recipe=recipe.to_bytes())
    elif is_raw_good(store, digest):
        after = replace(record, tried=ENCODER_SET)
    else:
        raise ContentDamagedError(f"the raw file of encoding {digest} is damaged")
    _switch(store, digest, record, after)
    return remove_raw(store, digest) if recipe is not None else None


def _compare(store: OpenedStore, digest: Digest, record: EncodingRecord, recipe: Recipe) -> None:
    """Make the blob from what is really stored, as whoever pulls it will. Only then may the raw file go."""
    state = hasher(digest.algorithm)
    kept = Recipe.from_bytes(recipe.to_bytes())
    for block in regenerate(kept, lambda offset: layer_blocks_from(store, record.diff_id, offset)):
        state.update(block)
    if Digest.from_raw(digest.algorithm, state.digest()) != digest:
        raise ContentDamagedError(f"encoding {digest} is not what its layer gives")


def _switch(store: OpenedStore, digest: Digest, before: EncodingRecord, after: EncodingRecord) -> None:
    """Let the encoding be kept in another way, durably. One that was dropped meanwhile stays dropped."""
    with store.pack_writer() as writer:
        body = replace(after, place=_NO_PLACE).encode()
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

        if store.index.write(change):
            writer.committed_now()


class _Report:
    """Tells progress in bytes of blobs, at most ten times a second."""

    def __init__(self, store: OpenedStore, queue: list[Digest], on_progress: OnProgress | None) -> None:
        with store.index.read() as transaction:
            records = [transaction.encodings.get(digest) for digest in queue]
        self._total = sum(record.size for record in records if record is not None)
        self._name = str(store.layout.root)
        self._on_progress = on_progress
        self._done = 0
        self._told = 0.0

    def count(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Give every block on, and count it."""
        for block in blocks:
            self._done = min(self._total, self._done + len(block))
            if time.monotonic() - self._told > _PROGRESS_SECONDS:
                self._told = time.monotonic()
                self._tell()
            yield block

    def finish(self) -> None:
        """The last report."""
        self._done = self._total
        self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress("prove", self._name, self._done, self._total, "bytes"))
