"""How layers lie over each other: a test for each rule of layer.md, and for what tools do where it is silent."""

import pytest
from samples import END, gnu_sparse, header, make_tar
from union_samples import Member, file, folder, hardlink, layer, opaque, shown, symlink, view_of, whiteout

from layerstore import Store
from layerstore.errors import InvalidInputError
from layerstore.tar.entries import EntryKind


def merged(store: Store, *layers: bytes) -> dict[bytes, object]:
    with view_of(store, *layers) as view:
        return shown(view)


def names(store: Store, *layers: bytes) -> list[bytes]:
    return list(merged(store, *layers))


# --- whiteouts --------------------------------------------------------------------------------------------------------


def test_a_whiteout_hides_a_file_of_the_layer_below(store: Store) -> None:
    assert names(store, layer(file(b"a"), file(b"b")), layer(whiteout(b"a"))) == [b"b"]


def test_a_whiteout_hides_a_directory_with_all_that_is_in_it(store: Store) -> None:
    assert names(store, layer(file(b"d/e/f"), file(b"g")), layer(whiteout(b"d"))) == [b"g"]


def test_buildkit_2614_a_whiteout_hides_a_path_of_a_layer_that_is_not_directly_below(store: Store) -> None:
    assert names(store, layer(file(b"a")), layer(file(b"b")), layer(whiteout(b"a"))) == [b"b"]


def test_a_whiteout_of_what_is_not_there_is_fine(store: Store) -> None:
    assert names(store, layer(file(b"a")), layer(whiteout(b"b"), whiteout(b"c/d"), whiteout(b"a/x"))) == [b"a"]


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_does_not_hide_the_file_of_its_own_layer(store: Store, first: bool) -> None:
    upper = [whiteout(b"a"), file(b"a", b"new")]
    assert merged(store, layer(file(b"a", b"old")), layer(*(upper if first else upper[::-1]))) == {b"a": b"new"}


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_and_a_directory_of_one_layer_leave_nothing_of_the_lower_one(store: Store, first: bool) -> None:
    upper = [whiteout(b"d"), folder(b"d", 0o700), file(b"d/new")]
    lower = layer(folder(b"d", 0o750), file(b"d/old"))
    with view_of(store, lower, layer(*(upper if first else upper[::-1]))) as view:
        assert shown(view) == {b"d": None, b"d/new": b""}
        assert view.stat("d").mode == 0o700


def test_a_file_that_is_whited_out_can_come_back_above(store: Store) -> None:
    assert merged(store, layer(file(b"a", b"1")), layer(whiteout(b"a")), layer(file(b"a", b"3"))) == {b"a": b"3"}


def test_containerd_4659_a_whiteout_before_its_parent_directory(store: Store) -> None:
    lower = layer(folder(b"d"), file(b"d/a"), file(b"d/b"))
    assert names(store, lower, layer(whiteout(b"d/a"), folder(b"d"))) == [b"d", b"d/b"]


def test_a_whiteout_without_a_name_is_an_error(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="without a name"):
        view_of(store, layer(file(b"d/.wh.")))


def test_whiteouts_are_not_shown(store: Store) -> None:
    assert names(store, layer(whiteout(b"a"), opaque(b"d"), file(b"b"))) == [b"b"]


def test_a_whiteout_may_be_of_any_type(store: Store) -> None:
    upper = layer(Member(b".wh.a", b"3"), Member(b".wh.b", b"5"))
    assert names(store, layer(file(b"a"), file(b"b")), upper) == []


def test_books_of_aufs_are_not_shown(store: Store) -> None:
    books = [file(b".wh..wh.aufs"), folder(b".wh..wh.plnk"), file(b".wh..wh.plnk/12.34", b"linked"), file(b"b")]
    assert names(store, layer(*books, folder(b".wh..wh.orph"), file(b".wh..wh.orph/x"))) == [b"b"]


def test_hard_links_into_the_books_of_aufs_are_files(store: Store) -> None:
    books = [file(b".wh..wh.plnk/12.34", b"linked"), hardlink(b"a", b".wh..wh.plnk/12.34")]
    with view_of(store, layer(*books, hardlink(b"b", b".wh..wh.plnk/12.34"))) as view:
        assert shown(view) == {b"a": b"linked", b"b": b"linked"}
        assert view.stat("a").inode == view.stat("b").inode
        assert view.stat("a").links == 2


