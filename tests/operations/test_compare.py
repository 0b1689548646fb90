"""Which bytes differ between two versions of a file."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerstore.operations.compare import ByteRange, compare_contents


def compare(old: bytes, new: bytes) -> list[ByteRange]:
    return compare_contents(io.BufferedReader(io.BytesIO(old)), io.BufferedReader(io.BytesIO(new)))


def patched(old: bytes, new: bytes, ranges: list[ByteRange]) -> bytes:
    """The new version, out of the old one and what the ranges say of the new."""
    result, position = b"", 0
    for one in ranges:
        result += old[position : one.old_offset]
        assert len(result) == one.new_offset
        result += new[one.new_offset : one.new_offset + one.new_size]
        position = one.old_offset + one.old_size
    return result + old[position:]


LARGE = random.Random(1).randbytes(3_000_000)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"", b"", []),
        (b"same", b"same", []),
        (b"", b"new", [ByteRange(0, 0, 0, 3)]),
        (b"old", b"", [ByteRange(0, 3, 0, 0)]),
        (b"abcdef", b"abXdef", [ByteRange(2, 1, 2, 1)]),
        (b"abcdef", b"abcdefgh", [ByteRange(6, 0, 6, 2)]),
        (LARGE, LARGE[:1_500_000] + b"Z" + LARGE[1_500_001:], [ByteRange(1_500_000, 1, 1_500_000, 1)]),
        (LARGE, b"front" + LARGE, [ByteRange(0, 0, 0, 5)]),
        (LARGE, LARGE[:100] + LARGE[200:], [ByteRange(100, 100, 100, 0)]),
    ],
)
def test_what_differs(old: bytes, new: bytes, expected: list[ByteRange]) -> None:
    if old and new and old == LARGE:
        # A byte at an edge may be the same by chance: then the range is told shifted, and as right.
        assert patched(old, new, compare(old, new)) == new
        assert sum(one.new_size + one.old_size for one in compare(old, new)) <= 205
        return
    assert compare(old, new) == expected


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_ranges_make_the_new_version_of_the_old(data: st.DataObject) -> None:
    seed = random.Random(data.draw(st.integers(0, 1000)))
    old = seed.randbytes(data.draw(st.integers(0, 200_000)))
    new = bytearray(old)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(new)))
        new[at : at + data.draw(st.integers(0, 300))] = seed.randbytes(data.draw(st.integers(0, 300)))
    ranges = compare(old, bytes(new))
    assert patched(old, bytes(new), ranges) == bytes(new)
    assert all(one.old_size or one.new_size for one in ranges)
