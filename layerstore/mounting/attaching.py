"""Mounting and unmounting a FUSE file system: as root by the system's calls, else through ``fusermount3``."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

from layerstore.errors import MountUnavailableError
from layerstore.mounting.mount_table import FUSE_KIND
from layerstore.mounting.system_calls import MS_RDONLY, mount, unmount
from layerstore.storage.mount_table import MOUNT_TABLE

_DEVICE = Path("/dev/fuse")
_READ_AHEAD_KIB = 2048
"""Enough for the kernel to ask for the next parts while one is decoded."""


def check_available() -> None:
    """Raise `MountUnavailableError`, which says what helps, where FUSE cannot be used."""
    if not MOUNT_TABLE.exists():
        raise MountUnavailableError("mounting needs Linux with /proc")
    try:
        is_device = stat.S_ISCHR(_DEVICE.stat().st_mode)
    except FileNotFoundError:
        is_device = False
    if not is_device:
        raise MountUnavailableError(f"{_DEVICE} is missing: load the kernel's module with `modprobe fuse`")
    if os.geteuid() != 0:
        if shutil.which("fusermount3") is None:
            raise MountUnavailableError("`fusermount3` is missing: install it, for example with `apt install fuse3`")
        if not os.access(_DEVICE, os.R_OK | os.W_OK):
            raise MountUnavailableError(f"this user may not open {_DEVICE}: ask for access to it, or mount as root")


def mount_fuse(target: Path) -> int:
    """Mount a FUSE file system; the open /dev/fuse to answer it by. Raises `MountUnavailableError`."""
    check_available()
    return _mount_as_root(target) if os.geteuid() == 0 else _mount_by_fusermount(target)


def detach(target: Path) -> None:
    """Take a FUSE file system away from a path, whoever still uses it."""
    with contextlib.suppress(OSError):
        if os.geteuid() == 0:
            unmount(target, lazy=True)
        else:
            run_fusermount(target, lazy=True)


def run_fusermount(target: Path, *, lazy: bool) -> None:
    """Unmount as a user. Raises `OSError` with what fusermount3 says."""
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(target)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise OSError(None, os.fsdecode(done.stderr).strip(), str(target))


def raise_read_ahead(target: Path) -> None:
    """Let the kernel read further ahead than 128 KiB; only root may ask for that."""
    if os.geteuid() != 0:
        return
    # The answer to stat comes from this process's own threads, which run by now.
    device = target.stat().st_dev
    with contextlib.suppress(OSError):
        setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        setting.write_text(f"{_READ_AHEAD_KIB}\n")


def _mount_as_root(target: Path) -> int:
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        try:
            mount("layerstore", target, FUSE_KIND, MS_RDONLY, options.encode())
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise MountUnavailableError(f"cannot mount a FUSE file system at {target}: {error.strerror}") from None
    return descriptor


def _mount_by_fusermount(target: Path) -> int:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            ["fusermount3", "-o", "ro,default_permissions,fsname=layerstore,subtype=layerstore", "--", str(target)],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise MountUnavailableError(f"cannot mount at {target}: {os.fsdecode(done.stderr).strip()}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]
