"""A store between places: what goes in comes out with the same digests."""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from places_samples import MANIFEST, LayoutMaker, layer_tar, noise, sample_layout, tree

from layerstore import Lease, Store
from layerstore.errors import BlobNotFoundError, DigestMismatchError, ImageNotFoundError, InvalidManifestError
from layerstore.places.closure import Walker, blobs_of
from layerstore.places.copying import copy
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.layout import OCILayout
from layerstore.places.place import Root, Writer
from layerstore.places.store_place import RESUME_SECONDS, StorePlace


def test_through_a_store_and_back(tmp_path: Path, store: Store) -> None:
    maker = sample_layout(tmp_path / "shop")
    report = copy(OCILayout(maker.path), StorePlace(store))
    assert [image.name for image in report.images] == ["shop:1.0", "shop:1.1", "shop:multi"]
    assert {image.digest for image in report.images} == {root["digest"] for root in maker.roots}
    copy(StorePlace(store), OCILayout(tmp_path / "again"))
    again = tree(tmp_path / "again")
    assert {name: data for name, data in again.items() if name.startswith("blobs")} == {
        name: data for name, data in tree(maker.path).items() if name.startswith("blobs")
    }
    listed = json.loads(again["index.json"])["manifests"]
    assert {entry["digest"]: entry["annotations"] for entry in listed} == {
        root["digest"]: root["annotations"] for root in maker.roots
    }
    assert copy(OCILayout(maker.path), StorePlace(store)).blobs_copied == 0
    assert store.verify().is_clean


def test_references_of_a_store(tmp_path: Path, store: Store) -> None:
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), StorePlace(store), ["multi"], name="web:2")
    place = StorePlace(store)
    for reference in ("web:2", "docker.io/library/web:2", maker.roots[2]["digest"]):
        copy(place, OCILayout(tmp_path / "again"), [reference], platform="linux/arm64")
    with pytest.raises(ImageNotFoundError, match="it has web:2"):
        copy(place, OCILayout(tmp_path / "again"), ["2"])


def test_a_spoiled_blob_brings_no_image(tmp_path: Path, store: Store) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"a": noise(1, 100_000)})], "none"), "1.0")
    manifest = json.loads(maker.blob_path(maker.roots[0]["digest"]).read_bytes())
    path = maker.blob_path(manifest["layers"][0]["digest"])
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError):
        copy(OCILayout(maker.path), StorePlace(store))
    assert list(store.images) == []


def test_from_a_docker_archive_to_a_store_and_back(tmp_path: Path, store: Store) -> None:
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "a.tar"))
    copy(DockerArchive(tmp_path / "a.tar"), StorePlace(store))
    copy(StorePlace(store), DockerArchive(tmp_path / "b.tar"), ["shop:1.0", "shop:1.1", "shop:multi"])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_only_images_hold_what_was_copied(tmp_path: Path, store: Store) -> None:
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), store)
    for digest in list(store.images):
        store.delete_image(digest, ttl=0)
    store.collect_garbage(store.plan_collection())
    assert list(store.layers) == []


