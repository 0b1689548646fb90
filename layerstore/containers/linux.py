"""What Python lacks of Linux: renameat2(2) and syncfs(2)."""

import ctypes
import os
import sys

_RENAME_EXCHANGE = 2
_RENAME_WHITEOUT = 4
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def exchange(directory: int, name: bytes, other_directory: int, other_name: bytes) -> None:
    """Let two names change places, in one step."""
    _renameat2(directory, name, other_directory, other_name, _RENAME_EXCHANGE)


def rename_leaving_whiteout(directory: int, name: bytes, new_directory: int, new_name: bytes) -> None:
    """Rename, and leave a device 0:0 under the old name, in one step."""
    _renameat2(directory, name, new_directory, new_name, _RENAME_WHITEOUT)


def sync_file_system(descriptor: int) -> None:
    """Make everything durable that was written to the file system of an open file."""
    if _libc is None:
        os.sync()
    else:
        _check(_libc.syncfs(descriptor))


def _renameat2(directory: int, name: bytes, other_directory: int, other_name: bytes, flags: int) -> None:
    if _libc is None:
        raise OSError("renameat2 is there on Linux alone")
    _check(_libc.renameat2(directory, name, other_directory, other_name, flags))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