# --- opaque directories -----------------------------------------------------------------------------------------------

LOWER = layer(folder(b"d", 0o750), file(b"d/old"), file(b"d/sub/old"), file(b"e"))


@pytest.mark.parametrize("place", range(4))
def test_an_opaque_directory_hides_lower_layers_only_wherever_its_mark_stands(store: Store, place: int) -> None:
    upper = [folder(b"d", 0o700), file(b"d/new"), file(b"d/sub/new")]
    upper.insert(place, opaque(b"d"))
    assert names(store, LOWER, layer(*upper)) == [b"d", b"d/new", b"d/sub", b"d/sub/new", b"e"]


def test_fuse_overlayfs_136_children_are_recreated_in_the_opaque_layer(store: Store) -> None:
    upper = layer(folder(b"d"), opaque(b"d"), folder(b"d/sub"), file(b"d/sub/again"))
    assert names(store, LOWER, upper) == [b"d", b"d/sub", b"d/sub/again", b"e"]


def test_dagger_13844_a_directory_below_an_opaque_one_shows_nothing_from_below(store: Store) -> None:
    with view_of(store, LOWER, layer(opaque(b"d"), folder(b"d/sub"))) as view:
        assert view.listdir("d/sub") == []


def test_fuse_overlayfs_306_an_opaque_directory_with_a_whiteout_in_it(store: Store) -> None:
    upper = layer(opaque(b"d"), whiteout(b"d/old"), whiteout(b"d/new"), file(b"d/new"))
    assert names(store, LOWER, upper) == [b"d", b"d/new", b"e"]


def test_an_opaque_mark_without_an_entry_for_the_directory_keeps_its_attributes(store: Store) -> None:
    with view_of(store, LOWER, layer(opaque(b"d"))) as view:
        assert view.listdir("d") == []
        assert view.stat("d").mode == 0o750


def test_an_opaque_mark_in_a_file_or_in_nothing_does_nothing(store: Store) -> None:
    assert names(store, layer(file(b"a")), layer(opaque(b"a"), opaque(b"b"))) == [b"a"]


def test_an_opaque_root(store: Store) -> None:
    assert names(store, LOWER, layer(opaque(b""), file(b"a"))) == [b"a"]


def test_a_directory_that_replaces_a_link_is_opaque_without_harm_to_what_the_link_led_to(store: Store) -> None:
    lower = layer(file(b"usr/lib/x"), symlink(b"lib", b"usr/lib"))
    uppers = ([folder(b"lib"), opaque(b"lib")], [opaque(b"lib"), folder(b"lib")], [whiteout(b"lib"), opaque(b"lib")])
    for upper in uppers:
        with view_of(store, lower, layer(*upper)) as view:
            assert view.exists("usr/lib/x")
            assert not view.exists("lib/x")


# --- one thing in the place of another --------------------------------------------------------------------------------


def test_the_upper_file_replaces_the_lower_one(store: Store) -> None:
    with view_of(store, layer(file(b"a", b"old", 0o600)), layer(file(b"a", b"new", 0o640))) as view:
        assert view.read_bytes("a") == b"new"
        assert view.stat("a").mode == 0o640
        assert view.layer_of("a") == view.layers[1]


def test_a_directory_over_a_directory_merges_and_brings_its_attributes(store: Store) -> None:
    lower = layer(folder(b"d", 0o700, uid=1, mtime=5, xattrs={"user.a": "1"}), file(b"d/x"))
    upper = layer(folder(b"d", 0o750, uid=2, mtime=6, xattrs={"user.b": "2"}), file(b"d/y"))
    with view_of(store, lower, upper) as view:
        node = view.stat("d")
        assert view.listdir("d") == ["x", "y"]
        assert (node.mode, node.uid, node.mtime_ns, node.layer) == (0o750, 2, 6 * 10**9, view.layers[1])
        assert view.xattrs("d") == {b"user.b": b"2"}
        assert view.layer_of("d/x") == view.layers[0]


def test_a_file_replaces_a_directory(store: Store) -> None:
    assert merged(store, layer(file(b"d/x/y")), layer(file(b"d", b"f"))) == {b"d": b"f"}


