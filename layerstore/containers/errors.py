"""Errors about changes to a container. Each is a `LayerstoreError` and the `OSError` of the same call on a disk."""

import errno
import os

from layerstore.errors import ConflictError, InvalidInputError


class PathExistsError(FileExistsError, ConflictError):
    """Something is at the path that was to be made (EEXIST)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.EEXIST, os.strerror(errno.EEXIST), path)


class DirectoryNotEmptyError(OSError, ConflictError):
    """The directory that was to be removed or replaced has something in it (ENOTEMPTY)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)


class UnchangeableError(OSError, InvalidInputError):
    """The change makes no sense: of the root itself, of a directory into itself, to a name that no file can have."""

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(errno.EINVAL, reason, path)
