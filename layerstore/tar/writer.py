"""Entries of a layer tar as layerstore writes them: the same attributes give the same bytes.

Headers are ustar, with PAX records for what ustar cannot hold. Left out, because it says something about the machine
and not about the tree: names of users and groups, access and change times, fractions of seconds.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from layerstore.errors import InvalidInputError
from layerstore.tar.entries import EntryKind
from layerstore.tar.header import BLOCK_SIZE

SPARSE_SAVING_MIN = 1 << 20
"""Files are written as sparse entries if that makes the tar smaller by so many bytes."""

SPARSE_REGIONS_MAX = 1 << 16
"""A file of more regions counts as data from there on, so that its map stays small."""

END_MARK = bytes(2 * BLOCK_SIZE)

_NAME_SIZE = 100
_PREFIX_SIZE = 155
_SPARSE_DIRECTORY = b"GNUSparseFile.0/"
_TYPEFLAGS = {
    EntryKind.FILE: b"0",
    EntryKind.HARDLINK: b"1",
    EntryKind.SYMLINK: b"2",
    EntryKind.CHARACTER: b"3",
    EntryKind.BLOCK: b"4",
    EntryKind.DIRECTORY: b"5",
    EntryKind.FIFO: b"6",
}


@dataclass(frozen=True, slots=True)
class EntryHead:
    """What is said of an entry beside its contents."""

    path: bytes
    """Without the slash that directories have at the end."""
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime: int
    """Seconds since 1970."""
    link_target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)

    def blocks(self, *, size: int = 0, real_size: int | None = None) -> bytes:
        """The header, behind the PAX header that it needs if any. ``size`` is that of what follows.

        With ``real_size``, the size of the file, it is a sparse entry (PAX sparse 1.0). Raises `InvalidInputError` for
        what no tar can hold.
        """
        is_directory = self.kind is EntryKind.DIRECTORY
        name = (self.path or b".") + b"/" if is_directory else self.path
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
        target = self.link_target
        if len(target) > _NAME_SIZE or not target.isascii():
            records[b"linkpath"] = target
        has_device = self.kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
        head = [
            (short_name or name[:_NAME_SIZE]).ljust(_NAME_SIZE, b"\0"),
            b"%07o\0" % self.mode,
            _number(records, b"uid", self.uid, 7),
            _number(records, b"gid", self.gid, 7),
            _number(records, b"size", size, 11),
            _number(records, b"mtime", self.mtime, 11),
            b" " * 8,
            _TYPEFLAGS[self.kind],
            target[:_NAME_SIZE].ljust(_NAME_SIZE, b"\0"),
            b"ustar\x0000" + bytes(64),
            b"%07o\0%07o\0" % (self.device if has_device else (0, 0)),
            prefix.ljust(_PREFIX_SIZE + 12, b"\0"),
        ]
        if self.kind is not EntryKind.HARDLINK:
            records.update(self._xattr_records())
        return _pax_header(records) + _with_checksum(b"".join(head))

    def _xattr_records(self) -> dict[bytes, bytes]:
        for name in self.xattrs:
            if b"=" in name:
                raise InvalidInputError(f"{os.fsdecode(self.path)!r}: a tar cannot hold the attribute {name!r}")
        return {b"SCHILY.xattr." + name: value for name, value in self.xattrs.items()}


def file_blocks(head: EntryHead, descriptor: int, size: int, allocated: int) -> Iterator[bytes]:
    """An entry with the contents of an open file of ``size`` bytes, sparse if leaving out its holes saves enough.

    ``allocated`` is what the file takes on the disk. Raises `InvalidInputError` if it has become shorter meanwhile,
    and what the system raises.
    """
    regions = _regions(descriptor, size, allocated)
    if regions is None:
        yield head.blocks(size=size)
        regions = [(0, size)]
    else:
        sparse_map = _sparse_map(regions)
        stored = len(sparse_map) + sum(length for _, length in regions)
        yield head.blocks(size=stored, real_size=size)
        yield sparse_map
    for offset, length in regions:
        while length:
            data = os.pread(descriptor, min(length, 1 << 20), offset)
            if not data:
                raise InvalidInputError(f"{os.fsdecode(head.path)!r} became shorter while it was read")
            yield data
            offset += len(data)
            length -= len(data)
    yield bytes(-sum(length for _, length in regions) % BLOCK_SIZE)


def reblock(parts: Iterable[bytes], block_size: int) -> Iterator[bytes]:
    """The same bytes in blocks of ``block_size``; the last may be shorter."""
    buffer = bytearray()
    for part in parts:
        buffer += part
        while len(buffer) >= block_size:
            yield bytes(memoryview(buffer)[:block_size])
            del buffer[:block_size]
    if buffer:
        yield bytes(buffer)


def _regions(descriptor: int, size: int, allocated: int) -> list[tuple[int, int]] | None:
    """Where the file has data, if leaving out its holes saves enough."""
    if allocated + SPARSE_SAVING_MIN > size:
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
