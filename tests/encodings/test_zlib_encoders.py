"""zlib's, pigz's and GNU gzip's bytes from our own encoders: stored digests, and the tools where they are installed."""

import gzip
import hashlib
import io
import itertools
import json
import tarfile
import threading
import zlib
from collections.abc import Iterator
from typing import Literal

import pytest

pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")

from go_cases import make_input
from zlib_cases import VECTORS, Case, make_cases, vector_cases
from zlib_oracle import (
    GNU_GZIP,
    PIGZ,
    PIGZ_BLOCK_SIZE,
    PIGZ_INDEPENDENT,
    PIGZ_ONE_THREAD,
    ZLIB,
    no_gnu_gzip,
    no_pigz,
    no_zlib,
    our_bytes,
    pigz_bytes,
    zlib_bytes,
)

from layerstore.encodings._encoders import Encoder
from layerstore.encodings.gzip_format import GzipHeader, MemberStart, scan

needs_zlib = pytest.mark.skipif(no_zlib() is not None, reason=str(no_zlib()))
needs_gnu_gzip = pytest.mark.skipif(no_gnu_gzip() is not None, reason=str(no_gnu_gzip()))
needs_pigz = pytest.mark.skipif(no_pigz() is not None, reason=str(no_pigz()))

LEVELS = range(1, 10)


def test_stored_digests() -> None:
    digests = json.loads(VECTORS.read_text(encoding="utf-8"))
    cases = vector_cases()
    assert {case.key for case in cases} == set(digests)
    wrong = [c.key for c in cases if hashlib.sha256(c.actual(c.data())).hexdigest() != digests[c.key]]
    assert not wrong


def live_cases(numbers: tuple[int, ...], count: int) -> Iterator[Case]:
    return itertools.islice(make_cases(7, numbers, 150_000), count)


@needs_zlib
def test_zlib_makes_the_same() -> None:
    for case in live_cases((ZLIB,), 120):
        data = case.data()
        assert case.actual(data) == case.expected(data), case


@needs_pigz
def test_pigz_makes_the_same() -> None:
    for case in live_cases((PIGZ, PIGZ_ONE_THREAD, PIGZ_INDEPENDENT), 60):
        data = case.data()
        assert case.actual(data) == case.expected(data), case


@needs_gnu_gzip
def test_gnu_gzip_makes_the_same() -> None:
    for case in live_cases((GNU_GZIP,), 60):
        data = case.data()
        assert case.actual(data) == case.expected(data), case


@needs_zlib
@pytest.mark.parametrize("level", LEVELS)
def test_every_small_size(level: int) -> None:
    data = make_input("text", 300, level)
    for size in range(301):
        assert our_bytes(ZLIB, level, 0, data[:size]) == zlib_bytes(level, data[:size])


@pytest.mark.parametrize("number", [ZLIB, PIGZ, PIGZ_ONE_THREAD, PIGZ_INDEPENDENT, GNU_GZIP])
@pytest.mark.parametrize("level", [1, 4, 6])
def test_cuts_make_no_difference(number: int, level: int) -> None:
    """Also when input runs dry where zlib's window may slide early (byte 65,274), or where a block of pigz ends."""
    data = make_input("far", 300_000, 3)
    whole = our_bytes(number, level, 0, data)
    for first in (*range(65_530, 65_540), *range(98_300, 98_308), 131_071, 131_072, 131_073):
        assert our_bytes(number, level, 0, data, (first, first + 1, first + 2)) == whole
    assert our_bytes(number, level, 0, data, tuple(range(0, len(data), 997))) == whole
    assert zlib.decompress(whole, wbits=-15) == data


