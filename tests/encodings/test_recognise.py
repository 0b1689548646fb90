"""The encoder of a blob is found from its first bytes."""

import gzip
import io
import shutil
import struct
import subprocess
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")

from go_cases import make_input
from zlib_oracle import no_gnu_gzip, no_pigz, no_zlib

from layerstore.encodings.encoders import EncoderNumber, is_available
from layerstore.encodings.gzip_format import GzipHeader, MemberData, scan
from layerstore.encodings.recognise import (
    BEGINNING_SIZE,
    DECODED_SIZE_MAX,
    Beginning,
    Candidate,
    Comparison,
    guess,
    probe,
    read_beginning,
)
from layerstore.errors import UndecodableError

GO_ZERO_TIME = 0x886E0900
DATA = make_input("tar", 800_000, 1)


def encode(candidate: Candidate, data: bytes) -> bytes:
    encoder = candidate.create()
    return encoder.write(data) + encoder.finish()


def make_blob(header: GzipHeader, candidate: Candidate, data: bytes) -> bytes:
    return header.to_bytes() + encode(candidate, data) + struct.pack("<II", zlib.crc32(data), len(data))


def find(blob: bytes, size: int = BEGINNING_SIZE) -> Candidate | None:
    """The first candidate that makes the beginning and, as it turns out, the whole."""
    beginning = read_beginning(blob[:size])
    data = gzip.decompress(blob)
    for candidate in probe(beginning, guess(beginning.header)):
        if make_blob(beginning.header, candidate, data) == blob:
            return candidate
    return None