def test_an_interrupted_copy_goes_on(tmp_path: Path, store: Store) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"a": noise(seed, 50_000)}) for seed in range(3)], "none"), "1.0")
    manifest = json.loads(maker.blob_path(maker.roots[0]["digest"]).read_bytes())
    last = maker.blob_path(manifest["layers"][2]["digest"])
    good = last.read_bytes()
    last.write_bytes(bytes(len(good)))
    with pytest.raises(DigestMismatchError):
        copy(OCILayout(maker.path), store, jobs=1)
    store.collect_garbage(store.plan_collection())
    last.write_bytes(good)
    report = copy(OCILayout(maker.path), store)
    assert (report.blobs_copied, report.blobs_present) == (1, 2)
    assert store.verify().is_clean


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the clock go forward."""
    clock, clock_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: clock() + seconds)
    monkeypatch.setattr(time, "time_ns", lambda: clock_ns() + int(seconds * 1e9))


def open_copy(stack: ExitStack, maker: LayoutMaker, store: Store) -> Writer:
    """A copy of the only image of a layout, whose blobs are put, up to its end."""
    source = OCILayout(maker.path)
    (root,) = source.roots()
    closure = Walker(source).closure(root.descriptor)
    writer = stack.enter_context(StorePlace(store).writing())
    for descriptor in blobs_of([closure]).values():
        if not writer.has_blob(descriptor):
            with source.read_blob(descriptor) as blocks:
                writer.put_blob(descriptor, blocks)
    writer.put_root(Root(root.descriptor, "shop:1.0"), closure.documents)
    return writer


def test_a_blob_that_was_collected_meanwhile_is_told(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    tars = [layer_tar({"a": noise(seed, 50_000)}) for seed in range(2)]
    maker.list_root(maker.image(tars), "1.0")
    with pytest.raises(BlobNotFoundError, match=r"was collected meanwhile; copy shop:1\.0 again"), ExitStack() as stack:
        open_copy(stack, maker, store)
        later(monkeypatch, RESUME_SECONDS + 1)
        for tar in tars:
            store.push_layer(tar)  # an image could be made of these
        store.collect_garbage(store.plan_collection())
    assert list(store.images) == []
    copy(OCILayout(maker.path), store)
    assert store.verify().is_clean


def test_a_copy_may_take_longer_than_its_lease(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"a": noise(seed, 50_000)}) for seed in range(2)]), "1.0")
    with ExitStack() as stack:
        open_copy(stack, maker, store)
        later(monkeypatch, RESUME_SECONDS + 1)
    assert list(store.images) == [maker.roots[0]["digest"]]
    later(monkeypatch, RESUME_SECONDS + 1)
    store.collect_garbage(store.plan_collection())
    copy(store, OCILayout(tmp_path / "again"))
    assert store.verify().is_clean


def test_what_looks_compressed_and_is_not_comes_through(tmp_path: Path, store: Store) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    config = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    layers = [maker.blob(b"\x1f\x8b\x08\0" + noise(1, 5000), "application/x-thing")]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    maker.list_root(maker.json(manifest, MANIFEST), "1.0")
    copy(OCILayout(maker.path), store)
    copy(store, OCILayout(tmp_path / "again"))
    assert store.verify().is_clean


def test_a_lease_is_renewed_when_a_quarter_is_over(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"a": noise(seed, 1000)}) for seed in range(5)], "none"), "1.0")
    renewed: list[float] = []
    renew = Lease.renew

    def count(lease: Lease, ttl: float) -> None:
        renewed.append(ttl)
        renew(lease, ttl)

    monkeypatch.setattr(Lease, "renew", count)
    with ExitStack() as stack:
        writer = open_copy(stack, maker, store)
        assert renewed == []
        later(monkeypatch, RESUME_SECONDS / 4)
        descriptor = OCILayout(maker.path).roots()[0].descriptor
        writer.has_blob(descriptor)
        writer.has_blob(descriptor)
        assert renewed == [RESUME_SECONDS]


def test_each_image_of_a_copy_into_a_store_is_whole_or_not_there(tmp_path: Path, store: Store) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    tar = layer_tar({"a": b"1"})
    good = maker.image([tar])
    manifest = json.loads(maker.blob_path(good["digest"]).read_bytes())
    bad = maker.json(manifest | {"layers": []}, MANIFEST)  # its config names one layer
    maker.list_root(good, "1.0")
    maker.list_root(bad, "1.1")
    with pytest.raises(InvalidManifestError, match="names 1 layers"):
        copy(OCILayout(maker.path), store)
    assert list(store.images) == [good["digest"]]
    assert store.verify().is_clean


def test_what_the_store_has_need_not_be_in_the_source(tmp_path: Path, store: Store) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    tar = layer_tar({"a": noise(1, 50_000)})
    maker.list_root(maker.image([tar]), "1.0")
    copy(OCILayout(maker.path), store)
    layer = json.loads(maker.blob_path(maker.roots[0]["digest"]).read_bytes())["layers"][0]
    maker.blob_path(layer["digest"]).unlink()
    report = copy(OCILayout(maker.path), store, name="shop:again")
    assert (report.blobs_copied, report.blobs_present) == (0, 1)


def test_a_manifest_that_is_the_config_of_another_brings_its_layers(tmp_path: Path, store: Store) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    inner = maker.image([layer_tar({"a": noise(1, 50_000)})])
    layers = [maker.layer(layer_tar({"b": noise(2, 50_000)}))]
    outer = maker.json({"schemaVersion": 2, "mediaType": MANIFEST, "config": inner, "layers": layers}, MANIFEST)
    maker.list_root(maker.index([outer, inner]), "1.0")
    copy(OCILayout(maker.path), OCILayout(tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(maker.path)
    copy(OCILayout(maker.path), store)
    store.collect_garbage(store.plan_collection())
    assert len(store.layers) == 2
    copy(store, OCILayout(tmp_path / "back"))
    assert set(tree(tmp_path / "back")) == set(tree(maker.path))
    report = copy(OCILayout(maker.path), OCILayout(tmp_path / "zstd"), compression="zstd")
    assert copy(OCILayout(tmp_path / "zstd"), OCILayout(tmp_path / "zstd2")).documents == report.documents


def test_a_config_too_large_for_a_document_is_a_blob(tmp_path: Path, store: Store) -> None:
    maker = LayoutMaker(tmp_path / "model")
    config = maker.blob(noise(1, (4 << 20) + 1), "application/x-model")
    layers = [maker.layer(layer_tar({"a": b"1"}))]
    maker.list_root(
        maker.json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}, MANIFEST), "1"
    )
    copy(OCILayout(maker.path), store)
    copy(store, OCILayout(tmp_path / "again"))
    assert set(tree(tmp_path / "again")) == set(tree(maker.path))
    assert store.verify().is_clean
    store.delete_image("model:1", ttl=0)
    store.collect_garbage(store.plan_collection())
    assert list(store.layers) == []
    assert store.verify().is_clean
