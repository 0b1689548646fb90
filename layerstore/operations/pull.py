"""Pull: a layer's bytes from its recipe, every frame verified, in order or from any offset."""

from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from layerstore.digest import Digest, compared
from layerstore.errors import (
    ContentDamagedError,
    IndexDamagedError,
    LayerNotFoundError,
)
from layerstore.operations.damage import note_damage
from layerstore.operations.threads import worker_count
from layerstore.storage.frames import Frame, FrameDamagedError
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import Run, Segment, decode_segment
from layerstore.storage.records import LayerRecord

_LOOKAHEAD = 6
"""Frames that are decoded ahead of the one that is needed."""
_OUTPUT_SIZE = 1 << 20


def find_layer(store: OpenedStore, diff_id: Digest) -> LayerRecord:
    """The record of a layer. Raises `LayerNotFoundError`."""
    with store.index.read() as transaction:
        record = transaction.layers.get(diff_id)
    if record is None:
        raise LayerNotFoundError(f"the store has no layer {diff_id}")
    return record


@contextmanager
def leased_layer(store: OpenedStore, diff_id: Digest) -> Iterator[LayerRecord]:
    """A layer that stays, whatever is deleted and collected meanwhile."""
    record = find_layer(store, diff_id)
    while True:
        with store.lease_layer(record.number):
            # Only now, with the lease in place, does "still there" mean "stays".
            again = find_layer(store, diff_id)
            if again.number == record.number:
                yield again
                return
        record = again


class RecipeReader:
    """Reads the segments of one recipe. The caller holds a lease on it."""

    def __init__(self, store: OpenedStore, record: LayerRecord) -> None:
        self._store = store
        self.record = record

    def segments(self, begin: int = 0) -> Iterator[tuple[int, Segment]]:
        """All segments from the one that holds byte ``begin`` on, each with its offset."""
        position = begin
        while position < self.record.size:
            start, segment = self.segment_at(position)
            yield start, segment
            position = start + segment.size

    def segment_at(self, offset: int) -> tuple[int, Segment]:
        """The segment that holds ``offset``, and where it begins."""
        number = self.record.number
        with self._store.index.read() as transaction:
            found = transaction.recipes.last_at_or_before((number, offset))
        if found is None or found[0][0] != number:
            raise IndexDamagedError(f"the recipe of a layer lacks its segment at {offset}; run `layerstore verify`")
        (_, start), record = found
        segment = decode_segment(record.data)
        if not start <= offset < start + segment.size:
            raise IndexDamagedError(f"the recipe of a layer has a gap at {offset}; run `layerstore verify`")
        return start, segment

    def slices(self, runs: list[Run], pool: ThreadPoolExecutor | None) -> Iterator[memoryview]:
        """The bytes of the runs in their order. With a pool, frames are decoded ahead."""
        frames = list(dict.fromkeys(run.frame for run in runs))
        ahead: dict[int, Future[Frame]] = {}
        started = 0
        needed = {frame: index for index, frame in enumerate(frames)}
        for run in runs:
            if pool is not None:
                limit = min(len(frames), needed[run.frame] + _LOOKAHEAD)
                while started < limit:
                    ahead[frames[started]] = pool.submit(self._store.frames.read, frames[started])
                    started += 1
            future = ahead.pop(run.frame, None)
            with self._noting_damage():
                frame = future.result() if future is not None else self._store.frames.read(run.frame)
            yield self._run(frame, run)

    def run_bytes(self, run: Run) -> memoryview:
        """The bytes of one run."""
        with self._noting_damage():
            frame = self._store.frames.read(run.frame)
        return self._run(frame, run)

    def frame_lengths(self, runs: list[Run]) -> "dict[int, array[int]]":
        """The lengths of all positions of the frames that the runs refer to."""
        with self._store.index.read() as transaction:
            return {frame: transaction.frames[frame].lengths for frame in {run.frame for run in runs}}

    def run_starts(self, runs: list[Run]) -> list[int]:
        """Where each run begins in the stream that the runs make together, and where the last one ends."""
        starts = [0]
        lengths = self.frame_lengths(runs)
        for run in runs:
            starts.append(starts[-1] + sum(lengths[run.frame][run.first : run.first + run.chunks]))
        return starts

    @contextmanager
    def _noting_damage(self) -> Iterator[None]:
        """Known damage is what a push of the same content can heal."""
        try:
            yield
        except FrameDamagedError as error:
            note_damage(self._store, error.frame)
            raise

    def _run(self, frame: Frame, run: Run) -> memoryview:
        try:
            return frame.run(run.first, run.chunks)
        except ContentDamagedError:
            # The frame may have been healed since it was cached.
            self._store.frames.forget(run.frame)
            return self._store.frames.read(run.frame).run(run.first, run.chunks)

    def pieces(self, segment: Segment, pool: ThreadPoolExecutor | None) -> Iterator[memoryview]:
        """The bytes of a segment in order: skeleton and payload joined again."""
        streams = (_Stream(self.slices(segment.skeleton, pool)), _Stream(self.slices(segment.payload, pool)))
        for index, length in enumerate(segment.pieces):
            yield from streams[index % 2].take(length)

    def skeleton_of(self, segment: Segment) -> Iterator[bytes | int]:
        """A segment without its payload: skeleton as bytes, and the lengths of the payload between it."""
        stream = _Stream(self.slices(segment.skeleton, None))
        for index, length in enumerate(segment.pieces):
            if index % 2:
                yield length
            elif length:
                yield b"".join(stream.take(length))


