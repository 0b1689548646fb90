"""What the splitter promises: exactness for any input, the same split however it was fed, payload = file contents."""

import io
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerstore.tar.header import parse_decimal, parse_header, parse_number, pax_records
from layerstore.tar.splitter import METADATA_SIZE_MAX, Piece, PieceKind, TarSplitter

SKELETON, PAYLOAD = PieceKind.SKELETON, PieceKind.PAYLOAD
BLOCK = 512


def split(feeds: Iterable[bytes]) -> list[Piece]:
    splitter = TarSplitter()
    pieces = [piece for feed in feeds for piece in splitter.feed(feed)]
    return pieces + splitter.finish()


def merge(pieces: Sequence[Piece]) -> list[tuple[PieceKind, bytes]]:
    """Join what belongs together: skeleton with skeleton, payload up to the end of its entry."""
    merged: list[tuple[PieceKind, bytes]] = []
    open_payload = False
    for kind, data, last in pieces:
        joins = open_payload if kind == PAYLOAD else bool(merged) and merged[-1][0] == SKELETON
        if joins:
            merged[-1] = (kind, merged[-1][1] + bytes(data))
        else:
            merged.append((kind, bytes(data)))
        open_payload = kind == PAYLOAD and not last
    assert not open_payload, "every payload is ended"
    return merged


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def payloads(data: bytes) -> list[bytes]:
    return [piece for kind, piece in merge(split([data])) if kind == PAYLOAD]


def header(
    name: bytes = b"file", size: bytes | int = 0, typeflag: bytes = b"0", checksum: int | None = None, tail: bytes = b""
) -> bytes:
    field = b"%011o\0" % size if isinstance(size, int) else size
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field.ljust(12, b"\0") + b"%011o\0" % 0
    block += b" " * 8 + typeflag + bytes(100) + b"ustar\x0000" + tail
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % (sum(block) if checksum is None else checksum) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(contents: bytes, **fields: object) -> bytes:
    return header(size=len(contents), **fields) + padded(contents)  # type: ignore[arg-type]


def pax(typeflag: bytes = b"x", **records: bytes) -> bytes:
    body = b""
    for key, value in records.items():
        keyword = key.replace("__", ".").encode()
        rest = len(keyword) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        body += b"%d %s=%s\n" % (length, keyword, value)
    return header(b"pax", len(body), typeflag) + padded(body)


END = bytes(2 * BLOCK)

