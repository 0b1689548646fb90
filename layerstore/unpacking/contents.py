"""The contents of files, written in the order in which the layers have them, by several threads.

Frames hold about 2 MiB of a layer each and are decoded whole, so files are read as they lie in their layers: each frame
is decoded once. A path's order would jump between layers, and decode many again.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BufferedReader

from layerstore.directories import Directories
from layerstore.errors import InvalidInputError, LayerstoreError
from layerstore.places.files import write_all
from layerstore.union.file_system import FileSystem
from layerstore.union.node import Node
from layerstore.unpacking.attributes import Attributes
from layerstore.unpacking.checks import shown
from layerstore.unpacking.failures import translated
from layerstore.unpacking.report import Tally
from layerstore.unpacking.reuse import EarlierFiles, Reuse

_BLOCK_SIZE = 1 << 20
_HOLE_SIZE_MIN = 1 << 16
"""Runs of zeros become holes if they fill a piece of this size, counted from the begin of a region."""
_ZEROS = bytes(_HOLE_SIZE_MIN)
_BATCH_SIZE = 8 << 20
_BATCH_FILES_MAX = 256
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How files are opened: they must not be there yet, be it as a link."""


def batches(files: Sequence[Node]) -> Iterator[list[Node]]:
    """Files in the order of their contents in the layers, in portions for one thread."""
    batch: list[Node] = []
    size = 0
    for node in sorted(files, key=_place):
        batch.append(node)
        size += node.size
        if size >= _BATCH_SIZE or len(batch) >= _BATCH_FILES_MAX:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _place(node: Node) -> tuple[int, int]:
    return node.inode[0], 0 if node.entry is None else node.entry.payload_offset


class _StoppedError(Exception):
    """Another thread has failed, or the user has had enough."""


class ContentWriter:
    """Writes batches of files below a directory. Threads may share it."""

    def __init__(
        self, view: FileSystem, root: int, *, rootless: bool, owner: tuple[int, int] | None, reuse: Reuse | None
    ) -> None:
        self._view = view
        self._root = root
        self._rootless = rootless
        self._owner = owner
        self._reuse = reuse
        self._buffers = threading.local()
        self._is_stopped = False

    def stop(self) -> None:
        """Let the threads end after the block at which they are."""
        self._is_stopped = True

    def write(self, batch: Sequence[Node]) -> Tally:
        """Write new files. Raises errors of `layerstore.errors`."""
        attributes = Attributes(self._rootless, self._owner, Tally())
        with ExitStack() as stack:
            directories = stack.enter_context(Directories(self._root))
            earlier = None if self._reuse is None else stack.enter_context(EarlierFiles(self._reuse.root))
            for node in batch:
                try:
                    self._write_file(directories, earlier, node, attributes)
                except _StoppedError:
                    break
                except LayerstoreError:
                    raise
                except OSError as error:
                    raise translated(error, node.path) from error
        return attributes.tally

    def _write_file(
        self, directories: Directories, earlier: EarlierFiles | None, node: Node, attributes: Attributes
    ) -> None:
        self._check_stop()
        folder, _, name = node.path.rpartition(b"/")
        directory = directories.open(folder)
        if earlier is not None and self._is_linked(earlier, node, directory, name):
            attributes.tally.add(Tally(files=1, size=node.size, reused=1))
            return
        descriptor = os.open(name, NEW_FILE, 0o600, dir_fd=directory)
        try:
            if node.size and earlier is not None and earlier.clone(node, descriptor):
                attributes.tally.reused += 1
            elif node.size:
                attributes.tally.bytes_written += self._write_contents(node, descriptor)
            attributes.set_open(descriptor, node)
        finally:
            os.close(descriptor)
        attributes.tally.files += 1
        attributes.tally.size += node.size

    def _is_linked(self, earlier: EarlierFiles, node: Node, directory: int, name: bytes) -> bool:
        if self._reuse is None or not self._reuse.hard_links or self._rootless:
            return False
        return earlier.link(node, directory, name, (node.uid, node.gid) if self._owner is None else self._owner)

    def _write_contents(self, node: Node, descriptor: int) -> int:
        """Write all regions of a file, leave out what is zeros; the bytes that were written."""
        regions = self._view.regions(node) if _has_holes(node) else ((0, node.size),)
        written = end = 0
        with self._view.open_node(node) as reader:
            for offset, length in regions:
                if offset:
                    reader.seek(offset)
                for position, data in self._blocks(node, reader, offset, length):
                    end = write_all(descriptor, data, position)
                    written += len(data)
        if end < node.size:
            os.ftruncate(descriptor, node.size)
        return written

    def _blocks(self, node: Node, reader: BufferedReader, offset: int, length: int) -> Iterator[tuple[int, memoryview]]:
        """A region in blocks with their offsets, without runs of zeros."""
        buffer = self._buffer()
        end = offset + length
        while offset < end:
            self._check_stop()
            block = buffer[: min(len(buffer), end - offset)]
            _fill(node, reader, block)
            if len(block) < _HOLE_SIZE_MIN:
                yield offset, block
            else:
                yield from _without_zeros(offset, block)
            offset += len(block)

    def _check_stop(self) -> None:
        if self._is_stopped:
            raise _StoppedError

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "block", None)
        if buffer is None:
            buffer = self._buffers.block = memoryview(bytearray(_BLOCK_SIZE))
        return buffer


def _has_holes(node: Node) -> bool:
    entry = node.entry
    return node.sparse is not None or (entry is not None and entry.sparse_in_payload)


def _fill(node: Node, reader: BufferedReader, block: memoryview) -> None:
    filled = 0
    while filled < len(block):
        count = reader.readinto(block[filled:])
        if not count:
            raise InvalidInputError(f"/{shown(node.path)} is cut short in its layer")
        filled += count


def _without_zeros(offset: int, block: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The parts of a block that are not all zeros, with their offsets."""
    start = 0
    for piece in range(0, len(block), _HOLE_SIZE_MIN):
        part = block[piece : piece + _HOLE_SIZE_MIN]
        # Most pieces are known to be none by a byte or two.
        if part[0] or part[-1] or bytes(part) != _ZEROS[: len(part)]:
            continue
        if start < piece:
            yield offset + start, block[start:piece]
        start = piece + len(part)
    if start < len(block):
        yield offset + start, block[start:]
