"""A blob comes back, bit for bit and from any byte on, from its recipe and its layer."""

import gzip
import random
import struct
import threading
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")

from blobs import GO, METHODS, PGZIP, UNIX, Sample, counted, make_header, make_member, make_sample, single
from go_cases import make_input

from layerstore.encodings import finding
from layerstore.encodings.encoders import EncoderNumber
from layerstore.encodings.finding import find_recipe
from layerstore.encodings.gzip_format import GzipHeader
from layerstore.encodings.recipe import TRAILING_SIZE_MAX, MemberRun, Method, Recipe, Segment
from layerstore.encodings.regenerate import lead_size, regenerate
from layerstore.errors import (
    ContentDamagedError,
    EncoderUnavailableError,
    IndexDamagedError,
    InvalidOptionError,
    LayerstoreError,
    UndecodableError,
)

LAYER = make_input("tar", 3_000_000, 11)
PGZIP_METHOD = Method(EncoderNumber.KLAUSPOST_1_18_2, 5, 1 << 18)
GO_9 = Method(EncoderNumber.GO_FLATE, 9, 0)

STORED = (
    "01882703011200010300050a808010020a1f8b08000000000000ff0a1f8b08000000000000030300000102ac020001010202"
    "050006020204020000018080400203656e6403010000000200c8010200000002808020a0060300000004000000"
)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "SEGMENT_SIZE", 50_000)


def found(sample: Sample) -> Recipe:
    recipe = find_recipe(sample.open_blob)
    assert recipe is not None
    assert recipe.size == len(sample.blob)
    assert recipe.decoded_size == len(sample.layer)
    assert Recipe.from_bytes(recipe.to_bytes()) == recipe
    assert recipe.is_available
    return recipe


def made(recipe: Recipe, sample: Sample, start: int = 0, threads: int = 1) -> bytes:
    return b"".join(regenerate(recipe, sample.read, start, threads))


