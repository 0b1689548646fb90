"""Paths, links, patterns and the life of a view."""

import pytest
from union_samples import Member, file, folder, hardlink, layer, shown, symlink, view_of

from layerstore import Store, View
from layerstore.errors import InvalidInputError, LayerNotFoundError, LayerstoreError, NotFoundError
from layerstore.tar.entries import EntryKind
from layerstore.union import layer_index
from layerstore.union.errors import LinkLoopError, NotADirectoryInViewError, NotReadableError, PathNotFoundError

TREE = layer(
    folder(b"usr/lib/python3"),
    file(b"usr/lib/python3/os.py", b"import sys"),
    file(b"usr/lib/libc.so", b"\x7fELF"),
    file(b"usr/lib/.hidden"),
    symlink(b"lib", b"usr/lib"),
    symlink(b"usr/lib/up", b"../.."),
    symlink(b"usr/lib/libc.so.6", b"libc.so"),
    symlink(b"absolute", b"/usr/lib/libc.so"),
    symlink(b"out", b"../../../usr"),
    symlink(b"broken", b"nowhere/at/all"),
    symlink(b"loop", b"loop"),
    file(b"etc/passwd", b"root"),
)


@pytest.fixture
def view(store: Store) -> View:
    return view_of(store, TREE)


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("", b""),
        ("/", b""),
        ("..", b""),
        ("/../..", b""),
        ("usr", b"usr"),
        ("/usr/", b"usr"),
        ("//usr//./lib/", b"usr/lib"),
        ("lib/libc.so", b"usr/lib/libc.so"),
        ("lib/libc.so.6", b"usr/lib/libc.so"),
        ("absolute", b"usr/lib/libc.so"),
        ("lib/..", b"usr"),  # of where the link leads, not of the text
        ("lib/up/etc/passwd", b"etc/passwd"),
        ("out/lib", b"usr/lib"),
        ("lib/", b"usr/lib"),
    ],
)
def test_paths_are_followed_inside_the_root(view: View, path: str, leads_to: bytes) -> None:
    assert view.stat(path).path == leads_to
    assert view.stat(path.encode()).path == leads_to


@pytest.mark.parametrize("path", ["nothing", "usr/nothing/x", "nothing/..", "broken", "broken/x", "lib/nothing"])
def test_what_is_not_there_is_not_found(view: View, path: str) -> None:
    with pytest.raises(PathNotFoundError) as caught:
        view.stat(path)
    assert isinstance(caught.value, (FileNotFoundError, NotFoundError))
    assert isinstance(caught.value, LayerstoreError)
    assert caught.value.filename == path.encode()
    assert str(caught.value) == f"[Errno 2] No such file or directory: {path.encode()!r}"
    assert not view.exists(path)


@pytest.mark.parametrize("path", ["etc/passwd/", "etc/passwd/x", "etc/passwd/..", "etc/passwd/."])
def test_a_file_is_no_directory(view: View, path: str) -> None:
    with pytest.raises(NotADirectoryError):
        view.stat(path)
    with pytest.raises(NotADirectoryInViewError):
        view.listdir("etc/passwd")
    assert not view.exists(path)


def test_a_loop_of_links_has_an_end(view: View) -> None:
    with pytest.raises(LinkLoopError, match="symbolic links"):
        view.stat("loop")
    with pytest.raises(OSError, match="symbolic links"):
        view.listdir("loop/x")
    assert view.lstat("loop").is_symlink
    assert not view.exists("loop")


@pytest.mark.parametrize(("count", "fine"), [(40, True), (41, False)])
def test_forty_links_and_no_more(store: Store, count: int, fine: bool) -> None:
    links = [symlink(b"l%d" % n, b"l%d" % (n + 1)) for n in range(count)]
    with view_of(store, layer(*links, file(b"l%d" % count))) as view:
        assert view.exists("l0") is fine


def test_links_that_multiply_end_soon(store: Store) -> None:
    links = [symlink(b"l%d" % n, b"/../".join([b"l%d" % (n + 1)] * 50)) for n in range(39)]
    with view_of(store, layer(*links, folder(b"l39"))) as view, pytest.raises(LinkLoopError):
        view.stat("l0")


