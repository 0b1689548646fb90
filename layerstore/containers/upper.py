"""The directory of a container layer, one step at a time: names in open directories, never paths.

Its form is that of overlayfs (https://docs.kernel.org/filesystems/overlayfs.html): a device 0:0 is a whiteout, an
attribute marks a directory as opaque. Where a container has no root behind it, overlayfs has both in its form for users
(``userxattr``), and what only root can set (owners, devices, other attributes than a user's) is told by attributes of
our own, ``user.layerstore.stat`` and ``user.layerstore.xattr.*``. Not by ``user.containers.override_stat``: where the
uppermost directory has it, fuse-overlayfs wants it on every file, and does not give it to those that it makes.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from layerstore.directories import PATH_LENGTH_MAX
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import NotReadableError

_KEPT_STAT = b"user.layerstore.stat"
_HIDDEN_XATTR = b"user.layerstore.xattr."
_RESERVED = (
    b"trusted.overlay.",
    b"user.overlay.",
    b"user.fuseoverlayfs.",
    b"user.containers.override_",
    _KEPT_STAT,
    _HIDDEN_XATTR,
)
_OPAQUE_MARKS = (b"trusted.overlay.opaque",)
_OPAQUE_MARKS_OF_USERS = (b"user.overlay.opaque", b"user.fuseoverlayfs.opaque")
_OPAQUE_FILE = b".wh..wh..opq"
"""What fuse-overlayfs puts into an opaque directory besides its mark."""
_NO_XATTRS = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM, errno.EACCES))
_KEPT_KINDS = {
    EntryKind.FILE: b"file",
    EntryKind.DIRECTORY: b"dir",
    EntryKind.SYMLINK: b"symlink",
    EntryKind.CHARACTER: b"char",
    EntryKind.BLOCK: b"block",
    EntryKind.FIFO: b"pipe",
}
_CAPABILITY = b"security.capability"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is kept of a file beside its contents."""

    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    device: tuple[int, int] = (0, 0)
    link_target: bytes = b""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """What stands under a name of the upper directory."""

    attributes: Attributes
    size: int
    links: int
    number: int
    """The number of its inode on the disk."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """A name in a directory of the upper directory, as far as the tree needs it."""

    name: bytes
    kind: EntryKind | None
    """None for what hides the name: a whiteout, or a socket."""
    link_target: bytes
    is_opaque: bool


class UpperDirectory:
    """How names, attributes, whiteouts and marks stand on the disk.

    ``owners_kept``: by attributes, as a user without root's rights can do it.
    """

    def __init__(self, *, owners_kept: bool) -> None:
        self._owners_kept = owners_kept
        self._opaque = b"user.overlay.opaque" if owners_kept else b"trusted.overlay.opaque"

    # --- reading ------------------------------------------------------------------------------------------------------

    def scan(self, directory: int) -> Iterator[Scanned]:
        """All names in an open directory. A socket, which no layer has, hides what was there before, too."""
        with os.scandir(directory) as found:
            entries = [(os.fsencode(one.name), one.stat(follow_symlinks=False)) for one in found]
        for name, status in sorted(entries):
            if self._owners_kept and name == _OPAQUE_FILE:
                continue
            kind = EntryKind.of_mode(status.st_mode)
            if kind is None or is_whiteout(status):
                yield Scanned(name, None, b"", is_opaque=False)
                continue
            if self._owners_kept and kind is EntryKind.FILE:
                kept = self._kept_stat(directory, name)
                kind = kind if kept is None else kept.kind
            target = self._link_target(directory, name, status) if kind is EntryKind.SYMLINK else b""
            opaque = kind is EntryKind.DIRECTORY and self.is_opaque(directory, name)
            yield Scanned(name, kind, target, opaque)

    def is_opaque(self, directory: int, name: bytes) -> bool:
        """Whether a directory shows nothing of the layers below."""
        marks = _OPAQUE_MARKS_OF_USERS if self._owners_kept else _OPAQUE_MARKS  # the others mean nothing to the kernel
        return any(_get_xattr(entry_path(directory, name), mark) == b"y" for mark in marks)

    def state(self, directory: int, name: bytes) -> State:
        """What stands under a name; an empty name is the directory itself."""
        path = entry_path(directory, name)
        status = os.stat(directory) if not name else os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = EntryKind.of_mode(status.st_mode)
        if kind is None:
            raise NotReadableError(name)  # a socket that has taken the place of what was in the tree
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        xattrs = self._xattrs(path) if kind in (EntryKind.FILE, EntryKind.DIRECTORY) or not self._owners_kept else {}
        attributes = Attributes(
            kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, device, b"", xattrs
        )
        if self._owners_kept:
            attributes = self._as_kept(directory, name, attributes)
        if attributes.kind is EntryKind.SYMLINK:
            attributes = replace(attributes, mode=0o777, link_target=self._link_target(directory, name, status))
        size = status.st_size if attributes.kind is EntryKind.FILE else 0
        links = 1 if kind is EntryKind.DIRECTORY else status.st_nlink
        return State(attributes, size, links, status.st_ino)

    def _xattrs(self, path: bytes) -> dict[bytes, bytes]:
        found = {}
        for name in _list_xattrs(path):
            if name.startswith(_HIDDEN_XATTR) and self._owners_kept:
                found[name[len(_HIDDEN_XATTR) :]] = _get_xattr(path, name)
            elif not name.startswith(_RESERVED) and not (self._owners_kept and not name.startswith(b"user.")):
                found[name] = _get_xattr(path, name)
        return {name: value for name, value in found.items() if value is not None}

    def _as_kept(self, directory: int, name: bytes, real: Attributes) -> Attributes:
        kept = self._kept_stat(directory, name) if real.kind in (EntryKind.FILE, EntryKind.DIRECTORY) else None
        if kept is None:
            # The user is the container's root; nobody else can have made it.
            return replace(real, uid=0, gid=0)
        kind = real.kind if real.kind is EntryKind.DIRECTORY else kept.kind
        # Who changes the mode through fuse-overlayfs changes the real one.
        mode = kept.mode if real.mode == _real_mode(kind, kept.mode) else real.mode
        return replace(real, kind=kind, mode=mode, uid=kept.uid, gid=kept.gid, device=kept.device)

    def _kept_stat(self, directory: int, name: bytes) -> Attributes | None:
        value = _get_xattr(entry_path(directory, name), _KEPT_STAT)
        return None if value is None else _parse_kept_stat(value)

    def _link_target(self, directory: int, name: bytes, status: os.stat_result) -> bytes:
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=directory)
        descriptor = open_file(directory, name, os.O_RDONLY)
        try:
            return os.read(descriptor, PATH_LENGTH_MAX)
        finally:
            os.close(descriptor)

    # --- making -------------------------------------------------------------------------------------------------------

    def make(self, directory: int, name: bytes, attributes: Attributes) -> None:
        """Make something new with all of its attributes; a file is empty."""
        kind = attributes.kind
        if kind is EntryKind.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=directory)
        elif kind is EntryKind.SYMLINK and not (self._owners_kept and (attributes.uid or attributes.gid)):
            os.symlink(attributes.link_target, name, dir_fd=directory)
        elif kind is EntryKind.FILE or self._owners_kept:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                if kind is EntryKind.SYMLINK:
                    os.write(descriptor, attributes.link_target)
            finally:
                os.close(descriptor)
        else:
            os.mknod(name, kind.file_type | 0o600, os.makedev(*attributes.device), dir_fd=directory)
        self.set_attributes(directory, name, attributes)

    def set_attributes(self, directory: int, name: bytes, attributes: Attributes) -> None:
        """Give all attributes to what was just made: owner, extended attributes, mode, time, in this order."""
        self.set_owner_and_mode(directory, name, attributes, first=True)
        path = entry_path(directory, name)
        for key, value in attributes.xattrs.items():
            if not key.startswith(_RESERVED):
                self.set_xattr(path, key, value)
        self._set_mode(directory, name, attributes)
        set_time(directory, name, attributes.mtime_ns)

    def set_owner_and_mode(self, directory: int, name: bytes, attributes: Attributes, *, first: bool = False) -> None:
        """Set owner and mode, as the attributes have them."""
        if self._owners_kept:
            self._keep_owner(directory, name, attributes)
            return
        path = entry_path(directory, name)
        capability = None if first else _get_xattr(path, _CAPABILITY)
        _chown(directory, name, attributes.uid, attributes.gid)
        if capability is not None:  # chown(2) takes it away; what is changed here is the owner alone
            os.setxattr(path, _CAPABILITY, capability, follow_symlinks=False)
        if not first:
            self._set_mode(directory, name, attributes)

    def _set_mode(self, directory: int, name: bytes, attributes: Attributes) -> None:
        if not self._owners_kept and attributes.kind is not EntryKind.SYMLINK:
            os.chmod(entry_path(directory, name), attributes.mode)  # noqa: PTH101

    def _keep_owner(self, directory: int, name: bytes, attributes: Attributes) -> None:
        path = entry_path(directory, name)
        if stat.S_ISLNK(os.lstat(path).st_mode):
            if attributes.uid or attributes.gid:
                raise PermissionError(errno.EPERM, "only root can give a symbolic link to another user", name)
            return
        os.chmod(path, _real_mode(attributes.kind, attributes.mode))  # noqa: PTH101
        os.setxattr(path, _KEPT_STAT, _format_kept_stat(attributes), follow_symlinks=False)

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """Set an extended attribute of what is at `entry_path`."""
        os.setxattr(path, self._stored_name(name), value, follow_symlinks=False)

    def remove_xattr(self, path: bytes, name: bytes) -> None:
        """Remove an extended attribute of what is at `entry_path`."""
        os.removexattr(path, self._stored_name(name), follow_symlinks=False)

    def give_up_capability(self, directory: int, name: bytes) -> None:
        """Take from a file that is written to what the kernel takes from it where it is a real attribute."""
        if self._owners_kept:
            path = entry_path(directory, name)
            if _get_xattr(path, _HIDDEN_XATTR + _CAPABILITY) is not None:
                self.remove_xattr(path, _CAPABILITY)

    def _stored_name(self, name: bytes) -> bytes:
        return name if not self._owners_kept or name.startswith(b"user.") else _HIDDEN_XATTR + name

    def mark_opaque(self, directory: int, name: bytes) -> None:
        """Let a directory show nothing of the layers below."""
        os.setxattr(entry_path(directory, name), self._opaque, b"y", follow_symlinks=False)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this hides what the layers below have under its name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_reserved(xattr: bytes) -> bool:
    """Whether an extended attribute of that name would mean something to overlayfs, or to us."""
    return xattr.startswith(_RESERVED)


def make_whiteout(directory: int, name: bytes) -> None:
    """Make a device 0:0, which Linux lets everybody do since version 5.8."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)


