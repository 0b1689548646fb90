"""Files of this machine, put into a container."""

import errno
import os
import stat
from contextlib import AbstractContextManager

from layerstore.containers.files import ContainerFiles
from layerstore.containers.upper import write_at
from layerstore.errors import InvalidInputError
from layerstore.os_errors import translate_os_errors
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import PathNotFoundError
from layerstore.union.file_system import FilePath, path_bytes
from layerstore.union.layer_index import join_path
from layerstore.union.node import Node

_BLOCK_SIZE = 1 << 20
_FILE_SIZE_MAX = 2**63 - 1


def add_files(
    container: ContainerFiles, source: str | os.PathLike[str], target: FilePath, *, keep_owners: bool = False
) -> int:
    """Copy a file, or a directory with all below it, to a path of a container; how many files and directories.

    Modes and times come along, owners only with ``keep_owners``: else everything is root's, without set-uid and set-gid
    bits. Files are replaced by new ones, with their holes, and directories merged. Links are copied, not followed, but
    for ``source`` itself. Raises `InvalidInputError` for what is neither file, directory, link nor FIFO, and what the
    changes of a container raise.
    """
    stack = [(os.fsencode(source), path_bytes(target))]
    directories = []
    count = 0
    while stack:
        place, path = stack.pop()
        with _reading(place):
            status = os.stat(place) if not count else os.lstat(place)  # noqa: PTH116 - paths of any bytes
        _add(container, place, path, status)
        if stat.S_ISDIR(status.st_mode):
            with _reading(place):
                names = sorted(map(os.fsencode, os.listdir(place)), reverse=True)  # noqa: PTH208
            stack += [(place + b"/" + name, join_path(path, name)) for name in names]
            directories.append((path, status))
        else:
            _give_attributes(container, path, status, keep_owners)
        count += 1
    for path, status in reversed(directories):
        _give_attributes(container, path, status, keep_owners)
    return count


def _add(container: ContainerFiles, place: bytes, path: bytes, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        _add_contents(container, place, path)
        return
    old = _there(container, path)
    if stat.S_ISDIR(status.st_mode):
        if old is None or not old.is_dir:
            container.mkdir(path)
        return
    if old is not None:
        container.unlink(path)  # a directory refuses
    if stat.S_ISLNK(status.st_mode):
        with _reading(place):
            target = os.readlink(place)  # noqa: PTH115
        container.symlink(target, path)
    elif stat.S_ISFIFO(status.st_mode):
        container.mknod(path, EntryKind.FIFO)
    else:
        raise InvalidInputError(f"{os.fsdecode(place)} is neither file, directory, link nor FIFO")


def _add_contents(container: ContainerFiles, place: bytes, path: bytes) -> None:
    with _reading(place):
        source = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise InvalidInputError(f"{os.fsdecode(place)} is no file any more")
        with container.replacing(path) as target:
            _copy_contents(place, source, target)
    finally:
        os.close(source)


def _copy_contents(place: bytes, source: int, target: int) -> None:
    """Copy what is no hole. A file of /proc tells no size and no holes: it is read to its end."""
    position = end = 0
    while True:
        with _reading(place):
            if position >= end:
                position, end = _next_region(source, position)
            block = os.pread(source, min(_BLOCK_SIZE, end - position), position)
        if not block:
            break
        position = write_at(target, block, position)
    with _reading(place):
        size = os.fstat(source).st_size
    os.ftruncate(target, max(position, size))


def _next_region(source: int, position: int) -> tuple[int, int]:
    """Begin and end of the next contents of a file; an empty region if only a hole is left."""
    try:
        start = os.lseek(source, position, os.SEEK_DATA)
        return start, os.lseek(source, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return position, position
        if error.errno == errno.EINVAL:
            return position, _FILE_SIZE_MAX
        raise


def _give_attributes(container: ContainerFiles, path: bytes, status: os.stat_result, keep_owners: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if keep_owners:
        container.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    else:
        container.chown(path, 0, 0, follow_symlinks=False)
        mode &= ~(stat.S_ISUID | stat.S_ISGID)  # they were the owner's to give
    if not stat.S_ISLNK(status.st_mode):
        container.chmod(path, mode)
    container.utime(path, status.st_mtime_ns, follow_symlinks=False)


def _there(container: ContainerFiles, path: bytes) -> Node | None:
    try:
        return container.lstat(path)
    except PathNotFoundError:
        return None


def _reading(place: bytes) -> AbstractContextManager[None]:
    """Raise our errors for the system's about the source."""
    return translate_os_errors(f"cannot read {os.fsdecode(place)}")
