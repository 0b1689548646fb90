"""What went wrong elsewhere with stacks of layers: shown by a view, changed in a container, unpacked to a disk.

Each test names the public bug that it is about. How such layers are stored is tested in test_tar_cases.py.
"""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import BLOCK, END, header, member, pax_sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "union"))

from union_samples import Member, file, folder, hardlink, layer, opaque, shown, symlink, whiteout

from layerstore import Container, Image, Store
from layerstore.errors import InvalidInputError
from layerstore.tar.entries import EntryKind
from layerstore.unpacking import unpack

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for owners, devices and attributes of the system")
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
BASE = layer(folder(b"d", mtime=5), file(b"d/a", b"1"), file(b"d/b", b"2"), folder(b"d/s"), file(b"d/s/c", b"3"))


def image_of(store: Store, *layers: bytes) -> Image:
    return store.create_image([store.push_layer(data).layer for data in layers])


def on_disk(root: Path) -> dict[bytes, object]:
    """A directory as `union_samples.shown` has a view."""
    found: dict[bytes, object] = {}
    for path in root.rglob("*"):
        name = os.fsencode(path.relative_to(root))
        if path.is_symlink():
            found[name] = [os.readlink(os.fsencode(path))]  # noqa: PTH115 - pathlib would clean it
        else:
            found[name] = None if path.is_dir() else path.read_bytes() if path.is_file() else kind_of(path)
    return found


def kind_of(path: Path) -> str:
    return {stat.S_IFIFO: "FIFO", stat.S_IFCHR: "CHARACTER", stat.S_IFBLK: "BLOCK"}[stat.S_IFMT(path.lstat().st_mode)]


def check_everywhere(store: Store, place: Path, expected: dict[bytes, object], *layers: bytes) -> Image:
    """The view, a new container, what a container commits, and what is unpacked are all the same."""
    image = image_of(store, *layers)
    with image.view() as view, image.container() as container:
        assert shown(view) == expected
        assert shown(container) == expected
        assert container.changes() == []
        unpack(view, place / "unpacked")
        assert on_disk(place / "unpacked") == expected
        container.write_bytes("added-on-top", b"x")
        with container.commit().view() as committed:
            assert shown(committed) == {**expected, b"added-on-top": b"x"}
    return image


def committed(store: Store, place: Path, image: Image, change: Callable[[Container], object]) -> dict[bytes, object]:
    """What a change of a container makes, which is the same in the container, in the image of it, and unpacked."""
    with image.container() as container:
        change(container)
        expected = shown(container)
        with container.commit().view() as view:
            assert shown(view) == expected
            unpack(view, place / "committed")
    assert on_disk(place / "committed") == expected
    return expected


# --- whiteouts --------------------------------------------------------------------------------------------------------


def test_a_whiteout_hides_what_is_not_directly_below(store: Store, tmp_path: Path) -> None:
    """buildkit#2614: the layer between knows nothing of the path, or has its directory only."""
    expected = {b"d": None, b"d/b": b"2", b"d/s": None, b"d/s/c": b"3", b"other": b"x", b"d/new": b"n"}
    between = [layer(file(b"other", b"x")), layer(folder(b"d")), layer(file(b"d/new", b"n"))]
    image = check_everywhere(store, tmp_path, expected, BASE, *between, layer(whiteout(b"d/a")))
    again = committed(store, tmp_path, image, lambda container: container.unlink("d/b"))
    assert again == {path: data for path, data in expected.items() if path != b"d/b"}


@pytest.mark.parametrize("order", ["first", "last"])
def test_an_opaque_directory_whose_children_are_made_anew(store: Store, tmp_path: Path, order: str) -> None:
    """fuse-overlayfs#136, #138, #425: what the layer itself has in it stays, wherever the mark stands."""
    own = [folder(b"d"), file(b"d/a", b"new"), folder(b"d/s"), file(b"d/s/d", b"4")]
    members = [opaque(b"d"), *own] if order == "first" else [*own, opaque(b"d")]
    expected = {b"d": None, b"d/a": b"new", b"d/s": None, b"d/s/d": b"4"}
    check_everywhere(store, tmp_path, expected, BASE, layer(*members))