def test_lstat_stops_at_the_last_link_alone(view: View) -> None:
    assert view.lstat("lib").is_symlink
    assert view.lstat("lib/").is_dir
    assert view.lstat("lib/libc.so.6").path == b"usr/lib/libc.so.6"
    assert view.readlink("lib") == b"usr/lib"
    with pytest.raises(NotReadableError):
        view.readlink("etc/passwd")


def test_an_empty_target_leads_nowhere(store: Store) -> None:
    with view_of(store, layer(symlink(b"a", b""))) as view, pytest.raises(PathNotFoundError):
        view.stat("a")


def test_kinds(view: View) -> None:
    assert view.is_dir("lib")
    assert view.is_file("absolute")
    assert not view.is_file("lib")
    assert not view.is_dir("broken")
    assert view.exists("/")


def test_listdir_answers_in_the_type_of_the_question(view: View) -> None:
    assert view.listdir() == ["absolute", "broken", "etc", "lib", "loop", "out", "usr"]
    assert view.listdir(b"usr/lib")[:2] == [b".hidden", b"libc.so"]
    assert view.listdir("out") == ["lib"]
    assert [node.name for node in view.scandir("lib")] == view.listdir(b"lib")
    assert view.scandir("lib")[0].path == b"usr/lib/.hidden"


def test_walk_is_sorted_and_can_be_pruned(view: View) -> None:
    places = [node.path for node, _, _ in view.walk()]
    assert places == [b"", b"etc", b"usr", b"usr/lib", b"usr/lib/python3"]
    seen = []
    for node, folders, _ in view.walk("/"):
        seen.append(node.path)
        folders[:] = [one for one in folders if one.name != b"usr"]
    assert seen == [b"", b"etc"]
    assert [node.path for node, _, _ in view.walk("lib")] == [b"usr/lib", b"usr/lib/python3"]


def test_nodes_are_depth_first(store: Store) -> None:
    with view_of(store, layer(file(b"a/b/c"), file(b"a-"), file(b"a/b-"), file(b"b"))) as view:
        assert [node.path for node in view.nodes()] == [b"a", b"a/b", b"a/b/c", b"a/b-", b"a-", b"b"]
        assert [node.path for node in view.nodes("a")] == [b"a/b", b"a/b/c", b"a/b-"]


def test_a_deep_tree(store: Store) -> None:
    path = b"/".join([b"d"] * 3000)
    with view_of(store, layer(file(path + b"/f", b"deep"))) as view:
        assert len(list(view.nodes())) == 3001
        assert len(list(view.walk())) == 3001
        assert view.read_bytes(path + b"/f") == b"deep"
        assert view.stat("/d" * 3000 + "/.." * 2999).path == b"d"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("etc/passwd", [b"etc/passwd"]),
        ("/etc/*", [b"etc/passwd"]),
        ("usr/lib/lib*", [b"usr/lib/libc.so", b"usr/lib/libc.so.6"]),
        ("lib/*.so", [b"usr/lib/libc.so"]),
        ("**/*.py", [b"usr/lib/python3/os.py"]),
        ("**/passwd", [b"etc/passwd"]),
        ("**/lib", [b"lib", b"usr/lib"]),
        ("usr/**", [b"usr/lib"] + [b"usr/lib/" + name for name in (
            b".hidden", b"libc.so", b"libc.so.6", b"python3", b"python3/os.py", b"up"
        )]),
        ("**/", [b"", b"etc", b"usr", b"usr/lib", b"usr/lib/python3"]),
        ("*/", [b"etc", b"usr", b"usr/lib"]),  # lib and out lead to directories, and stand where these are
        ("usr/lib/*h*[!.]?/", [b"usr/lib/python3"]),
        ("lib/../*", [b"usr/lib"]),
        ("usr/lib/[lu]*", [b"usr/lib/libc.so", b"usr/lib/libc.so.6", b"usr/lib/up"]),
        ("etc/passwd/*", []),
        ("broken/*", []),
        ("loop/*", []),
        ("nothing/**", []),
        ("../../etc", [b"etc"]),
    ],
)  # fmt: skip
def test_glob(view: View, pattern: str, found: list[bytes]) -> None:
    assert [node.path for node in view.glob(pattern)] == found