def test_a_directory_replaces_a_file(store: Store) -> None:
    assert merged(store, layer(file(b"d", b"f")), layer(folder(b"d"))) == {b"d": None}


def test_a_directory_that_is_implied_replaces_a_file(store: Store) -> None:
    assert merged(store, layer(file(b"d", b"f")), layer(file(b"d/x", b"x"))) == {b"d": None, b"d/x": b"x"}


def test_a_link_replaces_a_directory(store: Store) -> None:
    assert merged(store, layer(file(b"d/x")), layer(symlink(b"d", b"e"))) == {b"d": [b"e"]}


def test_a_directory_replaces_a_link(store: Store) -> None:
    lower = layer(file(b"e/x"), symlink(b"d", b"e"))
    assert merged(store, lower, layer(folder(b"d"), file(b"d/y"))) == {b"d": None, b"d/y": b"", b"e": None, b"e/x": b""}


def test_what_a_file_hides_does_not_come_back_with_a_directory_above(store: Store) -> None:
    assert names(store, layer(file(b"d/x")), layer(file(b"d")), layer(file(b"d/y"))) == [b"d", b"d/y"]


def test_missing_parents_are_directories_of_root(store: Store) -> None:
    with view_of(store, layer(file(b"a/b/c", uid=7))) as view:
        node = view.stat("a/b")
        assert (node.kind, node.mode, node.uid, node.mtime_ns) == (EntryKind.DIRECTORY, 0o755, 0, 0)
        assert node.entry is None
        assert node.layer == view.layers[0]


def test_an_implied_directory_leaves_the_attributes_of_the_lower_one(store: Store) -> None:
    with view_of(store, layer(folder(b"d", 0o700)), layer(file(b"d/x"))) as view:
        assert view.stat("d").mode == 0o700
        assert view.layer_of("d") == view.layers[0]


def test_the_entry_of_a_directory_may_stand_behind_what_is_in_it(store: Store) -> None:
    with view_of(store, layer(file(b"d/x"), folder(b"d", 0o711))) as view:
        assert view.stat("d").mode == 0o711
        assert view.exists("d/x")


def test_the_last_of_two_entries_of_a_layer_counts(store: Store) -> None:
    assert merged(store, layer(file(b"a", b"1"), file(b"a", b"2"))) == {b"a": b"2"}
    assert merged(store, layer(file(b"a/x"), file(b"a", b"2"))) == {b"a": b"2"}


def test_the_root_has_attributes_too(store: Store) -> None:
    with view_of(store, layer(folder(b"./", 0o700)), layer(file(b"a")), layer(file(b"/", b"no root"))) as view:
        assert view.stat("/").mode == 0o700
        assert view.layer_of("/") == view.layers[0]
    with view_of(store) as view:
        assert view.stat("/").mode == 0o755
        assert view.layer_of("/") is None
        assert view.listdir() == []


# --- hard links -------------------------------------------------------------------------------------------------------


def test_hard_links_share_an_inode(store: Store) -> None:
    with view_of(
        store, layer(file(b"a", b"x", 0o600), hardlink(b"b", b"a"), hardlink(b"c", b"./b"), file(b"d"))
    ) as view:
        nodes = [view.stat(name) for name in "abc"]
        assert {(node.inode, node.links, node.mode, node.kind) for node in nodes} == {
            (nodes[0].inode, 3, 0o600, EntryKind.FILE)
        }
        assert view.read_bytes("c") == b"x"
        assert view.stat("d").links == 1
        assert view.stat("d").inode != nodes[0].inode


def test_moby_5632_a_hard_link_to_a_file_of_a_lower_layer(store: Store) -> None:
    with view_of(store, layer(file(b"a", b"x")), layer(hardlink(b"b", b"a"))) as view:
        assert view.read_bytes("b") == b"x"
        assert view.stat("a").inode == view.stat("b").inode
        assert view.stat("b").links == 2
        assert view.layer_of("b") == view.layers[0]


def test_the_first_of_several_links_is_deleted_above(store: Store) -> None:
    with view_of(store, layer(file(b"a", b"x"), hardlink(b"b", b"a")), layer(whiteout(b"a"))) as view:
        assert shown(view) == {b"b": b"x"}
        assert view.stat("b").links == 1


