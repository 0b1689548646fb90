"""mount(2) and umount2(2), which Python does not have."""

import ctypes
import os
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


def mount(source: str | Path, target: Path, kind: str, flags: int, options: bytes = b"") -> None:
    """Mount something. Raises `OSError`."""
    _checked(
        _libc().mount(
            os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), ctypes.c_char_p(options)
        ),
        target,
    )


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Unmount the uppermost mount at a path. Raises `OSError`."""
    _checked(_libc().umount2(os.fsencode(target), _UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)), target)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, target: Path) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))
