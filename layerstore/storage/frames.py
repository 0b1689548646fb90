"""Frames: chunks that are compressed together, and verified together when they are read (FORMAT.md, "Frames")."""

import struct
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from blake3 import blake3

from layerstore._zstd import zstd
from layerstore.errors import ContentDamagedError, IndexDamagedError
from layerstore.storage.index import Index
from layerstore.storage.packs import PackReader, RecordKind
from layerstore.storage.records import FrameRecord, FrameState, Place

CODEC_STORED = 0
CODEC_ZSTD = 1
_POSITION = struct.Struct(">IB32s")
_COMPRESSION_GAIN_MIN = 0.03
_CACHE_SIZE_DEFAULT = 32 << 20


def chunk_id(data: bytes | memoryview) -> bytes:
    """The ChunkID: BLAKE3 of the chunk."""
    return blake3(data).digest()


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame ready for a pack."""

    ids: list[bytes]
    lengths: "array[int]"
    states: bytes
    codec: int
    digest: bytes
    body: bytes

    @property
    def meta(self) -> bytes:
        """The record's meta: the digest of the contents, then length, state and ChunkID of each position."""
        positions = zip(self.lengths, self.states, self.ids, strict=True)
        return self.digest + b"".join([_POSITION.pack(*position) for position in positions])

    def record(self, place: Place) -> FrameRecord:
        """The frame's record in the index."""
        return FrameRecord(place, self.codec, self.digest, self.lengths, self.states)


def encode_frame(
    chunks: Sequence[bytes | memoryview], ids: list[bytes], level: int, positions: "Positions | None" = None
) -> EncodedFrame:
    """Join and compress ``chunks``. With ``positions``, those are the present ones among more."""
    content = b"".join(chunks)
    body = zstd.compress(content, level=level)
    codec = CODEC_ZSTD
    if len(body) > len(content) * (1 - _COMPRESSION_GAIN_MIN):
        body, codec = content, CODEC_STORED
    # One thread: frames are small, and others are encoded at the same time.
    digest = blake3(content).digest()
    if positions is None:
        lengths, states = array("I", map(len, chunks)), bytes(len(chunks))
    else:
        lengths, states = positions.lengths, positions.states
    return EncodedFrame(ids, lengths, states, codec, digest, body)


@dataclass(frozen=True, slots=True)
class Positions:
    """Lengths and states of a frame's positions."""

    lengths: "array[int]"
    states: bytes


@dataclass(frozen=True, slots=True)
class FrameMeta:
    """What a frame's record in a pack says of its positions."""

    digest: bytes
    lengths: "array[int]"
    states: bytes
    ids: list[bytes]


def decode_meta(meta: bytes) -> FrameMeta:
    """The inverse of `EncodedFrame.meta`. Raises `ContentDamagedError` if it makes no sense."""
    if (len(meta) - 32) % _POSITION.size:
        raise ContentDamagedError("a frame's record has a meta of impossible size")
    rows = list(_POSITION.iter_unpack(meta[32:]))
    if any(row[1] not in _STATES for row in rows):
        raise ContentDamagedError("a frame's record has a position in an unknown state")
    return FrameMeta(meta[:32], array("I", [row[0] for row in rows]), bytes(r[1] for r in rows), [r[2] for r in rows])


_STATES = frozenset(int(state) for state in FrameState)


@dataclass(frozen=True, slots=True)
class Frame:
    """Decoded and verified contents of a frame."""

    content: bytes
    ends: list[int]
    """``ends[i]`` is where position i - 1 ends and i begins."""
    states: bytes
    all_present: bool

    def run(self, first: int, count: int) -> memoryview:
        """The bytes of ``count`` positions. Raises `ContentDamagedError` if one of them is not present."""
        if not self.all_present and any(self.states[first : first + count]):
            raise ContentDamagedError("the store has lost a chunk of this content; see `layerstore verify`")
        if first + count >= len(self.ends):
            raise ContentDamagedError("a recipe refers to a position that its frame does not have")
        return memoryview(self.content)[self.ends[first] : self.ends[first + count]]


def decode_frame(record: FrameRecord, body: bytes) -> Frame:
    """Decompress and verify. Raises `ContentDamagedError` if the contents are not those that were stored."""
    size = record.content_size
    content = decode_body(record.codec, body, size)
    if len(content) != size or blake3(content).digest() != record.digest:
        raise ContentDamagedError("a frame's contents do not match their digest")
    if any(record.states):
        present = [n if s == FrameState.PRESENT else 0 for n, s in zip(record.lengths, record.states, strict=True)]
        return Frame(content, [0, *accumulate(present)], record.states, False)
    return Frame(content, [0, *accumulate(record.lengths)], record.states, True)


