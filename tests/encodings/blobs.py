"""Gzip blobs made from seeds: members of many kinds, and their layer."""

import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from go_cases import KINDS, make_input

from layerstore.encodings.encoders import EncoderNumber, create_encoder
from layerstore.encodings.gzip_format import GzipHeader, pack_trailer
from layerstore.encodings.recipe import Method

GO_ZERO_TIME = 0x886E0900
GO = GzipHeader()
PGZIP = GzipHeader(modified=GO_ZERO_TIME)
UNIX = GzipHeader(operating_system=3)

METHODS = [
    *(Method(EncoderNumber.GO_FLATE, level, 0) for level in (-2, 0, 1, 6, 9)),
    *(Method(EncoderNumber.GO_FLATE_1_27, level, 0) for level in (1, 6, 9)),
    *(Method(EncoderNumber.KLAUSPOST_1_15_10, 5, size) for size in (0, 1 << 18, 1 << 20)),
    *(Method(EncoderNumber.KLAUSPOST_1_20_4, 5, size) for size in (0, 1 << 18)),
    *(Method(EncoderNumber.ZLIB, level, 0) for level in (1, 6, 9)),
    *(Method(EncoderNumber.GNU_GZIP, level, 0) for level in (1, 6)),
    *(Method(EncoderNumber.PIGZ, level, 1 << 17) for level in (1, 6)),
    Method(EncoderNumber.PIGZ_ONE_THREAD, 1, 1 << 17),
    Method(EncoderNumber.PIGZ_INDEPENDENT, 6, 1 << 17),
]


def make_member(method: Method, header: GzipHeader, data: bytes, flushes: Iterable[int] = ()) -> bytes:
    """One member, flushed behind so many bytes of its content."""
    encoder = create_encoder(*method)
    parts = [header.to_bytes()]
    start = 0
    for end in flushes:
        parts += [encoder.write(data[start:end]), encoder.flush()]
        start = end
    parts += [encoder.write(data[start:]), encoder.finish(), pack_trailer(zlib.crc32(data), len(data))]
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Sample:
    """A blob and the layer it decodes to."""

    blob: bytes
    layer: bytes

    def open_blob(self) -> Iterable[bytes]:
        """The blob, in pieces of an odd size."""
        return (self.blob[start : start + 99_991] for start in range(0, len(self.blob), 99_991))

    def read(self, offset: int) -> Iterable[bytes]:
        """The layer from there on, in pieces of an odd size; some are empty."""
        yield b""
        yield from (self.layer[start : start + 70_001] for start in range(offset, len(self.layer), 70_001))


def make_header(source: random.Random) -> GzipHeader:
    """A header that no tool need write."""

    def text() -> bytes | None:
        return None if source.getrandbits(1) else source.randbytes(source.getrandbits(3)).replace(b"\0", b"x")

    return GzipHeader(
        modified=source.getrandbits(32),
        extra_flags=(0, 2, 4, 7)[source.getrandbits(2)],
        operating_system=source.getrandbits(8),
        is_text=bool(source.getrandbits(1)),
        extra=None if source.getrandbits(1) else source.randbytes(source.getrandbits(5)),
        name=text(),
        comment=text(),
        has_crc=bool(source.getrandbits(1)),
    )


def make_sample(seed: int, size_max: int = 150_000) -> Sample:
    """A blob of a few members."""
    source = random.Random(seed)
    headers = [make_header(source), *source.sample([GO, PGZIP, UNIX], 2)]
    methods = source.sample(METHODS, 3)
    blob, layer = [], []
    for index in range(1 + source.getrandbits(3)):
        method, header = source.choice(methods), source.choice(headers)
        size = source.choice([0, source.randrange(300), source.randrange(size_max), source.randrange(size_max)])
        data = make_input(source.choice(KINDS), size, seed * 100 + index)
        can_flush = method.number < EncoderNumber.GNU_GZIP and not method.block_size
        flushes = sorted(source.choices([size, source.randint(0, size)], k=source.getrandbits(2))) if can_flush else []
        blob.append(make_member(method, header, data, flushes if source.getrandbits(1) else ()))
        layer.append(data)
    trailing = source.choice([b"", b"", bytes(source.getrandbits(12)), bytes(9) + source.randbytes(30), b"\x1f"])
    return Sample(b"".join(blob) + trailing, b"".join(layer))


def single(method: Method, header: GzipHeader, layer: bytes) -> Sample:
    """A blob of one member."""
    return Sample(make_member(method, header, layer), layer)


def counted(sample: Sample) -> tuple[Callable[[], Iterable[bytes]], list[int]]:
    """The sample's `open_blob`, and a list that gets longer with each call of it."""
    calls: list[int] = []

    def open_blob() -> Iterable[bytes]:
        calls.append(len(calls))
        return sample.open_blob()

    return open_blob, calls
