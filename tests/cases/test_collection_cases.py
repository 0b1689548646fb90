"""What went wrong elsewhere in collection. Cases with several processes are in ``tests/concurrency``."""

import threading
import time
from pathlib import Path

import pytest
from samples import assert_clean, make_tar, noise, packs_on_disk, pulled

from layerstore import Store
from layerstore.operations import collect as collect_module
from layerstore.operations import upload as upload_module


def test_distribution_3178_content_referenced_again_while_collected(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """distribution PR#3544, #3178, #4939: a push that found its chunks here stores them again if they go meanwhile."""
    data = noise(200_000)
    store.release_layer(store.push_layer(data).layer)
    real = upload_module.Upload._look_up
    collected = []

    def look_up_then_lose(self, batch):
        found = real(self, batch)
        if not collected:
            collected.append(store.collect_garbage())
        return found

    monkeypatch.setattr(upload_module.Upload, "_look_up", look_up_then_lose)
    again = store.push_layer(data + b"tail")
    assert collected[0].layers == 1
    assert pulled(again.layer) == data + b"tail"
    assert_clean(store)


def test_distribution_4939_layer_collected_between_finding_and_holding_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """distribution#4939: "already present" is only said of a layer that is held in the same transaction."""
    data = noise(100_000)
    store.release_layer(store.push_layer(data).layer)
    real = upload_module.hold_layer
    plan = store.plan_collection()

    def hold(transaction, diff_id, number, holder):
        real(transaction, diff_id, number, holder)
        hold.called = True

    monkeypatch.setattr(upload_module, "hold_layer", hold)
    assert store.push_layer(data).already_present
    assert hold.called
    store.collect_garbage(plan)
    assert pulled(store.layers[next(iter(store.layers))]) == data


def test_artifact_keeper_1776_deleting_a_tag_removes_that_tag_only(store: Store) -> None:
    """artifact-keeper#1776."""
    layer = store.push_layer(noise(50_000)).layer
    image = store.create_image([layer], tag="a:1")
    store.tags["a:2"] = image.digest
    del store.tags["a:1"]
    store.collect_garbage()
    assert list(store.tags) == [tag for tag in store.tags if tag.endswith("a:2")]
    assert pulled(store.images["a:2"].layers[0]) == noise(50_000)


def test_distribution_3254_push_again_after_collection(store: Store) -> None:
    """distribution#3254: what was deleted and collected can be pushed, made an image and pulled again."""
    data = make_tar({"a": noise(60_000)})
    for _ in range(3):
        image = store.create_image([store.push_layer(data).layer], tag="a:1")
        assert pulled(store.images["a:1"].layers[0]) == data
        store.delete_image(image, ttl=0)
        store.collect_garbage()
        assert not store.layers and packs_on_disk(store) == 0
        assert_clean(store)


def test_zot_4271_one_missing_pack_does_not_stop_collection(store: Store) -> None:
    """zot#4271: damage in one place, and everything else is still collected."""
    gone = store.push_layer(noise(300_000, 1)).layer
    other = store.push_layer(noise(300_000, 2)).layer
    first, *_ = sorted((store.path / "packs").iterdir())
    store._opened.packs.close()
    first.unlink()
    store.release_layer(gone)
    store.release_layer(other)
    store.collect_garbage()
    assert packs_on_disk(store) == 0
    assert not store.layers


def test_distribution_2212_space_is_returned_and_stats_agree(store: Store) -> None:
    """distribution#2212: the disk gives back what the plan said, and `stats` says what the disk says."""
    keep = store.push_layer(noise(400_000, 1)).layer
    drop = store.push_layer(noise(400_000, 2)).layer
    store.release_layer(drop)
    plan = store.plan_collection()
    before = packs_on_disk(store)
    report = store.collect_garbage(plan)
    freed = before - packs_on_disk(store)
    assert freed == report.bytes_freed + report.bytes_freed_by_rewriting
    assert report.bytes_freed == plan.bytes_freed > 0
    assert store.stats().stored_bytes == packs_on_disk(store)
    assert pulled(keep) == noise(400_000, 1)


def test_a_lease_that_ends_after_the_plan_was_made_leaks_nothing(store: Store) -> None:
    """zot#2598: a layer whose lease ran out between plan and collection is the next collection's."""
    store.push_layer(noise(50_000), lease=store.lease(0.3))
    plan = store.plan_collection()
    time.sleep(0.4)
    store.collect_garbage(plan)
    store.collect_garbage()
    assert not store.layers
    assert packs_on_disk(store) == 0


def test_zot_4235_collection_is_proportional_to_the_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zot#4235, Harbor#19991: with the same garbage, a store ten times as large takes as many transactions."""
    counts = []
    for layers in (2, 20):
        with Store.create(tmp_path / str(layers), frame_size=1 << 15, pack_size_max=1 << 17) as store:
            for number in range(layers):
                store.push_layer(noise(200_000, number))
            store.release_layer(store.push_layer(noise(200_000, 99)).layer)
            calls = []
            real = store._opened.index.read
            monkeypatch.setattr(store._opened.index, "read", lambda real=real, calls=calls: calls.append(1) or real())
            store.collect_garbage()
            counts.append(len(calls))
    assert counts[1] <= 1.3 * counts[0] + 10


def test_two_collections_at_once(store: Store) -> None:
    """The second waits for the first, and finds nothing left to do."""
    store.release_layer(store.push_layer(noise(300_000)).layer)
    plans = [store.plan_collection() for _ in range(2)]
    reports: list[collect_module.CollectionReport] = []
    threads = [threading.Thread(target=lambda plan=plan: reports.append(store.collect_garbage(plan))) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.layers for report in reports) == [0, 1]
    assert_clean(store)
