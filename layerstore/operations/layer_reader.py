"""A layer as a seekable file: any part of it, from the frames that hold this part alone."""

from bisect import bisect_right
from itertools import accumulate

from layerstore.digest import Digest
from layerstore.operations.pull import RecipeReader, leased_layer
from layerstore.operations.reader import Reader
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import Segment


class LayerReader(Reader):
    """A layer as a seekable, read-only binary file. It keeps its layer from collection until it is closed."""

    def __init__(self, store: OpenedStore, diff_id: Digest) -> None:
        self._lease = leased_layer(store, diff_id)
        self._reader = RecipeReader(store, self._lease.__enter__())
        super().__init__(self._reader.record.size)
        self._store = store
        self._segment: tuple[int, Segment] | None = None
        self._table: _SegmentTable | None = None

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as one segment goes."""
        if self.closed:
            raise ValueError("read of a closed layer")
        self._store.check_usable()
        view = memoryview(buffer).cast("B")
        if self._position >= self.size or not view:
            return 0
        if self._segment is None or not 0 <= self._position - self._segment[0] < self._segment[1].size:
            self._segment = self._reader.segment_at(self._position)
            self._table = _SegmentTable(self._reader, self._segment[1])
        assert self._table is not None
        start, segment = self._segment
        inside = self._position - start
        count = min(len(view), segment.size - inside)
        self._table.read_into(view[:count], inside)
        self._position += count
        return count

    def close(self) -> None:
        """End the lease. A second call does nothing."""
        if not self.closed:
            self._lease.__exit__(None, None, None)
        super().close()


class _SegmentTable:
    """Finds the run that holds an offset of a segment."""

    def __init__(self, reader: RecipeReader, segment: Segment) -> None:
        self._reader = reader
        self._starts = [0, *accumulate(segment.pieces)]
        # Where each piece begins in its own stream: skeleton at even, payload at odd positions.
        self._stream_starts = [0] * len(segment.pieces)
        for parity in (0, 1):
            lengths = segment.pieces[parity::2]
            self._stream_starts[parity::2] = list(accumulate(lengths, initial=0))[: len(lengths)]
        self._runs = (segment.skeleton, segment.payload)
        self._run_starts: list[list[int] | None] = [None, None]

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the segment's bytes from ``offset`` on; they must be there."""
        while target:
            piece = bisect_right(self._starts, offset) - 1
            inside = offset - self._starts[piece]
            count = min(len(target), self._starts[piece + 1] - offset)
            self._read_stream(piece % 2, target[:count], self._stream_starts[piece] + inside)
            target = target[count:]
            offset += count

    def _read_stream(self, parity: int, target: memoryview, offset: int) -> None:
        runs = self._runs[parity]
        starts = self._run_starts[parity]
        if starts is None:
            starts = self._run_starts[parity] = self._reader.run_starts(runs)
        while target:
            index = bisect_right(starts, offset) - 1
            data = self._reader.run_bytes(runs[index])[offset - starts[index] :][: len(target)]
            target[: len(data)] = data
            target = target[len(data) :]
            offset += len(data)
