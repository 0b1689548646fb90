"""What went wrong with tars and layers elsewhere. Each test names the public bug that it is about."""

import io
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from samples import (
    END,
    assert_clean,
    dialects,
    gnu_sparse,
    header,
    make_tar,
    member,
    noise,
    packs_on_disk,
    padded,
    pax,
    pax_sparse,
    pulled,
    sha256,
    text,
)

from layerstore import Layer, Store
from layerstore.errors import InvalidInputError
from layerstore.tar.entries import EntryKind, TarEntry


def entries(layer: Layer) -> dict[bytes, TarEntry]:
    return {entry.path: entry for entry in layer.entries()}


def push(store: Store, *parts: bytes) -> Layer:
    """A layer that must come back bit for bit."""
    data = b"".join(parts)
    layer = store.push_layer(data).layer
    assert pulled(layer) == data
    return layer


def changes(store: Store, *stack: Layer) -> dict[bytes, str]:
    """What the upper layers change, as `diff` tells it, against the lowest alone."""
    lower = store.create_image([stack[0]])
    upper = store.create_image(stack[1:], base=lower)
    return {change.path: change.kind for change in store.diff(lower, upper)}


def whiteout(name: bytes) -> bytes:
    return member(b"", name)


def directory(name: bytes) -> bytes:
    return header(name, typeflag=b"5")


# --- sparse files: bazel#13506, moby#5419 -----------------------------------------------------------------------------

