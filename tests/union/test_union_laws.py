"""The union view equals a model of it, for any stack of small layers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from union_model import Model, Refused
from union_samples import Member, file, folder, hardlink, layer, opaque, shown, symlink, view_of, whiteout

from layerstore import Store, View
from layerstore.errors import InvalidInputError, LayerstoreError

NAMES = [b"a", b"b", b"c"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
targets = st.builds(
    lambda front, path: front + path, st.sampled_from([b"", b"", b"/", b"../", b"../../", b"./"]), paths
)
modes = st.sampled_from([0o644, 0o600, 0o755, 0o4711])
members = st.one_of(
    st.builds(file, paths, st.binary(max_size=3), modes),
    st.builds(file, paths, st.binary(max_size=3), modes),
    st.builds(folder, paths, modes),
    st.builds(symlink, paths, targets),
    st.builds(hardlink, paths, paths),
    st.builds(whiteout, paths),
    st.builds(opaque, st.one_of(paths, paths, st.just(b""))),
)
stacks = st.lists(st.lists(members, max_size=8), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # so many small pushes wait for a disk
    with tempfile.TemporaryDirectory(dir=memory) as place, Store.create(Path(place) / "store") as opened:
        yield opened


def groups(view: View) -> set[frozenset[bytes]]:
    names: dict[tuple[int, int], set[bytes]] = {}
    for node in view.nodes():
        names.setdefault(node.inode, set()).add(node.path)
        assert node.links == len(names[node.inode]) or node.links > 1
    return {frozenset(group) for group in names.values() if len(group) > 1}


def modelled(stack: list[list[Member]]) -> tuple[Model, list[list[Member]]]:
    """The model of a stack, and the stack without hard links in those layers that would be refused for one."""
    model, kept = Model(), []
    for layer_members in stack:
        table = dict(model.table)
        try:
            model.apply(layer_members)
        except Refused:
            model.table = table
            layer_members = [member for member in layer_members if not member.target or member.kind == b"2"]
            model.apply(layer_members)
        kept.append(layer_members)
    return model, kept


@given(stacks)
def test_a_view_shows_what_the_model_says(shared: Store, stack: list[list[Member]]) -> None:
    try:
        model, stack = modelled(stack)
    except Refused:
        event("refused")
        with pytest.raises(InvalidInputError):
            view_of(shared, *(layer(*one) for one in stack))
        return
    with view_of(shared, *(layer(*one) for one in stack)) as view:
        assert shown(view) == model.shown()
        assert groups(view) == model.groups()
        by_path = {b"/".join(path): thing for path, thing in model.table.items()}
        for node in view.nodes():
            assert node.mode == (by_path[node.path].mode or (0o777 if node.is_symlink else 0o755))
            assert node == view.lstat(node.path)
        check_walks(view)


def check_walks(view: View) -> None:
    """All ways to walk show the same."""
    nodes = list(view.nodes())
    assert [node.path.split(b"/") for node in nodes] == sorted(node.path.split(b"/") for node in nodes)
    assert view.glob("**") == nodes
    walked = []
    for place, folders, others in view.walk():
        walked += [*folders, *others]
        assert view.listdir(place.path) == sorted(node.name for node in (*folders, *others))
        assert view.scandir(place.path) == view.glob(place.path + b"/*")
    assert sorted(walked, key=lambda node: node.path.split(b"/")) == nodes


@given(stacks)
def test_a_view_refuses_what_the_model_refuses(shared: Store, stack: list[list[Member]]) -> None:
    model = Model()
    try:
        for members in stack:
            model.apply(members)
    except Refused:
        with pytest.raises(InvalidInputError):
            view_of(shared, *(layer(*one) for one in stack))
    else:
        view_of(shared, *(layer(*one) for one in stack)).close()


@given(stacks, st.lists(targets, min_size=1, max_size=8))
def test_paths_lead_where_the_model_says(shared: Store, stack: list[list[Member]], asked: list[bytes]) -> None:
    try:
        model, stack = modelled(stack)
    except Refused:
        return
    with view_of(shared, *(layer(*one) for one in stack)) as view:
        for path in asked:
            try:
                expected = b"/".join(model.real(tuple(path.split(b"/"))))
            except (KeyError, Refused):
                with pytest.raises(LayerstoreError) as caught:
                    view.stat(path)
                assert isinstance(caught.value, OSError)
                assert not view.exists(path)
            else:
                assert view.stat(path).path == expected
                assert view.exists(path)
