"""The values of the index: what each holds, and its bytes (FORMAT.md, "Index").

LMDB keeps no checksums, so every value ends in a CRC-32 of its key and itself; `seal` and `unseal` add and check it.
"""

import struct
import zlib
from array import array
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self

from layerstore.digest import Digest
from layerstore.errors import IndexDamagedError

_CRC = struct.Struct(">I")

_DIFF_ID_SIZE = 33  # packed: a DiffID of ours is a sha256

UNTIL_RELEASED = 0
"""The end of a hold that has none."""

NEVER = 2**63 - 1
"""The end of a container's lease, and of its holds."""


def seal(key: bytes, body: bytes) -> bytes:
    """``body`` with its checksum behind it."""
    return body + _CRC.pack(zlib.crc32(body, zlib.crc32(key)))


def unseal(key: bytes, value: bytes) -> bytes:
    """The inverse of `seal`. Raises `IndexDamagedError` on a wrong checksum."""
    body = value[:-4]
    if len(value) < 4 or zlib.crc32(body, zlib.crc32(key)) != _CRC.unpack(value[-4:])[0]:
        raise IndexDamagedError(
            f"the index's record {key[:40].hex()} does not match its checksum; run `layerstore rebuild-index`"
        )
    return body


class FrameState(IntEnum):
    """What stands at one position of a frame."""

    PRESENT = 0
    HOLE = 1
    """No recipe refers to it; its bytes are gone."""
    LOST = 2
    """A recipe refers to it, but its bytes were found damaged; a push or `repair` can bring them back."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies: pack number, offset of its head, and whole size with head and meta, in bytes."""

    pack: int
    offset: int
    size: int

    STRUCT = struct.Struct(">QQI")

    def encode(self) -> bytes:
        """The place as FORMAT.md, "Place", has it."""
        return self.STRUCT.pack(self.pack, self.offset, self.size)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        return cls(*cls.STRUCT.unpack(data))


NO_PLACE = Place(0, 0, 0)
"""What stands for the place in the body of a record, which cannot hold its own (FORMAT.md, "Layers", "Encodings")."""


@dataclass(slots=True)
class FrameRecord:
    """Place and shape of a frame. The ChunkIDs of its positions stand in the pack alone."""

    place: Place
    codec: int
    digest: bytes
    """BLAKE3 of the decoded contents: the present chunks one after the other."""
    lengths: "array[int]"
    states: bytes

    @property
    def content_size(self) -> int:
        """Bytes after decoding."""
        if not any(self.states):
            return sum(self.lengths)
        present = FrameState.PRESENT
        return sum(length for length, state in zip(self.lengths, self.states, strict=True) if state == present)

    def encode(self) -> bytes:
        """The value's body."""
        lengths = self.lengths if _LITTLE else _swapped(self.lengths)
        return self.place.encode() + bytes([self.codec]) + self.digest + lengths.tobytes() + self.states

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        head = Place.STRUCT.size + 1 + 32
        count = (len(data) - head) // 5
        lengths = array("I", data[head : head + 4 * count])
        return cls(
            Place.decode(data[: Place.STRUCT.size]),
            data[Place.STRUCT.size],
            data[Place.STRUCT.size + 1 : head],
            lengths if _LITTLE else _swapped(lengths),
            data[head + 4 * count :],
        )


@dataclass(slots=True)
class CountsRecord:
    """How often recipes refer to each position of a frame."""

    dead_bytes: int
    """The stored bytes of the frame that its pack's ``dead_bytes`` already includes."""
    counts: "array[int]"

    def encode(self) -> bytes:
        """The value's body."""
        counts = self.counts if _LITTLE else _swapped(self.counts)
        return _CRC.pack(self.dead_bytes) + counts.tobytes()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        counts = array("I", data[4:])
        return cls(_CRC.unpack(data[:4])[0], counts if _LITTLE else _swapped(counts))


