"""Recipe segments: which chunks, in which order, make a part of a layer (FORMAT.md, "Recipes").

A segment describes the layer's bytes from its offset on. Skeleton and payload are two streams of runs; `pieces` says
how they interleave: so many bytes of skeleton, so many of payload, and so on in turn.
"""

import struct
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from layerstore._zstd import zstd
from layerstore.errors import IndexDamagedError

_HEAD = struct.Struct("<QIII")
SEGMENT_SIZE_MAX = 1 << 30
"""Decoded bytes of a segment; a larger one is damage."""


class Run(NamedTuple):
    """Consecutive positions of one frame."""

    frame: int
    first: int
    chunks: int


class Ref(NamedTuple):
    """Where a chunk is: a frame and a position in it."""

    frame: int
    position: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a recipe."""

    size: int
    """Bytes of the layer that it describes."""
    skeleton: list[Run]
    payload: list[Run]
    pieces: "array[int]"
    """Lengths in turn: skeleton, payload, skeleton, …"""

    @property
    def runs(self) -> list[Run]:
        """All runs of both streams."""
        return self.skeleton + self.payload

    @property
    def references(self) -> int:
        """How many chunks the runs refer to, repeats included."""
        return sum(run.chunks for run in self.runs)


def encode_segment(segment: Segment) -> bytes:
    """The segment's bytes: columns of numbers, compressed."""
    head = _HEAD.pack(segment.size, len(segment.skeleton), len(segment.payload), len(segment.pieces))
    runs = segment.runs
    columns = [
        array("Q", [run.frame for run in runs]),
        array("I", [run.first for run in runs]),
        array("I", [run.chunks for run in runs]),
        segment.pieces[:],
    ]
    if sys.byteorder == "big":
        for column in columns:
            column.byteswap()
    return zstd.compress(head + b"".join(column.tobytes() for column in columns))


def decode_segment(data: bytes) -> Segment:
    """The inverse of `encode_segment`. Raises `IndexDamagedError` if the bytes make no sense."""
    try:
        raw = zstd.ZstdDecompressor().decompress(data, SEGMENT_SIZE_MAX)
        size, skeleton_count, payload_count, piece_count = _HEAD.unpack_from(raw)
    except (zstd.ZstdError, struct.error):
        raise IndexDamagedError("a recipe's segment cannot be decoded") from None
    run_count = skeleton_count + payload_count
    if len(raw) != _HEAD.size + 16 * run_count + 4 * piece_count:
        raise IndexDamagedError("a recipe's segment has the wrong size")
    frames, firsts, counts, pieces = array("Q"), array("I"), array("I"), array("I")
    offset = _HEAD.size
    for column, length in ((frames, run_count), (firsts, run_count), (counts, run_count), (pieces, piece_count)):
        end = offset + length * column.itemsize
        column.frombytes(raw[offset:end])
        if sys.byteorder == "big":
            column.byteswap()
        offset = end
    runs = list(map(Run, frames, firsts, counts))
    return Segment(size, runs[:skeleton_count], runs[skeleton_count:], pieces)


def join_runs(refs: Iterable[Ref]) -> list[Run]:
    """The fewest runs that stand for ``refs`` in their order."""
    runs: list[Run] = []
    frame = first = count = -1
    for ref in refs:
        if ref.frame == frame and ref.position == first + count:
            count += 1
            continue
        if count > 0:
            runs.append(Run(frame, first, count))
        frame, first, count = ref.frame, ref.position, 1
    if count > 0:
        runs.append(Run(frame, first, count))
    return runs