def test_one_of_several_links_is_replaced_above(store: Store) -> None:
    with view_of(store, layer(file(b"a", b"x"), hardlink(b"b", b"a")), layer(file(b"a", b"y"))) as view:
        assert shown(view) == {b"a": b"y", b"b": b"x"}
        assert view.stat("a").inode != view.stat("b").inode


def test_names_are_lost_with_their_directory(store: Store) -> None:
    with view_of(store, layer(file(b"d/a", b"x"), hardlink(b"b", b"d/a")), layer(file(b"d"))) as view:
        assert view.stat("b").links == 1


def test_a_link_leads_to_what_its_target_is_at_that_point(store: Store) -> None:
    upper = layer(hardlink(b"old", b"a"), file(b"a", b"new"), hardlink(b"new", b"a"))
    assert merged(store, layer(file(b"a", b"old")), upper) == {b"a": b"new", b"new": b"new", b"old": b"old"}


@pytest.mark.parametrize("first", [True, False])
def test_a_link_to_what_its_own_layer_deletes(store: Store, first: bool) -> None:
    upper = [whiteout(b"a"), hardlink(b"b", b"a")]
    assert merged(store, layer(file(b"a", b"x")), layer(*(upper if first else upper[::-1]))) == {b"b": b"x"}


def test_a_hard_link_to_a_symbolic_link_is_one(store: Store) -> None:
    lower = layer(symlink(b"a", b"nowhere"), hardlink(b"b", b"a"))
    assert merged(store, lower) == {b"a": [b"nowhere"], b"b": [b"nowhere"]}


def test_a_hard_link_to_nothing_is_refused_as_tools_do(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="where nothing is"):
        view_of(store, layer(hardlink(b"b", b"a"), file(b"a")))


def test_a_hard_link_to_a_directory_is_refused_as_tools_do(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="is a directory"):
        view_of(store, layer(folder(b"a"), hardlink(b"b", b"a")))


def test_a_hard_link_to_itself_changes_nothing(store: Store) -> None:
    with view_of(store, layer(file(b"a", b"x"), hardlink(b"a", b"a"))) as view:
        assert shown(view) == {b"a": b"x"}
        assert view.stat("a").links == 1


# --- folders that are links -------------------------------------------------------------------------------------------


def test_an_entry_in_a_folder_that_is_a_link_goes_where_the_link_leads(store: Store) -> None:
    lower = layer(folder(b"usr/lib"), symlink(b"lib", b"usr/lib"))
    assert names(store, lower, layer(file(b"lib/x"))) == [b"lib", b"usr", b"usr/lib", b"usr/lib/x"]


def test_a_whiteout_in_a_folder_that_is_a_link_hides_where_the_link_leads(store: Store) -> None:
    lower = layer(file(b"usr/lib/x"), file(b"usr/lib/y"), symlink(b"lib", b"/usr/lib"))
    assert names(store, lower, layer(whiteout(b"lib/x"))) == [b"lib", b"usr", b"usr/lib", b"usr/lib/y"]


def test_a_link_to_nothing_is_filled(store: Store) -> None:
    assert names(store, layer(symlink(b"a", b"b/c")), layer(file(b"a/x"))) == [b"a", b"b", b"b/c", b"b/c/x"]


@pytest.mark.parametrize("target", [b"../../../etc", b"/../etc", b"/etc", b"x/../../../etc"])
def test_ghsa_8xwf_no_entry_leaves_the_root(store: Store, target: bytes) -> None:
    found = names(store, layer(folder(b"x"), symlink(b"out", target)), layer(file(b"out/passwd", b"evil")))
    assert found == [b"etc", b"etc/passwd", b"out", b"x"]


def test_a_folder_that_is_a_loop_is_refused_as_tools_do(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="cannot be reached"):
        view_of(store, layer(symlink(b"a", b"b"), symlink(b"b", b"a")), layer(file(b"a/x")))


def test_folders_are_looked_up_anew_when_a_link_changes(store: Store) -> None:
    upper = layer(file(b"to/x"), symlink(b"to", b"two"), file(b"to/y"))
    lower = layer(folder(b"one"), folder(b"two"), symlink(b"to", b"one"))
    assert names(store, lower, upper) == [b"one", b"one/x", b"to", b"two", b"two/y"]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [b"/d/a", b"//d///a", b"./d/a", b"d/./a", b"d/x/../a", b"../d/a", b"d/../../d/a", b"/../d/./a"]
)
def test_names_with_dots_and_slashes_are_cleaned(store: Store, name: bytes) -> None:
    assert names(store, layer(file(name))) == [b"d", b"d/a"]


