"""Contents of files: those parts of a layer's payload that hold them, with zeros where a sparse file has holes.

Sparse files are described in the GNU tar manual, "Storing Sparse Files"; all its formats are read.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

from layerstore.digest import Digest
from layerstore.errors import InvalidInputError
from layerstore.operations.layer_reader import LayerReader
from layerstore.operations.reader import Reader
from layerstore.storage.opened import OpenedStore
from layerstore.tar.entries import SPARSE_REGIONS_MAX, TarEntry
from layerstore.tar.header import BLOCK_SIZE, NUMBER_DIGITS_MAX, parse_decimal

Region = tuple[int, int]
"""Offset and length of a part of a file that is no hole."""

_ZEROS = memoryview(bytes(1 << 20))


class SharedLayer:
    """A layer that is open for all files of a view. Threads may share it; it keeps its layer from collection."""

    def __init__(self, store: OpenedStore, diff_id: Digest) -> None:
        self._reader = LayerReader(store, diff_id)
        self._lock = threading.Lock()

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the layer's bytes from ``offset`` on; they must be there."""
        with self._lock:
            self._reader.seek(offset)
            while target:
                count = self._reader.readinto(target)
                if not count:
                    raise InvalidInputError("a layer ends within the contents of a file")
                target = target[count:]

    def close(self) -> None:
        """End the lease."""
        with self._lock:
            self._reader.close()


class Contents:
    """Where the contents of a file are: regions of the file, and where each stands in the layer.

    Raises `InvalidInputError` if the layer does not have them all, or if its map of regions makes no sense.
    """

    __slots__ = ("_layer", "_places", "_starts", "regions", "size")

    def __init__(self, layer: SharedLayer, entry: TarEntry) -> None:
        self._layer = layer
        self.size = entry.size
        begin = entry.payload_offset
        if entry.sparse_in_payload:
            regions, begin = _read_map(layer, entry)
        elif entry.sparse is not None:
            regions = entry.sparse
        else:
            regions = [(0, entry.size)]
        self.regions = tuple(region for region in regions if region[1])
        end = entry.payload_offset + entry.payload_size
        self._check(entry, end - begin)
        self._starts = [offset for offset, _ in self.regions]
        self._places = []
        for _, length in self.regions:
            self._places.append(begin)
            begin += length

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the file's bytes from ``offset`` on; they must be there."""
        index = bisect_right(self._starts, offset) - 1
        while target:
            # What is before the next region belongs to this one, then to the hole behind it.
            region_end = 0
            if index >= 0:
                start, length = self.regions[index]
                region_end = start + length
                if offset < region_end:
                    count = min(len(target), region_end - offset)
                    self._layer.read_into(target[:count], self._places[index] + offset - start)
                    target, offset = target[count:], offset + count
            next_start = self._starts[index + 1] if index + 1 < len(self._starts) else self.size
            count = min(len(target), next_start - offset)
            _clear(target[:count])
            target, offset = target[count:], offset + count
            index += 1

    def _check(self, entry: TarEntry, available: int) -> None:
        ordered = all(one[0] + one[1] <= other[0] for one, other in pairwise(self.regions))
        if not ordered or (self.regions and sum(self.regions[-1]) > entry.size):
            raise InvalidInputError(f"the map of the sparse file {entry.path!r} makes no sense")
        if sum(length for _, length in self.regions) > available:
            raise InvalidInputError(f"the layer has not all of the contents of {entry.path!r}")


class FileReader(Reader):
    """A file of a view, unbuffered."""

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents.size)
        self._contents = contents

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the file goes."""
        if self.closed:
            raise ValueError("read of a closed file")
        count = min(len(buffer), max(0, self.size - self._position))
        self._contents.read_into(memoryview(buffer).cast("B")[:count], self._position)
        self._position += count
        return count


def _clear(target: memoryview) -> None:
    while target:
        part = target[: len(_ZEROS)]
        part[:] = _ZEROS[: len(part)]
        target = target[len(part) :]


def _read_map(layer: SharedLayer, entry: TarEntry) -> tuple[list[Region], int]:
    """The regions of PAX sparse 1.0, and where what they hold begins: behind the map's last block."""
    numbers = _map_numbers(layer, entry)
    count, end = next(numbers)
    if count > SPARSE_REGIONS_MAX:
        raise InvalidInputError(f"the sparse file {entry.path!r} has {count} regions, more than are read")
    regions = []
    for _ in range(count):
        offset, _ = next(numbers)
        length, end = next(numbers)
        regions.append((offset, length))
    return regions, entry.payload_offset + end


def _map_numbers(layer: SharedLayer, entry: TarEntry) -> Iterator[tuple[int, int]]:
    """The numbers of the map, each a line, and where in the payload the block ends that each stands in."""
    rest = b""
    offset = 0
    while True:
        block = bytearray(min(BLOCK_SIZE, entry.payload_size - offset))
        if not block or len(rest) > NUMBER_DIGITS_MAX:
            raise InvalidInputError(f"the map of the sparse file {entry.path!r} has no end")
        layer.read_into(memoryview(block), entry.payload_offset + offset)
        offset += len(block)
        *lines, rest = (rest + bytes(block)).split(b"\n")
        for line in lines:
            number = parse_decimal(line)
            if number is None:
                raise InvalidInputError(f"the map of the sparse file {entry.path!r} is not one of numbers")
            yield number, offset
