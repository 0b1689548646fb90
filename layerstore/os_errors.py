"""The operating system's errors as ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from layerstore.errors import LayerstoreError, NoSpaceError, ReadOnlyError, StorageError

ON_FULL_DISK = "Free space on the disk, then try again"
"""What helps then, if it is not known to be a store's disk."""


@contextmanager
def translate_os_errors(what: str, *, on_full_disk: str = ON_FULL_DISK) -> Iterator[None]:
    """Raise our errors for the operating system's; ``what`` says what was tried. Ours that are both pass."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LayerstoreError):
            raise
        raise os_error(error, what, on_full_disk=on_full_disk) from error


def os_error(error: OSError, what: str, *, on_full_disk: str = ON_FULL_DISK) -> LayerstoreError:
    """Our error for one of the operating system; ``what`` says what was tried, ``on_full_disk`` what helps then."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{what}: {reason}. {on_full_disk}")
    if error.errno == errno.EROFS:
        return ReadOnlyError(f"{what}: {reason}")
    return StorageError(f"{what}: {reason}")
