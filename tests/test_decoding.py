"""What `decode` promises: all of a good stream, an error for any other, in bounded memory."""

import gzip
import io
import random
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip_lib

from layerstore._zstd import zstd
from layerstore.decoding import OUTPUT_BLOCK_SIZE, Encoding, UndecodableError, decode, detect
from layerstore.errors import InvalidInputError

MEBIBYTE = 1 << 20
TEXT = b"".join(b"line %d of some text\n" % number for number in range(200_000))
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"extra"
ENCODERS = {"gzip": gzip.compress, "zstd": zstd.compress}
encoders = pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS.keys())


def decoded(data: bytes, feed_size: int = 1 << 20) -> bytes:
    return b"".join(decode(data[start : start + feed_size] for start in range(0, len(data), feed_size)))


def zstd_with_checksum(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


@pytest.mark.parametrize("command", [["gzip", "-9"], ["gzip", "-1"], ["zstd", "-3"], ["zstd", "--long=27"]])
def test_streams_of_the_tools_are_decoded(command: list[str]) -> None:
    data = subprocess.run([*command, "-c"], input=TEXT, capture_output=True, check=True).stdout
    assert decoded(data) == TEXT
    assert decoded(data, 1000) == TEXT


@encoders
@pytest.mark.parametrize("size", [0, 1, OUTPUT_BLOCK_SIZE - 1, OUTPUT_BLOCK_SIZE, OUTPUT_BLOCK_SIZE + 1])
def test_sizes_around_an_output_block(encode, size: int) -> None:  # type: ignore[no-untyped-def]
    data = random.Random(size).randbytes(size)
    assert decoded(encode(data)) == data
    assert decoded(encode(bytes(size))) == bytes(size)


@encoders
@settings(deadline=None)
@given(members=st.lists(st.binary(max_size=2000), min_size=1, max_size=5), feed_size=st.integers(1, 3000))
def test_law_members_are_joined_however_the_stream_was_cut(encode, members: list[bytes], feed_size: int) -> None:  # type: ignore[no-untyped-def]
    stream = b"".join(map(encode, members))
    assert decoded(stream, feed_size) == b"".join(members)


@encoders
def test_output_comes_in_blocks_of_a_mebibyte(encode) -> None:  # type: ignore[no-untyped-def]
    stream = encode(TEXT) + encode(b"") + encode(TEXT)
    sizes = [len(block) for block in decode(stream[start : start + 999] for start in range(0, len(stream), 999))]
    assert set(sizes[:-1]) == {OUTPUT_BLOCK_SIZE}
    assert sum(sizes) == 2 * len(TEXT)


@pytest.mark.parametrize("encode", [gzip.compress, zstd_with_checksum], ids=["gzip", "zstd"])
def test_a_stream_cut_anywhere_is_undecodable(encode) -> None:  # type: ignore[no-untyped-def]
    """No matter whether the cut falls into a header, the data, the checksum or the second member."""
    first = encode(b"first " * 100)
    stream = first + encode(b"second" * 100)
    for end in set(range(len(stream))) - {len(first)}:
        for feed_size in (7, 1000):
            with pytest.raises(UndecodableError):
                decoded(stream[:end], feed_size)


@pytest.mark.parametrize("encode", [gzip.compress, zstd_with_checksum], ids=["gzip", "zstd"])
def test_a_cut_at_the_end_of_a_full_block_is_noticed(encode) -> None:  # type: ignore[no-untyped-def]
    """The decoder has returned everything there is, yet the checksum is missing."""
    for size in (OUTPUT_BLOCK_SIZE, 2 * OUTPUT_BLOCK_SIZE):
        for missing in (1, 4, 8):
            with pytest.raises(UndecodableError):
                decoded(encode(bytes(size))[:-missing])


@pytest.mark.parametrize("encode", [gzip.compress, zstd_with_checksum], ids=["gzip", "zstd"])
def test_a_flipped_bit_never_passes_for_other_contents(encode) -> None:  # type: ignore[no-untyped-def]
    """Either an error or, in fields that say nothing about the contents, the right contents."""
    data = random.Random(1).randbytes(100) + b"compressible" * 20
    stream = encode(data)
    for position in range(len(stream)):
        damaged = bytearray(stream)
        damaged[position] ^= 0x10
        try:
            assert decoded(bytes(damaged)) == data
        except UndecodableError:
            continue


@encoders
@pytest.mark.parametrize("trailing", [b"\0", bytes(512), b"x", b"\x1f", b"\x1f\x8b", b"\x28\xb5", b"rubbish" * 1000])
def test_bytes_behind_the_end_are_refused(encode, trailing: bytes) -> None:  # type: ignore[no-untyped-def]
    """Zeros too, which gzip ignores: decoded contents could not tell how many there were."""
    with pytest.raises(UndecodableError):
        decoded(encode(b"contents") + trailing)


def test_members_of_both_encodings_do_not_mix() -> None:
    with pytest.raises(UndecodableError):
        decoded(gzip.compress(b"a") + zstd.compress(b"b"))
    with pytest.raises(UndecodableError):
        decoded(zstd.compress(b"a") + gzip.compress(b"b"))


def test_gzip_headers_with_all_fields_are_read() -> None:
    """Extra field (as stargz uses it), name, comment and header checksum."""
    head = b"\x1f\x8b\x08\x1e" + bytes(5) + b"\x03" + struct.pack("<H", 6) + b"SG\2\0ab" + b"name\0" + b"comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    deflater = zlib.compressobj(wbits=-15)
    body = deflater.compress(b"contents") + deflater.flush()
    tail = struct.pack("<II", zlib.crc32(b"contents"), 8)
    assert decoded(head + body + tail) == b"contents"
    with pytest.raises(UndecodableError):
        decoded(head + body + struct.pack("<II", zlib.crc32(b"contents"), 9))
    with pytest.raises(UndecodableError):
        decoded(head + body + struct.pack("<II", zlib.crc32(b"Contents"), 8))


def test_zstd_skippable_frames_are_skipped_anywhere() -> None:
    stream = SKIPPABLE + zstd.compress(b"one ") + SKIPPABLE + zstd.compress(b"two") + SKIPPABLE
    assert decoded(stream) == b"one two"
    assert decoded(stream, 1) == b"one two"
    assert decoded(SKIPPABLE) == b""
    with pytest.raises(UndecodableError):
        decoded(stream[:-1])


def test_a_zstd_window_over_128_mib_is_refused() -> None:
    """A frame of a few bytes could otherwise demand gigabytes."""
    for exponent, good in ((17, True), (18, False), (31, False)):  # 2 to the power of 10 + exponent
        frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, exponent << 3]) + b"\x21\x00\x00hell"
        if good:
            assert decoded(frame) == b"hell"
        else:
            with pytest.raises(UndecodableError):
                decoded(frame)


