"""What other ways of keeping the same layers would store, computed without keeping anything.

Each way is fed the distinct layers in order of publication and answers with the bytes that each layer adds. Only
payload counts: the index and the recipes that a real store of that kind needs are left out, in favour of the baselines.
layerstore's own figure, beside them, is all that its folder takes on disk.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3
from pyfastcdc import FastCDC

from benchmarks.console import tell
from benchmarks.images import READ_SIZE, LayerFile
from benchmarks.zstd_codec import zstd

CHUNK_SIZE = 16 * 1024
CDC_SIZE_MIN, CDC_SIZE_MAX = 4 * 1024, 64 * 1024
GZIP_LEVEL, ZSTD_LEVEL = 6, 3
GZIP_WINDOW = 31  # zlib's number for a gzip member, with no name and no time in its header


@dataclass(frozen=True, slots=True)
class Way:
    """A way of keeping layers: its short name, and what a row of it counts."""

    key: str
    name: str
    counts: str


GZIP = Way("gzip", "gzip -6", "every distinct layer as one gzip -6 blob, as registries keep them")
WHOLE_LAYER = Way("layer", "whole layers", "every distinct layer once, as an uncompressed tar")
WHOLE_FILE = Way(
    "file", "whole files", "every distinct file content once, zstd -3 each; the tar headers of a layer, zstd -3"
)
FIXED = Way("fixed", "fixed 16 KiB", "every distinct 16 KiB piece of the tars once, zstd -3 each")
FASTCDC = Way(
    "fastcdc", "FastCDC 16 KiB", "every distinct FastCDC chunk (16 KiB on average) of the tars once, zstd -3 each"
)
WAYS = (GZIP, WHOLE_LAYER, WHOLE_FILE, FIXED, FASTCDC)


Pieces = Iterator[bytes | memoryview]


def measure(layers: Sequence[LayerFile], jobs: int) -> dict[str, list[int]]:
    """Return for each way (by key) the bytes that each layer adds, with up to ``jobs`` processes at work."""
    paths = [layer.path for layer in layers]
    added = {GZIP.key: [0] * len(layers), WHOLE_LAYER.key: [layer.size for layer in layers]}
    with ProcessPoolExecutor(jobs) as pool:
        chunked = {pool.submit(added_by_pieces, paths, key): key for key in SPLITTERS}
        largest_first = sorted(range(len(layers)), key=lambda number: -layers[number].size)
        gzipped = {pool.submit(gzip_size, paths[number]): number for number in largest_first}
        for future in as_completed(chunked):
            added[chunked[future]] = future.result()
            tell(f"baselines: {chunked[future]} is done")
        for sized, number in gzipped.items():
            added[GZIP.key][number] = sized.result()
    tell(f"baselines: {GZIP.key} is done")
    return added


def gzip_size(path: Path) -> int:
    """Return the size of the file as one gzip member."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    size = 0
    with path.open("rb") as file:
        while data := file.read(READ_SIZE):
            size += len(packer.compress(data))
    return size + len(packer.flush())


def added_by_pieces(paths: Sequence[Path], key: str) -> list[int]:
    """Return what each file adds when its pieces are deduplicated against all before and compressed one by one."""
    packer = zstd.ZstdCompressor(ZSTD_LEVEL)
    seen: set[bytes] = set()
    added = []
    for path in paths:
        new = 0
        with path.open("rb") as file:
            for piece in SPLITTERS[key](file):
                digest = blake3(piece).digest()
                if digest not in seen:
                    seen.add(digest)
                    packed = packer.compress(piece, zstd.ZstdCompressor.FLUSH_FRAME)
                    new += min(len(piece), len(packed))  # what doesn't shrink is kept as it is
        added.append(new)
    return added


def fixed_pieces(file: BinaryIO) -> Pieces:
    """Cut a stream every 16 KiB."""
    while data := file.read(CHUNK_SIZE):
        yield data


def cdc_pieces(file: BinaryIO) -> Pieces:
    """Cut a stream where its content says so. A piece is valid until the next one."""
    cutter = FastCDC(CHUNK_SIZE, min_size=CDC_SIZE_MIN, max_size=CDC_SIZE_MAX, normalized_chunking=2)
    for chunk in cutter.cut_stream(file):
        yield chunk.data


def file_pieces(file: BinaryIO) -> Pieces:
    """Cut a tar into the contents of its files, then all headers and padding as one piece, then the trailer.

    What is no tar is one piece.
    """
    headers = []
    position = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg() and member.size and not member.issparse():
                    file.seek(position)
                    headers.append(file.read(member.offset_data - position))
                    yield file.read(member.size)
                    position = member.offset_data + member.size
    except tarfile.TarError:
        pass  # broken from here on: the rest is one piece
    file.seek(position)
    rest = file.read()
    if headers:
        yield b"".join(headers)
    if rest:
        yield rest


SPLITTERS: dict[str, Callable[[BinaryIO], Pieces]] = {
    WHOLE_FILE.key: file_pieces,
    FIXED.key: fixed_pieces,
    FASTCDC.key: cdc_pieces,
}