# Hand-made tars, right and wrong, with the payload that they must split into.
CASES: dict[str, tuple[bytes, list[bytes]]] = {
    "empty input": (b"", []),
    "one file": (member(b"hello") + END, [b"hello"]),
    "empty file": (member(b"") + member(b"x") + END, [b"x"]),
    "a file of exactly one block": (member(b"b" * BLOCK) + member(b"c") + END, [b"b" * BLOCK, b"c"]),
    "no end blocks": (member(b"hello"), [b"hello"]),
    "one end block": (member(b"hello") + bytes(BLOCK), [b"hello"]),
    "odd zeros at the end": (member(b"hello") + bytes(1300), [b"hello"]),
    "padding that is not zero": (header(size=5) + b"hello" + b"#" * 507 + member(b"x"), [b"hello", b"x"]),
    "rubbish after the end": (member(b"hello") + END + b"rubbish" * 100, [b"hello", b"rubbish" * 100]),
    "short rubbish after the end": (member(b"hello") + END + b"rubbish", [b"hello", b"rubbish"]),
    "rubbish right after contents": (member(b"b" * BLOCK) + b"r" * 600, [b"b" * BLOCK, b"r" * 600]),
    "concatenated tars": (member(b"one") + END + member(b"two") + END, [b"one", b"two"]),
    "no tar": (b"\x1f\x8b" * 700, [b"\x1f\x8b" * 700]),
    "contents cut": (member(b"h" * 2000)[:1000], [b"h" * 488]),
    "contents missing": (header(size=2000), []),
    "header cut": (member(b"hello") + header()[:99], [b"hello", header()[:99]]),
    "bad checksum": (header(size=5, checksum=1) + padded(b"hello"), [header(size=5, checksum=1) + padded(b"hello")]),
    "8 EiB claimed": (header(size=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7) + b"x" * 999, [b"x" * 999]),
    "more than 8 EiB": (header(size=b"\x80" + b"\xff" * 11) + b"x", [header(size=b"\x80" + b"\xff" * 11) + b"x"]),
    "negative size": (header(size=b"\xff" * 12) + b"x", [header(size=b"\xff" * 12) + b"x"]),
    "base-256 size": (header(size=b"\x80" + (5).to_bytes(11, "big")) + padded(b"hello") + END, [b"hello"]),
    "size with spaces": (header(size=b"         5 \0") + padded(b"hello") + END, [b"hello"]),
    "size that is no number": (
        header(size=b"fivefive") + padded(b"hello"),
        [header(size=b"fivefive") + padded(b"hello")],
    ),
    "size in digits 8 and 9": (header(size=b"89") + b"hello", [header(size=b"89") + b"hello"]),
    "sizeless types": (b"".join(header(size=99, typeflag=b"%d" % kind) for kind in range(1, 7)) + member(b"x"), [b"x"]),
    "v7 directory": (header(b"directory/", size=99, typeflag=b"\0") + member(b"x", typeflag=b"\0"), [b"x"]),
    "v7 directory by its PAX path": (pax(path=b"d/") + header(size=99, typeflag=b"\0") + member(b"x"), [b"x"]),
    "v7 file by its PAX path": (pax(path=b"f") + member(b"hello", name=b"d/", typeflag=b"\0"), [b"hello"]),
    "v7 directory by its long name": (
        member(b"n/\0", typeflag=b"L") + header(size=99, typeflag=b"\0") + member(b"x", typeflag=b"\0"),
        [b"x"],
    ),
    "unknown type": (member(b"hello", typeflag=b"Z") + member(b"x"), [b"hello", b"x"]),
    "long name": (member(b"n" * 300, typeflag=b"L") + member(b"k" * 700, typeflag=b"K") + member(b"x"), [b"x"]),
    "size overridden": (pax(size=b"5") + header(size=0) + padded(b"hello") + member(b"x") + END, [b"hello", b"x"]),
    "size overridden once": (pax(size=b"5") + header() + padded(b"hello") + header() + member(b"x"), [b"hello", b"x"]),
    "size overridden for all": (pax(b"g", size=b"2") + (header() + padded(b"ab")) * 2 + END, [b"ab", b"ab"]),
    "override for one before that for all": (
        pax(b"g", size=b"2") + pax(size=b"1") + header() + padded(b"a") + header() + padded(b"ab"),
        [b"a", b"ab"],
    ),
    "override taken back": (pax(b"g", size=b"2") + pax(size=b"") + member(b"abc") + END, [b"abc"]),
    "override ends with the archive": (pax(b"g", size=b"2") + END + member(b"abc") + END, [b"abc"]),
    "override over metadata": (
        pax(size=b"2") + member(b"n" * 300, typeflag=b"L") + header() + padded(b"ab"),
        [b"ab"],
    ),
    "override that lies": (pax(size=b"999999") + member(b"hello"), [padded(b"hello")]),
    "override of a directory": (pax(size=b"999999") + header(typeflag=b"5") + member(b"hello"), [b"hello"]),
    "override that is no number": (pax(size=b"-5") + member(b"hello"), [b"hello"]),
    "override of many digits": (pax(size=b"9" * 5000) + member(b"hello"), [b"hello"]),
    "malformed records": (member(b"99 size=1\n", typeflag=b"x") + member(b"hello"), [b"hello"]),
    "old sparse": (
        header(size=4, typeflag=b"S", tail=bytes(217) + b"\1")
        + bytes(504)
        + b"\1"
        + bytes(7)
        + bytes(512)
        + padded(b"data"),
        [b"data"],
    ),
    "old sparse cut in its map": (
        header(size=4, typeflag=b"S", tail=bytes(217) + b"\1") + bytes(504) + b"\1" + bytes(7) + b"r" * 20,
        [b"r" * 20],
    ),
    "huge metadata": (
        header(size=METADATA_SIZE_MAX + 1, typeflag=b"x") + padded(b"m" * (METADATA_SIZE_MAX + 1)) + member(b"hello"),
        [b"m" * (METADATA_SIZE_MAX + 1), b"hello"],
    ),
    "endless metadata": (header(size=2**40, typeflag=b"L") + b"m" * 9, [b"m" * 9]),
}


