"""Indexes and artifacts: everything that hangs on one digest is kept, counted and given back with it."""

import gzip
import json
from typing import Any

import pytest
from samples import assert_clean, make_tar, text

from layerstore import Digest, Store
from layerstore.errors import InvalidManifestError, LayerNotFoundError
from layerstore.oci.media_types import (
    DOCKER_FOREIGN_LAYER_GZIP,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)

BASE = gzip.compress(make_tar({"base": text(90_000, 1)}), 6, mtime=0)
APPS = {
    name: gzip.compress(make_tar({"app": text(60_000, i)}), 6, mtime=0) for i, name in enumerate(("amd64", "arm64"))
}
BOM = b'{"bom": "of what is in it"}'


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data), **more}


def manifest_of(architecture: str) -> tuple[bytes, bytes]:
    blobs = (BASE, APPS[architecture])
    config = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(gzip.decompress(blob)) for blob in blobs]},
    }
    data = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(data, OCI_CONFIG),
        "layers": [descriptor(blob, OCI_LAYER_GZIP) for blob in blobs],
    }
    return json.dumps(manifest).encode(), data


def artifact(subject: bytes | None = None) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.bom",
        "config": descriptor(b"{}", OCI_EMPTY),
        "layers": [descriptor(BOM, "application/json")],
    }
    if subject is not None:
        document["subject"] = descriptor(subject, OCI_MANIFEST)
    return json.dumps(document).encode()


MANIFESTS = {name: manifest_of(name) for name in APPS}
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            descriptor(data, OCI_MANIFEST, platform={"architecture": name, "os": "linux"})
            for name, (data, _) in MANIFESTS.items()
        ],
    }
).encode()
DOCUMENTS = [data for pair in MANIFESTS.values() for data in pair]


def push_all(store: Store) -> None:
    for blob in (BASE, *APPS.values(), BOM):
        store.push_blob(blob, digest=Digest.of(blob))


def test_an_index_is_one_image_with_all_its_platforms(store: Store) -> None:
    push_all(store)
    image = store.put_image(INDEX, documents=DOCUMENTS, tag="shop:1")
    assert image.is_index
    assert image.digest == Digest.of(INDEX)
    assert list(store.images) == [image.digest]
    assert [(platform.architecture, child.manifest_bytes) for platform, child in image.platforms if platform] == [
        (name, data) for name, (data, _) in MANIFESTS.items()
    ]
    assert image.platforms[1][1].config.architecture == "arm64"
    assert image.blobs == [Digest.of(blob) for blob in (BASE, *APPS.values())]
    assert len(image.layers) == 3
    assert image.size == sum(len(gzip.decompress(blob)) for blob in (BASE, *APPS.values()))
    with pytest.raises(InvalidManifestError, match="index"):
        _ = image.config
    assert store.image_usage(image).exclusive_bytes > 0
    assert_clean(store)


def test_a_part_of_an_index_outlives_it_when_it_is_an_image_itself(store: Store) -> None:
    push_all(store)
    index = store.put_image(INDEX, documents=DOCUMENTS, tag="shop:1")
    part = store.put_image(*MANIFESTS["amd64"], tag="shop:amd64")
    store.delete_image(index, ttl=0)
    store.release_layer(Digest.of(BOM))
    report = store.collect_garbage()
    assert (report.images, report.layers, report.encodings) == (1, 2, 1)
    assert part.config.architecture == "amd64"
    for blob in (BASE, APPS["amd64"]):
        assert b"".join(store.blob_blocks(Digest.of(blob))) == blob
    assert_clean(store)
    store.delete_image(part, ttl=0)
    store.collect_garbage()
    assert (len(store.layers), len(store.encodings)) == (0, 0)
    assert_clean(store)


def test_an_artifact_keeps_blobs_of_any_kind(store: Store) -> None:
    push_all(store)
    subject = store.put_image(*MANIFESTS["amd64"])
    data = artifact(MANIFESTS["amd64"][0])
    image = store.put_image(data, b"{}", tag="bom:1")
    assert image.descriptor.artifact_type == "application/vnd.example.bom"
    assert [layer.open().read() for layer in image.layers] == [BOM]
    assert image.manifest.subject is not None
    assert image.manifest.subject.digest == subject.digest
    store.collect_garbage()
    assert b"".join(store.blob_blocks(Digest.of(BOM))) == BOM
    assert_clean(store)
    with pytest.raises(InvalidManifestError):
        store.create_image([], base="bom:1")


def test_what_is_missing_is_named_and_nothing_is_made(store: Store) -> None:
    with pytest.raises(LayerNotFoundError):
        store.put_image(artifact(), b"{}")
    with pytest.raises(LayerNotFoundError):
        store.put_image(INDEX, documents=DOCUMENTS)
    push_all(store)
    with pytest.raises(InvalidManifestError, match=Digest.of(DOCUMENTS[3])):
        store.put_image(INDEX, documents=DOCUMENTS[:3])
    with pytest.raises(InvalidManifestError, match="nothing of the image"):
        store.put_image(INDEX, documents=[*DOCUMENTS, b"{}"])
    assert len(store.images) == 0
    assert_clean(store)


def test_a_document_under_two_media_types_is_refused(store: Store) -> None:
    push_all(store)
    index = json.loads(INDEX)
    index["manifests"][0]["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
    with pytest.raises(InvalidManifestError, match="calls itself"):
        store.put_image(json.dumps(index).encode(), documents=DOCUMENTS)


def test_indexes_in_indexes_have_a_limit(store: Store) -> None:
    push_all(store)
    documents = list(DOCUMENTS)
    root = INDEX
    for _ in range(20):
        documents.append(root)
        outer = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(root, OCI_INDEX)]}
        root = json.dumps(outer).encode()
    with pytest.raises(InvalidManifestError, match="deep"):
        store.put_image(root, documents=documents)


def test_a_layer_that_is_fetched_from_elsewhere_may_be_missing(store: Store) -> None:
    push_all(store)
    manifest, config = MANIFESTS["amd64"]
    document = json.loads(manifest)
    foreign = gzip.compress(make_tar({"foreign": b"licence"}), 6, mtime=0)
    document["layers"].insert(0, descriptor(foreign, DOCKER_FOREIGN_LAYER_GZIP, urls=["https://example.com/layer"]))
    changed = json.loads(config)
    changed["rootfs"]["diff_ids"].insert(0, Digest.of(gzip.decompress(foreign)))
    data = json.dumps(changed).encode()
    document["config"] = descriptor(data, OCI_CONFIG)
    image = store.put_image(json.dumps(document).encode(), data)
    assert_clean(store)
    assert len(image.blobs) == 3
    store.delete_image(image, ttl=0)
    store.collect_garbage()
    assert_clean(store)


def test_rebuild_brings_indexes_and_artifacts_back(store: Store) -> None:
    push_all(store)
    store.put_image(INDEX, documents=DOCUMENTS, tag="shop:1")
    store.put_image(artifact(), b"{}", tag="bom:1")
    before = {digest: store.images[digest].tags for digest in store.images}
    store.close()
    Store.rebuild_index(store.path)
    with Store.open(store.path) as again:
        assert {digest: again.images[digest].tags for digest in again.images} == before
        assert_clean(again)
        again.delete_image("shop:1", ttl=0)
        again.collect_garbage()
        assert [layer.open().read() for layer in again.images["bom:1"].layers] == [BOM]
        assert_clean(again)
