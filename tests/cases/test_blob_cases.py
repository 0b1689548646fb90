"""Cases of other projects that concern compressed blobs, images of several platforms, and the cache of blobs."""

import gzip
import json
import threading
from pathlib import Path

import pytest
from samples import assert_clean, make_tar, noise
from store_images import image_of

from layerstore import Digest, Store
from layerstore.errors import ContentDamagedError, NoSpaceError
from layerstore.oci.media_types import OCI_INDEX, OCI_MANIFEST
from layerstore.operations import raw_files

BLOBS = [gzip.compress(make_tar({"f": noise(90_000, i)}), 6, mtime=0) for i in range(3)]


def test_quay_6318_collection_between_a_blob_and_its_manifest(store: Store) -> None:
    with Store.open(store.path) as collector, store.lease(60) as lease:
        for blob in BLOBS:
            store.push_blob(blob, digest=Digest.of(blob), lease=lease)
            collector.collect_garbage()
        image = store.put_image(*image_of(*BLOBS))
    store.collect_garbage()
    assert [b"".join(store.blob_blocks(digest)) for digest in image.blobs] == BLOBS


def test_distribution_3178_an_index_keeps_its_children_alive(store: Store) -> None:
    children = [image_of(blob) for blob in BLOBS[:2]]
    for blob in BLOBS[:2]:
        store.push_blob(blob, digest=Digest.of(blob))
    parts = [store.put_image(*documents, tag=f"part:{i}") for i, documents in enumerate(children)]
    entries = [{"mediaType": OCI_MANIFEST, "digest": part.digest, "size": len(part.manifest_bytes)} for part in parts]
    index = store.put_image(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode())
    for part in parts:
        store.delete_image(part, ttl=0)
    store.collect_garbage()
    assert [child.manifest_bytes for _, child in index.platforms] == [manifest for manifest, _ in children]
    assert [b"".join(store.blob_blocks(digest)) for digest in index.blobs] == BLOBS[:2]
    assert_clean(store)


def test_distribution_2077_two_pushes_of_one_blob_at_once(store: Store) -> None:
    gate = threading.Barrier(2)
    pushed = []

    def push() -> None:
        with Store.open(store.path) as own:
            gate.wait()
            pushed.append(own.push_blob(BLOBS[0], digest=Digest.of(BLOBS[0])))

    threads = [threading.Thread(target=push) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.diff_id for result in pushed}) == 1
    assert [path.stat().st_size for path in (store.path / "raw").iterdir()] == [len(BLOBS[0])]
    assert_clean(store)


def test_distribution_2367_a_file_of_zeros_is_no_success(store: Store) -> None:
    digest = Digest.of(BLOBS[0])
    store.push_blob(BLOBS[0], digest=digest)
    (path,) = (store.path / "raw").iterdir()
    path.write_bytes(bytes(len(BLOBS[0])))
    for start in (0, 1000):
        with pytest.raises(ContentDamagedError):
            b"".join(store.blob_blocks(digest, start=start))


def test_zot_4271_one_missing_blob_does_not_stop_collection(store: Store) -> None:
    for i, blob in enumerate(BLOBS):
        store.push_blob(blob, digest=Digest.of(blob))
        store.put_image(*image_of(blob), tag=f"image:{i}")
    (store.path / "raw" / f"sha256-{Digest.of(BLOBS[0]).encoded}").unlink()
    for i in range(2):
        store.delete_image(f"image:{i}", ttl=0)
    report = store.collect_garbage()
    assert (report.images, report.encodings, report.layers) == (2, 2, 2)
    assert b"".join(store.blob_blocks(Digest.of(BLOBS[2]))) == BLOBS[2]
    assert_clean(store)


def test_kopia_3439_verify_reads_no_cache(store: Store) -> None:
    digest = Digest.of(BLOBS[0])
    store.push_blob(BLOBS[0], digest=digest)
    store.prove_encodings()
    assert b"".join(store.blob_blocks(digest)) == BLOBS[0]  # now the cache has it
    with store._opened.index.read() as transaction:
        (place, *_) = [record.place for _, record in transaction.frames.items()]
    with (store.path / "packs" / f"{place.pack:08d}.pack").open("r+b") as file:
        file.seek(place.offset + place.size - 50)
        file.write(b"damaged!")
    problems = [problem.text for problem in store.verify().problems]
    assert any(digest in text for text in problems), problems


def test_a_disk_that_fills_up_keeps_nothing_of_a_blob(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: raw_files.NewFile, data: bytes) -> None:
        raise NoSpaceError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(NoSpaceError):
        patch.setattr(raw_files.NewFile, "write", full)
        store.push_blob(BLOBS[0], digest=Digest.of(BLOBS[0]))
    assert (len(store.layers), len(store.encodings)) == (0, 0)
    assert list((store.path / "raw").iterdir()) == []
    store.push_blob(BLOBS[0], digest=Digest.of(BLOBS[0]))
    assert_clean(store)