@pytest.mark.parametrize("name", CASES)
def test_hand_made_tars_split_into_their_payload(name: str) -> None:
    data, expected = CASES[name]
    pieces = split([data])
    assert b"".join(piece.data for piece in pieces) == data
    assert payloads(data) == expected


@pytest.mark.parametrize("name", [name for name, (data, _) in CASES.items() if len(data) < 10_000])
def test_the_split_of_hand_made_tars_does_not_depend_on_the_feeds(name: str) -> None:
    data, _ = CASES[name]
    whole = merge(split([data]))
    for size in (1, 2, 7, 100, 511, 512, 513, 1000, 1024):
        assert merge(split(cut(data, size))) == whole


@pytest.mark.parametrize("name", [name for name, (data, _) in CASES.items() if len(data) < 10_000])
def test_a_tar_truncated_at_any_point_comes_back(name: str) -> None:
    data, _ = CASES[name]
    for end in range(0, len(data), 13):
        part = data[:end]
        pieces = split(cut(part, 512))
        assert b"".join(piece.data for piece in pieces) == part
        assert merge(pieces) == merge(split([part]))


def test_skeleton_between_contents_is_one_piece() -> None:
    """Pieces cost time: padding, metadata and the next header come as one view."""
    data = member(b"one") + pax(mtime=b"1.5") + member(b"two") + END
    assert [piece.kind for piece in split([data])] == [SKELETON, PAYLOAD, SKELETON, PAYLOAD, SKELETON]


def test_pieces_are_views_of_the_input() -> None:
    data = member(b"x" * 100_000)
    assert all(piece.data.obj is data for piece in split([data]))


def test_signed_checksums_are_accepted() -> None:
    """Old tars on machines with a signed char sum bytes above 127 as negative."""
    name = b"caf\xe9" * 4
    unsigned = int(header(name, 5)[148:154], 8)
    data = header(name, 5, checksum=unsigned - 4 * 256) + padded(b"hello")
    assert payloads(data) == [b"hello"]


def test_metadata_does_not_pile_up() -> None:
    """A million headers that describe no entry leave nothing behind in memory."""
    splitter = TarSplitter()
    block = pax(comment=b"c" * 400) * 64
    for _ in range(50):
        assert [piece.kind for piece in splitter.feed(block)] == [SKELETON]
    assert splitter._grammar._metadata == b""


raw_headers = st.builds(
    header,
    name=st.binary(max_size=100),
    size=st.one_of(st.integers(0, 3000), st.binary(max_size=12)),
    typeflag=st.sampled_from([b"0", b"\0", b"1", b"5", b"7", b"x", b"g", b"L", b"K", b"S", b"D", b"Z", b"\xff"]),
    tail=st.one_of(st.just(b""), st.binary(max_size=249)),
)
fragments = st.one_of(
    raw_headers,
    st.builds(member, st.binary(max_size=1500)),
    st.builds(pax, typeflag=st.sampled_from([b"x", b"g"]), size=st.integers(-5, 2000).map(lambda size: b"%d" % size)),
    st.binary(max_size=700),
    st.just(bytes(BLOCK)),
    st.just(END),
)
tar_like = st.one_of(st.binary(), st.lists(fragments, max_size=8).map(b"".join))


@settings(max_examples=300, deadline=None)
@given(tar_like, st.lists(st.integers(0, 2000), max_size=12))
@example(bytes(700), [100])
def test_law_join_of_split_is_the_input_however_it_was_fed(data: bytes, sizes: list[int]) -> None:
    feeds = []
    start = 0
    for size in sizes:
        feeds.append(data[start : start + size])
        start += size
    feeds.append(data[start:])
    pieces = split(feeds)
    assert b"".join(piece.data for piece in pieces) == data
    assert merge(pieces) == merge(split([data]))
    assert all(len(piece.data) for piece in pieces[:-1])


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_payload_of_tarfile_archives_is_the_contents_of_the_files(tar_format: int) -> None:
    rng = random.Random(7)
    contents = [rng.randbytes(size) for size in (0, 1, 511, 512, 513, 40_000)]
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format) as archive:
        for number, data in enumerate(contents):
            name = f"dir{number}/" + ("n" * 90 if tar_format == tarfile.USTAR_FORMAT else "ä" * 200)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo(f"link{number}")
            link.type, link.linkname = tarfile.SYMTYPE, "t" * 90
            archive.addfile(link)
    data = target.getvalue()
    assert payloads(data) == [content for content in contents if content]
    assert merge(split(cut(data, 1000))) == merge(split([data]))


