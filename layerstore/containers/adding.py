"""Files of this machine, put into a container."""

import os
import stat
from contextlib import AbstractContextManager

from layerstore.containers.files import ContainerFiles
from layerstore.errors import InvalidInputError
from layerstore.os_errors import translate_os_errors
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import PathNotFoundError
from layerstore.union.file_system import FilePath, path_bytes
from layerstore.union.layer_index import join_path
from layerstore.union.node import Node

_BLOCK_SIZE = 1 << 20


def add_files(
    container: ContainerFiles, source: str | os.PathLike[str], target: FilePath, *, keep_owners: bool = False
) -> int:
    """Copy a file, or a directory with all below it, to a path of a container; how many files and directories.

    Modes and times come along, owners only with ``keep_owners``: else everything is root's, without set-uid and set-gid
    bits. Files are replaced and
    directories merged, as ``cp -r`` does. Links are copied, not followed, but for ``source`` itself. Raises
    `InvalidInputError` for what is neither file, directory, link nor FIFO, and what the changes of a container raise.
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
    old = _there(container, path)
    if stat.S_ISDIR(status.st_mode):
        if old is None or not old.is_dir:
            container.mkdir(path)
        return
    if old is not None and not (old.is_file and stat.S_ISREG(status.st_mode)):
        container.unlink(path)  # a directory refuses, and a link must not be followed
    if stat.S_ISREG(status.st_mode):
        _add_contents(container, place, path)
    elif stat.S_ISLNK(status.st_mode):
        with _reading(place):
            target = os.readlink(place)  # noqa: PTH115
        container.symlink(target, path)
    elif stat.S_ISFIFO(status.st_mode):
        container.mknod(path, EntryKind.FIFO)
    else:
        raise InvalidInputError(f"{os.fsdecode(place)} is neither file, directory, link nor FIFO")


def _add_contents(container: ContainerFiles, place: bytes, path: bytes) -> None:
    with _reading(place):
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with container.open(path, "wb") as file:
            while True:
                with _reading(place):
                    block = os.read(descriptor, _BLOCK_SIZE)
                if not block:
                    break
                file.write(block)
    finally:
        os.close(descriptor)


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
