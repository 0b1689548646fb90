"""The entries of a layer, read from its skeleton alone: for the file index and the union view.

Contents pass by as lengths only. Names are kept as the bytes they are, be they absolute, repeated, not UTF-8 or full of
``..``: what to make of them is the business of those who resolve paths.
"""

import stat
from dataclasses import dataclass, field, replace
from enum import IntEnum

from layerstore.errors import InvalidInputError
from layerstore.tar.header import Header, parse_decimal, parse_sparse_regions, pax_records
from layerstore.tar.splitter import TarGrammar

SPARSE_REGIONS_MAX = 1 << 18
"""Entries that list more regions than this have no `TarEntry.sparse`: a region takes six times its size in the tar."""

_OLD_GNU_SPARSE_TYPE = ord("S")
_GLOBAL_PAX_TYPE = ord("g")
_LONG_NAME_TYPE = ord("L")
_LONG_LINK_TYPE = ord("K")
_XATTR_PREFIX = b"SCHILY.xattr."
# What a global header may say about every entry. Paths and attributes for all make no sense, and would let a small tar
# describe entries of unbounded size.
_GLOBAL_KEYWORDS = frozenset((b"uid", b"gid", b"uname", b"gname", b"mtime"))
_NANOSECONDS = 10**9


class EntryKind(IntEnum):
    """What an entry is. The numbers are stored in file indexes and never change."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    HARDLINK = 3
    CHARACTER = 4
    BLOCK = 5
    FIFO = 6
    OTHER = 7

    @property
    def file_type(self) -> int:
        """The file type in a mode (``stat.S_IFREG``, …); 0 for what is no file of a system."""
        return _FILE_TYPES.get(self, 0)

    @classmethod
    def of_mode(cls, mode: int) -> "EntryKind | None":
        """The kind of a file from its mode; None for a socket, which no tar has."""
        return _KINDS_BY_TYPE.get(stat.S_IFMT(mode))


_FILE_TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_KINDS_BY_TYPE = {bits: kind for kind, bits in _FILE_TYPES.items()}

_KINDS = {
    0: EntryKind.FILE,
    ord("0"): EntryKind.FILE,
    ord("7"): EntryKind.FILE,  # "contiguous": a file to every system of today
    _OLD_GNU_SPARSE_TYPE: EntryKind.FILE,
    ord("1"): EntryKind.HARDLINK,
    ord("2"): EntryKind.SYMLINK,
    ord("3"): EntryKind.CHARACTER,
    ord("4"): EntryKind.BLOCK,
    ord("5"): EntryKind.DIRECTORY,
    ord("6"): EntryKind.FIFO,
}


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry of a tar. Offsets count from the begin of the uncompressed stream."""

    path: bytes
    """`raw_path` without leading ``./`` and trailing slashes; empty for the root directory."""
    raw_path: bytes
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    uname: bytes
    gname: bytes
    size: int
    """Size of the file when extracted: holes count. 0 for everything that has no contents."""
    mtime_ns: int
    link_target: bytes
    """Target of a symbolic or hard link, as written (a hard link's goes through `normalise_path` to match a `path`)."""
    device: tuple[int, int]
    """Major and minor number."""
    header_offset: int
    """Where the first block stands that belongs to the entry, be it one of its metadata."""
    payload_offset: int
    payload_size: int
    """How many bytes of contents are in the stream; fewer than announced if the stream was cut."""
    after_end: bool
    """Whether it stands behind an end-of-archive mark: container engines stop there and never see it."""
    sparse: list[tuple[int, int]] | None = None
    """The regions (offset, length) of the file that the payload holds, one after the other; holes between them. None
    if the payload is the file, and where `sparse_in_payload`."""
    sparse_in_payload: bool = False
    """Whether the payload begins with the map itself: PAX sparse 1.0."""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class EntryReader:
    """Reads the entries out of the pieces of a `TarSplitter`, with contents given as lengths.

    An entry is returned when its contents are complete, or at the end if the stream was cut before. Skeleton may be cut
    at other places than the splitter did, as long as contents stand between the same bytes. Raises `InvalidInputError`
    if they do not.
    """

    def __init__(self) -> None:
        self._grammar = _EntryGrammar()
        self._offset = 0
        self._carry = b""

    def skeleton(self, data: bytes | memoryview) -> list[TarEntry]:
        """Read skeleton; the entries that it completes."""
        grammar = self._grammar
        if grammar.payload_left and data:
            raise InvalidInputError(f"headers at offset {self._offset} of a tar where contents of a file belong")
        block = self._carry + bytes(data) if self._carry else bytes(data)
        grammar.origin = self._offset
        position = grammar.advance(block, 0)
        self._offset += position
        self._carry = block[position:]
        if self._carry and grammar.payload_left:
            raise InvalidInputError(f"headers at offset {self._offset} of a tar where contents of a file belong")
        return grammar.take_found()

    def payload(self, length: int) -> list[TarEntry]:
        """Let ``length`` bytes of contents pass; the entry that is complete with them, if one is."""
        if not length:
            return []
        grammar = self._grammar
        if not grammar.payload_left:
            if self._carry:
                raise InvalidInputError(f"contents at offset {self._offset} of a tar in the middle of a header")
            grammar.give_up()
        if length > grammar.payload_left:
            raise InvalidInputError(f"contents at offset {self._offset} of a tar are longer than announced")
        self._offset += length
        grammar.payload(length)
        return grammar.take_found()

    def finish(self) -> list[TarEntry]:
        """The entry whose contents were cut by the end of the stream, if there is one."""
        return self._grammar.take_cut(self._offset)


