"""Errors about paths of a view. Each is a `LayerstoreError` and the `OSError` that the same call on a disk raises."""

import errno
import os

from layerstore.errors import InvalidInputError, NotFoundError


class PathNotFoundError(FileNotFoundError, NotFoundError):
    """The view has nothing at that path (ENOENT)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.ENOENT, os.strerror(errno.ENOENT), path)


class NotADirectoryInViewError(NotADirectoryError, InvalidInputError):
    """A path goes on behind something that is no directory, or a directory was asked for (ENOTDIR)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


class IsADirectoryInViewError(IsADirectoryError, InvalidInputError):
    """A file was asked for where a directory is (EISDIR)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.EISDIR, os.strerror(errno.EISDIR), path)


class LinkLoopError(OSError, InvalidInputError):
    """A path leads through more symbolic links than any system follows (ELOOP)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.ELOOP, os.strerror(errno.ELOOP), path)


class NotReadableError(OSError, InvalidInputError):
    """What is at the path has no contents, or no target, to read: a device, a fifo, no symbolic link (EINVAL)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.EINVAL, os.strerror(errno.EINVAL), path)
