"""Files of places: opened without being led astray, written in one step."""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.errors import (
    BlobNotFoundError,
    InvalidInputError,
)

BLOCK_SIZE = 1 << 20

TEMPORARY_PREFIX = ".layerstore-"
"""How the names of files begin that are being written."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK the open of a FIFO would wait for a writer that never comes.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def opened_directory(path: str | Path, within: int | None = None) -> Iterator[int]:
    """A descriptor of a directory. With ``within``, ``path`` is one name in that directory, and no symbolic link."""
    flags = _DIRECTORY if within is None else _DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(path, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_within(directory: int, steps: Sequence[str], shown: str) -> Iterator[int]:
    """A descriptor of the regular file at ``steps`` below a directory, reached over no symbolic link.

    ``shown`` is what to call it. Raises `BlobNotFoundError` if there is none, and `InvalidInputError` for a link, a
    device, or whatever else is no file.
    """
    held: list[int] = []
    try:
        place = directory
        try:
            for step in steps[:-1]:
                place = os.open(step, _DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
                held.append(place)
            place = os.open(steps[-1], _FILE, dir_fd=place)
            held.append(place)
        except FileNotFoundError:
            raise BlobNotFoundError(f"there is no {shown}") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EMLINK):
                raise InvalidInputError(f"{shown} is no regular file, or behind a symbolic link") from None
            raise
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise InvalidInputError(f"{shown} is no regular file")
        yield place
    finally:
        for descriptor in held:
            os.close(descriptor)


def file_blocks(descriptor: int, offset: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a file from ``offset`` on, fewer if it ends before. The file's position is not used."""
    end = offset + size
    while offset < end:
        block = os.pread(descriptor, min(BLOCK_SIZE, end - offset), offset)
        if not block:
            return
        yield block
        offset += len(block)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write at an offset; the offset behind it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
    return offset


@contextmanager
def temporary_within(directory: int) -> Iterator[tuple[int, str]]:
    """A new file in a directory, descriptor and name, locked for as long as it is written.

    The lock tells it from what a killed process has left (`remove_leftovers`). The file is gone at the end of the
    block, unless it has been renamed.
    """
    while True:
        name = TEMPORARY_PREFIX + secrets.token_hex(8)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.fstat(descriptor).st_nlink:
                continue  # taken for a leftover in the instant before it was locked
            try:
                yield descriptor, name
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            return
        finally:
            os.close(descriptor)


def remove_leftovers(directory: int) -> None:
    """Remove the temporary files of processes that are no more."""
    for name in names_in_directory(directory):
        if not name.startswith(TEMPORARY_PREFIX):
            continue
        with suppress(OSError):  # another process is cleaning, too; or it is no file of ours
            descriptor = os.open(name, _FILE, dir_fd=directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=directory)
            finally:
                os.close(descriptor)


def names_in_directory(directory: int) -> list[str]:
    """The names of the entries of a directory."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def replace_within(directory: int, name: str, data: bytes) -> None:
    """Write a file in a directory durably and in one step."""
    with temporary_within(directory) as (descriptor, temporary):
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def make_directory_within(directory: int, name: str) -> None:
    """Make a directory if it is not there yet, durably."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=directory)
        os.fsync(directory)


def spool(descriptor: int, blocks: Iterable[bytes]) -> int:
    """Write blocks to a file from its beginning on; the number of bytes."""
    offset = 0
    for block in blocks:
        offset = write_all(descriptor, block, offset)
    return offset
