"""Containers in a store: names, what keeps their layers, and what becomes of them when the index is lost or copied."""

import os
import shutil
from pathlib import Path
from threading import Thread

import pytest
from container_samples import changed, check_commit, everything, picture
from unpacking_stacks import entry, layer_of

from layerstore import Container, Image, Store
from layerstore.errors import (
    ContainerExistsError,
    ContainerInUseError,
    ContainerNotFoundError,
    DamagedError,
    InvalidReferenceError,
    ReadOnlyError,
)
from layerstore.operations import containers as container_operations

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the image has devices and owners")


@pytest.fixture
def base(store: Store) -> Image:
    """An image that a test may delete."""
    return store.create_image([store.push_layer(data).layer for data in everything()], tag="shop:1")


def delete_all_images(store: Store) -> None:
    for digest in list(store.images):
        store.delete_image(digest, ttl=0)
    store.collect_garbage()


# --- names ------------------------------------------------------------------------------------------------------------


def test_names(store: Store, base: Image) -> None:
    """Given or made from the id; listed in order; each is found again, by this store and by others."""
    given = [base.container(name) for name in ("web", "a.b_c-D", "0" * 128)]
    made = base.container()
    assert made.name == made.description.id[:12]
    assert list(store.containers) == sorted(one.name for one in [*given, made])
    assert len(store.containers) == 4
    for container in given:
        assert store.containers[container.name].description == container.description
        assert container.name in store.containers
    with Store.open(store.path, read_only=True) as other:
        assert list(other.containers) == list(store.containers)
        found = other.containers["web"]
        assert found.read_bytes("d/f") == b"file f"
        assert found.image == base.digest
        assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in base.layers]
        with pytest.raises(ReadOnlyError):
            found.remove()
    assert given[0].created.timestamp() == pytest.approx(given[1].created.timestamp(), abs=60)


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a b", "é", "x" * 129, "a\0", "../x", ".new-1", "a\n"])
def test_what_is_no_name(store: Store, base: Image, name: str) -> None:
    with pytest.raises(InvalidReferenceError):
        base.container(name)
    with pytest.raises(InvalidReferenceError):
        store.containers[name]
    assert name not in store.containers
    assert list(store.containers) == []
    assert list((store.path / "containers").glob("*")) == []


def test_a_name_that_is_taken(store: Store, base: Image) -> None:
    container = base.container("web")
    container.write_bytes("new", b"1")
    container.close()
    with pytest.raises(ContainerExistsError, match="web"):
        base.container("web")
    assert store.containers["web"].read_bytes("new") == b"1"
    assert [path.name for path in (store.path / "containers").iterdir()] == ["web"]
    container.remove()
    assert base.container("web").exists("new") is False


def test_what_is_not_there(store: Store, base: Image) -> None:
    with pytest.raises(ContainerNotFoundError, match="none"):
        store.containers["none"]
    assert store.containers.get("none") is None
    container = base.container("web")
    container.remove()
    with pytest.raises(ContainerNotFoundError):
        container.remove()
    with pytest.raises(ContainerNotFoundError):
        container.write_bytes("new", b"")
    assert list(store.containers) == []


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_only_one_changes_a_container(store: Store, base: Image) -> None:
    """Others read it as it was on the disk when they looked, until they close it."""
    first, second = base.container("web"), store.containers["web"]
    assert second.listdir("op") == ["own"]
    first.write_bytes("op/new", b"1")
    assert second.is_in_use
    assert not first.is_in_use
    with pytest.raises(ContainerInUseError, match="web"):
        second.unlink("op/own")
    with pytest.raises(ContainerInUseError):
        second.remove()
    second.close()
    assert second.listdir("op") == ["new", "own"]
    first.close()
    assert not second.is_in_use
    second.unlink("op/own")
    first.close()
    assert first.listdir("op") == ["new"]
    second.close()
    first.rename("op/new", "op/newer")
    first.remove()
    assert "web" not in store.containers


def test_a_container_can_be_used_again_when_it_was_closed(base: Image) -> None:
    container = base.container()
    for number in range(3):
        container.write_bytes(f"new{number}", b"1")
        container.sync()
        container.close()
        container.close()
    assert changed(container) == "A new0, A new1, A new2"


# --- what keeps the layers --------------------------------------------------------------------------------------------


def test_a_container_keeps_its_layers(store: Store, base: Image) -> None:
    """Be the image deleted and collected; when the container goes, the layers go."""
    layers = [layer.diff_id for layer in base.layers]
    one, two = base.container("one"), base.container("two")
    shown = picture(one)
    delete_all_images(store)
    for diff_id in layers:
        assert {"container one stands on it", "container two stands on it"} <= set(store.why(diff_id).reasons)
    assert store.plan_collection().layers == ()
    one.remove()
    store.collect_garbage()
    assert picture(two) == shown
    two.write_bytes("new", b"1")
    check_commit(two).close()
    delete_all_images(store)
    assert picture(store.containers["two"])[b"new"].data == b"1"
    two.remove()
    assert set(store.plan_collection().layers) >= set(layers)
    store.collect_garbage()
    assert list(store.layers) == []
    assert store.verify().problems == ()


def test_a_committed_image_lives_on_without_its_container(store: Store, base: Image) -> None:
    container = base.container()
    container.write_bytes("new", b"1")
    child = container.commit("shop:2")
    shown = picture(container)
    container.remove()
    store.delete_image(base, ttl=0)
    store.collect_garbage()
    with child.view() as view:
        assert view.read_bytes("new") == shown[b"new"].data
        assert picture(view).keys() == shown.keys()


