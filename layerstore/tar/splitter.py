"""Splitting a tar stream into file contents (payload) and everything else (skeleton), byte for byte.

The pieces are contiguous by construction: whatever the input is, their concatenation is the input. What the grammar
here makes of a header therefore decides only how well a layer deduplicates, never whether it comes back exact.
"""

from enum import IntEnum
from typing import NamedTuple

from layerstore.tar.header import BLOCK_SIZE, SIZE_MAX, SIZELESS_TYPES, Header, parse_decimal, parse_header, pax_records

METADATA_SIZE_MAX = 1 << 20
"""Bodies of PAX and GNU long-name headers above this size are payload, and their records are not read."""

_ZERO_BLOCK = bytes(BLOCK_SIZE)
# PAX headers for one entry ('X' is how Solaris wrote them) and for all that follow, GNU long name and long link target.
_LOCAL_PAX_TYPES = frozenset(b"xX")
_METADATA_TYPES = frozenset(b"xXgLK")
_GLOBAL_PAX_TYPE = ord("g")
_LONG_NAME_TYPE = ord("L")
_OLD_GNU_SPARSE_TYPE = ord("S")
_DIRECTORY_TYPE = ord("5")
# More than any stream has: the payload that only the end of the input ends.
_ENDLESS = SIZE_MAX + 1
_NO_OVERRIDE = -1


class PieceKind(IntEnum):
    """What a piece of a tar is."""

    SKELETON = 0
    PAYLOAD = 1


class Piece(NamedTuple):
    """Some bytes of the input. ``last`` ends the contents of one entry; it is False in skeleton."""

    kind: PieceKind
    data: memoryview
    last: bool


class TarGrammar:
    """Where in a tar headers, metadata, contents and padding stand: the one definition that all readers share.

    A caller offers skeleton to `advance` until `payload_left` is not 0, then reports the contents that passed by to
    `payload`. What has to be known about an entry beyond its extent, a subclass learns by overriding ``_on`` methods.
    """

    def __init__(self) -> None:
        self.payload_left = 0
        """How many bytes of contents come next."""
        self._padding = 0
        self._metadata_type = 0
        self._metadata_left = 0
        self._metadata = bytearray()
        self._sparse_size: int | None = None
        self._long_name = b""
        self._local_path = b""
        self._local_size: int | None = None
        self._global_size: int | None = None

    def advance(self, data: bytes, position: int) -> int:
        """Read skeleton of ``data`` from ``position``; the new position is returned.

        It is where contents begin, the end of ``data``, or where less than a whole block is left although one is
        needed: offer those bytes again, with more behind them.
        """
        end = len(data)
        while position < end and not self.payload_left:
            if self._metadata_left:
                position = self._read_metadata(data, position)
            elif self._padding:
                step = min(self._padding, end - position)
                self._padding -= step
                position += step
            elif end - position < BLOCK_SIZE:
                break
            elif self._sparse_size is not None:
                position = self._read_extension(data, position, self._sparse_size)
            elif data.startswith(_ZERO_BLOCK, position):
                position += BLOCK_SIZE
                self._end_archive()
            else:
                header = parse_header(data[position : position + BLOCK_SIZE])
                if header is None:
                    self.give_up()
                else:
                    self._read_header(header, position)
                    position += BLOCK_SIZE
        return position

    def payload(self, length: int) -> None:
        """Note that ``length`` bytes of contents, at most `payload_left`, have passed by."""
        if self.payload_left != _ENDLESS:
            self.payload_left -= length

    def give_up(self) -> None:
        """Note that no tar goes on here: all that follows is payload."""
        self.payload_left = _ENDLESS

    def _read_header(self, header: Header, position: int) -> None:
        after = position + BLOCK_SIZE
        if not header.typeflag and (self._long_name or self._local_path or header.name).endswith(b"/"):
            # v7 knows directories by their slash only; Go's archive/tar applies this to names from metadata too.
            header.typeflag, header.size = _DIRECTORY_TYPE, 0
        typeflag = header.typeflag
        if typeflag in _METADATA_TYPES:
            self._on_metadata_header(position)
            self._padding = -header.size % BLOCK_SIZE
            if header.size > METADATA_SIZE_MAX:
                self.payload_left = header.size
            elif header.size:
                self._metadata_type = typeflag
                self._metadata_left = header.size
            return
        self._on_header(header, position)
        size = header.size
        if typeflag not in SIZELESS_TYPES:
            override = self._local_size if self._local_size is not None else self._global_size
            if override is not None and override != _NO_OVERRIDE:
                size = override
        if typeflag == _OLD_GNU_SPARSE_TYPE and header.sparse_extended:
            self._sparse_size = size
        else:
            self._begin_contents(size, after)

    def _read_extension(self, data: bytes, position: int, size: int) -> int:
        block = data[position : position + BLOCK_SIZE]
        position += BLOCK_SIZE
        self._on_extension(block)
        if not block[504]:
            self._sparse_size = None
            self._begin_contents(size, position)
        return position

    def _begin_contents(self, size: int, position: int) -> None:
        self.payload_left = size
        self._padding = -size % BLOCK_SIZE
        self._on_contents(size, position)
        self._forget_local()

    def _read_metadata(self, data: bytes, position: int) -> int:
        part = data[position : position + self._metadata_left]
        self._metadata += part
        self._metadata_left -= len(part)
        if not self._metadata_left:
            body = bytes(self._metadata)
            self._metadata.clear()
            self._on_metadata(self._metadata_type, body)
        return position + len(part)

    def _end_archive(self) -> None:
        self._forget_local()
        self._global_size = None
        self._on_end_mark()

    def _forget_local(self) -> None:
        self._long_name = self._local_path = b""
        self._local_size = None

    def _on_metadata_header(self, position: int) -> None:
        """The header of PAX records or of a GNU long name stands at ``position``."""

    def _on_metadata(self, typeflag: int, body: bytes) -> None:
        """The body of a metadata header is complete. An override has to call this."""
        if typeflag in _LOCAL_PAX_TYPES:
            self._local_size, self._local_path = _overrides(body)
        elif typeflag == _GLOBAL_PAX_TYPE:
            size, _ = _overrides(body)
            if size is not None:
                self._global_size = size
        elif typeflag == _LONG_NAME_TYPE:
            self._long_name = body.partition(b"\0")[0]

    def _on_header(self, header: Header, position: int) -> None:
        """The header of an entry stands at ``position``."""

    def _on_extension(self, block: bytes) -> None:
        """``block`` holds more of the sparse map of the entry."""

    def _on_contents(self, size: int, position: int) -> None:
        """The entry is described in full; its contents of ``size`` bytes begin at ``position``."""

    def _on_end_mark(self) -> None:
        """A block of zeros, which ends an archive."""


