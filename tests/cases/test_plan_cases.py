"""Plans that meet a store which has changed, and rules that are applied again and again."""

import random
import threading
from pathlib import Path

import pytest

from layerstore import Store
from layerstore.operations import batch, collect
from layerstore.storage.leases import LiveLeases

MIB = 1 << 20


def test_a_session_that_begins_while_collection_looks_keeps_its_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The push commits its first batch between collection's look at the uploads and its look at the leases."""
    monkeypatch.setattr(batch, "BATCH_SIZE_MAX", 50_000)
    content = random.Random(1).randbytes(400_000)
    with Store.create(tmp_path / "store") as store, Store.open(tmp_path / "store") as pusher:
        go_on, has_begun = threading.Event(), threading.Event()

        def blocks():  # type: ignore[no-untyped-def]
            yield content[:200_000]
            yield content[200_000:300_000]
            has_begun.set()
            go_on.wait(20)
            yield content[300_000:]

        results = []
        thread = threading.Thread(target=lambda: results.append(pusher.push_layer(blocks())))
        look = LiveLeases.look

        def slow_look(folder: Path) -> LiveLeases:
            found = look(folder)
            if not thread.is_alive() and not results:
                thread.start()
                assert has_begun.wait(20)
            return found

        monkeypatch.setattr(collect.LiveLeases, "look", slow_look)
        plan = store.plan_collection()
        store.collect_garbage(plan)
        go_on.set()
        thread.join(20)
        assert b"".join(results[0].layer.blocks()) == content
        assert store.verify().is_clean


def test_pruning_by_size_twice_is_pruning_once(tmp_path: Path) -> None:
    rng = random.Random(2)
    with Store.create(tmp_path / "store") as store:
        for number in range(6):
            store.create_image([store.push_layer(rng.randbytes(MIB)).layer], tag=f"app:{number}")
        for _ in range(3):
            store.prune(max_size=4 * MIB + 200_000)
            assert sorted(store.tags) == ["app:2", "app:3", "app:4", "app:5"]


def test_garbage_is_no_reason_to_delete_images(tmp_path: Path) -> None:
    rng = random.Random(3)
    with Store.create(tmp_path / "store") as store:
        store.create_image([store.push_layer(rng.randbytes(MIB)).layer], tag="app:1")
        store.release_layer(store.push_layer(rng.randbytes(5 * MIB)).layer)
        assert not store.plan_prune(max_size=2 * MIB).images


def test_an_image_deleted_anew_has_its_new_time_in_the_trash(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        image = store.create_image([store.push_layer(b"contents").layer], tag="app:1")
        store.delete_image(image, ttl=0)
        plan = store.plan_collection()
        store.undelete_image("app:1")
        store.delete_image("app:1", ttl=3600)
        store.collect_garbage(plan)
        assert store.undelete_image("app:1").digest == image.digest


def test_ending_a_lease_looks_at_its_own_layers_only(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        others = [store.push_layer(f"other {number}".encode()).layer.diff_id for number in range(30)]
        with store.lease(ttl=3600) as lease, store.lease(ttl=3600) as second:
            held = [store.push_layer(f"held {number}".encode(), lease=lease).layer.diff_id for number in range(250)]
            both = store.push_layer(b"held twice", lease=lease).layer.diff_id
            store.push_layer(b"held twice", lease=second)
            lease.end()
            assert sorted(store.plan_collection().layers) == sorted(held)
        assert sorted(store.plan_collection().layers) == sorted([*held, both])
        store.collect_garbage()
        assert sorted(store.layers) == sorted(others)
        assert store.verify().is_clean


def test_a_base_of_many_images_goes_with_the_last_of_them(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        base = store.create_image([store.push_layer(b"base" * 5000).layer], tag="base:1")
        for number in range(20):
            layer = store.push_layer(f"app {number}".encode() * 500).layer
            store.create_image([layer], base=base, tag=f"app:{number}")
        for number in range(19):
            store.delete_image(f"app:{number}", ttl=0)
        store.delete_image("base:1", ttl=0)
        assert len(store.plan_collection().layers) == 19
        store.delete_image("app:19", ttl=0)
        plan = store.plan_collection()
        assert len(plan.layers) == 21
        assert store.collect_garbage(plan).bytes_freed == plan.bytes_freed
        assert not store.layers
