"""Owners, modes, times and extended attributes of what was written.

The order matters: chown(2) takes set-uid bits and ``security.capability`` away, a user's attributes need the right to
write, and everything but utimensat(2) itself may touch the time.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from layerstore.tar.entries import EntryKind
from layerstore.union.node import Node
from layerstore.unpacking.report import Tally

ROOTLESS_OWNER = b"user.rootlesscontainers"
"""Where umoci, and what follows https://rootlesscontaine.rs, keep the owner that a user without rights cannot set."""

_NO_OTHER = 2**32 - 1
_HAS_XATTRS = hasattr(os, "setxattr")
_NANOSECONDS = 10**9
_SECONDS_MAX = 2**63 - 1
# Not supported here, not allowed to us, or no name that this system has.
_UNSETTABLE = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ERANGE, errno.EINVAL))

DEVICES = (EntryKind.CHARACTER, EntryKind.BLOCK)
"""What only root can make."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """How attributes are set, and where it is counted what could not be. Each thread has its own."""

    rootless: bool
    owner: tuple[int, int] | None
    """User and group that everything is to belong to, if not to those of the image."""
    tally: Tally

    def set_open(self, descriptor: int, node: Node) -> None:
        """Set all attributes of an open file or directory."""
        if not self.rootless:
            uid, gid = self._owner(node)
            os.fchown(descriptor, uid, gid)
        if node.xattrs or self.rootless:
            for name, value in self._xattrs(node):
                with self._counting(node, name):
                    os.setxattr(descriptor, name, value)
        os.fchmod(descriptor, node.mode)
        os.utime(descriptor, ns=_times(node))

    def set_named(self, directory: int, name: bytes, node: Node) -> None:
        """Set the attributes of a symbolic link, a device or a FIFO that was just made in a directory."""
        if not self.rootless:
            uid, gid = self._owner(node)
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        if node.xattrs or self.rootless:
            # There is no lsetxattrat(2). The descriptor's own entry leads to the directory and nowhere else.
            path = b"/proc/self/fd/%d/%b" % (directory, name)
            for key, value in self._xattrs(node):
                with self._counting(node, key):
                    os.setxattr(path, key, value, follow_symlinks=False)
        if not node.is_symlink:
            # It was made a moment ago, and by us: mknod(2) would have failed had anything stood there.
            os.chmod(name, node.mode, dir_fd=directory)
        os.utime(name, ns=_times(node), dir_fd=directory, follow_symlinks=False)

    def _owner(self, node: Node) -> tuple[int, int]:
        return (node.uid, node.gid) if self.owner is None else self.owner

    def _xattrs(self, node: Node) -> Iterator[tuple[bytes, bytes]]:
        yield from node.xattrs.items()
        if self.rootless and (node.uid or node.gid):
            if node.kind is EntryKind.FILE or node.kind is EntryKind.DIRECTORY or node.kind in DEVICES:
                yield ROOTLESS_OWNER, rootless_owner(node.uid, node.gid)
            else:
                self.tally.owners_not_set += 1  # the system lets only files and directories have such attributes
                self.tally.note(node.path, "owner")

    @contextmanager
    def _counting(self, node: Node, name: bytes) -> Iterator[None]:
        """Count an attribute that cannot be set here, and go on."""
        try:
            if not _HAS_XATTRS:
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
            yield
        except OSError as error:
            if error.errno not in _UNSETTABLE:
                raise
            if name == ROOTLESS_OWNER and self.rootless:
                self.tally.owners_not_set += 1
                self.tally.note(node.path, "owner")
            else:
                self.tally.xattrs_not_set += 1
                self.tally.note(node.path, f"xattr {name.decode('utf-8', 'backslashreplace')}")


def rootless_owner(uid: int, gid: int) -> bytes:
    """The value of `ROOTLESS_OWNER`: a protocol buffer with fields 1 (user) and 2 (group).

    Root, who is whoever unpacked it, is written as "no other", as umoci does.
    """
    return b"\x08" + _varint(uid or _NO_OTHER) + b"\x10" + _varint(gid or _NO_OTHER)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _times(node: Node) -> tuple[int, int]:
    """Access and modification time. What the file system's clock cannot show becomes the nearest that it can."""
    limit = _SECONDS_MAX * _NANOSECONDS
    time = max(-limit, min(limit, node.mtime_ns))
    return time, time