@needs_zlib
@pytest.mark.parametrize("level", [1, 3, 4, 6, 9])
def test_sync_flush(level: int) -> None:
    data = make_input("mixed", 200_000, level)
    theirs, ours = zlib.compressobj(level, wbits=-15), Encoder(ZLIB, level)
    expected, actual = theirs.flush(zlib.Z_SYNC_FLUSH), ours.flush()
    for start, end in itertools.pairwise((0, 1, 2, 5, 1000, 1000, 66_000, 140_000, 140_003, 200_000)):
        expected += theirs.compress(data[start:end]) + theirs.flush(zlib.Z_SYNC_FLUSH)
        actual += ours.write(data[start:end]) + ours.flush()
        if start % 2:  # a flush right after a flush does nothing
            expected += theirs.flush(zlib.Z_SYNC_FLUSH)
            actual += ours.flush()
    assert actual + ours.finish() == expected + theirs.flush()


def python_header(blob: bytes) -> GzipHeader:
    first = next(scan([blob]))
    assert isinstance(first, MemberStart)
    return first.header


def regenerate(blob: bytes, level: int) -> bytes:
    data = gzip.decompress(blob)
    return python_header(blob).to_bytes() + our_bytes(ZLIB, level, 0, data) + blob[-8:]


@needs_zlib
@pytest.mark.parametrize("level", LEVELS)
def test_gzip_module(level: int) -> None:
    data = make_input("tar", 200_000, level)
    assert regenerate(gzip.compress(data, level, mtime=0), level) == gzip.compress(data, level, mtime=0)
    file = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", level, file, mtime=1) as stream:
        for start in range(0, len(data), 1000):
            stream.write(data[start : start + 1000])
    assert regenerate(file.getvalue(), level) == file.getvalue()


@needs_zlib
@pytest.mark.parametrize("mode", ["w:gz", "w|gz"])
def test_tarfile_module(mode: Literal["w:gz", "w|gz"]) -> None:
    file = io.BytesIO()
    with tarfile.open("layer.tar", mode, file) as archive:
        for number in range(40):
            member = tarfile.TarInfo(f"usr/share/{number}")
            member.size = number * 997
            archive.addfile(member, io.BytesIO(make_input("text", member.size, number)))
    assert regenerate(file.getvalue(), 9) == file.getvalue()


@needs_pigz
def test_pigz_with_its_own_block_size() -> None:
    data = make_input("tar", 400_000, 1)
    assert our_bytes(PIGZ, 6, 0, data) == pigz_bytes(PIGZ, 6, PIGZ_BLOCK_SIZE, data)


@pytest.mark.parametrize("number", [PIGZ, PIGZ_INDEPENDENT])
def test_a_stream_of_pigz_can_be_entered_at_any_block(number: int) -> None:
    """From the second block on nothing depends on where the stream began: a range can start in its middle."""
    size = PIGZ_BLOCK_SIZE
    data = make_input("tar", 5 * size + 1000, 9)
    encoder = Encoder(number, 6)
    whole = (
        b"".join(encoder.write(data[start : start + size]) for start in range(0, len(data), size)) + encoder.finish()
    )
    for block in range(1, 5):
        entered = Encoder(number, 6)
        entered.write(data[(block - 1) * size : block * size])
        entered.write(data[block * size : block * size + 1])  # ends the block before
        rest = entered.write(data[block * size + 1 :]) + entered.finish()
        assert whole.endswith(rest)
        assert len(rest) > (len(whole) * (5 - block)) // 6


def test_streams_in_threads_do_not_mix() -> None:
    inputs = [make_input("mixed", 300_000, seed) for seed in range(4)]
    expected = [our_bytes(PIGZ, 6, 0, data) for data in inputs]
    results: dict[int, bytes] = {}

    def work(index: int) -> None:
        results[index] = our_bytes(PIGZ, 6, 0, inputs[index], tuple(range(0, 300_000, 10_000)))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[index] for index in range(4)] == expected


@pytest.mark.parametrize(
    ("number", "level", "block_size"), [(ZLIB, 0, 0), (ZLIB, 10, 0), (ZLIB, 6, 4096), (PIGZ, 6, 1)]
)
def test_what_no_tool_makes_is_refused(number: int, level: int, block_size: int) -> None:
    with pytest.raises(ValueError):
        Encoder(number, level, block_size)