def set_time(directory: int, name: bytes, mtime_ns: int) -> None:
    """Set the time of modification; that of the last access is the same."""
    if name:
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)
    else:
        os.utime(directory, ns=(mtime_ns, mtime_ns))


def entry_path(directory: int, name: bytes) -> bytes:
    """A path for the calls that take no open directory: its descriptor's own entry leads there and nowhere else."""
    return b"/proc/self/fd/%d/%b" % (directory, name or b".")


def open_file(directory: int, name: bytes, flags: int) -> int:
    """A descriptor of a regular file in an open directory. Raises `NotReadableError` for anything else.

    A program may put a FIFO or a device in its place at any moment: to open those may wait for ever, or do something.
    So what stands there is looked at first, and what was looked at is opened.
    """
    there = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(there).st_mode):
            raise NotReadableError(name)
        return os.open(b"/proc/self/fd/%d" % there, flags | os.O_CLOEXEC)
    finally:
        os.close(there)


def write_at(descriptor: int, data: bytes, offset: int) -> int:
    """Write all of it at an offset; the offset behind it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
    return offset


def _real_mode(kind: EntryKind, mode: int) -> int:
    """The mode on the disk of what has another in the container: its user can always come back to it.

    Set-uid bits would give that user's rights away.
    """
    if kind is EntryKind.DIRECTORY:
        return mode & 0o1777 | 0o700
    return mode & 0o777 | 0o600 if kind is EntryKind.FILE else 0o600


def _chown(directory: int, name: bytes, uid: int, gid: int) -> None:
    if name:
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    else:
        os.fchown(directory, uid, gid)


def _list_xattrs(path: bytes) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return []
        raise


def _get_xattr(path: bytes, name: bytes) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return None
        raise


def _format_kept_stat(attributes: Attributes) -> bytes:
    kind = _KEPT_KINDS[attributes.kind]
    if attributes.kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
        kind += b"-%d-%d" % attributes.device
    return b"%d:%d:0%o:%b" % (attributes.uid, attributes.gid, attributes.mode, kind)


def _parse_kept_stat(value: bytes) -> Attributes | None:
    """None for what is not in the form: others may set the attribute, too."""
    try:
        uid, gid, mode, *rest = value.split(b":")
        kind, *device = (rest[0] if rest else b"file").split(b"-")
        kinds = {text: kind for kind, text in _KEPT_KINDS.items()}
        pair = (int(device[0]), int(device[1])) if len(device) == 2 else (0, 0)
        return Attributes(kinds.get(kind, EntryKind.FILE), int(mode, 8) & 0o7777, int(uid), int(gid), 0, pair)
    except (ValueError, IndexError):
        return None