def test_a_directory_that_is_removed_and_made_again_shows_nothing_of_before(store: Store, tmp_path: Path) -> None:
    """fuse-overlayfs#136, #425: in a container, and in the layer that it commits."""

    def change(container: Container) -> None:
        container.remove_tree("d")
        container.mkdir("d/s", parents=True)
        container.write_bytes("d/a", b"new")
        assert container.listdir("d/s") == []

    expected = {b"d": None, b"d/a": b"new", b"d/s": None}
    assert committed(store, tmp_path, image_of(store, BASE), change) == expected


def test_removing_a_directory_that_is_in_both_layers(store: Store, tmp_path: Path) -> None:
    """fuse-overlayfs#138: a directory with changes in it can be emptied, removed, and made again, over and over."""

    def change(container: Container) -> None:
        for number in range(3):
            container.write_bytes("d/s/new", b"%d" % number)
            for name in container.listdir("d/s"):
                container.unlink(f"d/s/{name}")
            container.rmdir("d/s")
            container.mkdir("d/s")

    expected = {b"d": None, b"d/a": b"1", b"d/b": b"2", b"d/s": None}
    assert committed(store, tmp_path, image_of(store, BASE), change) == expected


def test_an_opaque_ancestor_counts_where_a_directory_below_it_is_listed(store: Store, tmp_path: Path) -> None:
    """dagger#13844: asked for at once, and by every way to ask."""
    upper = layer(folder(b"d"), opaque(b"d"), folder(b"d/s"), file(b"d/s/new", b"4"))
    expected = {b"d": None, b"d/s": None, b"d/s/new": b"4"}
    image = check_everywhere(store, tmp_path, expected, BASE, upper)
    with image.view() as view, image.container() as container:
        for files in (view, container):
            assert files.listdir(b"d/s") == [b"new"]
            assert [node.path for node in files.glob(b"d/s/*")] == [b"d/s/new"]
            assert not files.exists("d/s/c")
            assert [node.path for node in files.nodes("d/s")] == [b"d/s/new"]


def test_an_opaque_directory_that_also_holds_a_whiteout(store: Store, tmp_path: Path) -> None:
    """fuse-overlayfs#306: the whiteout adds nothing, and shows nowhere."""
    upper = layer(folder(b"d"), opaque(b"d"), whiteout(b"d/a"), whiteout(b"d/none"), file(b"d/b", b"new"))
    image = check_everywhere(store, tmp_path, {b"d": None, b"d/b": b"new"}, BASE, upper)
    assert committed(store, tmp_path, image, lambda container: container.rename("d", "e")) == {
        b"e": None,
        b"e/b": b"new",
    }


@pytest.mark.parametrize("parent", [True, False])
def test_a_whiteout_that_stands_before_its_directory(store: Store, tmp_path: Path, parent: bool) -> None:
    """containerd#4659: or without its directory in the layer at all; the directory keeps its attributes then."""
    members = [whiteout(b"d/s/c"), *([folder(b"d/s"), folder(b"d", 0o700)] if parent else [])]
    expected = {b"d": None, b"d/a": b"1", b"d/b": b"2", b"d/s": None}
    image = check_everywhere(store, tmp_path, expected, BASE, layer(*members))
    with image.view() as view:
        assert view.stat("d").mode == (0o700 if parent else 0o755)
        assert view.stat("d").mtime_ns == (0 if parent else 5 * 10**9)


@pytest.mark.parametrize("name", [b".wh.", b"d/.wh."])
def test_a_bare_whiteout_is_an_error(store: Store, name: bytes) -> None:
    """It would hide its own directory: neither a view nor a container is made of it."""
    image = image_of(store, BASE, layer(file(name)))
    with pytest.raises(InvalidInputError, match="whiteout"):
        image.view()
    with pytest.raises(InvalidInputError, match="whiteout"):
        image.container()
    assert list(store.containers) == []