HEADERS = [
    GzipHeader(),
    GzipHeader(modified=GO_ZERO_TIME),
    GzipHeader(modified=1, name=b"layer.tar"),
    GzipHeader(operating_system=3),
    GzipHeader(operating_system=11),
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("extra_flags", [0, 2, 4])
def test_a_guess_has_everything_once(header: GzipHeader, extra_flags: int) -> None:
    header = GzipHeader(header.modified, extra_flags, header.operating_system, name=header.name)
    counts = Counter(guess(header))
    assert set(counts.values()) == {1}
    assert {candidate.number for candidate in counts} == set(EncoderNumber)
    first = next(guess(header))
    assert {2: first.level == 9, 4: first.level == 1}.get(extra_flags, first.level in (5, 6))


@pytest.mark.parametrize("number", list(EncoderNumber))
def test_every_encoder_is_found(number: EncoderNumber) -> None:
    if not is_available(number):
        pytest.skip(f"{number.name} is not in this build")
    for index, candidate in enumerate(c for c in guess(GzipHeader()) if c.number == number and c.level in (1, 5)):
        data = DATA[: 100_000 if index else 800_000]
        blob = make_blob(HEADERS[index % len(HEADERS)], candidate, data)
        found = find(blob)
        assert found is not None, candidate
        assert encode(found, data) == encode(candidate, data)


def compare(blob: bytes, candidates: list[Candidate], cut: int) -> list[Candidate]:
    comparison = Comparison(candidates)
    for event in scan(blob[start : start + cut] for start in range(0, len(blob), cut)):
        if isinstance(event, MemberData):
            comparison.expect(event.deflate)
            comparison.add(event.data)
    return comparison.finish()


@pytest.mark.parametrize("cut", [1 << 12, 1 << 20])
def test_all_that_are_left_are_compared_in_one_pass(cut: int) -> None:
    every = [c for c in guess(GzipHeader()) if c.number >= EncoderNumber.ZLIB and c.level in (1, 6)]
    for candidate in every:
        blob = make_blob(GzipHeader(), candidate, DATA[:300_000])
        found = compare(blob, every, cut)
        assert candidate in found
        assert all(encode(other, DATA[:300_000]) == blob[10:-8] for other in found)


def test_a_difference_in_the_last_bytes_is_seen() -> None:
    candidate = Candidate(EncoderNumber.ZLIB, 6, 0)
    blob = make_blob(GzipHeader(), candidate, DATA)
    for data in (DATA[:-1], DATA + b"x", DATA[:-1] + b"x"):
        comparison = Comparison([candidate])
        comparison.expect(blob[10:-8])
        comparison.add(data)
        assert not comparison.finish()


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_a_small_blob_is_compared_as_a_whole(size: int) -> None:
    blob = gzip.compress(DATA[:size], 6, mtime=0)
    beginning = read_beginning(blob)
    assert beginning == Beginning(beginning.header, blob[10:-8], DATA[:size], complete=True)
    assert find(blob) is not None
    lengthened = Beginning(beginning.header, beginning.deflate + b"\0", beginning.decoded, complete=True)
    shortened = Beginning(beginning.header, beginning.deflate[:-1], beginning.decoded, complete=True)
    assert not list(probe(lengthened, guess(beginning.header)))
    assert not list(probe(shortened, guess(beginning.header)))


@pytest.mark.skipif(no_zlib() is not None, reason=str(no_zlib()))
@pytest.mark.parametrize("level", range(1, 10))
def test_python(level: int) -> None:
    data = DATA[:200_000]
    assert find(gzip.compress(data, level, mtime=0)) is not None
    file = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", level, file) as stream:
        stream.write(data)
    assert find(file.getvalue()) == Candidate(EncoderNumber.ZLIB, level, 0)


@pytest.mark.skipif(no_pigz() is not None, reason=str(no_pigz()))
@pytest.mark.parametrize(
    ("options", "number"),
    [("-p4", EncoderNumber.PIGZ), ("-p1", EncoderNumber.PIGZ_ONE_THREAD), ("-i", EncoderNumber.PIGZ_INDEPENDENT)],
)
def test_pigz(tmp_path: Path, options: str, number: EncoderNumber) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(DATA[:400_000])
    for level in (1, 6, 9):
        blob = subprocess.run(["pigz", "-ck", options, f"-{level}", path], capture_output=True, check=True).stdout
        beginning = read_beginning(blob[:BEGINNING_SIZE])
        assert list(probe(beginning, [Candidate(number, level, 131072)]))
        assert find(blob) is not None


@pytest.mark.skipif(no_gnu_gzip() is not None, reason=str(no_gnu_gzip()))
@pytest.mark.parametrize("level", range(1, 10))
def test_gnu_gzip(tmp_path: Path, level: int) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(DATA[:200_000])
    blob = subprocess.run([str(shutil.which("gzip")), "-ck", f"-{level}", path], capture_output=True, check=True).stdout
    assert find(blob) == Candidate(EncoderNumber.GNU_GZIP, level, 0)


def test_what_nobody_makes_is_soon_known() -> None:
    """A stream of stored blocks of 1,000 bytes."""
    parts = [DATA[start : start + 1000] for start in range(0, 300_000, 1000)]
    stream = b"".join(struct.pack("<BHH", 0, len(part), 0xFFFF - len(part)) + part for part in parts)
    beginning = read_beginning(GzipHeader().to_bytes() + stream)
    assert (beginning.decoded, beginning.complete) == (DATA[:300_000], False)
    started = time.monotonic()
    assert not list(probe(beginning, guess(beginning.header)))
    assert time.monotonic() - started < 10


def test_a_bomb_is_decoded_in_part() -> None:
    blob = gzip.compress(bytes(30_000_000), 6, mtime=0)
    beginning = read_beginning(blob[:BEGINNING_SIZE])
    assert len(beginning.decoded) == DECODED_SIZE_MAX
    assert list(probe(beginning, [Candidate(EncoderNumber.ZLIB, 6, 0), Candidate(EncoderNumber.ZLIB, 1, 0)])) == [
        Candidate(EncoderNumber.ZLIB, 6, 0)
    ]


@pytest.mark.parametrize("head", [b"", b"\x1f\x8b\x08", b"PK\x03\x04", GzipHeader().to_bytes() + b"\xff\xff"])
def test_what_is_no_gzip_is_refused(head: bytes) -> None:
    with pytest.raises(UndecodableError):
        read_beginning(head)
