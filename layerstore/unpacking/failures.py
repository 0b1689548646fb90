"""The system's errors while a tree is written, as ours."""

import errno

from layerstore.errors import LayerstoreError, StorageError
from layerstore.os_errors import os_error
from layerstore.unpacking.checks import shown

_NEEDS_RIGHTS = frozenset((errno.EPERM, errno.EACCES))


def translated(error: OSError, path: bytes) -> LayerstoreError:
    """Our error for one of the system's at ``path`` below the target."""
    what = f"cannot write /{shown(path)}"
    if error.errno in _NEEDS_RIGHTS:
        return StorageError(f"{what}: {error.strerror}. Rootless unpacking does without root's rights")
    return os_error(error, what)