GNU_TAR_OPTIONS = {
    "v7": ["--format=v7"],
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "ustar": ["--format=ustar"],
    "posix": ["--format=posix"],
    "oldgnu sparse": ["--format=oldgnu", "--sparse"],
    "gnu sparse": ["--format=gnu", "--sparse"],
    "posix sparse 0.0": ["--format=posix", "--sparse", "--sparse-version=0.0"],
    "posix sparse 0.1": ["--format=posix", "--sparse", "--sparse-version=0.1"],
    "posix sparse 1.0": ["--format=posix", "--sparse", "--sparse-version=1.0"],
    "incremental": ["--incremental"],
    "label": ["--label=some-label"],
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU tar")
@pytest.mark.parametrize("options", GNU_TAR_OPTIONS.values(), ids=GNU_TAR_OPTIONS.keys())
def test_archives_of_gnu_tar_split_at_their_files(tmp_path: Path, options: list[str]) -> None:
    """Sparse files contribute their data only; every ordinary file is a payload of its own."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "plain").write_bytes(b"plain" * 1000)
    (tmp_path / "a" / "z").write_bytes(b"last")
    with (tmp_path / "a" / "holes").open("wb") as file:
        for number in range(40):  # more regions than a header and one extension hold
            file.seek(number * 65536)
            file.write(b"%04d" % number * 1024)
        file.truncate(41 * 65536)
    command = ["tar", "-C", str(tmp_path), *options, "--sort=name", "-cf", "-", "a"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    sparse = any("--sparse" in option for option in options)
    pieces = payloads(data)
    if "--incremental" in options:
        assert pieces.pop(0).startswith(b"Y")  # the dump directory
    assert len(pieces) == 3
    holes, plain, last = pieces
    assert (plain, last) == (b"plain" * 1000, b"last")
    regions = b"".join(b"%04d" % number * 1024 for number in range(40))
    if sparse:
        assert holes.endswith(regions)
        assert len(holes) - len(regions) in (0, 512, 1024)
    else:
        assert holes == (tmp_path / "a" / "holes").read_bytes()
    assert merge(split(cut(data, 700))) == merge(split([data]))


def test_numbers_of_headers() -> None:
    """Octal in all its paddings, base-256 of both signs, and what is neither."""
    assert parse_number(b"0000644\0") == 0o644
    assert parse_number(b"   644 \0") == 0o644
    assert parse_number(b"644 \0xyz") == 0o644
    assert parse_number(b"\0\0\0\0") == parse_number(b"    ") == 0
    assert parse_number(b"\x80\0\1\0") == 256
    assert parse_number(b"\xff\xff\xff\xfe") == -2
    assert parse_number(b"0o17") is None
    assert parse_number(b"1_7") is None
    assert parse_number(b"-17") is None
    assert parse_number(b"789") is None


def test_numbers_of_records() -> None:
    assert parse_decimal(b"9223372036854775807") == 2**63 - 1
    for text in (b"", b"-1", b"+1", b"1_0", b" 1", b"9223372036854775808", b"1" * 100_000):
        assert parse_decimal(text) is None


def test_records_stop_at_the_first_that_is_malformed() -> None:
    good = b"11 path=ab\n"
    assert list(pax_records(good + b"7 a=b\nc\n")) == [(b"path", b"ab")]
    for bad in (b"x", b"0 a=b\n", b"3 a=b\n", b"99 a=b\n", b"6 abc\n", b"6 a=b#", b"-6 a=b\n", b" 6 a=b\n"):
        assert list(pax_records(good + bad)) == [(b"path", b"ab")]
    assert list(pax_records(b"12 k=a\nb=c\n\n")) == [(b"k", b"a\nb=c\n")]


@given(st.binary(min_size=512, max_size=512))
def test_no_block_makes_the_header_parser_fail(block: bytes) -> None:
    fixed = block[:148] + b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256) + block[156:]
    parse_header(block)
    parsed = parse_header(fixed)
    if parsed is not None:
        for attribute in ("name", "link_name", "mode", "uid", "gid", "mtime", "uname", "gname", "device", "sparse_map"):
            getattr(parsed, attribute)
