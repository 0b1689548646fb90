"""What `tree_blocks` promises: the same tree gives the same bytes, and every tar program gives the tree back."""

import contextlib
import io
import os
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerstore.errors import InvalidInputError, StorageError
from layerstore.tar import writer
from layerstore.tar.entries import EntryKind, EntryReader, TarEntry
from layerstore.tar.splitter import PieceKind, TarSplitter
from layerstore.tar.tree import tree_blocks

MEBIBYTE = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs GNU tar and Linux's extended attributes")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def tar_of(root: Path, **options: int) -> bytes:
    return b"".join(tree_blocks(root, **options))  # type: ignore[arg-type]


def entries_of(data: bytes) -> list[TarEntry]:
    splitter, reader, entries = TarSplitter(), EntryReader(), []
    for piece in splitter.feed(data) + splitter.finish():
        entries += reader.payload(len(piece.data)) if piece.kind is PieceKind.PAYLOAD else reader.skeleton(piece.data)
    return entries


def names(data: bytes) -> list[bytes]:
    return [entry.raw_path for entry in entries_of(data)]


def gnu_extract(data: bytes, target: Path) -> Path:
    target.mkdir()
    command = ["tar", "-C", str(target), "-x", "-p", "--xattrs", "--xattrs-include=*", "-f", "-"]
    process = subprocess.run(command, input=data, capture_output=True, check=False)
    assert process.returncode == 0, process.stderr
    # The only keyword that GNU tar does not know: it takes names as bytes anyhow.
    warnings = [
        line for line in process.stderr.splitlines() if b"unknown extended header keyword 'hdrcharset'" not in line
    ]
    assert warnings == []
    return target


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that a layer keeps of a tree."""
    base = os.fsencode(root)
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    for directory, directories, files in sorted(os.walk(base)):
        for name in sorted(directories + files):
            path = directory + b"/" + name
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)  # noqa: PTH115 - names that are not UTF-8 stay bytes
            elif stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in xattr_names(path)}
            group = inodes.setdefault(status.st_ino, path[len(base) :]) if not stat.S_ISDIR(status.st_mode) else None
            found[path[len(base) :]] = (
                stat.S_IFMT(status.st_mode),
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                int(status.st_mtime),
                status.st_rdev,
                content,
                attributes,
                group,
            )
    return found


def xattr_names(path: bytes) -> list[str]:
    return [name for name in os.listxattr(path, follow_symlinks=False) if name != "security.selinux"]


def settle(root: Path) -> None:
    """Whole seconds everywhere: what the tar keeps of a time."""
    for directory, directories, files in os.walk(root, topdown=False):
        for name in directories + files:
            os.utime(Path(directory, name), (1_600_000_000, 1_600_000_000), follow_symlinks=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with something of every kind."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "tool").write_bytes(b"tool" * 5000)
    (root / "usr" / "bin" / "tool").chmod(0o4755)
    (root / "usr" / "empty").mkdir(mode=0o700)
    (root / "empty").write_bytes(b"")
    (root / "link").symlink_to("usr/bin/tool")
    (root / "dangling").symlink_to("ü" * 90)
    (root / "a-b").write_bytes(b"-")
    (root / "a").mkdir()
    (root / "a" / "x").write_bytes(b"x" * 512)
    (root / "z-second").hardlink_to(root / "usr" / "bin" / "tool")
    (root / "a" / "third").hardlink_to(root / "usr" / "bin" / "tool")
    os.link(root / "link", root / "link2", follow_symlinks=False)
    (root / "ünïcode").write_bytes(b"u")
    (root / ("l" * 200)).mkdir()
    (root / ("l" * 200) / ("m" * 200)).write_bytes(b"long")
    (root / ("d" * 90)).mkdir()
    (root / ("d" * 90) / ("f" * 80)).write_bytes(b"prefix")
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff")).write_bytes(b"n")
    os.mkfifo(root / "fifo", 0o640)
    with contextlib.suppress(OSError):  # not every temporary file system has them
        os.setxattr(root / "a" / "x", "user.binary", bytes(range(256)))
        os.setxattr(root / "a", "user.empty", b"")
    if os.geteuid() == 0:
        os.chown(root / "a", 1000, 3_000_000)
        with contextlib.suppress(PermissionError):  # root in a container may do neither
            os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.setxattr(
                root / "empty", "security.capability", bytes.fromhex("01000002000400000000000000000000" + "00" * 4)
            )
    settle(root)
    return root


def test_gnu_tar_gives_the_tree_back(root: Path, tmp_path: Path) -> None:
    """Names, kinds, modes, owners, times, links, devices, extended attributes and contents."""
    expected = describe(root)
    assert describe(gnu_extract(tar_of(root), tmp_path / "out")) == expected


def test_tarfile_gives_the_tree_back(root: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(root))) as archive:
        archive.extractall(tmp_path / "out", filter="fully_trusted")

    def comparable(tree: dict[bytes, tuple[object, ...]]) -> dict[bytes, list[object]]:
        """Without what tarfile does not restore: extended attributes, times of symbolic links, hard links to them."""
        facts_by_path = {path: [*facts[:7], facts[8]] for path, facts in tree.items()}
        for facts in facts_by_path.values():
            if facts[0] == stat.S_IFLNK:
                facts[4] = facts[7] = None
        return facts_by_path

    assert comparable(describe(tmp_path / "out")) == comparable(describe(root))


def test_the_same_tree_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    """Neither the place, nor the order of creation, nor the size of blocks, nor extraction in between matters."""
    data = tar_of(root)
    assert tar_of(root, block_size=1000) == data
    assert tar_of(gnu_extract(data, tmp_path / "out")) == data
    shutil.move(root, tmp_path / "elsewhere")
    assert tar_of(tmp_path / "elsewhere") == data


def test_blocks_have_the_size_that_was_asked_for(root: Path) -> None:
    blocks = list(tree_blocks(root, block_size=4096))
    assert {len(block) for block in blocks[:-1]} == {4096}


def by_components(path: bytes) -> list[bytes]:
    return path.split(b"/")


def test_entries_are_in_order_without_the_root(root: Path) -> None:
    """Bytewise in each directory, and a directory right before its contents."""
    found = names(tar_of(root))
    paths = [name.rstrip(b"/") for name in found]
    assert paths == sorted(paths, key=by_components)
    assert paths[:4] == [b"a", b"a/third", b"a/x", b"a-b"]
    assert b"usr/bin/" in found
    assert b"" not in paths
    assert b"." not in paths


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.lists(st.text("ab-.0~", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join), max_size=12))
def test_law_order_is_by_components_for_any_names(tmp_path_factory: pytest.TempPathFactory, paths: set[str]) -> None:
    root = tmp_path_factory.mktemp("order")
    for path in paths:
        if not {".", ".."} & set(path.split("/")):
            (root / path).mkdir(parents=True, exist_ok=True)
    found = [name.rstrip(b"/") for name in names(tar_of(root))]
    assert found == sorted((os.fsencode(path.relative_to(root)) for path in root.rglob("*")), key=by_components)


def test_an_empty_tree_is_an_empty_tar(tmp_path: Path) -> None:
    assert tar_of(tmp_path) == bytes(1024)


def test_later_names_of_a_file_are_hard_links(root: Path) -> None:
    entries = {entry.path: entry for entry in entries_of(tar_of(root))}
    assert entries[b"a/third"].kind == EntryKind.FILE  # the first in order
    for name in (b"usr/bin/tool", b"z-second"):
        assert entries[name].kind == EntryKind.HARDLINK
        assert entries[name].link_target == b"a/third"
    assert entries[b"link2"].link_target == b"link"


def test_a_link_out_of_the_tree_is_a_file(tmp_path: Path) -> None:
    """One name inside, one outside: there is nothing to link to."""
    root = tmp_path / "tree"
    root.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    (root / "f").hardlink_to(tmp_path / "outside")
    assert [entry.kind for entry in entries_of(tar_of(root))] == [EntryKind.FILE]


def test_times_are_whole_seconds_and_limited(tmp_path: Path) -> None:
    for name, nanoseconds in (("old", -1_500_000_000), ("now", 1_700_000_000_999_999_999), ("late", 9 * 10**18)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, ns=(nanoseconds, nanoseconds))
        actual = (tmp_path / name).stat().st_mtime_ns
        times = {entry.path: entry.mtime_ns for entry in entries_of(tar_of(tmp_path))}
        assert times[name.encode()] == actual // 10**9 * 10**9
    limited = {entry.path: entry.mtime_ns // 10**9 for entry in entries_of(tar_of(tmp_path, mtime_max=1_000_000_000))}
    assert limited == {b"old": -2, b"now": 1_000_000_000, b"late": 1_000_000_000}


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (tmp_path / "file").write_bytes(b"")
        assert names(tar_of(tmp_path)) == [b"file"]


@as_root
def test_big_owner_numbers_survive(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    os.chown(tmp_path / "f", 2_097_151, 4_000_000_000)
    (entry,) = entries_of(tar_of(tmp_path))
    assert (entry.uid, entry.gid, entry.uname, entry.gname) == (2_097_151, 4_000_000_000, b"", b"")


def holes_near_the_begin(path: Path) -> None:
    with path.open("wb") as file:
        file.seek(3 * MEBIBYTE)
        file.write(b"data")


def holes_at_the_end(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"data")
        file.truncate(5 * MEBIBYTE + 77)


def nothing_but_a_hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def many_holes(path: Path) -> None:
    with path.open("wb") as file:
        for number in range(50):
            file.seek(number * 128 * 1024)
            file.write(b"%04d" % number * 1024)
        file.write(b"odd end")


@pytest.mark.parametrize("make", [holes_near_the_begin, holes_at_the_end, many_holes])
@pytest.mark.parametrize("name", ["sparse", "ü" * 120])
def test_sparse_files_cost_their_data_and_come_back(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    root = tmp_path / "tree"
    (root / "dir").mkdir(parents=True)
    make(root / "dir" / name)
    settle(root)
    data = tar_of(root)
    assert len(data) < 300_000
    entry = entries_of(data)[1]
    assert entry.sparse_in_payload
    assert entry.size == (root / "dir" / name).stat().st_size
    assert entry.path == f"dir/{name}".encode()
    out = gnu_extract(data, tmp_path / "out")
    assert describe(out) == describe(root)
    assert tar_of(out) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path / "out2", filter="fully_trusted")
    assert describe(tmp_path / "out2") == describe(root)


def test_a_terabyte_of_nothing_costs_nothing(tmp_path: Path) -> None:
    """As `lastlog` with a high user number: a size of a terabyte, and no block on disk."""
    nothing_but_a_hole(tmp_path / "lastlog")
    data = tar_of(tmp_path)
    assert len(data) < 4096
    (entry,) = entries_of(data)
    assert entry.size == 1 << 40


def test_small_holes_are_written_as_zeros(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(MEBIBYTE // 2)
    (entry,) = entries_of(tar_of(tmp_path))
    assert not entry.sparse_in_payload
    assert entry.payload_size == MEBIBYTE // 2


def test_a_file_of_too_many_regions_is_data_from_there_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SPARSE_REGIONS_MAX", 10)
    root = tmp_path / "tree"
    root.mkdir()
    many_holes(root / "f")
    settle(root)
    with (root / "f").open("r+b") as file:
        file.truncate(60 * 128 * 1024)
    monkeypatch.setattr(writer, "SPARSE_SAVING_MIN", MEBIBYTE // 2)
    data = tar_of(root)
    assert data.count(b"\n") > 20
    assert len(data) > 6 * MEBIBYTE
    settle(root)
    data = tar_of(root)
    assert describe(gnu_extract(data, tmp_path / "out")) == describe(root)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"short"),
        lambda path: path.write_bytes(b"x" * 9 * MEBIBYTE),
        lambda path: os.truncate(path, 2 * MEBIBYTE),
        lambda path: os.utime(path, (1, 1)),
    ],
    ids=["shrinks", "grows", "is cut", "is touched"],
)
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A mixture of old and new bytes must not become a layer."""
    (tmp_path / "f").write_bytes(b"x" * 8 * MEBIBYTE)
    blocks = tree_blocks(tmp_path)
    next(blocks)
    change(tmp_path / "f")
    with pytest.raises(InvalidInputError, match="while it was read"):
        list(blocks)