def decode_body(codec: int, body: bytes, size: int) -> bytes:
    """The contents of a frame's body, not yet verified; at most ``size`` + 1 bytes."""
    if codec == CODEC_STORED:
        return body
    if codec != CODEC_ZSTD:
        raise ContentDamagedError(f"a frame has the unknown codec {codec}")
    try:
        return zstd.ZstdDecompressor().decompress(body, size + 1)
    except zstd.ZstdError:
        raise ContentDamagedError("a frame cannot be decompressed") from None


class FrameReader:
    """Reads frames by number, verified, through a cache of decoded ones. Threads may share it."""

    def __init__(self, index: Index, packs: PackReader, cache_size: int = _CACHE_SIZE_DEFAULT) -> None:
        self._index = index
        self._packs = packs
        self._cache_size = cache_size
        self._cached = 0
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, number: int, *, cached: bool = True) -> Frame:
        """The frame. Raises `ContentDamagedError` (with ``frame`` set) if it is damaged.

        ``cached=False`` reads from disk whatever the cache says, and leaves the cache as it is.
        """
        if cached:
            with self._lock:
                frame = self._cache.get(number)
                if frame is not None:
                    self._cache.move_to_end(number)
                    return frame
        frame = self._read_anew(number)
        if cached:
            self._keep(number, frame)
        return frame

    def stored_body(self, number: int, record: FrameRecord) -> bytes | None:
        """A frame's body as its pack has it, verified; None if the frame is not where ``record`` says any more.

        Raises `ContentDamagedError` if it is damaged.
        """
        body = self._read_body(record)
        try:
            decode_frame(record, body)
        except ContentDamagedError as error:
            if self._record(number) != record:
                return None
            raise FrameDamagedError(number, record.place, str(error)) from None
        return body

    def forget(self, number: int) -> None:
        """Drop a frame from the cache, as its positions changed."""
        with self._lock:
            frame = self._cache.pop(number, None)
            if frame is not None:
                self._cached -= len(frame.content)

    def clear(self) -> None:
        """Drop everything from the cache."""
        with self._lock:
            self._cache.clear()
            self._cached = 0

    def _read_anew(self, number: int) -> Frame:
        record = self._record(number)
        while True:
            try:
                return decode_frame(record, self._read_body(record))
            except ContentDamagedError as error:
                # Collection may have moved the frame after we looked: only an unchanged record means damage.
                again = self._record(number)
                if again == record:
                    raise FrameDamagedError(number, record.place, str(error)) from None
                record = again

    def _read_body(self, record: FrameRecord) -> bytes:
        place = record.place
        meta_size = 32 + _POSITION.size * len(record.lengths)
        head_size = 32 + meta_size
        return self._packs.read(place.pack, place.offset + head_size, place.size - head_size)

    def _record(self, number: int) -> FrameRecord:
        with self._index.read() as transaction:
            record = transaction.frames.get(number)
        if record is None:
            raise IndexDamagedError(f"a recipe refers to frame {number}, which the index does not have")
        return record

    def _keep(self, number: int, frame: Frame) -> None:
        with self._lock:
            if number in self._cache:
                return
            self._cache[number] = frame
            self._cached += len(frame.content)
            while self._cached > self._cache_size and len(self._cache) > 1:
                _, evicted = self._cache.popitem(last=False)
                self._cached -= len(evicted.content)


class FrameDamagedError(ContentDamagedError):
    """A frame could not be read from its place."""

    def __init__(self, frame: int, place: Place, reason: str) -> None:
        super().__init__(
            f"frame {frame} at {place.offset} of pack {place.pack} is damaged: {reason}; "
            "run `layerstore verify`, then `layerstore repair`"
        )
        self.frame = frame
        self.place = place
        self.reason = reason


def read_frame_meta(packs: PackReader, number: int, record: FrameRecord) -> FrameMeta:
    """The ChunkIDs of a frame, from its pack. Raises `ContentDamagedError` if its head is damaged."""
    head = packs.read_head(record.place)
    if head.kind is not RecordKind.FRAME or head.number != number:
        raise ContentDamagedError(f"at {record.place.offset} of pack {record.place.pack} is not frame {number}")
    return decode_meta(head.meta)
