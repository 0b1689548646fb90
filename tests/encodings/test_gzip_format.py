"""gzip taken apart and put together: laws over any header and any cut, and what hostile blobs get."""

import gzip
import io
import time
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerstore.encodings.gzip_format import (
    HEADER_SIZE_MAX,
    OUTPUT_SIZE_MAX,
    GzipHeader,
    MemberData,
    MemberEnd,
    MemberStart,
    TrailingData,
    parse_header,
    scan,
)
from layerstore.errors import InvalidInputError, UndecodableError

texts = st.none() | st.binary(max_size=40).map(lambda text: text.replace(b"\0", b""))
headers = st.builds(
    GzipHeader,
    modified=st.integers(0, 0xFFFFFFFF),
    extra_flags=st.integers(0, 255),
    operating_system=st.integers(0, 255),
    is_text=st.booleans(),
    extra=st.none() | st.binary(max_size=40),
    name=texts,
    comment=texts,
    has_crc=st.booleans(),
)


def member(header: GzipHeader, data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    trailer = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return header.to_bytes() + stream.compress(data) + stream.flush() + trailer


def cut(blob: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(blob), size):
        yield blob[start : start + size]


@given(headers, st.binary(max_size=10))
def test_a_header_survives(header: GzipHeader, rest: bytes) -> None:
    data = header.to_bytes()
    assert parse_header(data + rest) == (header, len(data))
    assert all(parse_header(data[:size]) is None for size in range(len(data)))


@given(headers)
def test_other_readers_accept_the_header(header: GzipHeader) -> None:
    assert gzip.decompress(member(header, b"layer")) == b"layer"


@settings(max_examples=50)
@given(st.lists(st.tuples(headers, st.binary(max_size=3000)), min_size=1, max_size=4), st.integers(1, 500), st.data())
def test_a_blob_is_its_parts(members: list[tuple[GzipHeader, bytes]], size: int, data: st.DataObject) -> None:
    trailing = data.draw(st.binary(max_size=50).filter(lambda text: not text.startswith(b"\x1f\x8b")))
    blob = b"".join(member(*parts) for parts in members) + trailing
    rebuilt, found, behind, deflate_sum = b"", [], b"", 0
    for event in scan(cut(blob, size)):
        match event:
            case MemberStart(offset, header, header_size):
                assert offset == len(rebuilt)
                assert header.to_bytes() == blob[offset : offset + header_size]
                found.append((header, b""))
                rebuilt += header.to_bytes()
                deflate_sum = 0
            case MemberData(decoded, deflate):
                found[-1] = (found[-1][0], found[-1][1] + decoded)
                rebuilt += deflate
                deflate_sum += len(deflate)
            case MemberEnd(deflate_size, decoded_size, crc32):
                assert (decoded_size, crc32) == (len(found[-1][1]), zlib.crc32(found[-1][1]))
                assert deflate_size == deflate_sum
                rebuilt += event.trailer()
            case TrailingData(piece):
                behind += piece
    assert (found, rebuilt + behind, behind) == (members, blob, trailing)


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 999, 1 << 20])
def test_flushes_are_seen_however_the_blob_is_cut(level: int, size: int) -> None:
    pieces = [b"\0\0\xff\xff" * 9, bytes(9000), b"x", b"layer " * 900, bytes(range(256)) * 9]
    stream = zlib.compressobj(level, wbits=31)
    blob = b"".join(stream.compress(piece) + stream.flush(zlib.Z_SYNC_FLUSH) for piece in pieces) + stream.flush()
    decoded, flushes = 0, []
    for event in scan(cut(blob, size)):
        if isinstance(event, MemberData):
            decoded += len(event.data)
            if event.at_flush:
                flushes.append(decoded)
    assert flushes == [sum(map(len, pieces[:count])) for count in range(1, len(pieces) + 1)]


def test_what_python_writes() -> None:
    file = io.BytesIO()
    with gzip.GzipFile("layer", "wb", 9, file, mtime=7) as stream:
        stream.write(b"layer")
    first = next(scan([file.getvalue()]))
    assert first == MemberStart(0, GzipHeader(7, extra_flags=2, operating_system=255, name=b"layer"), 16)


def test_output_comes_in_bounded_blocks() -> None:
    blob = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    sizes = [len(event.data) for event in scan(cut(blob, 65536)) if isinstance(event, MemberData)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= OUTPUT_SIZE_MAX
    assert peak < 8 * OUTPUT_SIZE_MAX


def test_many_tiny_members_take_time_in_proportion() -> None:
    blob = member(GzipHeader(), b"") * 20_000
    started = time.monotonic()
    assert sum(isinstance(event, MemberEnd) for event in scan([blob])) == 20_000
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x1f",
        b"PK\x03\x04 and so on",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00",  # cut in the fixed part
        b"\x1f\x8b\x07\x00\x00\x00\x00\x00\x00\x03",  # not DEFLATE
        b"\x1f\x8b\x08\x20\x00\x00\x00\x00\x00\x03\x03\x00",  # a reserved flag
        b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\x03\xff\xffx",  # a field that does not end
        b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03name",
        b"\x1f\x8b\x08\x02\x00\x00\x00\x00\x00\x03\x00\x00\x03\x00",  # a wrong CRC of the header
        GzipHeader(name=b"n" * HEADER_SIZE_MAX).to_bytes(),
        GzipHeader(comment=b"c" * (1 << 24)).to_bytes(),
        GzipHeader().to_bytes(),
        GzipHeader().to_bytes() + b"\xff\xff",  # a block of no known form
        member(GzipHeader(), b"layer")[:-1],
        member(GzipHeader(), b"layer")[:-8] + bytes(8),  # a wrong trailer
        member(GzipHeader(), b"layer") + b"\x1f\x8b\x08",  # a second member that is cut
    ],
)
def test_what_is_no_gzip_is_refused(blob: bytes) -> None:
    for size in (1 << 16, 7) if len(blob) < 1 << 20 else (1 << 16,):
        with pytest.raises(UndecodableError) as caught:
            list(scan(cut(blob, size)))
        assert isinstance(caught.value, InvalidInputError)


@settings(max_examples=300)
@given(st.data())
def test_damage_never_passes(data: st.DataObject) -> None:
    """A damaged blob is refused, or is another blob that is sound and gives its own bytes back."""
    blob = bytearray(member(GzipHeader(name=b"name", has_crc=True), b"a layer, a layer"))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        events = list(scan([bytes(blob)]))
    except UndecodableError:
        return
    decoded = b"".join(event.data for event in events if isinstance(event, MemberData))
    assert decoded == zlib.decompress(bytes(blob), wbits=31)
