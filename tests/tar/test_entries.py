"""What the entry reader promises: it agrees with the splitter, and with tarfile, on every real tar."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerstore.errors import InvalidInputError
from layerstore.tar.entries import EntryKind, EntryReader, TarEntry, normalise_path
from layerstore.tar.splitter import PieceKind, TarSplitter

BLOCK = 512
KINDS = {
    tarfile.REGTYPE: EntryKind.FILE,
    tarfile.AREGTYPE: EntryKind.FILE,
    tarfile.CONTTYPE: EntryKind.FILE,
    tarfile.GNUTYPE_SPARSE: EntryKind.FILE,
    tarfile.LNKTYPE: EntryKind.HARDLINK,
    tarfile.SYMTYPE: EntryKind.SYMLINK,
    tarfile.CHRTYPE: EntryKind.CHARACTER,
    tarfile.BLKTYPE: EntryKind.BLOCK,
    tarfile.DIRTYPE: EntryKind.DIRECTORY,
    tarfile.FIFOTYPE: EntryKind.FIFO,
}


def read_entries(data: bytes, feed_size: int | None = None) -> list[TarEntry]:
    size = feed_size or max(len(data), 1)
    splitter, reader, entries = TarSplitter(), EntryReader(), []
    pieces = [piece for start in range(0, len(data), size) for piece in splitter.feed(data[start : start + size])]
    for piece in pieces + splitter.finish():
        if piece.kind is PieceKind.PAYLOAD:
            entries += reader.payload(len(piece.data))
        else:
            entries += reader.skeleton(piece.data)
    return entries + reader.finish()


def entry_bytes(name: str = "f", size: int = 0, type_: bytes = b"0", contents: bytes = b"", **records: str) -> bytes:
    """An entry whose PAX records are written as given (``__`` for a dot)."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size or len(contents), type_
    info.pax_headers = {key.replace("__", "."): value for key, value in records.items()}
    return info.tobuf(tarfile.PAX_FORMAT) + contents + bytes(-len(contents) % BLOCK)


def assert_agrees_with_tarfile(data: bytes, encoding: str = "utf-8") -> None:
    entries = read_entries(data)
    with tarfile.open(fileobj=io.BytesIO(data), encoding=encoding, errors="surrogateescape") as archive:
        infos = archive.getmembers()
    assert len(entries) == len(infos)
    for entry, info in zip(entries, infos, strict=True):
        assert entry.kind == KINDS[info.type]
        assert entry.raw_path.rstrip(b"/") == info.name.encode("utf-8", "surrogateescape")
        assert entry.mode == info.mode & 0o7777
        assert (entry.uid, entry.gid, entry.uname.decode(), entry.gname.decode()) == (
            (info.uid, info.gid, info.uname, info.gname)
        )
        assert abs(entry.mtime_ns - info.mtime * 10**9) < 1000
        assert entry.header_offset == info.offset
        if info.issym() or info.islnk():
            assert entry.link_target == info.linkname.encode("utf-8", "surrogateescape")
        if info.isdev() and not info.isfifo():
            assert entry.device == (info.devmajor, info.devminor)
        if entry.kind == EntryKind.FILE:
            assert entry.size == info.size
            if not entry.sparse_in_payload:
                assert entry.payload_offset == info.offset_data
                regions = [region for region in entry.sparse or [] if region[1]] or None
                assert regions == ([region for region in info.sparse or [] if region[1]] or None)
            if entry.sparse is not None:
                assert sum(length for _, length in entry.sparse) == entry.payload_size


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_entries_of_tarfile_archives_are_what_tarfile_reads(tar_format: int) -> None:
    target = io.BytesIO()
    long = tar_format != tarfile.USTAR_FORMAT
    with tarfile.open(fileobj=target, mode="w", format=tar_format, encoding="utf-8") as archive:
        for number, type_ in enumerate(KINDS):
            if type_ == tarfile.GNUTYPE_SPARSE:
                continue
            info = tarfile.TarInfo(f"dir/{number}-" + "ä" * (200 if long else 20))
            info.type, info.mode, info.mtime = type_, 0o4751, 1_700_000_000
            info.uid, info.gid = (3_000_000, 5_000_000) if long else (1000, 100)
            info.uname, info.gname = "user", "gruppe"
            info.linkname = "../t" * (60 if long else 10) if info.issym() or info.islnk() else ""
            info.devmajor, info.devminor = (8, 17) if info.isblk() or info.ischr() else (0, 0)
            info.size = 700 if type_ in (b"0", b"\0", b"7") else 0
            if tar_format == tarfile.PAX_FORMAT:
                info.mtime = 1_700_000_000.25  # type: ignore[assignment]
            archive.addfile(info, io.BytesIO(bytes(700)))
        prefix = tarfile.TarInfo("p" * 120 + "/" + "n" * 90)
        archive.addfile(prefix)
    assert_agrees_with_tarfile(target.getvalue())


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU tar")
@pytest.mark.parametrize(
    "options",
    [
        "--format=v7",
        "--format=oldgnu",
        "--format=gnu",
        "--format=ustar",
        "--format=posix",
        "--format=oldgnu --sparse",
        "--format=gnu --sparse",
        "--format=posix --sparse --sparse-version=0.0",
        "--format=posix --sparse --sparse-version=0.1",
        "--format=posix --sparse --sparse-version=1.0",
    ],
)
def test_entries_of_gnu_tar_archives_are_what_tarfile_reads(tmp_path: Path, options: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "plain").write_bytes(b"plain" * 1000)
    with (root / "holes").open("wb") as file:
        for number in range(40):
            file.seek(number * 65536)
            file.write(b"%04d" % number * 1024)
        file.truncate(41 * 65536)
    (root / "link").symlink_to("plain")
    (root / "second").hardlink_to(root / "plain")
    if "v7" not in options and "ustar" not in options:
        (root / ("n" * 150)).mkdir()
        (root / ("n" * 150) / "ünï").write_bytes(b"x")
    command = ["tar", "-C", str(root), *options.split(), "--sort=name", "-cf", "-", "."]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert_agrees_with_tarfile(data)
    by_path = {entry.path: entry for entry in read_entries(data)}
    assert by_path[b""].raw_path == b"./"
    assert by_path[b"holes"].size == 41 * 65536
    if "--sparse" in options and "1.0" not in options:
        sparse = by_path[b"holes"].sparse
        assert sparse is not None
        assert (30 * 65536, 4096) in sparse
    assert by_path[b"holes"].sparse_in_payload == ("1.0" in options)