class _EntryGrammar(TarGrammar):
    """Collects what the headers say, until an entry is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = 0
        """Offset in the stream of the data that is given to `advance`."""
        self._found: list[TarEntry] = []
        self._incomplete: TarEntry | None = None
        self._header: Header | None = None
        self._header_offset: int | None = None
        self._regions: list[tuple[int, int]] = []
        self._records: dict[bytes, bytes] = {}
        self._pax_regions: list[tuple[int, int]] = []
        self._globals: dict[bytes, bytes] = {}
        self._long_link: bytes | None = None
        self._after_end = False

    def take_found(self) -> list[TarEntry]:
        """The entries that were completed since the last call."""
        if self._incomplete is not None and not self.payload_left:
            self._found.append(self._incomplete)
            self._incomplete = None
        found = self._found
        self._found = []
        return found

    def take_cut(self, end: int) -> list[TarEntry]:
        """The entry whose contents are not complete at the end of the stream, if there is one."""
        entry = self._incomplete
        self._incomplete = None
        return [] if entry is None else [replace(entry, payload_size=end - entry.payload_offset)]

    def _on_metadata_header(self, position: int) -> None:
        if self._header_offset is None:
            self._header_offset = self.origin + position

    def _on_metadata(self, typeflag: int, body: bytes) -> None:
        super()._on_metadata(typeflag, body)
        if typeflag == _LONG_LINK_TYPE:
            self._long_link = body.partition(b"\0")[0]
        elif typeflag == _GLOBAL_PAX_TYPE:
            self._header_offset = None
            self._globals.update((key, value) for key, value in pax_records(body) if key in _GLOBAL_KEYWORDS)
        elif typeflag != _LONG_NAME_TYPE:
            # A later header replaces an earlier one, here and for the size.
            self._records = dict(pax_records(body))
            self._pax_regions = _pax_sparse_map(body, self._records) if b"GNU.sparse." in body else []

    def _on_header(self, header: Header, position: int) -> None:
        self._on_metadata_header(position)
        self._header = header
        self._regions = header.sparse_map if header.typeflag == _OLD_GNU_SPARSE_TYPE else []

    def _on_extension(self, block: bytes) -> None:
        if len(self._regions) <= SPARSE_REGIONS_MAX:
            self._regions += parse_sparse_regions(block[:504])

    def _on_contents(self, size: int, position: int) -> None:
        header = self._header
        assert header is not None, "contents follow a header"
        entry = self._entry(header, size, self.origin + position)
        if size:
            self._incomplete = entry
        else:
            self._found.append(entry)

    def _on_end_mark(self) -> None:
        self._after_end = True
        self._globals = {}

    def _forget_local(self) -> None:
        super()._forget_local()
        self._records = {}
        self._pax_regions = []
        self._header_offset = self._long_link = None

    def _entry(self, header: Header, size: int, payload_offset: int) -> TarEntry:
        records = self._globals | self._records if self._globals else self._records
        kind = _KINDS.get(header.typeflag, EntryKind.OTHER)
        raw_path = self._raw_path(header)
        target = b""
        if kind in (EntryKind.SYMLINK, EntryKind.HARDLINK):
            target = self._long_link or records.get(b"linkpath") or header.link_name
        mtime_ns = _seconds_to_ns(records[b"mtime"]) if b"mtime" in records else None
        real_size, regions = self._extent(header, size, records)
        uid = parse_decimal(records.get(b"uid", b""))
        gid = parse_decimal(records.get(b"gid", b""))
        assert self._header_offset is not None, "set with the header"
        return TarEntry(
            path=normalise_path(raw_path),
            raw_path=raw_path,
            kind=kind,
            mode=header.mode & 0o7777,
            uid=header.uid if uid is None else uid,
            gid=header.gid if gid is None else gid,
            uname=records.get(b"uname") or header.uname,
            gname=records.get(b"gname") or header.gname,
            size=real_size,
            mtime_ns=header.mtime * _NANOSECONDS if mtime_ns is None else mtime_ns,
            link_target=target,
            device=header.device if kind in (EntryKind.CHARACTER, EntryKind.BLOCK) else (0, 0),
            header_offset=self._header_offset,
            payload_offset=payload_offset,
            payload_size=size,
            after_end=self._after_end,
            sparse=regions,
            sparse_in_payload=kind is EntryKind.FILE and records.get(b"GNU.sparse.major") == b"1",
            xattrs={
                key[len(_XATTR_PREFIX) :]: value for key, value in records.items() if key.startswith(_XATTR_PREFIX)
            },
        )

    def _raw_path(self, header: Header) -> bytes:
        # GNU tar hides the name of a sparse file from readers that do not know sparse files.
        records = self._records
        return self._long_name or records.get(b"GNU.sparse.name") or records.get(b"path") or header.name

    def _extent(
        self, header: Header, size: int, records: dict[bytes, bytes]
    ) -> tuple[int, list[tuple[int, int]] | None]:
        """Size and regions of the file when extracted."""
        if header.typeflag == _OLD_GNU_SPARSE_TYPE:
            # The field belongs to the header, the map may go on behind it.
            regions = self._regions if len(self._regions) <= SPARSE_REGIONS_MAX else None
            return max(header.sparse_size, 0), regions
        real = parse_decimal(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"")
        if real is None or _KINDS.get(header.typeflag) is not EntryKind.FILE:
            return size, None
        return real, self._pax_regions or None


def normalise_path(raw: bytes) -> bytes:
    """``raw`` without leading ``./`` and trailing slashes; empty for the root. ``/`` and ``..`` in front stay."""
    path = raw
    if path.startswith(b"./"):
        # One slice however many there are: a name can be a megabyte of "./".
        start = 0
        while path.startswith(b"./", start):
            start += 2
            while path.startswith(b"/", start):
                start += 1
        path = path[start:]
    stripped = path.rstrip(b"/")
    if stripped == b".":
        return b""
    return stripped or path[:1]


def _seconds_to_ns(text: bytes) -> int | None:
    """Decimal seconds with an optional sign and fraction, exactly."""
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    seconds = parse_decimal(whole or b"0")
    if seconds is None or (fraction and not fraction.isdigit()):
        return None
    total = seconds * _NANOSECONDS + int(fraction[:9].ljust(9, b"0"))
    return -total if text.startswith(b"-") else total


def _pax_sparse_map(body: bytes, records: dict[bytes, bytes]) -> list[tuple[int, int]]:
    """The map of PAX sparse 0.1 (one list) or 0.0 (a pair of records for each region)."""
    listed = records.get(b"GNU.sparse.map")
    if listed is not None:
        numbers = [parse_decimal(number) for number in listed.split(b",")]
    else:
        keywords = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        numbers = [parse_decimal(value) for key, value in pax_records(body) if key in keywords]
    regions = []
    for offset, length in zip(numbers[::2], numbers[1::2], strict=False):
        if offset is None or length is None:
            return []
        regions.append((offset, length))
    return regions
