"""A batch: the part of a layer that one transaction commits. It holds the bytes until then.

Holding them is what makes "already here" safe: should another process collect a chunk between our look-up and our
commit, the batch still has its bytes and stores them anew.
"""

from array import array
from collections.abc import Iterator

from layerstore.chunking import Chunker
from layerstore.storage.frames import chunk_id
from layerstore.storage.recipe import Ref, Segment, join_runs
from layerstore.tar.splitter import Piece, PieceKind

BATCH_SIZE_MAX = 32 << 20
"""Bytes of a layer in one batch; a batch is closed at the first end of a chunk beyond."""
BATCH_CHUNKS_MAX = 1500
"""Chunks in one batch. It bounds how long the commit holds the writer lock."""
_SKELETON_CHUNK_SIZE = 8192
"""Skeleton is cut when the batch is sealed; until then so many bytes count as a chunk."""


class Batch:
    """Skeleton and chunks of consecutive bytes of a layer."""

    def __init__(self) -> None:
        self.size = 0
        self.skeleton_size = 0
        self._skeleton: list[memoryview] = []
        self._pieces = array("I")
        self._ends_in_payload = False
        self.payload_ids: list[bytes] = []
        self.skeleton_ids: list[bytes] = []
        self.chunks: dict[bytes, memoryview] = {}
        """Each distinct chunk by its ChunkID, in order of first appearance."""

    def add_skeleton(self, data: memoryview) -> None:
        """Append skeleton bytes."""
        size = len(data)
        self._skeleton.append(data)
        self.skeleton_size += size
        self.size += size
        if self._ends_in_payload or not self._pieces:
            self._pieces.append(size)
            self._ends_in_payload = False
        else:
            self._pieces[-1] += size

    def add_chunk(self, data: memoryview) -> None:
        """Append one chunk of payload."""
        identity = chunk_id(data)
        self.payload_ids.append(identity)
        self.chunks.setdefault(identity, data)
        self.size += len(data)
        if self._ends_in_payload:
            self._pieces[-1] += len(data)
            return
        if not self._pieces:
            self._pieces.append(0)
        self._pieces.append(len(data))
        self._ends_in_payload = True

    @property
    def is_full(self) -> bool:
        """Whether the batch should be committed before more is added."""
        chunks = len(self.payload_ids) + self.skeleton_size // _SKELETON_CHUNK_SIZE
        return self.size >= BATCH_SIZE_MAX or chunks >= BATCH_CHUNKS_MAX

    @property
    def room(self) -> int:
        """How many bytes of skeleton fill the batch, which is not full."""
        chunks = BATCH_CHUNKS_MAX - len(self.payload_ids)
        return min(BATCH_SIZE_MAX - self.size, chunks * _SKELETON_CHUNK_SIZE - self.skeleton_size)

    def seal(self, chunker: Chunker) -> None:
        """Cut the skeleton. Nothing may be added any more."""
        skeleton = memoryview(b"".join(self._skeleton))
        self._skeleton.clear()
        for data in chunker.feed(skeleton, last=True):
            identity = chunk_id(data)
            self.skeleton_ids.append(identity)
            self.chunks.setdefault(identity, data)

    @property
    def references(self) -> int:
        """How many chunks the batch refers to, repeats included."""
        return len(self.payload_ids) + len(self.skeleton_ids)

    def segment(self, refs: dict[bytes, Ref]) -> Segment:
        """The recipe of the batch, once it is known where every chunk is."""
        skeleton = join_runs(refs[identity] for identity in self.skeleton_ids)
        payload = join_runs(refs[identity] for identity in self.payload_ids)
        return Segment(self.size, skeleton, payload, self._pieces)


class Batcher:
    """Makes batches from the pieces of a layer."""

    def __init__(self) -> None:
        self._chunker = Chunker()
        self._batch = Batch()

    def add(self, pieces: list[Piece]) -> Iterator[Batch]:
        """Take pieces; give every batch that is full now."""
        for kind, data, last in pieces:
            if kind is PieceKind.SKELETON:
                yield from self._add_skeleton(data)
            else:
                for chunk in self._chunker.feed(data, last):
                    self._batch.add_chunk(chunk)
                    if self._batch.is_full:
                        yield self._take()

    def _add_skeleton(self, data: memoryview) -> Iterator[Batch]:
        # Skeleton is cut where the batch is full, not where a piece ends: that depends on how the stream was read. The
        # same content must come in the same batches, or its skeleton's chunks would not be those that were lost.
        while data:
            room = self._batch.room
            self._batch.add_skeleton(data[:room])
            data = data[room:]
            if self._batch.is_full:
                yield self._take()

    def finish(self) -> Batch:
        """The last batch, which may be empty."""
        for chunk in self._chunker.feed(memoryview(b""), last=True):
            self._batch.add_chunk(chunk)
        return self._take()

    def _take(self) -> Batch:
        batch = self._batch
        self._batch = Batch()
        return batch