@pytest.mark.parametrize("name", ["b", "c"])
def test_what_vanishes_while_the_tree_is_read_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3 * MEBIBYTE)
    (tmp_path / "b").write_bytes(b"b")
    (tmp_path / "c").mkdir()
    blocks = tree_blocks(tmp_path)
    next(blocks)
    path = tmp_path / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InvalidInputError, match="is not there"):
        list(blocks)


def test_a_directory_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    """Files from outside of the tree must not get into a layer."""
    root = tmp_path / "tree"
    (root / "dir").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    blocks = tree_blocks(root, block_size=512)
    next(blocks)
    (root / "dir").rmdir()
    (root / "dir").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidInputError, match="is not there"):
        list(blocks)


def test_a_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert tar_of(tmp_path / "link") == tar_of(root)


def test_a_root_that_is_no_directory_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="not a directory"):
        tree_blocks(tmp_path / "file")
    with pytest.raises(InvalidInputError, match="is not there"):
        tree_blocks(tmp_path / "missing")


def test_an_attribute_that_no_record_can_name_is_an_error(tmp_path: Path) -> None:
    """Keyword and value are parted by "=": the attribute would come back as another one."""
    (tmp_path / "f").write_bytes(b"")
    try:
        os.setxattr(tmp_path / "f", "user.a=b", b"c")
    except OSError:
        pytest.skip("the temporary file system has no extended attributes")
    with pytest.raises(InvalidInputError, match="attribute"):
        tar_of(tmp_path)


def test_a_file_that_must_not_be_read_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        tar_of(tmp_path)