# --- hard links -------------------------------------------------------------------------------------------------------


def test_a_hard_link_to_a_file_of_a_lower_layer(store: Store, tmp_path: Path) -> None:
    """moby#5632: the link has the file's contents and attributes, and is one file with it."""
    upper = layer(hardlink(b"d/link", b"d/a"))
    expected = {b"d": None, b"d/a": b"1", b"d/b": b"2", b"d/s": None, b"d/s/c": b"3", b"d/link": b"1"}
    image = check_everywhere(store, tmp_path, expected, BASE, upper)
    with image.view() as view:
        assert view.stat("d/a").inode == view.stat("d/link").inode
        assert view.stat("d/link").links == 2
    assert (tmp_path / "unpacked/d/a").samefile(tmp_path / "unpacked/d/link")


def test_a_hard_link_that_a_container_makes_to_a_file_of_the_image(store: Store, tmp_path: Path) -> None:
    """moby#5632: the layer has the file and the link, so that it can be unpacked by all."""
    image = image_of(store, BASE)
    committed(store, tmp_path, image, lambda container: container.link("d/a", "d/s/link"))
    assert (tmp_path / "committed/d/a").samefile(tmp_path / "committed/d/s/link")


def test_several_links_the_first_of_them_deleted_above(store: Store, tmp_path: Path) -> None:
    """The others keep the contents, whether a layer or a container deletes it."""
    lower = layer(file(b"a", b"contents"), hardlink(b"b", b"a"), hardlink(b"c", b"a"))
    expected = {b"b": b"contents", b"c": b"contents"}
    check_everywhere(store, tmp_path, expected, lower, layer(whiteout(b"a")))
    assert committed(store, tmp_path, image_of(store, lower), lambda container: container.unlink("a")) == expected


# --- attributes and contents ------------------------------------------------------------------------------------------


@as_root
def test_capabilities_outlive_a_change_of_owner(store: Store, tmp_path: Path) -> None:
    """buildah#3294: and a change of mode; the new layer shares its contents with the old one."""
    data = os.urandom(400_000)
    xattrs = {"security.capability": CAPABILITY.decode(), "user.note": "kept"}
    image = image_of(store, layer(file(b"ping", data, 0o4755, xattrs=xattrs)))
    for change in (lambda c: c.chown("ping", 1000, 1000), lambda c: c.chmod("ping", 0o755)):
        with image.container() as container:
            change(container)
            wanted = {b"security.capability": CAPABILITY, b"user.note": b"kept"}
            assert container.xattrs("ping") == wanted
            child = container.commit()
            with child.view() as view:
                assert view.xattrs("ping") == wanted
                assert view.stat("ping").mode == container.stat("ping").mode
                unpack(view, tmp_path / container.name)
            assert os.getxattr(tmp_path / container.name / "ping", "security.capability") == CAPABILITY
            assert child.layers[-1].size > len(data)
    assert sum(path.stat().st_size for path in (store.path / "packs").iterdir()) < 2 * len(data)