def assert_comes_back(sample: Sample, source: random.Random) -> Recipe:
    recipe = found(sample)
    size = len(sample.blob)
    offsets = [segment.offset + more for segment in recipe.segments[1:] for more in (-1, 0, 1)]
    for start in {0, 1, 9, 10, 11, size // 2, size - 1, size, *offsets, *(source.randrange(size) for _ in range(3))}:
        assert made(recipe, sample, min(start, size), 1 + start % 3) == sample.blob[start:]
    return recipe


@given(st.integers(0, 1 << 32))
def test_any_blob_comes_back(seed: int) -> None:
    assert_comes_back(make_sample(seed, 60_000), random.Random(seed))


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", range(10))
def test_any_blob_comes_back_from_many_segments(seed: int) -> None:
    assert_comes_back(make_sample(seed, 400_000), random.Random(seed))


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("method", [method for method in METHODS if lead_size(method)])
@pytest.mark.parametrize("size", [1 << 21, (1 << 21) + 1, 2_500_000])
def test_a_member_with_blocks_can_be_entered(method: Method, size: int) -> None:
    recipe = assert_comes_back(single(method, PGZIP, LAYER[:size]), random.Random(1))
    assert len(recipe.segments) >= size // max(method.block_size, 1 << 18) - 1
    assert all(segment.member_offset % method.block_size == 0 for segment in recipe.segments)
    assert len(recipe.to_bytes()) < 100 + 64 * len(recipe.segments)


def test_a_segment_is_about_4_mib() -> None:
    sample = single(PGZIP_METHOD, PGZIP, random.Random(1).randbytes(9_500_000))
    recipe = assert_comes_back(sample, random.Random(1))
    assert [segment.offset >> 22 for segment in recipe.segments] == [0, 1, 2]


def estargz(count: int, method: Method = GO_9) -> Sample:
    """Many members, each flushed before its end, and a footer with an extra field."""
    header = replace(GO, extra_flags=2)
    pieces = [LAYER[start : start + 700 + start % 901] for start in range(0, count * 1500, 1500)]
    footer = make_member(Method(method.number, 0, 0), GzipHeader(extra=b"SG\x16\0" + b"0" * 16 + b"STARGZ"), b"")
    members = [make_member(method, header, piece, (len(piece),)) for piece in pieces]
    toc = make_member(method, header, b"{}" * 3000)
    return Sample(b"".join([*members, toc, footer]), b"".join(pieces) + b"{}" * 3000)


def test_many_members_are_kept_in_few_bytes() -> None:
    sample = estargz(2000)
    recipe = assert_comes_back(sample, random.Random(1))
    assert len(recipe.runs) == 3
    assert recipe.encoders[0] == GO_9
    assert len(recipe.to_bytes()) < 2000 * 2 + 150


@pytest.mark.usefixtures("small_segments")
def test_many_members_make_segments() -> None:
    recipe = assert_comes_back(estargz(300), random.Random(1))
    assert len(recipe.segments) > 3
    assert not any(segment.member_offset for segment in recipe.segments)


def test_a_flush_behind_the_beginning_is_found() -> None:
    noise = random.Random(3).randbytes(700_000)
    member = make_member(GO_9, GO, noise + LAYER[:100_000], (750_000,))
    assert_comes_back(Sample(member, noise + LAYER[:100_000]), random.Random(1))


def test_bytes_that_only_look_like_a_flush_are_none() -> None:
    data = b"".join([LAYER[:5000], b"\0\0\xff\xff" * 50, LAYER[5000:9000]])
    stored = Method(EncoderNumber.GO_FLATE, 0, 0)
    recipe = assert_comes_back(Sample(make_member(stored, GO, data, (3000, 5100)), data), random.Random(1))
    assert recipe.runs[0].flushes == ((3000, 5100),)


def test_what_fails_late_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a short beginning pigz looks like zlib: that fails at the end of pigz's first block."""
    monkeypatch.setattr(finding, "BEGINNING_SIZE", 40_000)
    sample = single(Method(EncoderNumber.PIGZ, 6, 1 << 17), GO, LAYER[:600_000])
    open_blob, calls = counted(sample)
    recipe = find_recipe(open_blob)
    assert recipe is not None
    assert made(recipe, sample) == sample.blob
    assert 1 < len(calls) < 6
    second = Sample(sample.blob * 2, sample.layer * 2)
    assert_comes_back(second, random.Random(1))


def test_a_likely_blob_is_read_once() -> None:
    for method, header in [(PGZIP_METHOD, PGZIP), (Method(EncoderNumber.GO_FLATE, 6, 0), GO)]:
        open_blob, calls = counted(single(method, header, LAYER))
        assert find_recipe(open_blob) is not None
        assert len(calls) == 1


def stored_blocks(data: bytes) -> bytes:
    """A member of stored blocks of 1,000 bytes, as no tool makes them."""
    blocks = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    stream = b"".join(struct.pack("<BHH", 0, len(block), 0xFFFF - len(block)) + block for block in blocks)
    whole = gzip.compress(data)
    return GO.to_bytes() + stream + b"\x01\0\0\xff\xff" + whole[-8:]


def test_no_recipe() -> None:
    unknown = stored_blocks(LAYER[:50_000])
    known = make_member(GO_9, GO, LAYER[:50_000])
    for blob in (unknown, known + unknown, known + bytes(TRAILING_SIZE_MAX + 1)):
        assert find_recipe(lambda blob=blob: [blob]) is None
    assert find_recipe(lambda: [known + bytes(TRAILING_SIZE_MAX)]) is not None


@pytest.mark.parametrize("blob", [b"", b"PK\x03\x04 no gzip", gzip.compress(LAYER[:5000])[:-3], b"\x1f\x8b\x08"])
def test_what_is_no_gzip_is_refused(blob: bytes) -> None:
    with pytest.raises(UndecodableError):
        find_recipe(lambda: [blob])


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "sample", [single(PGZIP_METHOD, PGZIP, LAYER[:1_500_000]), estargz(300)], ids=["blocks", "members"]
)
def test_another_layer_is_noticed(sample: Sample, threads: int) -> None:
    recipe = found(sample)
    layer = sample.layer
    middle = len(layer) // 2
    changed = layer[:middle] + bytes([layer[middle] ^ 1]) + layer[middle + 1 :]
    for other in (changed, layer[:-1], layer + b"x", layer[:middle], b""):
        with pytest.raises(ContentDamagedError):
            made(recipe, Sample(sample.blob, other), 0, threads)
        with pytest.raises(ContentDamagedError):
            made(recipe, Sample(sample.blob, other), 40_000, threads)