class _Stream:
    """Takes exact lengths off a sequence of slices."""

    __slots__ = ("_rest", "_slices")

    def __init__(self, slices: Iterator[memoryview]) -> None:
        self._slices = slices
        self._rest = memoryview(b"")

    def take(self, length: int) -> Iterator[memoryview]:
        while length:
            if not self._rest:
                rest = next(self._slices, None)
                if rest is None:
                    raise IndexDamagedError("a recipe's runs are shorter than its pieces; run `layerstore verify`")
                self._rest = rest
            part = self._rest[:length]
            self._rest = self._rest[length:]
            length -= len(part)
            yield part


def layer_blocks(store: OpenedStore, diff_id: Digest) -> Iterator[bytes]:
    """A layer's bytes in blocks of about 1 MiB, verified.

    The last block is given out only when the digest of all is the DiffID; `DigestMismatchError` is raised otherwise.
    """
    with leased_layer(store, diff_id) as record, ThreadPoolExecutor(worker_count()) as pool:
        reader = RecipeReader(store, record)
        yield from verified(_joined(reader, pool), diff_id)


def layer_blocks_from(store: OpenedStore, diff_id: Digest, start: int) -> Iterator[bytes]:
    """A layer's bytes from an offset on. Every frame is verified, the layer's digest is not compared."""
    with leased_layer(store, diff_id) as record, ThreadPoolExecutor(worker_count()) as pool:
        yield from _joined(RecipeReader(store, record), pool, start)


def _joined(reader: RecipeReader, pool: ThreadPoolExecutor, begin: int = 0) -> Iterator[bytes]:
    parts: list[memoryview] = []
    size = 0
    for start, segment in reader.segments(begin):
        skipped = max(0, begin - start)
        for part in reader.pieces(segment, pool):
            if skipped:
                skipped, part = skipped - min(skipped, len(part)), part[skipped:]
            parts.append(part)
            size += len(part)
            if size >= _OUTPUT_SIZE:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)


def verified(blocks: Iterable[bytes], digest: Digest) -> Iterator[bytes]:
    """The blocks, the last of them only if the digest of all is the expected one, else `DigestMismatchError`."""
    held: bytes | None = None
    for block in compared(blocks, digest):
        if held is not None:
            yield held
        held = block
    if held is not None:
        yield held
