"""Nothing outside of the directory changes, whatever layers say: either they are refused, or they do no harm."""

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from samples import END, header, member
from unpacking_stacks import describe, directory, entry, hard, layer_of, link

from layerstore import EntryKind, Node, Store
from layerstore.directories import Directories
from layerstore.errors import InvalidInputError, LayerstoreError
from layerstore.unpacking import unpack
from layerstore.unpacking.checks import check_nodes

Stack = Callable[[str], list[bytes]]


def names_in(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree beside the target that must stay as it is."""
    place = tmp_path / "canary"
    (place / "folder").mkdir(parents=True)
    (place / "file").write_bytes(b"alive")
    (place / "folder" / "other").write_bytes(b"too")
    (tmp_path / "beside").write_bytes(b"the target")
    before = describe(place), set(names_in(tmp_path))
    yield place
    assert describe(place) == before[0]
    assert set(names_in(tmp_path)) - before[1] <= {"store", "target"}
    assert (tmp_path / "beside").read_bytes() == b"the target"


def one(*entries: tuple[tarfile.TarInfo, bytes]) -> Stack:
    """A stack of one layer whose names and targets may have ``{canary}`` in them."""

    def stack(canary: str) -> list[bytes]:
        for info, _ in entries:
            info.name = info.name.replace("{canary}", canary)
            info.linkname = info.linkname.replace("{canary}", canary)
        return [layer_of(*entries)]

    return stack


def several(*stacks: Stack) -> Stack:
    return lambda canary: [layer for stack in stacks for layer in stack(canary)]


def raw(layer: bytes) -> Stack:
    return lambda canary: [layer]


BAD = b"bad"
HOSTILE: dict[str, Stack] = {
    "absolute name": one(entry("{canary}/file", data=BAD)),
    "parent names": one(entry("../canary/file", data=BAD), entry("a/../../../canary/folder/new", data=BAD)),
    "parent of all": one(directory(".."), entry("..", data=BAD), directory("../", mode=0o777, uid=5)),
    "dots": one(entry("./././../.././canary/file", data=BAD), entry("a/./b//c", data=BAD)),
    "file through a link": one(link("out", "{canary}"), entry("out/file", data=BAD), entry("out/new", data=BAD)),
    "file through a relative link": one(link("out", "../canary"), entry("out/file", data=BAD)),
    "file over a link": one(link("out", "{canary}/file"), entry("out", data=BAD)),
    "link over a link": one(link("out", "{canary}/file"), link("out", "{canary}/folder")),
    "directory over a link": one(link("out", "{canary}/folder"), directory("out", mode=0o777)),
    "chain of links": one(link("a", "b"), link("b", "{canary}/folder"), entry("a/other", data=BAD)),
    "loop of links": one(link("a", "b"), link("b", "a"), entry("a/file", data=BAD)),
    "link to the root": one(link("a", "/"), entry("a/a/a/x", data=BAD)),
    "hard link out": one(hard("in", "{canary}/file")),
    "hard link out by dots": one(hard("in", "../canary/file"), entry("in", data=BAD)),
    "hard link to a link": one(link("out", "{canary}/file"), hard("in", "out", mode=0o777), entry("in", data=BAD)),
    "hard link through a link": one(link("out", "{canary}"), hard("in", "out/file")),
    "hard link to itself": one(hard("in", "in")),
    "hard link to a directory": one(directory("d"), hard("in", "d")),
    "link below, file above": several(one(link("out", "{canary}")), one(entry("out/file", data=BAD))),
    "directory below, link above": several(
        one(directory("out"), entry("out/file", data=b"good")),
        one(link("out", "{canary}")),
        one(entry("out/file", data=BAD), entry("out/.wh.folder")),
    ),
    "whiteout through a link": several(one(link("out", "{canary}")), one(entry("out/.wh.file"))),
    "opaque through a link": several(one(link("out", "{canary}")), one(entry("out/.wh..wh..opq"))),
    "whiteout of a parent": several(one(directory("d")), one(entry("d/.wh..."))),
    "whiteout of dots": several(
        one(directory("d")), one(entry("d/.wh...")), one(entry("d/.wh..")), one(entry(".wh..."))
    ),
    "whiteout with a slash": several(one(directory("d")), one(entry("d/.wh./../../canary/file"))),
    "whiteout without a name": one(entry(".wh.")),
    "device as a directory": one(entry("dev", tarfile.CHRTYPE, devmajor=1, devminor=3), entry("dev/x", data=BAD)),
    "impossible device": one(entry("dev", tarfile.BLKTYPE, devmajor=2_000_000, devminor=2_000_000)),
    "long name": one(entry("n" * 256, data=BAD)),
    "long path": one(entry("d/" * 2047 + "file", data=BAD)),
    "far too long path": one(entry("d/" * 40_000 + "file", data=BAD)),
    "deep directories": one(*(directory("d/" * depth) for depth in range(1, 120)), entry("d/" * 119 + "f", data=b"x")),
    "newline and escapes": one(entry("a\nb\x1b[2J", data=b"x"), entry("\udcfe\udcff", data=b"x")),
    "no one's file": one(entry("f", uid=2**32 - 1)),
    "owner beyond all": one(entry("f", uid=2**40)),
    "closed directories": one(directory("d", mode=0), directory("d/e", mode=0), entry("d/e/f", data=b"x", mode=0)),
    "times out of range": one(entry("f", mtime_text="99999999999999999999"), directory("d", mtime_text="-9" * 9)),
    "link to nothing at all": one(link("l", "x" * 5000)),
    "zero byte in a name": raw(header(b"a") + header(b"b\0/../../canary/file") + END),
    "empty name": raw(member(BAD, b"") + END),
    "cut contents": raw(header(b"f", 5000) + b"only this"),
    "a root that is a file": raw(header(b"./", 0, b"0") + header(b".", 0, b"2", b"/") + END),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers(store: Store, tmp_path: Path, canary: Path, name: str) -> None:
    target = tmp_path / "target"
    layers = [store.push_layer(layer).layer for layer in HOSTILE[name](str(canary))]
    try:
        with store.view(layers) as view:
            unpack(view, target)
    except LayerstoreError as error:
        assert str(error)
        assert not target.exists()
    else:
        assert target.is_dir()


def test_a_refused_image_leaves_an_empty_directory_as_it_was(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(0o751)
    layer = store.push_layer(layer_of(entry("a"), entry("n" * 256))).layer
    with store.view([layer]) as view, pytest.raises(InvalidInputError, match="more than 255 bytes"):
        unpack(view, target)
    assert names_in(target) == []
    assert target.stat().st_mode & 0o7777 == 0o751


NODE = Node(b"a", EntryKind.FILE, 0o644, 0, 0, 0, 0, b"", (0, 0), {}, 1, (0, 1), None, None, None)
FOLDER = replace(NODE, path=b"d", kind=EntryKind.DIRECTORY)


@pytest.mark.parametrize(
    "nodes",
    [
        [replace(NODE, path=b"..")],
        [replace(NODE, path=b".")],
        [replace(NODE, path=b"")],
        [replace(NODE, path=b"/etc")],
        [replace(NODE, path=b"d/x")],
        [FOLDER, replace(NODE, path=b"d/..")],
        [FOLDER, replace(NODE, path=b"d/../x")],
        [FOLDER, replace(NODE, path=b"d//x")],
        [FOLDER, replace(NODE, path=b"d/")],
        [FOLDER, FOLDER],
        [replace(NODE, path=b"a\0b")],
        [replace(NODE, kind=EntryKind.SYMLINK, link_target=b"/"), replace(NODE, path=b"a/x")],
        [replace(NODE, kind=EntryKind.SYMLINK, link_target=b"x\0y")],
        [replace(NODE, kind=EntryKind.SYMLINK, link_target=b"")],
        [replace(NODE, uid=-1)],
        [replace(NODE, gid=2**32 - 1)],
        [replace(NODE, size=2**63)],
        [replace(NODE, kind=EntryKind.BLOCK, device=(-1, 0))],
        [replace(NODE, xattrs={b"": b""})],
        [replace(NODE, xattrs={b"user.a\0b": b""})],
    ],
)
def test_what_no_view_should_give_is_refused(nodes: list[Node]) -> None:
    with pytest.raises(InvalidInputError):
        check_nodes(nodes)


def test_directories_are_reached_over_no_link(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "link").symlink_to(tmp_path / "out")
    descriptor = os.open(tmp_path / "root", os.O_RDONLY)
    try:
        with Directories(descriptor) as directories:
            directories.open(b"a")
            for path in (b"a/link", b"a/link/b"):
                with pytest.raises(OSError):
                    directories.open(path)
            assert os.fstat(directories.open(b"a")).st_ino == (tmp_path / "root" / "a").stat().st_ino
    finally:
        os.close(descriptor)


def test_directories_of_any_depth(tmp_path: Path) -> None:
    """Only some levels stay open, and still every path leads where it should."""
    paths = [b"/".join([b"d"] * depth) for depth in (1, 31, 32, 33, 34, 80, 33, 79, 31, 80, 2)]
    (tmp_path / ("d/" * 80)).mkdir(parents=True)
    before = len(names_in(Path("/proc/self/fd")))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with Directories(descriptor) as directories:
            for path in paths:
                expected = (tmp_path / os.fsdecode(path)).stat().st_ino
                assert os.fstat(directories.open(path)).st_ino == expected
                assert len(names_in(Path("/proc/self/fd"))) < before + 36
    finally:
        os.close(descriptor)
    assert len(names_in(Path("/proc/self/fd"))) == before
