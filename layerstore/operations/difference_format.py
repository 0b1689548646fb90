"""The bytes of a difference: what is needed to make a blob out of layers that the receiver has (ARCHITECTURE.md).

    difference   = magic  record*
    record       = kind (1 byte)  size of the body (number)  body
    kind 1       head: blob, layer (packed digests with a length byte), size of the layer, recipe of the encoding (its
                 size first; none for a blob that is the layer itself), bases (their count first, packed digests)
    kind 2       literals: stream (0 skeleton, 1 payload), codec (0 none, 1 zstd), decoded size, the bytes
    kind 3       instructions, compressed with zstd: numbers. ``size * 4`` takes so many bytes of the skeleton's
                 literals, ``size * 4 + 1`` of the payload's; ``size * 4 + 2`` copies so many of a base: its index and,
                 as a signed number, how far the place is from the end of what was copied from that base before
    kind 4       end: nothing follows

Numbers are those of `layerstore.encodings.varints`. The layer's bytes come in order; the literals that an instruction
takes stand before it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from layerstore._zstd import zstd
from layerstore.digest import Digest
from layerstore.encodings.varints import Reader, encode_number, unzigzag, zigzag
from layerstore.errors import IndexDamagedError, InvalidDigestError, UndecodableError

MAGIC = b"layerstore difference 1\n"
BASES_MAX = 8
"""Layers that one difference is made against."""
LITERALS_SIZE_MAX = 64 << 20
"""Decoded bytes of one record of literals; a frame is not larger."""
_RECORD_SIZE_MAX = 80 << 20
_INSTRUCTIONS_SIZE_MAX = 8 << 20
_NUMBER_BYTES_MAX = 9


class RecordKind(IntEnum):
    """What a record is."""

    HEAD = 1
    LITERALS = 2
    INSTRUCTIONS = 3
    END = 4


class Copy(NamedTuple):
    """Bytes of a base."""

    base: int
    offset: int
    size: int


class Take(NamedTuple):
    """The next literals of a stream."""

    stream: int
    size: int


Instruction = Copy | Take


@dataclass(frozen=True, slots=True)
class Head:
    """What a difference is of."""

    blob: Digest
    layer: Digest
    size: int
    """Bytes of the layer."""
    recipe: bytes
    """How the blob is made of its layer; empty if it is the layer."""
    bases: tuple[Digest, ...]


class Literals(NamedTuple):
    """Bytes that no base has."""

    stream: int
    data: bytes


def encode_head(head: Head) -> bytes:
    """The record."""
    body = _digest(head.blob) + _digest(head.layer) + encode_number(head.size)
    body += encode_number(len(head.recipe)) + head.recipe + encode_number(len(head.bases))
    return encode_record(RecordKind.HEAD, body + b"".join(map(_digest, head.bases)))


def decode_head(body: bytes) -> Head:
    """The inverse of `encode_head`. Raises `UndecodableError`."""
    try:
        reader = Reader(body)
        blob, layer, size = _read_digest(reader), _read_digest(reader), reader.number()
        recipe = reader.take(reader.count())
        bases = tuple(_read_digest(reader) for _ in range(reader.number(0, BASES_MAX)))
        reader.end()
    except (IndexDamagedError, InvalidDigestError) as error:
        raise UndecodableError(f"the head of a difference makes no sense: {error}") from None
    return Head(blob, layer, size, recipe, bases)


def encode_literals(stream: int, codec: int, size: int, data: bytes) -> bytes:
    """The record of literals whose ``size`` bytes are ``data`` in a codec."""
    return encode_record(RecordKind.LITERALS, bytes([stream, codec]) + encode_number(size) + data)


def decode_literals(body: bytes) -> Literals:
    """The inverse of `encode_literals`, decompressed. Raises `UndecodableError`."""
    try:
        reader = Reader(body)
        stream, codec = reader.number(0, 1), reader.number(0, 1)
        size = reader.number(1, LITERALS_SIZE_MAX)
        data = reader.rest()
        if codec:
            data = zstd.ZstdDecompressor().decompress(data, size + 1)
    except (IndexDamagedError, zstd.ZstdError) as error:
        raise UndecodableError(f"literals of a difference make no sense: {error}") from None
    if len(data) != size:
        raise UndecodableError(f"literals of a difference have {len(data)} bytes, not {size}")
    return Literals(stream, data)


class InstructionCoder:
    """Writes or reads instructions; it knows where the copies of each base ended."""

    def __init__(self, bases: int) -> None:
        self._ends = [0] * bases

    def encode(self, instructions: Iterable[Instruction]) -> bytes:
        """The record."""
        data = bytearray()
        for one in instructions:
            if isinstance(one, Take):
                data += encode_number(one.size << 2 | one.stream)
                continue
            data += encode_number(one.size << 2 | 2) + encode_number(one.base)
            data += encode_number(zigzag(one.offset - self._ends[one.base]))
            self._ends[one.base] = one.offset + one.size
        return encode_record(RecordKind.INSTRUCTIONS, zstd.compress(bytes(data)))

    def decode(self, body: bytes) -> Iterator[Instruction]:
        """The inverse of `encode`. Raises `UndecodableError`."""
        try:
            data = zstd.ZstdDecompressor().decompress(body, _INSTRUCTIONS_SIZE_MAX + 1)
            if len(data) > _INSTRUCTIONS_SIZE_MAX:
                raise UndecodableError("a difference has a record of too many instructions")
            reader = Reader(data)
            while not reader.at_end:
                number = reader.number(4)
                size, kind = number >> 2, number & 3
                if kind == 3:
                    raise UndecodableError("a difference has an unknown instruction")
                if kind != 2:
                    yield Take(kind, size)
                    continue
                base = reader.number(0, len(self._ends) - 1)
                offset = self._ends[base] + unzigzag(reader.number())
                if offset < 0:
                    raise UndecodableError("a difference copies from before the beginning of a base")
                self._ends[base] = offset + size
                yield Copy(base, offset, size)
        except (IndexDamagedError, zstd.ZstdError) as error:
            raise UndecodableError(f"instructions of a difference make no sense: {error}") from None


def encode_record(kind: RecordKind, body: bytes = b"") -> bytes:
    """A record."""
    return bytes([kind]) + encode_number(len(body)) + body


def decode_records(blocks: Iterable[bytes]) -> Iterator[tuple[RecordKind, bytes]]:
    """The records of a difference, up to its end. Raises `UndecodableError` for anything that is none."""
    source = _Source(blocks)
    if source.take(len(MAGIC)) != MAGIC:
        raise UndecodableError("this is no difference of a layer")
    while True:
        number = source.take(1)[0]
        try:
            kind = RecordKind(number)
        except ValueError:
            raise UndecodableError(f"a difference has a record of the unknown kind {number}") from None
        body = source.take(source.number(_RECORD_SIZE_MAX))
        if kind is RecordKind.END:
            if body or not source.at_end():
                raise UndecodableError("a difference goes on behind its end")
            return
        yield kind, body


class _Source:
    """Takes exact sizes off a sequence of blocks."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def take(self, size: int) -> bytes:
        parts = []
        while size:
            if not self._rest:
                block = next(self._blocks, None)
                if block is None:
                    raise UndecodableError("a difference is cut")
                self._rest = memoryview(block)
                continue
            parts.append(self._rest[:size])
            size -= len(parts[-1])
            self._rest = self._rest[len(parts[-1]) :]
        return b"".join(parts)

    def number(self, maximum: int) -> int:
        value = 0
        for position in range(_NUMBER_BYTES_MAX):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * position
            if byte < 0x80:
                break
        if value > maximum:
            raise UndecodableError(f"a difference has a record of {value} bytes")
        return value

    def at_end(self) -> bool:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return True
            self._rest = memoryview(block)
        return False


def _digest(digest: Digest) -> bytes:
    packed = digest.pack()
    return encode_number(len(packed)) + packed


def _read_digest(reader: Reader) -> Digest:
    return Digest.unpack(reader.take(reader.count(1)))