def test_dots_are_cleaned_before_links_are_followed(store: Store) -> None:
    lower = layer(folder(b"x/y"), symlink(b"a", b"x/y"))
    assert names(store, lower, layer(file(b"a/../f"))) == [b"a", b"f", b"x", b"x/y"]


def test_names_that_are_not_utf_8_or_long(store: Store) -> None:
    long = b"n" * 255
    with view_of(store, layer(file(b"\xff\xfe/" + long, b"x"))) as view:
        assert view.listdir("/") == ["\udcff\udcfe"]
        assert view.listdir(b"/") == [b"\xff\xfe"]
        assert view.read_bytes("\udcff\udcfe/" + long.decode()) == b"x"
        assert view.read_bytes(b"\xff\xfe/" + long) == b"x"


# --- kinds ------------------------------------------------------------------------------------------------------------


def test_devices_and_fifos(store: Store) -> None:
    nodes = layer(
        Member(b"null", b"3", device=(1, 3), mode=0o666), Member(b"sda", b"4", device=(8, 0)), Member(b"fifo", b"6")
    )
    with view_of(store, nodes) as view:
        assert (view.stat("null").kind, view.stat("null").device) == (EntryKind.CHARACTER, (1, 3))
        assert (view.stat("sda").kind, view.stat("sda").device) == (EntryKind.BLOCK, (8, 0))
        assert view.stat("fifo").kind is EntryKind.FIFO


def test_buildah_3294_all_attributes_are_there(store: Store) -> None:
    attributes = {"security.capability": "\x01\x02", "user.x": "y"}
    with view_of(store, layer(file(b"a", b"x", 0o4755, uid=99, xattrs=attributes))) as view:
        assert view.xattrs("a") == {b"security.capability": b"\x01\x02", b"user.x": b"y"}
        assert view.stat("a").mode == 0o4755
        assert view.stat("a").uid == 99


def test_what_is_no_file_is_left_out(store: Store) -> None:
    assert names(store, header(b"volume", typeflag=b"V") + make_tar({"a": b""})) == [b"a"]


def test_what_stands_behind_the_end_mark_is_left_out(store: Store) -> None:
    assert names(store, header(b"a") + END + header(b"b") + END) == [b"a"]


def test_a_layer_that_is_no_tar_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="is no tar"):
        view_of(store, b"something else")
    assert names(store, b"") == []
    assert names(store, END) == []


def test_moby_26380_five_hundred_layers(store: Store) -> None:
    layers = [
        layer(file(b"d/%03d" % n, b"%d" % n), *([whiteout(b"d/%03d" % (n - 2))] if n % 5 == 0 else []))
        for n in range(500)
    ]
    expected = [b"%03d" % n for n in range(500) if (n + 2) % 5 or n + 2 >= 500]
    with view_of(store, *layers) as view:
        assert view.listdir(b"d") == expected
        assert view.read_bytes("d/499") == b"499"


def test_one_layer_twice_in_a_stack(store: Store) -> None:
    data = layer(file(b"a", b"1"))
    with view_of(store, data, layer(file(b"a", b"2")), data) as view:
        assert view.read_bytes("a") == b"1"
        assert view.stat("a").inode[0] == 2


def test_a_sparse_file_in_a_stack(store: Store) -> None:
    with view_of(store, gnu_sparse(b"s", 1 << 20, [(4096, b"data")]) + END, layer(hardlink(b"t", b"s"))) as view:
        assert view.read_bytes("t") == bytes(4096) + b"data" + bytes((1 << 20) - 4100)


@pytest.mark.parametrize("target", [b"../../etc/passwd", b"/etc/passwd", b"out/passwd", b"etc/x/../passwd"])
def test_a_hard_link_leads_to_a_file_of_the_view_alone(store: Store, target: bytes) -> None:
    lower = layer(file(b"etc/passwd", b"inside"), symlink(b"out", b"../../../etc"))
    with view_of(store, lower, layer(hardlink(b"a", target))) as view:
        assert view.read_bytes("a") == b"inside"
        assert view.stat("a").inode == view.stat("etc/passwd").inode
