"""A directory as a deterministic layer tar: the same tree gives the same bytes.

Entries stand in bytewise order of the names in each directory, a directory right before its contents, without an entry
for the root itself: as in the layers that Docker writes. (Bytewise order of whole paths would put "a-b" between "a" and
"a/x", and GNU tar loses the time of a directory whose contents are not in one place.)

`layerstore.tar.writer` says what is left out; the SELinux label is, too. Holes of sparse files do count as part of the
tree.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from layerstore.errors import InvalidInputError, StorageError
from layerstore.tar.entries import EntryKind
from layerstore.tar.writer import END_MARK, EntryHead, file_blocks, reblock

# The host's policy sets it anew on every machine.
_IGNORED_XATTRS = frozenset((b"security.selinux",))
_NO_XATTRS_ERRORS = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM))


def tree_blocks(
    root: Path,
    *,
    mtime_max: int | None = None,
    block_size: int = 1 << 20,
    on_skipped: Callable[[bytes], None] | None = None,
) -> Iterator[bytes]:
    """The tar of the tree below ``root``, in blocks of ``block_size`` bytes; the last may be shorter.

    Times after ``mtime_max`` (seconds since 1970) become that time. Second and later names of a file, in the order of
    the tar, are hard links. Sockets are left out, and ``on_skipped`` is told their paths below ``root``. Raises
    `InvalidInputError` if ``root`` is no directory or if something below it changes meanwhile, `StorageError` if the
    system refuses to read it.
    """
    base = os.fsencode(root)
    try:
        if not stat.S_ISDIR(os.stat(base).st_mode):  # noqa: PTH116 - names that are not UTF-8 stay bytes throughout
            raise InvalidInputError(f"{root} is not a directory")
    except OSError as error:
        raise _reading_error(base, error) from error
    return reblock(_tar(base, mtime_max, on_skipped), block_size)


@dataclass(frozen=True, slots=True)
class _Node:
    """Something in the tree, as it was seen first."""

    path: bytes
    """On disk."""
    name: bytes
    """In the tar; without the slash that directories have there."""
    status: os.stat_result


def _tar(base: bytes, mtime_max: int | None, on_skipped: Callable[[bytes], None] | None) -> Iterator[bytes]:
    links: dict[tuple[int, int], tuple[bytes, int]] = {}
    for node in _walk(base):
        kind = EntryKind.of_mode(node.status.st_mode)
        if kind is None:
            if on_skipped is not None:
                on_skipped(node.name)
            continue
        target = b""
        if kind is not EntryKind.DIRECTORY and node.status.st_nlink > 1:
            target = _first_name(links, node)
        if target:
            yield _head(node, EntryKind.HARDLINK, mtime_max, target).blocks()
        elif kind is EntryKind.FILE:
            yield from _file(node, mtime_max)
        else:
            target = _link_target(node) if kind is EntryKind.SYMLINK else b""
            yield _head(node, kind, mtime_max, target).blocks()
    yield END_MARK


def _walk(base: bytes) -> Iterator[_Node]:
    """Everything below ``base``, with one directory listing per level in memory."""
    stack = [(base, b"", _names(base, 0))]
    while stack:
        directory, prefix, names = stack[-1]
        if not names:
            stack.pop()
            continue
        name = names.pop()
        path = directory + b"/" + name
        try:
            status = os.lstat(path)
        except OSError as error:
            raise _reading_error(path, error) from error
        yield _Node(path, prefix + name, status)
        if stat.S_ISDIR(status.st_mode):
            # By now it may be a link that leads out of the tree.
            stack.append((path, prefix + name + b"/", _names(path, os.O_NOFOLLOW)))


def _names(directory: bytes, flags: int) -> list[bytes]:
    """The names in ``directory``, last first."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
        try:
            return sorted(map(os.fsencode, os.listdir(descriptor)), reverse=True)  # noqa: PTH208 - of a descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _reading_error(directory, error) from error


def _first_name(links: dict[tuple[int, int], tuple[bytes, int]], node: _Node) -> bytes:
    """The name under which the file was written before; empty at the first time."""
    status = node.status
    key = (status.st_dev, status.st_ino)
    name, left = links.get(key, (b"", status.st_nlink))
    if left > 1:
        links[key] = (name or node.name, left - 1)
    else:
        links.pop(key, None)
    return name


def _head(node: _Node, kind: EntryKind, mtime_max: int | None, target: bytes = b"") -> EntryHead:
    status = node.status
    mtime = status.st_mtime_ns // 10**9
    return EntryHead(
        node.name,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        mtime if mtime_max is None else min(mtime, mtime_max),
        target,
        (os.major(status.st_rdev), os.minor(status.st_rdev)),
        {} if kind is EntryKind.HARDLINK else _xattrs(node),
    )


def _file(node: _Node, mtime_max: int | None) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: it may be a fifo by now
    head = _head(node, EntryKind.FILE, mtime_max)
    try:
        descriptor = os.open(node.path, flags)
    except OSError as error:
        raise _reading_error(node.path, error) from error
    try:
        _check_unchanged(node, os.fstat(descriptor))
        blocks = file_blocks(head, descriptor, node.status.st_size, node.status.st_blocks * 512)
        while True:
            try:
                block = next(blocks, None)
            except OSError as error:
                raise _reading_error(node.path, error) from error
            if block is None:
                break
            yield block
        _check_unchanged(node, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _check_unchanged(node: _Node, status: os.stat_result) -> None:
    then = node.status
    if (then.st_dev, then.st_ino, then.st_size, then.st_mtime_ns, stat.S_IFMT(then.st_mode)) != (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        stat.S_IFMT(status.st_mode),
    ):
        raise InvalidInputError(f"{os.fsdecode(node.path)!r} changed while it was read")


def _xattrs(node: _Node) -> dict[bytes, bytes]:
    found = {}
    if sys.platform == "linux":
        try:
            for name in os.listxattr(node.path, follow_symlinks=False):
                raw = os.fsencode(name)
                if raw not in _IGNORED_XATTRS:
                    found[raw] = os.getxattr(node.path, name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_XATTRS_ERRORS:
                raise _reading_error(node.path, error) from error
    return found


def _link_target(node: _Node) -> bytes:
    try:
        return os.readlink(node.path)  # noqa: PTH115 - bytes, see above
    except OSError as error:
        raise _reading_error(node.path, error) from error


def _reading_error(path: bytes, error: OSError) -> InvalidInputError | StorageError:
    name = os.fsdecode(path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return InvalidInputError(f"{name!r} is not there, or became something else while it was read")
    return StorageError(f"{name!r} cannot be read: {error.strerror}")
