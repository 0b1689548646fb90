"""A directory as a deterministic layer tar: the same tree gives the same bytes.

Entries stand in bytewise order of the names in each directory, a directory right before its contents, without an entry
for the root itself: as in the layers that Docker writes. (Bytewise order of whole paths would put "a-b" between "a" and
"a/x", and GNU tar loses the time of a directory whose contents are not in one place.)

Headers are ustar, with PAX records for what ustar cannot hold. Left out, because it says something about the machine
and not about the tree: names of users and groups, access and change times, fractions of seconds, the SELinux label.
Holes of sparse files do count as part of the tree.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from layerstore.errors import InvalidInputError, StorageError
from layerstore.tar.header import BLOCK_SIZE

SPARSE_SAVING_MIN = 1 << 20
"""Files are written as sparse entries if that makes the tar smaller by so many bytes."""

SPARSE_REGIONS_MAX = 1 << 16
"""A file of more regions counts as data from there on, so that its map stays small."""

_NAME_SIZE = 100
_PREFIX_SIZE = 155
_SPARSE_DIRECTORY = b"GNUSparseFile.0/"
# The host's policy sets it anew on every machine.
_IGNORED_XATTRS = frozenset((b"security.selinux",))
_NO_XATTRS_ERRORS = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM))
_TYPEFLAGS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_HARD_LINK = b"1"


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
    return _reblock(_tar(base, mtime_max, on_skipped), block_size)


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
        status = node.status
        typeflag = _TYPEFLAGS.get(stat.S_IFMT(status.st_mode))
        if typeflag is None:
            if on_skipped is not None:
                on_skipped(node.name)
            continue
        target = b""
        if typeflag != b"5" and status.st_nlink > 1:
            target = _first_name(links, node)
        if target:
            yield _head(node, _HARD_LINK, mtime_max, target=target)
        elif typeflag == b"2":
            yield _head(node, typeflag, mtime_max, target=_link_target(node))
        elif typeflag == b"0":
            yield from _file(node, mtime_max)
        else:
            yield _head(node, typeflag, mtime_max)
    yield bytes(2 * BLOCK_SIZE)


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


def _file(node: _Node, mtime_max: int | None) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: it may be a fifo by now
    try:
        descriptor = os.open(node.path, flags)
    except OSError as error:
        raise _reading_error(node.path, error) from error
    try:
        _check_unchanged(node, os.fstat(descriptor))
        size = node.status.st_size
        regions = _regions(descriptor, node.status)
        if regions is None:
            yield _head(node, b"0", mtime_max, size=size)
            regions = [(0, size)]
        else:
            sparse_map = _sparse_map(regions)
            stored = len(sparse_map) + sum(length for _, length in regions)
            yield _head(node, b"0", mtime_max, size=stored, real_size=size)
            yield sparse_map
        for offset, length in regions:
            yield from _contents(node, descriptor, offset, length)
        yield bytes(-sum(length for _, length in regions) % BLOCK_SIZE)
        _check_unchanged(node, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _contents(node: _Node, descriptor: int, offset: int, length: int) -> Iterator[bytes]:
    while length:
        try:
            data = os.pread(descriptor, min(length, 1 << 20), offset)
        except OSError as error:
            raise _reading_error(node.path, error) from error
        if not data:
            raise InvalidInputError(f"{os.fsdecode(node.path)!r} became shorter while it was read")
        yield data
        offset += len(data)
        length -= len(data)


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


def _regions(descriptor: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Where the file has data, if leaving out its holes saves enough."""
    size = status.st_size
    if status.st_blocks * 512 + SPARSE_SAVING_MIN > size:
        return None
    regions: list[tuple[int, int]] = []
    position = 0
    try:
        while position < size:
            start = max(os.lseek(descriptor, position, os.SEEK_DATA) // BLOCK_SIZE * BLOCK_SIZE, position)
            # GNU tar begins every region at a block of the tar: only the last may have an odd length.
            end = -(-os.lseek(descriptor, start, os.SEEK_HOLE) // BLOCK_SIZE) * BLOCK_SIZE
            if len(regions) == SPARSE_REGIONS_MAX:
                end = size
            end = min(end, size)
            regions.append((start, end - start))
            position = end
    except OSError as error:
        if error.errno != errno.ENXIO:  # only a hole is left
            return None
    if not regions or position < size:
        regions.append((size, 0))
    saving = size - sum(length for _, length in regions) - len(_sparse_map(regions)) - 2 * BLOCK_SIZE
    return regions if saving >= SPARSE_SAVING_MIN else None


def _sparse_map(regions: list[tuple[int, int]]) -> bytes:
    """The map that a PAX sparse 1.0 entry has in front of its data."""
    numbers = [len(regions), *(number for region in regions for number in region)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % BLOCK_SIZE)


def _head(
    node: _Node,
    typeflag: bytes,
    mtime_max: int | None,
    *,
    size: int = 0,
    target: bytes = b"",
    real_size: int | None = None,
) -> bytes:
    """The header of an entry, behind the PAX header that it needs if any. ``real_size``: it is sparse."""
    status = node.status
    name = node.name + b"/" if typeflag == b"5" else node.name
    mtime = status.st_mtime_ns // 10**9
    if mtime_max is not None:
        mtime = min(mtime, mtime_max)
    records: dict[bytes, bytes] = {}
    if real_size is not None:
        records[b"GNU.sparse.major"] = b"1"
        records[b"GNU.sparse.minor"] = b"0"
        records[b"GNU.sparse.name"] = name
        records[b"GNU.sparse.realsize"] = b"%d" % real_size
        name = _SPARSE_DIRECTORY + name.rpartition(b"/")[2]
    prefix, short_name = _split_name(name)
    if real_size is None and (not short_name or not name.isascii()):
        records[b"path"] = name
    if len(target) > _NAME_SIZE or not target.isascii():
        records[b"linkpath"] = target
    device = status.st_rdev if typeflag in (b"3", b"4") else 0
    head = [
        (short_name or name[:_NAME_SIZE]).ljust(_NAME_SIZE, b"\0"),
        b"%07o\0" % stat.S_IMODE(status.st_mode),
        _number(records, b"uid", status.st_uid, 7),
        _number(records, b"gid", status.st_gid, 7),
        _number(records, b"size", size, 11),
        _number(records, b"mtime", mtime, 11),
        b" " * 8,
        typeflag,
        target[:_NAME_SIZE].ljust(_NAME_SIZE, b"\0"),
        b"ustar\x0000" + bytes(64),
        b"%07o\0%07o\0" % (os.major(device), os.minor(device)),
        prefix.ljust(_PREFIX_SIZE + 12, b"\0"),
    ]
    if typeflag != _HARD_LINK:
        records.update(_xattr_records(node))
    return _pax_header(records) + _with_checksum(b"".join(head))


def _number(records: dict[bytes, bytes], keyword: bytes, value: int, digits: int) -> bytes:
    """A field of ``digits`` octal digits and a NUL. A value that does not fit goes to ``records``."""
    if not 0 <= value < 8**digits:
        records[keyword] = b"%d" % value
        value = 0
    return b"%0*o\0" % (digits, value)


def _split_name(name: bytes) -> tuple[bytes, bytes]:
    """Prefix and name as ustar has them; the name is empty if it does not fit."""
    if len(name) <= _NAME_SIZE:
        return b"", name
    slash = name.find(b"/", len(name) - _NAME_SIZE - 1, len(name) - 1)
    if 0 < slash <= _PREFIX_SIZE:
        return name[:slash], name[slash + 1 :]
    return b"", b""


def _pax_header(records: dict[bytes, bytes]) -> bytes:
    if not records:
        return b""
    body = b"".join(_record(keyword, records[keyword]) for keyword in sorted(records))
    if not all(_is_utf8(records.get(keyword, b"")) for keyword in (b"path", b"linkpath", b"GNU.sparse.name")):
        body = _record(b"hdrcharset", b"BINARY") + body
    head = [
        b"././@PaxHeader".ljust(_NAME_SIZE, b"\0"),
        b"0000000\0" * 3,
        b"%011o\0" % len(body),
        b"%011o\0" % 0,
        b" " * 8,
        b"x".ljust(_NAME_SIZE + 1, b"\0"),
        b"ustar\x0000".ljust(255, b"\0"),
    ]
    return _with_checksum(b"".join(head)) + body + bytes(-len(body) % BLOCK_SIZE)


def _record(keyword: bytes, value: bytes) -> bytes:
    """One PAX record; its length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)


def _with_checksum(header: bytes) -> bytes:
    return b"%s%06o\0 %s" % (header[:148], sum(header), header[156:])


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _xattr_records(node: _Node) -> dict[bytes, bytes]:
    records = {}
    if sys.platform == "linux":
        try:
            for name in os.listxattr(node.path, follow_symlinks=False):
                raw = os.fsencode(name)
                if b"=" in raw:
                    raise InvalidInputError(f"{os.fsdecode(node.path)!r}: a tar cannot hold the attribute {name!r}")
                if raw not in _IGNORED_XATTRS:
                    records[b"SCHILY.xattr." + raw] = os.getxattr(node.path, name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_XATTRS_ERRORS:
                raise _reading_error(node.path, error) from error
    return records


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


def _reblock(parts: Iterable[bytes], block_size: int) -> Iterator[bytes]:
    buffer = bytearray()
    for part in parts:
        buffer += part
        while len(buffer) >= block_size:
            yield bytes(memoryview(buffer)[:block_size])
            del buffer[:block_size]
    if buffer:
        yield bytes(buffer)