class TarSplitter:
    """Splits any bytes, fed block by block, into pieces whose concatenation is exactly these bytes.

    Contents of file-like entries are payload. Headers, the bodies of PAX and GNU metadata, padding and the trailer are
    skeleton. From where no header parses, in the trailer too, all the rest is one payload. How the input was cut into
    blocks shows in how pieces are cut, and in nothing else. Less than one tar block of the input is held back, besides
    a copy of the metadata body (`METADATA_SIZE_MAX`) that is being read.
    """

    def __init__(self) -> None:
        self._grammar = TarGrammar()
        self._carry = b""
        self._open = False

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that ``data`` completes, as views of it. A payload piece that is not ``last`` goes on later."""
        pieces: list[Piece] = []
        start = 0
        if self._carry:
            start = BLOCK_SIZE - len(self._carry)
            block = self._carry + data[:start]
            self._carry = b""
            self._split(block, 0, pieces)
        self._split(data, start, pieces)
        return pieces

    def finish(self) -> list[Piece]:
        """The pieces that are left at the end of the input. An empty one ends contents that were cut short."""
        pieces: list[Piece] = []
        if self._carry:
            zeros = not self._carry.strip(b"\0")
            kind = PieceKind.SKELETON if zeros else PieceKind.PAYLOAD
            pieces.append(Piece(kind, memoryview(self._carry), not zeros))
            self._carry = b""
        elif self._open:
            pieces.append(Piece(PieceKind.PAYLOAD, memoryview(b""), True))
        self._open = False
        return pieces

    def _split(self, data: bytes, position: int, pieces: list[Piece]) -> None:
        grammar = self._grammar
        view = memoryview(data)
        end = len(data)
        while position < end:
            left = grammar.payload_left
            if left:
                stop = min(position + left, end)
                last = stop - position == left
                pieces.append(Piece(PieceKind.PAYLOAD, view[position:stop], last))
                self._open = not last
                grammar.payload(stop - position)
            else:
                stop = grammar.advance(data, position)
                if stop > position:
                    pieces.append(Piece(PieceKind.SKELETON, view[position:stop], False))
                elif not grammar.payload_left:
                    self._carry = data[position:]
                    return
            position = stop


def _overrides(body: bytes) -> tuple[int | None, bytes]:
    """Size (`_NO_OVERRIDE`: that of the header holds) and path that PAX records give to an entry."""
    size = None
    path = b""
    if b"size=" in body or b"path=" in body:
        for keyword, value in pax_records(body):
            if keyword == b"size":
                size = parse_decimal(value) if value else _NO_OVERRIDE
            elif keyword == b"path":
                path = value
    return size, path