@dataclass(frozen=True, slots=True)
class PackRecord:
    """Size and use of a pack."""

    size: int
    """The committed bytes. What the file has beyond them is the rest of a push that never finished."""
    dead_bytes: int
    """Bytes of records that nothing needs, for a partly dead frame its dead share."""

    _STRUCT = struct.Struct(">QQ")

    def encode(self) -> bytes:
        """The value's body."""
        return self._STRUCT.pack(self.size, self.dead_bytes)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        return cls(*cls._STRUCT.unpack(data))

    def with_dead(self, more: int) -> Self:
        """The record with ``more`` dead bytes, which may be negative."""
        return replace(self, dead_bytes=max(0, self.dead_bytes + more))


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What the store knows about a layer beside its recipe."""

    number: int
    """Names the recipe; never used again."""
    place: Place
    size: int
    """Bytes of the layer, uncompressed."""
    skeleton_size: int
    chunks: int
    """References from the recipe to chunks."""
    created: int
    """Nanoseconds since 1970."""

    _STRUCT = struct.Struct(">QQQQQ")

    def encode(self) -> bytes:
        """The value's body."""
        numbers = self._STRUCT.pack(self.number, self.size, self.skeleton_size, self.chunks, self.created)
        return self.place.encode() + numbers

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        number, size, skeleton_size, chunks, created = cls._STRUCT.unpack(data[Place.STRUCT.size :])
        return cls(number, Place.decode(data[: Place.STRUCT.size]), size, skeleton_size, chunks, created)


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A part of a recipe: its place in a pack, and its bytes (`layerstore.storage.recipe`)."""

    place: Place
    data: bytes

    def encode(self) -> bytes:
        """The value's body."""
        return self.place.encode() + self.data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        return cls(Place.decode(data[: Place.STRUCT.size]), data[Place.STRUCT.size :])


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A manifest or config: its place in a pack, how many images use it, and its exact bytes."""

    place: Place
    count: int
    data: bytes

    def encode(self) -> bytes:
        """The value's body."""
        return self.place.encode() + _CRC.pack(self.count) + self.data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        head = Place.STRUCT.size
        return cls(Place.decode(data[:head]), _CRC.unpack(data[head : head + 4])[0], data[head + 4 :])


class EncodingState(IntEnum):
    """How the bytes of an encoding are kept."""

    PLAIN = 0
    """They are the layer's; only the digest is of another algorithm."""
    RECIPE = 1
    """They are made again from the layer."""
    RAW = 2
    """They are in a file of their own."""


@dataclass(frozen=True, slots=True)
class EncodingRecord:
    """A blob that is a layer in another form; its digest is the key."""

    number: int
    """From the counter of the layers', so that holds and images keep it as they keep a layer. Never used again."""
    place: Place
    diff_id: Digest
    """The layer that it decodes to."""
    size: int
    """Bytes of the blob."""
    state: EncodingState
    tried: int = 0
    """Of a raw one: the set of encoders (`layerstore.encodings.recipe.ENCODER_SET`) that was tried in vain; 0: none."""
    recipe: bytes = b""
    """`layerstore.encodings.recipe.Recipe.to_bytes`."""

    _STRUCT = struct.Struct(">QQBI")

    def encode(self) -> bytes:
        """The value's body."""
        head = self._STRUCT.pack(self.number, self.size, self.state, self.tried)
        return self.place.encode() + head + self.diff_id.pack() + self.recipe

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        start = Place.STRUCT.size
        number, size, state, tried = cls._STRUCT.unpack(data[start : start + cls._STRUCT.size])
        start += cls._STRUCT.size
        diff_id = Digest.unpack(data[start : start + _DIFF_ID_SIZE])
        place = Place.decode(data[: Place.STRUCT.size])
        recipe = data[start + _DIFF_ID_SIZE :]
        return cls(number, place, diff_id, size, EncodingState(state), tried, recipe)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image, index or artifact: the digest of its manifest is the key."""

    number: int
    """Rises with every image made; orders them."""
    created: int
    """Nanoseconds since 1970, when the image came into the store."""
    config: Digest | None
    """None: it is an index."""
    tag_count: int

    _STRUCT = struct.Struct(">QQI")

    def encode(self) -> bytes:
        """The value's body."""
        config = b"" if self.config is None else self.config.pack()
        return self._STRUCT.pack(self.number, self.created, self.tag_count) + config

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        number, created, tag_count = cls._STRUCT.unpack(data[: cls._STRUCT.size])
        config = data[cls._STRUCT.size :]
        return cls(number, created, Digest.unpack(config) if config else None, tag_count)


@dataclass(frozen=True, slots=True)
class TrashRecord:
    """A deleted image that can still be brought back."""

    image: ImageRecord
    deleted: int
    expires: int
    """Nanoseconds since 1970; from then on collection may take the image."""
    tags: tuple[str, ...]

    _STRUCT = struct.Struct(">QQI")

    def encode(self) -> bytes:
        """The value's body."""
        image = self.image.encode()
        tags = "\n".join(self.tags).encode()
        return self._STRUCT.pack(self.deleted, self.expires, len(image)) + image + tags

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        deleted, expires, size = cls._STRUCT.unpack(data[: cls._STRUCT.size])
        image_end = cls._STRUCT.size + size
        tags = data[image_end:].decode()
        image = ImageRecord.decode(data[cls._STRUCT.size : image_end])
        return cls(image, deleted, expires, tuple(tags.split("\n")) if tags else ())


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A dated lease."""

    created: int
    expires: int
    """Both in nanoseconds since 1970."""

    _STRUCT = struct.Struct(">QQ")

    def encode(self) -> bytes:
        """The value's body."""
        return self._STRUCT.pack(self.created, self.expires)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        return cls(*cls._STRUCT.unpack(data))


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def _swapped(numbers: "array[int]") -> "array[int]":
    copy = numbers[:]
    copy.byteswap()
    return copy