LASTLOG_SIZE = 423 * 10**9
REGIONS = [(LASTLOG_SIZE // 40 * i // 512 * 512, text(1024, i)) for i in range(30)]


@pytest.mark.parametrize("make", [gnu_sparse, pax_sparse])
def test_bazel_13506_a_sparse_lastlog_of_423_gb_costs_next_to_nothing(store: Store, make: object) -> None:
    tar = make(b"var/log/lastlog", LASTLOG_SIZE, REGIONS) + END  # type: ignore[operator]
    layer = push(store, tar)
    entry = entries(layer)[b"var/log/lastlog"]
    assert entry.kind is EntryKind.FILE
    assert entry.size == LASTLOG_SIZE
    assert entry.sparse == [(offset, len(data)) for offset, data in REGIONS] or entry.sparse_in_payload
    assert packs_on_disk(store) < 20_000
    assert_clean(store)


def test_moby_5419_a_sparse_file_of_the_disk_is_stored_as_one(store: Store, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "lastlog").open("wb") as file:
        file.truncate(LASTLOG_SIZE)
        file.seek(LASTLOG_SIZE // 2)
        file.write(b"login")
    result = store.push_tree(tree)
    if result.size > 1 << 30:
        pytest.fail("holes were stored as zeros")
    assert entries(result.layer)[b"lastlog"].size == LASTLOG_SIZE
    assert packs_on_disk(store) < 20_000


def test_a_long_run_of_zeros_in_a_plain_file_is_stored_once(store: Store) -> None:
    layer = push(store, make_tar({"zeros": bytes(30 << 20)}))
    assert layer.size > 30 << 20
    assert packs_on_disk(store) < 50_000


def test_gnu_tar_reads_back_the_sparse_file_that_was_stored(store: Store, tmp_path: Path) -> None:
    if subprocess.run(["tar", "--version"], capture_output=True).returncode:
        pytest.skip("needs GNU tar")
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(noise(5000))
    for options in (["--format=gnu"], ["--format=pax"], ["--format=pax", "--sparse-version=0.0"]):
        tar = tmp_path / "tar"
        subprocess.run(["tar", *options, "-S", "-cf", str(tar), "-C", str(tree), "sparse"], check=True)
        layer = store.push_layer(tar).layer
        layer.pull(tar)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        subprocess.run(["tar", "-xf", str(tar), "-C", str(out)], check=True)
        assert (out / "sparse").read_bytes() == (tree / "sparse").read_bytes()
        assert entries(layer)[b"sparse"].size == 50 << 20


# --- attributes -------------------------------------------------------------------------------------------------------

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
XATTRS = {
    b"SCHILY.xattr.security.capability": CAPABILITY,
    b"SCHILY.xattr.user.note": b"line\nbreak = and \x00\xff",
    b"SCHILY.xattr.trusted.overlay.opaque": b"y",
}


def test_buildah_3294_capabilities_and_all_other_attributes_are_kept(store: Store) -> None:
    layer = push(store, pax(XATTRS), member(noise(5000), b"usr/bin/ping"), END)
    assert entries(layer)[b"usr/bin/ping"].xattrs == {
        b"security.capability": CAPABILITY,
        b"user.note": b"line\nbreak = and \x00\xff",
        b"trusted.overlay.opaque": b"y",
    }


def test_buildah_3294_a_change_of_owner_costs_bytes_and_no_copy(store: Store) -> None:
    data = noise(400_000)

    def tar(uid: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("usr/bin/big")
            info.size, info.uid = len(data), uid
            archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    lower = push(store, tar(0))
    result = store.push_layer(tar(1000))
    assert result.bytes_stored < 2000
    (change,) = store.diff(lower, result.layer)
    assert (change.kind, change.path) == ("modified", b"usr/bin/big")
    assert change.old is not None
    assert change.new is not None
    assert (change.old.uid, change.new.uid) == (0, 1000)


def test_attributes_of_a_tree_are_kept(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "tree" / "file"
    path.parent.mkdir()
    path.write_bytes(b"x")
    try:
        os.setxattr(path, "user.layerstore", b"\0\xff value")
    except OSError:
        pytest.skip("the file system has no attributes")
    assert entries(store.push_tree(path.parent).layer)[b"file"].xattrs == {b"user.layerstore": b"\0\xff value"}


# --- what stands behind, or does not: umoci#436 -----------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(511), bytes(1024), bytes(10_240 + 7)])
def test_umoci_436_a_tar_without_its_end_comes_back_bit_for_bit(store: Store, end: bytes) -> None:
    layer = push(store, member(b"hello", b"a"), end)
    assert list(entries(layer)) == [b"a"]


@pytest.mark.parametrize("behind", [b"x", b"tail" * 700, noise(5000), member(b"hidden", b"b") + END])
def test_umoci_436_bytes_after_the_end_come_back_bit_for_bit(store: Store, behind: bytes) -> None:
    layer = push(store, member(b"hello", b"a"), END, behind)
    seen = [entry.path for entry in layer.entries() if not entry.after_end]
    assert seen == [b"a"]


def test_content_behind_the_end_is_no_change(store: Store) -> None:
    one = push(store, member(b"hello", b"a"), END)
    two = push(store, member(b"hello", b"a"), END, member(b"hidden", b"b"), END)
    assert one.diff_id != two.diff_id
    assert store.diff(one, two) == []


# --- many layers: moby#26380 ------------------------------------------------------------------------------------------


def test_moby_26380_more_than_128_layers_in_one_image(store: Store) -> None:
    contents = [make_tar({f"f{number}": b"%d" % number}) for number in range(150)]
    layers = [store.push_layer(data).layer for data in contents]
    image = store.create_image(layers, tag="tall:1")
    child = store.create_image([layers[0], layers[0]], base=image, tag="taller:1")
    assert [pulled(layer) for layer in store.images["tall:1"].layers] == contents
    assert [layer.diff_id for layer in child.layers] == [layer.diff_id for layer in [*layers, layers[0], layers[0]]]
    assert len(image.chain_ids) == 150
    assert {change.path for change in store.diff(layers[0], "tall:1")} == {b"f%d" % n for n in range(1, 150)}
    store.delete_image("tall:1", ttl=0)
    store.collect_garbage()
    assert [pulled(layer) for layer in store.images["taller:1"].layers[:150]] == contents
    assert_clean(store)


# --- odd names --------------------------------------------------------------------------------------------------------

NAMES = {
    "not UTF-8": b"caf\xe9/\xff\xfe",
    "trailing slash": b"dir/",
    "absolute": b"/etc/passwd",
    "dots": b"../../etc/passwd",
    "dots inside": b"a/../../b",
    "leading dot": b"./usr/./bin",
    "double slash": b"usr//bin",
    "newline and quote": b"a\n'\"\\b",
    "control": b"\x1b[31m\x07",
    "one dot": b".",
    "empty": b"",
    "whiteout-like": b"wh.x",
}


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_kept(store: Store, name: str) -> None:
    layer = push(store, member(b"data", NAMES[name]), END)
    (entry,) = layer.entries()
    assert entry.raw_path == NAMES[name]
    assert entry.size == 4


@pytest.mark.parametrize("length", [99, 100, 101, 155, 255, 256, 257, 1000, 5000])
@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_kept(store: Store, length: int, layout: int) -> None:
    name = ("directory/" * 600)[: length - 1] + "x"
    layer = push(store, make_tar({name: b"data", name[:-1] + "y": b"more"}, layout))
    assert list(entries(layer)) == [name.encode(), name[:-1].encode() + b"y"]


def test_a_name_that_stands_twice_is_listed_twice_and_the_last_one_counts(store: Store) -> None:
    lower = push(store, member(b"new", b"a"), END)
    layer = push(store, member(b"old one", b"a"), member(b"new", b"a"), END)
    assert [(entry.path, entry.size) for entry in layer.entries()] == [(b"a", 7), (b"a", 3)]
    assert store.diff(lower, layer) == []


def test_odd_names_of_a_tree_are_kept(store: Store, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    names = [b"\xff\xfe not utf-8", b"new\nline", b"n" * 255, b"-rf", b"*", " ünï".encode()]
    tree.mkdir()
    for name in names:
        (tree / os.fsdecode(name)).write_bytes(name)
    layer = store.push_tree(tree).layer
    assert sorted(entries(layer)) == sorted(names)


# --- links, devices and other kinds -----------------------------------------------------------------------------------


def test_moby_5632_a_hard_link_to_a_file_of_a_lower_layer(store: Store) -> None:
    lower = push(store, member(b"contents", b"bin/a"), END)
    upper = push(store, header(b"bin/b", typeflag=b"1", link=b"bin/a"), END)
    assert changes(store, lower, upper) == {b"bin/b": "added"}
    entry = entries(upper)[b"bin/b"]
    assert (entry.kind, entry.link_target, entry.size) == (EntryKind.HARDLINK, b"bin/a", 0)


def test_several_links_the_first_of_them_deleted_above(store: Store) -> None:
    links = header(b"b", typeflag=b"1", link=b"a") + header(b"c", typeflag=b"1", link=b"a")
    lower = push(store, member(b"contents", b"a"), links, END)
    assert changes(store, lower, push(store, whiteout(b".wh.a"), END)) == {b"a": "deleted"}


def test_links_that_lead_out_and_devices_are_stored_without_being_followed(store: Store, tmp_path: Path) -> None:
    """GHSA-8xwf-rjm4-xvhv (oras-go): nothing here extracts, so nothing can be led astray."""
    parts = [
        header(b"out", typeflag=b"2", link=b"../../../etc"),
        member(b"evil", b"out/passwd"),
        header(b"hard", typeflag=b"1", link=b"/etc/shadow"),
        header(b"dev/null", typeflag=b"3"),
        header(b"dev/sda", typeflag=b"4"),
        header(b"pipe", typeflag=b"6"),
    ]
    layer = push(store, *parts, END)
    kinds = [entry.kind for entry in layer.entries()]
    assert kinds == [
        EntryKind.SYMLINK,
        EntryKind.FILE,
        EntryKind.HARDLINK,
        EntryKind.CHARACTER,
        EntryKind.BLOCK,
        EntryKind.FIFO,
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


# --- whiteouts, as far as `diff` shows them ---------------------------------------------------------------------------

BASE = directory(b"d/") + member(b"1", b"d/a") + member(b"2", b"d/b") + directory(b"d/s/") + member(b"3", b"d/s/c")


def test_buildkit_2614_a_whiteout_hides_a_path_of_a_layer_that_is_not_directly_below(store: Store) -> None:
    lower, between = push(store, BASE, END), push(store, member(b"x", b"other"), END)
    upper = push(store, whiteout(b"d/.wh.a"), END)
    assert changes(store, lower, between, upper) == {b"other": "added", b"d/a": "deleted"}


def test_fuse_overlayfs_136_an_opaque_directory_with_children_of_the_same_layer(store: Store) -> None:
    for order in (
        [directory(b"d/"), whiteout(b"d/.wh..wh..opq"), member(b"1", b"d/a")],
        [member(b"1", b"d/a"), directory(b"d/"), whiteout(b"d/.wh..wh..opq")],
    ):
        gone = changes(store, push(store, BASE, END), push(store, *order, END))
        assert gone == {b"d/b": "deleted", b"d/s": "deleted", b"d/s/c": "deleted"}


def test_dagger_13844_an_opaque_ancestor_hides_what_is_in_a_sub_directory(store: Store) -> None:
    upper = push(store, whiteout(b"d/.wh..wh..opq"), directory(b"d/s/"), member(b"4", b"d/s/new"), END)
    found = changes(store, push(store, BASE, END), upper)
    assert found == {b"d/a": "deleted", b"d/b": "deleted", b"d/s/c": "deleted", b"d/s/new": "added"}


def test_fuse_overlayfs_306_an_opaque_directory_that_also_holds_a_whiteout(store: Store) -> None:
    upper = push(store, whiteout(b"d/.wh..wh..opq"), whiteout(b"d/.wh.a"), member(b"2", b"d/b"), END)
    assert changes(store, push(store, BASE, END), upper) == {
        b"d/a": "deleted",
        b"d/s": "deleted",
        b"d/s/c": "deleted",
    }


def test_containerd_4659_a_whiteout_before_its_parent_directory(store: Store) -> None:
    upper = push(store, whiteout(b"d/.wh.a"), directory(b"d/"), END)
    assert changes(store, push(store, BASE, END), upper) == {b"d/a": "deleted"}


@pytest.mark.parametrize("name", [b".wh.", b"d/.wh."])
def test_a_bare_whiteout_is_stored_and_listed_but_no_change(store: Store, name: bytes) -> None:
    lower, upper = push(store, BASE, END), push(store, whiteout(name), END)
    assert list(entries(upper)) == [name]
    with pytest.raises(InvalidInputError, match="whiteout"):
        changes(store, lower, upper)


def test_kinds_that_replace_each_other_across_layers(store: Store) -> None:
    lower = push(store, BASE, member(b"f", b"file"), header(b"link", typeflag=b"2", link=b"d"), END)
    upper = push(
        store,
        member(b"now a file", b"d"),
        directory(b"file/"),
        member(b"inside", b"file/x"),
        directory(b"link/"),
        END,
    )
    assert changes(store, lower, upper) == {
        b"d": "modified",
        b"d/a": "deleted",
        b"d/b": "deleted",
        b"d/s": "deleted",
        b"d/s/c": "deleted",
        b"file": "modified",
        b"file/x": "added",
        b"link": "modified",
    }


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", dialects())
def test_listing_never_fails(store: Store, name: str) -> None:
    layer = push(store, dialects()[name])
    assert all(entry.payload_offset + entry.payload_size <= layer.size for entry in layer.entries())


def test_a_rebuild_that_changes_only_times_costs_little(store: Store) -> None:
    def tar(mtime: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for number in range(200):
                info = tarfile.TarInfo(f"usr/{number}")
                info.size, info.mtime = 5000, mtime
                archive.addfile(info, io.BytesIO(noise(5000, number)))
        return buffer.getvalue()

    first = store.push_layer(tar(1_600_000_000))
    second = store.push_layer(tar(1_700_000_000))
    assert second.bytes_stored < first.bytes_stored / 20
    assert pulled(second.layer) == tar(1_700_000_000)


def test_an_entry_knows_where_its_contents_are(store: Store) -> None:
    layer = push(store, member(noise(3000, 1), b"a"), pax({b"path": b"p" * 300}), member(noise(4000, 2)), END)
    with layer.open() as reader:
        for entry, seed in zip(layer.entries(), (1, 2), strict=True):
            reader.seek(entry.payload_offset)
            assert reader.read(entry.payload_size) == noise(entry.payload_size, seed)


def test_a_name_is_the_digest_of_the_tar_and_of_nothing_else(tmp_path: Path) -> None:
    data = make_tar({"a": noise(100_000)})
    for number, size in enumerate((1 << 12, 1 << 16, 1 << 20)):
        with Store.create(tmp_path / str(number), frame_size=size, compression_level=number) as store:
            assert store.push_layer(data).layer.diff_id == sha256(data)
    assert padded(b"x") == b"x" + bytes(511)
