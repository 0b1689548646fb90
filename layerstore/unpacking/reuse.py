"""Files of an earlier unpacking, taken instead of being written again.

As rsync's ``--link-dest`` does, a file of the same path, size and time is taken for the same.
"""

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from layerstore.directories import Directories
from layerstore.union.node import Node

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)


@dataclass(frozen=True, slots=True)
class Reuse:
    """An earlier unpacking that files are taken from."""

    root: int
    """Its directory, open."""
    hard_links: bool
    """Whether a file may become one with the earlier one; else only the blocks of both are shared."""


class EarlierFiles:
    """The files below an open directory. One thread uses it at a time."""

    def __init__(self, root: int) -> None:
        self._directories = Directories(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directories.close()

    def clone(self, node: Node, descriptor: int) -> bool:
        """Let a new file share the blocks of the earlier one (ioctl_ficlone(2)); false if that cannot be."""
        folder = self._folder_of(node)
        if folder is None:
            return False
        with suppress(OSError):  # another file system, or one that shares no blocks
            source = os.open(node.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                if _is_same(node, os.fstat(source)):
                    fcntl.ioctl(descriptor, _FICLONE, source)
                    return True
            finally:
                os.close(source)
        return False

    def link(self, node: Node, directory: int, name: bytes, owner: tuple[int, int]) -> bool:
        """Make the earlier file a further name in a directory; false if anything of it is not as it has to be."""
        folder = self._folder_of(node)
        if folder is None:
            return False
        with suppress(OSError):
            status = os.stat(node.name, dir_fd=folder, follow_symlinks=False)
            same_mode = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (node.mode, *owner)
            if same_mode and _is_same(node, status) and _xattrs(folder, node.name) == dict(node.xattrs):
                os.link(node.name, name, src_dir_fd=folder, dst_dir_fd=directory, follow_symlinks=False)
                return True
        return False

    def _folder_of(self, node: Node) -> int | None:
        try:
            return self._directories.open(node.path.rpartition(b"/")[0])
        except OSError:
            return None


def _is_same(node: Node, status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (node.size, node.mtime_ns)


def _xattrs(directory: int, name: bytes) -> dict[bytes, bytes]:
    path = b"/proc/self/fd/%d/%b" % (directory, name)
    names = os.listxattr(path, follow_symlinks=False)
    return {os.fsencode(one): os.getxattr(path, one, follow_symlinks=False) for one in names}