def test_payload_offsets_point_at_the_contents() -> None:
    data = entry_bytes("a", contents=b"A" * 600) + entry_bytes("b", contents=b"B" * 5, path="c" * 200) + bytes(1024)
    first, second = read_entries(data)
    assert data[first.payload_offset :][: first.payload_size] == b"A" * 600
    assert data[second.payload_offset :][: second.payload_size] == b"B" * 5
    assert (first.header_offset, second.header_offset) == (0, 512 + 1024)
    assert second.path == b"c" * 200


def test_xattrs_and_times_are_exact() -> None:
    """Capabilities are binary; tarfile keeps times as floats, which lose nanoseconds."""
    value = bytes(range(256)).decode("utf-8", "surrogateescape")
    body = b"SCHILY.xattr.security.capability=" + bytes(range(256)) + b"\n"
    record = b"%d " % (len(body) + 4) + body
    info = tarfile.TarInfo("pax")
    info.size, info.type = len(record), b"x"
    data = info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % BLOCK)
    data += tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT)
    (entry,) = read_entries(data)
    assert entry.xattrs == {b"security.capability": value.encode("utf-8", "surrogateescape")}
    for text, expected in (
        ("1700000000.123456789", 1700000000123456789),
        ("1.5", 1_500_000_000),
        ("-1.5", -1_500_000_000),
        ("2", 2_000_000_000),
        (".25", 250_000_000),
        ("0.0000000019", 1),
        ("nonsense", 0),
        ("1.x", 0),
    ):
        assert read_entries(entry_bytes(mtime=text))[0].mtime_ns == expected


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"\xff\xfe", b"\xff\xfe"),
        (b"/etc/passwd", b"/etc/passwd"),
        (b"../../etc/passwd", b"../../etc/passwd"),
        (b"./a/../b", b"a/../b"),
        (b"././a", b"a"),
        (b".//a", b"a"),
        (b"a/b///", b"a/b"),
        (b"./", b""),
        (b".", b""),
        (b"./.", b""),
        (b"/", b"/"),
        (b"///", b"/"),
        (b"", b""),
        (b".wh.x", b".wh.x"),
    ],
)
def test_names_keep_their_bytes(name: bytes, path: bytes) -> None:
    """Only a leading "./" and trailing slashes go: hostile and broken names are for the reader of paths to judge."""
    assert normalise_path(name) == path
    info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
    (entry,) = read_entries(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape"))
    assert (entry.raw_path, entry.path) == (name, path)


def test_a_name_of_a_megabyte_is_normalised_in_one_go() -> None:
    assert normalise_path(b"./" * 500_000 + b"x") == b"x"


def test_duplicates_are_all_returned_in_order() -> None:
    data = entry_bytes("f", contents=b"1") + entry_bytes("f", contents=b"22") + bytes(1024)
    assert [(entry.path, entry.size) for entry in read_entries(data)] == [(b"f", 1), (b"f", 2)]


def test_entries_behind_the_end_mark_are_marked() -> None:
    """Container engines stop at the end mark: what stands behind it is not in the file system they see."""
    data = entry_bytes("seen") + bytes(1024) + entry_bytes("unseen")
    assert [(entry.path, entry.after_end) for entry in read_entries(data)] == [(b"seen", False), (b"unseen", True)]


def test_global_records_hold_until_they_are_overridden() -> None:
    info = tarfile.TarInfo("g")
    body = b"9 uid=77\n" + b"13 uname=abc\n" + b"11 path=no\n"
    info.size, info.type = len(body), b"g"
    data = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(BLOCK - len(body))
    data += entry_bytes("a") + entry_bytes("b", uid="5") + bytes(1024) + entry_bytes("c")
    entries = read_entries(data)
    assert [(entry.path, entry.uid, entry.uname) for entry in entries] == [
        (b"a", 77, b"abc"),
        (b"b", 5, b"abc"),
        (b"c", 0, b""),
    ]


def test_a_cut_entry_tells_how_much_there_is() -> None:
    data = entry_bytes("f", size=5000)[:BLOCK] + b"x" * 100
    (entry,) = read_entries(data)
    assert (entry.size, entry.payload_size) == (5000, 100)
    (entry,) = read_entries(data[:BLOCK])
    assert (entry.size, entry.payload_size) == (5000, 0)


def test_an_entry_is_returned_when_its_contents_have_passed() -> None:
    reader = EntryReader()
    assert reader.skeleton(entry_bytes("f", size=1000)) == []
    assert reader.payload(400) == []
    (entry,) = reader.payload(600)
    assert entry.payload_size == 1000
    assert reader.finish() == []


def test_what_is_no_tar_has_no_entries() -> None:
    assert read_entries(b"no tar" * 1000) == []
    assert read_entries(bytes(5000)) == []
    assert read_entries(b"") == []
    assert [entry.path for entry in read_entries(entry_bytes("f") + bytes(1024) + b"rubbish" * 100)] == [b"f"]


def test_lengths_that_do_not_fit_the_headers_are_refused() -> None:
    """Skeleton and lengths that come from different layers are an error, not a wrong index."""
    head = entry_bytes("f", size=1000)
    reader = EntryReader()
    reader.skeleton(head)
    with pytest.raises(InvalidInputError):
        reader.payload(1001)
    reader = EntryReader()
    with pytest.raises(InvalidInputError):
        reader.skeleton(head + head)
    reader = EntryReader()
    reader.skeleton(head)
    with pytest.raises(InvalidInputError):
        reader.skeleton(head)
    reader = EntryReader()
    reader.skeleton(head[:100])
    with pytest.raises(InvalidInputError):
        reader.payload(5)


def test_a_map_of_many_regions_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.tar.entries.SPARSE_REGIONS_MAX", 30)
    info = tarfile.TarInfo("f")
    info.type = b"S"
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    extension = b"00000000512\x0000000000000\0" * 21 + b"\1" + bytes(7)
    for count, known in ((1, True), (2, False), (200, False)):
        data = bytes(block) + extension * (count - 1) + extension[:504] + bytes(8)
        (entry,) = read_entries(data)
        assert (entry.sparse is not None) == known


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            entry_bytes,
            name=st.text("ab/.é", min_size=1, max_size=150),
            contents=st.binary(max_size=1500),
            type_=st.sampled_from([b"0", b"7"]),
            mtime=st.sampled_from(["1", "1.5", "x"]),
        ),
        max_size=5,
    ).map(b"".join),
    st.integers(1, 3000),
    st.integers(0, 3000),
)
def test_law_entries_do_not_depend_on_feeds_and_cover_all_payload(data: bytes, feed_size: int, end: int) -> None:
    assert read_entries(data, feed_size) == read_entries(data)
    part = data[:end]
    pieces = TarSplitter().feed(part)
    entries = read_entries(part, feed_size)
    stored = b"".join(piece.data for piece in pieces if piece.kind is PieceKind.PAYLOAD)
    assert b"".join(part[entry.payload_offset :][: entry.payload_size] for entry in entries) == stored


@given(st.binary(min_size=1000, max_size=1000), st.sampled_from(b"01234567xgLKSXD\0"), st.booleans())
def test_headers_of_random_bytes_never_fail(noise: bytes, typeflag: int, pax: bool) -> None:
    block = bytearray(noise[:512])
    block[156] = typeflag
    block[124:136] = b"00000001000\0"
    if pax:
        block[257:263] = b"ustar\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    follower = tarfile.TarInfo("f").tobuf()
    read_entries(bytes(block) + noise[512:] + bytes(24) + follower)