@pytest.mark.parametrize("size", [423 * 10**9])
def test_a_sparse_lastlog_is_read_and_unpacked_as_one(store: Store, tmp_path: Path, size: int) -> None:
    """bazel#13506, moby#5419: copied up, committed and unpacked it takes no more room than its data."""
    tar = pax_sparse(b"lastlog", size, [(size // 1024 * 512, b"login" * 100)]) + END
    image = image_of(store, tar)
    with image.container() as container:
        container.chown("lastlog", 0, 0)
        container.chmod("lastlog", 0o600)
        child = container.commit()
        assert (container._folder.upper / "lastlog").stat().st_blocks < 1000
    with child.view() as view:
        assert view.stat("lastlog").size == size
        assert sum(length for _, length in view.regions(view.stat("lastlog"))) < 1 << 20
        unpack(view, tmp_path / "unpacked")
    there = (tmp_path / "unpacked/lastlog").stat()
    assert (there.st_size, there.st_blocks < 1000) == (size, True)
    assert child.layers[-1].size < 1 << 20


@pytest.mark.parametrize("end", [b"", bytes(BLOCK), END + b"tail" * 700, END + member(b"hidden", b"behind") + END])
def test_a_layer_without_its_end_or_with_something_behind_it(store: Store, tmp_path: Path, end: bytes) -> None:
    """umoci#436: what stands behind the end is no file."""
    whole = member(b"hello", b"a") + end
    check_everywhere(store, tmp_path, {b"a": b"hello"}, whole)


def test_more_than_128_layers(store: Store, tmp_path: Path) -> None:
    """moby#26380: seen, changed and committed as one; the kernel would refuse to mount them."""
    layers = [layer(file(b"f%d" % (number % 90), b"%d" % number)) for number in range(200)]
    layers.append(layer(whiteout(b"f3")))
    expected = {b"f%d" % (number % 90): b"%d" % number for number in range(200)}
    del expected[b"f3"]
    image = check_everywhere(store, tmp_path, expected, *layers)
    assert len(image.layers) == 201


# --- names ------------------------------------------------------------------------------------------------------------


def test_odd_names(store: Store, tmp_path: Path) -> None:
    """Not UTF-8, long, with control characters: read, changed, committed, unpacked."""
    names = [
        b"caf\xe9",
        b"\xff\xfe",
        b"new\nline",
        b"\x1b[31m",
        b"n" * 255,
        b" ",
        b"-rf",
        b"*",
        b"wh.x",
        b"\\",
        "ü".encode(),
    ]
    deep = b"/".join([b"d" * 150] * 8)
    lower = layer(*(file(name, name) for name in names), file(deep + b"/f", b"deep"))
    folders = {b"/".join([b"d" * 150] * count): None for count in range(1, 9)}
    expected = {**{name: name for name in names}, **folders, deep + b"/f": b"deep"}
    image = check_everywhere(store, tmp_path, expected, lower)

    def change(container: Container) -> None:
        for name in [*names, deep + b"/f"]:
            container.write_bytes(name, b"changed")
            if len(name) < 250:
                container.rename(name, name + b"\xfd")

    assert set(committed(store, tmp_path, image, change).values()) == {b"changed", None}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (b"dir/", b"dir"),
        (b"/etc/passwd", b"etc/passwd"),
        (b"../../etc/passwd", b"etc/passwd"),
        (b"a/../../b", b"b"),
        (b"./usr/./bin", b"usr/bin"),
        (b"usr//bin", b"usr/bin"),
    ],
)
def test_names_that_are_not_clean_stay_inside(store: Store, tmp_path: Path, name: bytes, place: bytes) -> None:
    folders = {place.rpartition(b"/")[0]: None} if b"/" in place else {}
    if name == b"dir/":
        check_everywhere(store, tmp_path, {b"dir": None}, header(name, typeflag=b"5") + END)
    else:
        check_everywhere(store, tmp_path, {place: b"data", **folders}, member(b"data", name) + END)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "unpacked"]


def test_a_name_that_stands_twice(store: Store, tmp_path: Path) -> None:
    """The last one counts, be it of another kind."""
    check_everywhere(store, tmp_path, {b"a": b"new"}, layer(file(b"a", b"old one"), file(b"a", b"new")))
    mixed = image_of(
        store, layer(file(b"a", b"x"), folder(b"a"), file(b"a/b", b"y"), symlink(b"c", b"a"), file(b"c", b"z"))
    )
    with mixed.view() as view:
        assert shown(view) == {b"a": None, b"a/b": b"y", b"c": b"z"}


# --- nothing leads out ------------------------------------------------------------------------------------------------