def test_collecting_while_a_container_is_made_lets_it_be_made(
    store: Store, base: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is begun is no leftover: collection waits until it is there."""
    waited = []
    real = container_operations.remove_container_leftovers

    def leftovers(root: Path) -> None:
        waited.append([path.name for path in (root / "containers").glob("*")])
        real(root)

    monkeypatch.setattr(container_operations, "remove_container_leftovers", leftovers)
    with Store.open(store.path) as other:
        threads = []
        for number in range(4):
            threads.append(Thread(target=other.collect_garbage))
            threads[-1].start()
            base.container(f"c{number}")
        for thread in threads:
            thread.join()
    assert list(store.containers) == ["c0", "c1", "c2", "c3"]
    assert waited
    assert not any(name.startswith(".") for names in waited for name in names)


# --- a lost index, a copy ---------------------------------------------------------------------------------------------


def test_a_rebuilt_index_keeps_the_layers_of_containers(store: Store, base: Image) -> None:
    container = base.container("web")
    container.write_bytes("new", b"1")
    shown = picture(container)
    container.close()
    store.close()
    shutil.rmtree(store.path / "index")
    Store.rebuild_index(store.path)
    with Store.open(store.path) as again:
        delete_all_images(again)
        found = again.containers["web"]
        assert picture(found) == shown
        assert changed(found) == "A new"
        found.remove()
        again.collect_garbage()
        assert list(again.layers) == []


def test_a_backup_has_no_containers_and_lets_their_leases_go(store: Store, base: Image, tmp_path: Path) -> None:
    base.container("web").close()
    store.delete_image(base, ttl=0)
    store.backup(tmp_path / "backup")
    with Store.open(tmp_path / "backup") as copy:
        assert list(copy.containers) == []
        copy.collect_garbage()  # ends the leases
        assert all(not copy.why(diff_id).reasons for diff_id in copy.layers)
        copy.collect_garbage()  # takes what they kept
        assert list(copy.layers) == []
        assert copy.verify().problems == ()
    assert picture(store.containers["web"])


@pytest.mark.parametrize("contents", [b"{", b"", b"\xff", None])
def test_a_damaged_description_says_where_the_changes_are(store: Store, base: Image, contents: bytes | None) -> None:
    """And nothing that it may stand on is collected, while everything else is."""
    container = base.container("web")
    container.write_bytes("new", b"1")
    container.close()
    other = base.container("other")
    layers = list(store.layers)
    loose = store.push_layer(layer_of(entry("loose", data=b"loose"))).layer
    description = container._folder.path / "container.json"
    whole = description.read_bytes()
    if contents is None:
        description.unlink()
    else:
        description.write_bytes(contents)
    with pytest.raises(DamagedError, match="upper"):
        store.containers["web"]
    assert list(store.containers) == ["other", "web"]
    (problem,) = store.verify().problems
    assert "container web" in problem.text and "container rm web" in problem.text
    store.delete_image(base, ttl=0)
    other.remove()
    store.release_layer(loose)
    store.collect_garbage()
    assert list(store.layers) == layers
    description.write_bytes(whole)
    assert store.verify().is_clean
    with store.containers["web"] as again:
        assert again.read_bytes("new") == b"1"


def test_a_temporary_container_goes_with_its_session(store: Store, base: Image) -> None:
    """Its own store, and others, leave it alone until then; a program that runs in it keeps it."""
    with Store.open(store.path) as other:
        folder = container_operations.create_container(
            other._opened,
            None,
            base.digest,
            tuple(layer.diff_id for layer in base.layers),
            (base.documents.manifest, base.documents.config),
            owners_kept=False,
            prepare=lambda folder: None,
            is_temporary=True,
        )
        other.collect_garbage()
        store.collect_garbage()
        assert list(store.containers) == [folder.name]
    store.delete_image(base, ttl=0)
    with folder.running():
        store.collect_garbage()
        assert list(store.containers) == [folder.name] and list(store.layers)
    assert store.plan_collection().layers
    store.collect_garbage()
    assert (list(store.containers), list(store.layers)) == ([], [])


def test_a_container_in_which_a_program_runs_is_in_use(store: Store, base: Image) -> None:
    container = base.container("web")
    with container.running():
        assert container.is_in_use
        with pytest.raises(ContainerInUseError):
            container.write_bytes("new", b"1")
        with pytest.raises(ContainerInUseError):
            container.remove()
    assert not container.is_in_use
    container.write_bytes("new", b"1")
    container.remove()


def test_commit_tells_its_history_and_config(base: Image) -> None:
    container: Container = base.container()
    container.write_bytes("new", b"1")
    child = container.commit("shop:2", config={"Cmd": ["new"]}, author="A", comment="more")
    assert child.config.history[-1].comment == "more"
    assert child.config.history[-1].author == "A"
    assert len(child.layers) == len(base.layers) + 1
    again = container.commit("shop:3", config={"Cmd": ["new"]}, author="A", comment="more")
    assert again.digest == child.digest
    container.unlink("new")
    unchanged = container.commit(comment="nothing")
    assert unchanged.config.history[-1].empty_layer
    assert [layer.diff_id for layer in unchanged.layers] == [layer.diff_id for layer in base.layers]