@encoders
def test_a_bomb_is_decoded_in_bounded_memory(encode) -> None:  # type: ignore[no-untyped-def]
    stream = encode(bytes(256 * MEBIBYTE))
    assert len(stream) < MEBIBYTE
    tracemalloc.start()
    try:
        assert sum(len(block) for block in decode([stream])) == 256 * MEBIBYTE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MEBIBYTE


@pytest.mark.parametrize(
    "member",
    [gzip.compress(b""), zstd.compress(b""), gzip.compress(b"x"), SKIPPABLE],
    ids=["gzip empty", "zstd empty", "gzip", "zstd skippable"],
)
def test_many_tiny_members_in_one_block_take_linear_time(member: bytes) -> None:
    """Copying what is left at the end of each member would move 40 GB here."""
    count = 20_000
    expected = b"x" * count if decoded(member) else b""
    assert b"".join(decode([member * count])) == expected


def test_detection_is_by_content() -> None:
    assert detect(gzip.compress(b"")[:4]) is Encoding.GZIP
    assert detect(zstd.compress(b"")[:4]) is Encoding.ZSTD
    assert detect(SKIPPABLE[:4]) is Encoding.ZSTD
    for head in (
        b"",
        b"\x1f\x8b",
        b"\x1f\x8b\x00\x00",
        b"\x28\xb5\x2f",
        b"BZh9",
        b"\xfd7zX",
        bytes(4),
        b"\x4f\x2a\x4d\x18",
    ):
        assert detect(head) is None


@pytest.mark.parametrize("blocks", [[], [b""], [b"", b"\x1f"], [b"not compressed at all"], [bytes(1024)]])
def test_what_is_neither_gzip_nor_zstd_is_undecodable(blocks: list[bytes]) -> None:
    with pytest.raises(UndecodableError):
        list(decode(blocks))


def test_the_error_is_one_of_invalid_input_with_its_cause() -> None:
    with pytest.raises(InvalidInputError, match="damaged gzip stream") as caught:
        decoded(gzip.compress(b"contents")[:-8] + bytes(8))
    assert isinstance(caught.value.__cause__, igzip_lib.IsalError)


def test_what_was_good_comes_before_the_error() -> None:
    blocks = decode([gzip.compress(TEXT) + b"rubbish"])
    assert next(blocks) == TEXT[:OUTPUT_BLOCK_SIZE]
    with pytest.raises(UndecodableError):
        list(blocks)


def test_input_is_read_no_further_than_needed() -> None:
    """The first output does not wait for the whole input."""
    stream = gzip.compress(random.Random(3).randbytes(4 * MEBIBYTE))
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        source = io.BytesIO(stream)
        while block := source.read(10_000):
            taken += len(block)
            yield block

    next(decode(blocks()))
    assert taken < 1.2 * MEBIBYTE


@given(st.binary(max_size=300), st.sampled_from([b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"]))
def test_noise_behind_a_magic_raises_nothing_else(noise: bytes, magic: bytes) -> None:
    try:
        decoded(magic + noise)
    except UndecodableError:
        return