@as_root
def test_links_that_lead_out_lead_nowhere(store: Store, tmp_path: Path) -> None:
    """GHSA-8xwf-rjm4-xvhv (oras-go): read, changed and unpacked, nothing but the image's own is touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    above = b"../" * 30 + os.fsencode(outside)[1:]
    lower = layer(
        symlink(b"out", os.fsencode(outside)),
        symlink(b"up", above),
        symlink(b"one", b"out/secret"),
        Member(b"dev/sda", b"4", device=(8, 0)),
    )
    upper = layer(file(b"out/secret", b"from the layer"), file(b"up/other", b"2"))
    image = image_of(store, lower, upper)
    inside = os.fsencode(outside)[1:]
    with image.view() as view, image.container() as container:
        assert view.read_bytes("out/secret") == b"from the layer"
        assert view.read_bytes(inside + b"/other") == b"2"
        unpack(view, tmp_path / "unpacked")
        container.write_bytes("one", b"changed")
        container.write_bytes("up/new", b"3")
        container.unlink("out/other")
        assert container.listdir(inside) == [b"new", b"secret"]
        with container.commit().view() as committed_view:
            unpack(committed_view, tmp_path / "committed")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert (tmp_path / "committed" / os.fsdecode(inside) / "secret").read_bytes() == b"changed"


@pytest.mark.parametrize("target", [b"/etc/shadow", b"../../../../etc/shadow"])
def test_hard_links_that_lead_out_are_refused(store: Store, target: bytes) -> None:
    """GHSA-8xwf-rjm4-xvhv (oras-go): the image has no such file, and no other is meant."""
    image = image_of(store, layer(hardlink(b"mine", target)))
    with pytest.raises(InvalidInputError, match="hard link"):
        image.view()
    with pytest.raises(InvalidInputError, match="hard link"):
        image.container()


@as_root
def test_devices_without_privilege(store: Store, tmp_path: Path) -> None:
    """They are told as what they are, and unpacked as empty files."""
    image = image_of(store, layer(Member(b"null", b"3", device=(1, 3), mode=0o666), Member(b"pipe", b"6")))
    with image.view() as view:
        assert (view.stat("null").kind, view.stat("null").device) == (EntryKind.CHARACTER, (1, 3))
        report = unpack(view, tmp_path / "unpacked", rootless=True)
    assert report.devices_replaced == 1
    assert (tmp_path / "unpacked/null").read_bytes() == b""


# --- kinds ------------------------------------------------------------------------------------------------------------

KINDS = {
    "a directory by a file": (BASE, layer(file(b"d", b"file")), {b"d": b"file"}),
    "a file by a directory": (
        layer(file(b"f", b"1")),
        layer(folder(b"f"), file(b"f/x", b"2")),
        {b"f": None, b"f/x": b"2"},
    ),
    "a file by an implied directory": (layer(file(b"f", b"1")), layer(file(b"f/x", b"2")), {b"f": None, b"f/x": b"2"}),
    "a link by a directory": (
        layer(folder(b"t"), file(b"t/x", b"1"), symlink(b"l", b"t")),
        layer(folder(b"l"), file(b"l/y", b"2")),
        {b"t": None, b"t/x": b"1", b"l": None, b"l/y": b"2"},
    ),
    "a directory by a link": (
        layer(folder(b"t"), file(b"t/x", b"1"), folder(b"l"), file(b"l/y", b"2")),
        layer(symlink(b"l", b"t")),
        {b"t": None, b"t/x": b"1", b"l": [b"t"]},
    ),
    "a directory by a directory after a whiteout": (
        BASE,
        layer(whiteout(b"d"), folder(b"d"), file(b"d/new", b"n")),
        {b"d": None, b"d/new": b"n"},
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_that_replace_each_other(store: Store, tmp_path: Path, name: str) -> None:
    """Across layers, and then back again in a container."""
    lower, upper, expected = KINDS[name]
    image = check_everywhere(store, tmp_path, expected, lower, upper)
    before = image_of(store, lower)
    with before.view() as view:
        original = shown(view)

    def change(container: Container) -> None:
        """Make of what is there what the lower layer had."""
        for path in container.listdir(b""):
            (container.remove_tree if container.lstat(path).is_dir else container.unlink)(path)
        for path, what in original.items():
            if what is None:
                container.mkdir(path)
            elif isinstance(what, list):
                container.symlink(what[0], path)
            else:
                container.write_bytes(path, what)

    assert committed(store, tmp_path, image, change) == original
