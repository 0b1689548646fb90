"""The operating system's errors as ours."""

import errno

from layerstore.errors import LayerstoreError, NoSpaceError, ReadOnlyError, StorageError


def os_error(error: OSError, what: str, *, on_full_disk: str) -> LayerstoreError:
    """Our error for one of the operating system; ``what`` says what was tried, ``on_full_disk`` what helps then."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{what}: {reason}. {on_full_disk}")
    if error.errno == errno.EROFS:
        return ReadOnlyError(f"{what}: {reason}")
    return StorageError(f"{what}: {reason}")
