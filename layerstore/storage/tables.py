"""The index's tables: their names, and the bytes of their keys and values (FORMAT.md, "Tables").

    meta            name                        -> u64         counters and marks
    chunks          ChunkID                     -> frame, position
    frames          frame                       -> FrameRecord
    counts          frame                       -> CountsRecord
    touched_frames  frame                       -> (nothing)   a count reached or left zero since the last collection
    packs           pack                        -> PackRecord
    open_packs      pack                        -> (nothing)   it has room; who holds its file's lock may append
    touched_packs   pack                        -> (nothing)   its dead bytes grew since the last collection
    dead_packs      pack                        -> u64         size; the file is to be unlinked
    layers          DiffID                      -> LayerRecord
    recipes         layer number, offset        -> SegmentRecord
    uploads         layer number                -> session
    dropped         layer number                -> (nothing)   its recipe's references are still to be given back
    graves          pack, layer number          -> (nothing)   the pack still holds the record of this dropped layer
    encodings       digest                      -> EncodingRecord
    layer_encodings layer number, digest        -> (nothing)   the encodings of a layer
    holds           layer number, holder        -> u64         end
    lease_layers    lease, layer number         -> DiffID      the holds of a lease, by lease
    layer_images    layer number, image digest  -> (nothing)
    loose_layers    layer number                -> DiffID      lost its last image or hold since the last collection
    images          image digest                -> ImageRecord
    trash           image digest                -> TrashRecord
    blobs           digest                      -> BlobRecord
    tags            tag                         -> image digest
    image_tags      image digest, tag           -> (nothing)
    lost            ChunkID                     -> frame, position
    leases          lease                       -> LeaseRecord

An encoding has a number from the layers' counter. Tables whose key or value has a layer number (holds, lease_layers,
layer_images, loose_layers, graves) have those of encodings, too, with the digest of the blob in place of the DiffID.

Numbers in keys are big-endian, so that a table's order is their order.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from layerstore.digest import Digest
from layerstore.storage.records import (
    BlobRecord,
    CountsRecord,
    EncodingRecord,
    FrameRecord,
    ImageRecord,
    LayerRecord,
    LeaseRecord,
    PackRecord,
    SegmentRecord,
    TrashRecord,
)

K = TypeVar("K")
V = TypeVar("V")

_U64 = struct.Struct(">Q")
_U64_PAIR = struct.Struct(">QQ")
_CHUNK = struct.Struct(">QI")

HOLDER_SIZE = 16
"""Bytes of the name of a session or lease."""


@dataclass(frozen=True, slots=True)
class Codec(Generic[V]):
    """A value as bytes, both ways."""

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]


@dataclass(frozen=True, slots=True)
class TableSpec(Generic[K, V]):
    """One table: its name and its codecs."""

    name: str
    key: Codec[K]
    value: Codec[V]


def _decode_u64(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _decode_digest_after_u64(data: bytes) -> tuple[int, Digest]:
    return _decode_u64(data[:8]), Digest.unpack(data[8:])


def _digest_size(packed: bytes) -> int:
    return 1 + (64 if packed[0] == 2 else 32)  # FORMAT.md, "Digests": number 2 is sha512


def _decode_digest_and_tag(data: bytes) -> tuple[Digest, str]:
    size = _digest_size(data)
    return Digest.unpack(data[:size]), data[size:].decode()


_BYTES: Codec[bytes] = Codec(bytes, bytes)
_NOTHING: Codec[None] = Codec(lambda _: b"", lambda _: None)
_TEXT: Codec[str] = Codec(str.encode, bytes.decode)
_NUMBER: Codec[int] = Codec(_U64.pack, _decode_u64)
_NUMBER_PAIR: Codec[tuple[int, int]] = Codec(lambda key: _U64_PAIR.pack(*key), lambda data: _U64_PAIR.unpack(data))
_DIGEST: Codec[Digest] = Codec(Digest.pack, Digest.unpack)


def _record(kind: Any) -> Codec[Any]:
    return Codec(kind.encode, kind.decode)


META: TableSpec[str, int] = TableSpec("meta", _TEXT, _NUMBER)
CHUNKS: TableSpec[bytes, tuple[int, int]] = TableSpec(
    "chunks", _BYTES, Codec(lambda place: _CHUNK.pack(*place), lambda data: _CHUNK.unpack(data))
)
LOST: TableSpec[bytes, tuple[int, int]] = TableSpec("lost", _BYTES, CHUNKS.value)
FRAMES: TableSpec[int, FrameRecord] = TableSpec("frames", _NUMBER, _record(FrameRecord))
COUNTS: TableSpec[int, CountsRecord] = TableSpec("counts", _NUMBER, _record(CountsRecord))
TOUCHED_FRAMES: TableSpec[int, None] = TableSpec("touched_frames", _NUMBER, _NOTHING)
PACKS: TableSpec[int, PackRecord] = TableSpec("packs", _NUMBER, _record(PackRecord))
OPEN_PACKS: TableSpec[int, None] = TableSpec("open_packs", _NUMBER, _NOTHING)
TOUCHED_PACKS: TableSpec[int, None] = TableSpec("touched_packs", _NUMBER, _NOTHING)
DEAD_PACKS: TableSpec[int, int] = TableSpec("dead_packs", _NUMBER, _NUMBER)
LAYERS: TableSpec[Digest, LayerRecord] = TableSpec("layers", _DIGEST, _record(LayerRecord))
RECIPES: TableSpec[tuple[int, int], SegmentRecord] = TableSpec("recipes", _NUMBER_PAIR, _record(SegmentRecord))
UPLOADS: TableSpec[int, bytes] = TableSpec("uploads", _NUMBER, _BYTES)
DROPPED: TableSpec[int, None] = TableSpec("dropped", _NUMBER, _NOTHING)
GRAVES: TableSpec[tuple[int, int], None] = TableSpec("graves", _NUMBER_PAIR, _NOTHING)
HOLDS: TableSpec[tuple[int, bytes], int] = TableSpec(
    "holds",
    Codec(lambda key: _U64.pack(key[0]) + key[1], lambda data: (_decode_u64(data[:8]), data[8:])),
    _NUMBER,
)
LOOSE_LAYERS: TableSpec[int, Digest] = TableSpec("loose_layers", _NUMBER, _DIGEST)
LEASE_LAYERS: TableSpec[tuple[bytes, int], Digest] = TableSpec(
    "lease_layers",
    Codec(lambda key: key[0] + _U64.pack(key[1]), lambda data: (data[:HOLDER_SIZE], _decode_u64(data[HOLDER_SIZE:]))),
    _DIGEST,
)
_NUMBER_AND_DIGEST: Codec[tuple[int, Digest]] = Codec(
    lambda key: _U64.pack(key[0]) + key[1].pack(), _decode_digest_after_u64
)
ENCODINGS: TableSpec[Digest, EncodingRecord] = TableSpec("encodings", _DIGEST, _record(EncodingRecord))
LAYER_ENCODINGS: TableSpec[tuple[int, Digest], None] = TableSpec("layer_encodings", _NUMBER_AND_DIGEST, _NOTHING)
LAYER_IMAGES: TableSpec[tuple[int, Digest], None] = TableSpec("layer_images", _NUMBER_AND_DIGEST, _NOTHING)
IMAGES: TableSpec[Digest, ImageRecord] = TableSpec("images", _DIGEST, _record(ImageRecord))
TRASH: TableSpec[Digest, TrashRecord] = TableSpec("trash", _DIGEST, _record(TrashRecord))
BLOBS: TableSpec[Digest, BlobRecord] = TableSpec("blobs", _DIGEST, _record(BlobRecord))
TAGS: TableSpec[str, Digest] = TableSpec("tags", _TEXT, _DIGEST)
IMAGE_TAGS: TableSpec[tuple[Digest, str], None] = TableSpec(
    "image_tags", Codec(lambda key: key[0].pack() + key[1].encode(), _decode_digest_and_tag), _NOTHING
)
LEASES: TableSpec[bytes, LeaseRecord] = TableSpec("leases", _BYTES, _record(LeaseRecord))

TABLES: tuple[TableSpec[Any, Any], ...] = (
    META,
    CHUNKS,
    LOST,
    FRAMES,
    COUNTS,
    TOUCHED_FRAMES,
    PACKS,
    OPEN_PACKS,
    TOUCHED_PACKS,
    DEAD_PACKS,
    LAYERS,
    RECIPES,
    UPLOADS,
    DROPPED,
    GRAVES,
    ENCODINGS,
    LAYER_ENCODINGS,
    HOLDS,
    LEASE_LAYERS,
    LAYER_IMAGES,
    LOOSE_LAYERS,
    IMAGES,
    TRASH,
    BLOBS,
    TAGS,
    IMAGE_TAGS,
    LEASES,
)