@pytest.mark.usefixtures("small_segments")
def test_an_error_of_the_layer_comes_through_and_all_threads_end() -> None:
    sample = single(PGZIP_METHOD, PGZIP, LAYER)
    recipe = found(sample)
    before = threading.active_count()

    def read(offset: int) -> Iterable[bytes]:
        yield sample.layer[offset : offset + 10_000]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(regenerate(recipe, read, threads=3))
    blocks = regenerate(recipe, sample.read, threads=3)
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_options_are_checked() -> None:
    sample = single(GO_9, GO, LAYER[:1000])
    recipe = found(sample)
    for start, threads in [(-1, 1), (recipe.size + 1, 1), (0, 0)]:
        with pytest.raises(InvalidOptionError):
            regenerate(recipe, sample.read, start, threads)


@pytest.mark.parametrize("method", [Method(99, 6, 0), Method(EncoderNumber.ZLIB, 30, 0), Method(1 << 40, 1, 1 << 20)])
def test_a_recipe_of_a_newer_version_is_kept(method: Method) -> None:
    recipe = Recipe(30, (MemberRun(method, GO.to_bytes(), (1000,)),), b"", (Segment(0, 0, 0, 0, 1),))
    assert Recipe.from_bytes(recipe.to_bytes()) == recipe
    assert recipe.encoders == (method,)
    assert not recipe.is_available
    with pytest.raises(EncoderUnavailableError):
        regenerate(recipe, lambda offset: [])


def test_stored_bytes() -> None:
    """These bytes must be read for ever."""
    runs = (
        MemberRun(Method(1, 9, 0), GO.to_bytes(), (300, 0), ((300,), (0,))),
        MemberRun(Method(1, -2, 0), UNIX.to_bytes(), (5, 6), ((), (2, 6))),
        MemberRun(Method(5, 5, 1 << 18), GO.to_bytes(), (1 << 20,)),
    )
    segments = (Segment(0, 0, 0, 0, 1), Segment(200, 2, 0, 0, 2), Segment(1000, 4, 1 << 19, 3, 4))
    recipe = Recipe(5000, runs, b"\0\0end", segments)
    assert recipe.to_bytes().hex() == STORED
    assert Recipe.from_bytes(bytes.fromhex(STORED)) == recipe


@pytest.mark.usefixtures("small_segments")
def test_damaged_recipes_do_no_harm() -> None:
    source = random.Random(5)
    samples = [make_sample(seed, 60_000) for seed in (1, 2, 3)] + [single(PGZIP_METHOD, PGZIP, LAYER[:600_000])]
    tracemalloc.start()
    try:
        for sample in samples:
            good = found(sample).to_bytes()
            for _ in range(1500):
                with_damage = damage(good, source)
                try:
                    recipe = Recipe.from_bytes(with_damage)
                except IndexDamagedError:
                    continue
                assert recipe.to_bytes() == with_damage
                if source.getrandbits(4) == 0 and recipe.is_available:
                    try:
                        for _ in regenerate(
                            recipe, sample.read, source.randint(0, recipe.size), 1 + source.getrandbits(1)
                        ):
                            pass
                    except LayerstoreError:
                        pass
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def damage(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(1 + source.getrandbits(1)):
        at = source.randrange(len(changed))
        match source.getrandbits(2):
            case 0:
                changed[at] ^= 1 << source.getrandbits(3) % 8
            case 1:
                changed[at : at + 1] = source.randbytes(source.getrandbits(3))
            case 2:
                changed[at:at] = b"\xff" * source.getrandbits(3) + b"\x7f"
            case _:
                del changed[at:]
                changed += b"\x01"
    return bytes(changed)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x02\x01", b"\x01", bytes(40), b"\x01" * 40, b"\xff" * 40])
def test_what_is_no_recipe_is_refused(data: bytes) -> None:
    with pytest.raises(IndexDamagedError):
        Recipe.from_bytes(data)


def test_headers_come_back() -> None:
    source = random.Random(9)
    layer = b"".join(make_input("text", 200, seed) for seed in range(40))
    members = [
        make_member(GO_9, make_header(source), layer[start : start + 500]) for start in range(0, len(layer), 500)
    ]
    assert_comes_back(Sample(b"".join(members), layer), source)
