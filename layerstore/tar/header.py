"""One tar header block, and the records of a PAX extended header.

This parser replaces `tarfile`'s where every entry of a layer passes through Python: it does the checksum and the two
fields that decide what follows (size and type), and leaves the rest until it is asked for. It is as lenient as the
layouts are many: v7, ustar, PAX, old GNU, GNU and star headers all parse. See POSIX.1-2017 *pax*, "ustar Interchange
Format", and the GNU tar manual, "Basic Tar Format".
"""

from collections.abc import Iterator
from zlib import adler32

BLOCK_SIZE = 512
SIZE_MAX = (1 << 63) - 1
"""The largest size of an entry that is believed: what fits a file offset."""

SIZELESS_TYPES = frozenset(b"123456")
"""Hard and symbolic link, character and block device, directory, fifo: entries without contents, whatever their size
field says. Go's archive/tar and Python's tarfile read them so."""

NUMBER_DIGITS_MAX = 20
"""Decimal numbers of more digits are not numbers of this format (and `int` takes quadratic time for long ones)."""

_ASCII = bytes(range(128))


class Header:
    """A header block whose checksum is right. Fields that a number does not parse in are 0."""

    __slots__ = ("block", "size", "typeflag")

    def __init__(self, block: bytes, size: int, typeflag: int) -> None:
        self.block = block
        self.size = size
        self.typeflag = typeflag

    @property
    def name(self) -> bytes:
        """The path, joined with the prefix that the ustar and star layouts have for it."""
        block = self.block
        name = _text(block[0:100])
        if block[257:263] == b"ustar\0":
            # star puts access and change times behind a shorter prefix, and signs at the end.
            prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
            if prefix:
                return prefix + b"/" + name
        return name

    @property
    def link_name(self) -> bytes:
        """The target of a link."""
        return _text(self.block[157:257])

    @property
    def mode(self) -> int:
        """Permissions, as written."""
        return parse_number(self.block[100:108]) or 0

    @property
    def uid(self) -> int:
        """Number of the owner."""
        return parse_number(self.block[108:116]) or 0

    @property
    def gid(self) -> int:
        """Number of the group."""
        return parse_number(self.block[116:124]) or 0

    @property
    def mtime(self) -> int:
        """Time of the last change, in seconds since 1970."""
        return parse_number(self.block[136:148]) or 0

    @property
    def uname(self) -> bytes:
        """Name of the owner; empty in v7 headers."""
        return _text(self.block[265:297]) if self._has_names else b""

    @property
    def gname(self) -> bytes:
        """Name of the group; empty in v7 headers."""
        return _text(self.block[297:329]) if self._has_names else b""

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number of a device."""
        if not self._has_names:
            return 0, 0
        return parse_number(self.block[329:337]) or 0, parse_number(self.block[337:345]) or 0

    @property
    def sparse_size(self) -> int:
        """Size of the file that an old GNU sparse entry describes."""
        return parse_number(self.block[483:495]) or 0

    @property
    def sparse_map(self) -> list[tuple[int, int]]:
        """The regions (offset, length) that an old GNU sparse header lists itself."""
        return parse_sparse_regions(self.block[386:482])

    @property
    def sparse_extended(self) -> bool:
        """Whether a block with more sparse regions follows."""
        return self.block[482] != 0

    @property
    def _has_names(self) -> bool:
        return self.block[257:262] == b"ustar"


def parse_header(block: bytes) -> Header | None:
    """The header that the 512 bytes ``block`` are, or None if they are none."""
    field = block[148:156]
    # Adler-32 begun at 0 holds the plain sum of the bytes in its lower half, modulo 65521: exact for half a block,
    # and twenty times faster than sum().
    total = (adler32(block[:256], 0) & 0xFFFF) + (adler32(block[256:], 0) & 0xFFFF) - sum(field) + 256
    checksum = parse_number(field)
    if checksum != total and checksum != _signed_sum(block, total):
        return None
    typeflag = block[156]
    if typeflag in SIZELESS_TYPES:
        return Header(block, 0, typeflag)
    size = parse_number(block[124:136])
    if size is None or not 0 <= size <= SIZE_MAX:
        return None
    return Header(block, size, typeflag)


def parse_number(field: bytes) -> int | None:
    """A numeric header field: octal with spaces and NULs around it, or base-256. None if it is neither."""
    text = field.strip(b" \0")
    if not text:
        return 0
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        number = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return number - (1 << bits) if field[0] & 0x40 else number
    if not text.isdigit():
        text = text.replace(b" ", b"\0").partition(b"\0")[0]
        if not text.isdigit():
            return None
    try:
        return int(text, 8)
    except ValueError:  # the digits 8 and 9
        return None


def parse_decimal(text: bytes) -> int | None:
    """A number as PAX records write it, or None if ``text`` is none that fits a file offset."""
    if not text.isdigit() or len(text) > NUMBER_DIGITS_MAX:
        return None
    number = int(text)
    return number if number <= SIZE_MAX else None


def parse_sparse_regions(fields: bytes) -> list[tuple[int, int]]:
    """The (offset, length) pairs in the old GNU layout, up to the first that is empty or malformed."""
    regions = []
    for start in range(0, len(fields) - 23, 24):
        offset = parse_number(fields[start : start + 12])
        length = parse_number(fields[start + 12 : start + 24])
        # Length 0 at an offset above 0 is how GNU tar notes that the file ends in a hole.
        if not offset and not length:
            break
        if offset is None or length is None or offset < 0 or length < 0:
            break
        regions.append((offset, length))
    return regions


def pax_records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keywords and values of an extended header, in order, up to the first record that is malformed."""
    position = 0
    while True:
        space = body.find(b" ", position, position + NUMBER_DIGITS_MAX)
        length = parse_decimal(body[position:space]) if space > 0 else None
        if length is None:
            return
        end = position + length
        equals = body.find(b"=", space + 1, end)
        if equals < 0 or end > len(body) or body[end - 1] != 0x0A:
            return
        yield body[space + 1 : equals], body[equals + 1 : end - 1]
        position = end


def _signed_sum(block: bytes, unsigned_sum: int) -> int:
    """The checksum of old tars whose ``char`` was signed."""
    rest = block[:148] + block[156:]
    return unsigned_sum - 256 * len(rest.translate(None, _ASCII))


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
