"""A store between places: what goes in comes out with the same digests."""

import json
from pathlib import Path

import pytest
from places_samples import LayoutMaker, layer_tar, noise, sample_layout, tree

from layerstore import Store
from layerstore.errors import DigestMismatchError, ImageNotFoundError
from layerstore.places.copying import copy
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.layout import OCILayout
from layerstore.places.store_place import StorePlace


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