def test_names_of_patterns_that_are_not_utf_8(store: Store) -> None:
    with view_of(store, layer(file(b"\xff1"), file(b"\xfe2"))) as view:
        assert [node.path for node in view.glob(b"\xff*")] == [b"\xff1"]
        assert [node.path for node in view.glob("\udcfe*")] == [b"\xfe2"]


def test_a_view_keeps_its_layers(store: Store) -> None:
    pushed = store.push_layer(TREE).layer
    with store.view([pushed]) as view:
        store.release_layer(pushed)
        store.collect_garbage()
        assert view.read_bytes("etc/passwd") == b"root"
        assert len(shown(view)) == 15
    store.collect_garbage()
    with pytest.raises(LayerNotFoundError):
        store.view([pushed])


def test_a_stack_that_is_refused_leaves_no_lease(store: Store) -> None:
    before = set((store.path / "leases").iterdir())
    with pytest.raises(InvalidInputError):
        view_of(store, TREE, layer(hardlink(b"a", b"nothing")))
    assert {one.name for one in (store.path / "leases").iterdir() if one.name.startswith("layer")} == {
        one.name for one in before if one.name.startswith("layer")
    }


def test_a_closed_view_reads_no_more(store: Store) -> None:
    view = view_of(store, TREE)
    opened = view.open("etc/passwd")
    view.close()
    view.close()
    with pytest.raises(ValueError, match="closed"):
        opened.read()
    opened.detach()
    assert view.stat("etc/passwd").size == 4


def test_an_image_has_a_view(store: Store) -> None:
    image = store.create_image([store.push_layer(TREE).layer, store.push_layer(layer(file(b"app"))).layer])
    with image.view() as view:
        assert view.layers == tuple(one.diff_id for one in image.layers)
        assert view.layer_of("app") == image.layers[1].diff_id
        assert repr(view) == "<View of 2 layers>"


def test_views_of_one_layer_share_its_index(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = layer(file(b"shared by two views"))
    view_of(store, data).close()
    monkeypatch.setattr(layer_index, "layer_entries", None)
    with view_of(store, data) as view:
        assert view.exists("shared by two views")


def test_few_indexes_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    known = layer_index._Known()
    monkeypatch.setattr(layer_index, "_known", known)
    monkeypatch.setattr(layer_index, "ENTRIES_KEPT_MAX", 10)
    for number in range(5):
        with view_of(store, layer(*(file(b"%d-%d" % (number, n)) for n in range(3)))) as view:
            assert len(view.listdir()) == 3
    assert len(known._indexes) == 2
    with view_of(store, layer(*(file(b"many-%d" % n) for n in range(11)))) as view:
        assert len(view.listdir()) == 11
    assert len(known._indexes) == 2


def test_what_one_view_merges_is_not_seen_by_another(store: Store) -> None:
    upper = layer(folder(b"usr", 0o700), file(b"usr/new"))
    with view_of(store, TREE, upper) as both, view_of(store, TREE) as one:
        assert both.exists("usr/new")
        assert both.stat("usr").mode == 0o700
        assert not one.exists("usr/new")
        assert one.stat("usr").mode == 0o755


def test_nodes_tell_what_they_are(view: View) -> None:
    node = view.stat("etc/passwd")
    assert (node.name, node.is_file, node.is_dir, node.is_symlink, node.size) == (b"passwd", True, False, False, 4)
    assert node.kind is EntryKind.FILE
    assert "TarEntry" not in repr(node)
    assert {node: 1}[view.lstat("/etc/passwd")] == 1


def test_a_name_may_contain_what_patterns_mean(store: Store) -> None:
    with view_of(store, layer(file(b"a[1]"), file(b"a1"), Member(b"a\nb"))) as view:
        assert [node.path for node in view.glob("a[[]1]")] == [b"a[1]"]
        assert [node.path for node in view.glob("a?b")] == [b"a\nb"]
