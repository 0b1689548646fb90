"""Damage to encodings: raw files, their records, the cache. What is left is found, used, and never taken away."""

import gzip
import os
from pathlib import Path

import pytest
from samples import assert_clean, make_tar, noise
from store_images import image_of

from layerstore import Digest, Store
from layerstore.errors import ContentDamagedError
from layerstore.storage.records import Place

LAYER = make_tar({"a": noise(400_000, 1), "b": noise(3_000_000, 2)})
DIFF_ID = Digest.of(LAYER)
BLOB = gzip.compress(LAYER, 6, mtime=0)
DIGEST = Digest.of(BLOB)


def raw_file(store: Store) -> Path:
    return store.path / "raw" / f"sha256-{DIGEST.encoded}"


def spoil(path: Path, offset: int | None = None) -> None:
    """Change some bytes of a file, not its size."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 if offset is None else offset)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def spoil_record(store: Store, place: Place) -> None:
    spoil(store.path / "packs" / f"{place.pack:08d}.pack", place.offset + place.size - 20)


def read(store: Store) -> bytes:
    return b"".join(store.blob_blocks(DIGEST))


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with an image of one blob, which is raw."""
    store.push_blob(BLOB, digest=DIGEST)
    store.put_image(*image_of(BLOB), tag="shop:1")
    return store


def test_a_damaged_raw_file_is_brought_back_by_a_push(filled: Store) -> None:
    spoil(raw_file(filled))
    assert not filled.verify().is_clean
    filled.repair()
    assert not filled.has_blob(DIGEST)
    assert not filled.keep_blob(DIGEST)
    assert not filled.push_blob(BLOB, digest=DIGEST).already_present
    assert read(filled) == BLOB
    assert_clean(filled)


def test_a_good_raw_file_heals_its_layer(filled: Store) -> None:
    with filled._opened.index.read() as transaction:
        places = [record.place for _, record in transaction.frames.items()]
    for place in places[::5]:
        spoil_record(filled, place)
    filled.close()
    with Store.open(filled.path) as store:
        assert store.repair().healed > 0
        assert b"".join(store.layers[DIFF_ID].blocks()) == LAYER
        assert_clean(store)


def test_a_damaged_file_of_the_cache_costs_one_read(filled: Store) -> None:
    filled.prove_encodings()
    assert read(filled) == BLOB
    (path,) = (filled.path / "cache").iterdir()
    spoil(path, len(BLOB) - 100)
    with pytest.raises(ContentDamagedError):
        read(filled)
    assert read(filled) == BLOB


def test_reading_needs_no_cache(filled: Store) -> None:
    filled.prove_encodings()
    (filled.path / "cache").rmdir()
    assert read(filled) == BLOB
    assert filled.stats().cache_bytes == 0
    assert_clean(filled)


def test_a_proof_reads_what_is_on_disk(filled: Store) -> None:
    """Not what this process still has in memory: then the last good copy of the layer might go."""
    assert b"".join(filled.layers[DIFF_ID].blocks()) == LAYER
    with filled._opened.index.read() as transaction:
        (place, *_) = [record.place for _, record in transaction.frames.items()]
    spoil_record(filled, place)
    assert filled.prove_encodings().damaged == (DIGEST,)
    assert read(filled) == BLOB


def test_a_rebuild_brings_a_damaged_layer_back_from_its_raw_file(filled: Store) -> None:
    with filled._opened.index.read() as transaction:
        (place, *_) = [record.place for _, record in transaction.recipes.items()]
    spoil_record(filled, place)
    filled.close()
    assert Store.rebuild_index(filled.path).is_clean
    with Store.open(filled.path) as store:
        store.collect_garbage()
        assert read(store) == BLOB
        assert b"".join(store.layers[DIFF_ID].blocks()) == LAYER
        assert store.images["shop:1"].blobs == [DIGEST]
        assert_clean(store)


def test_a_rebuild_brings_an_encoding_back_whose_record_is_damaged(filled: Store) -> None:
    with filled._opened.index.read() as transaction:
        place = transaction.encodings[DIGEST].place
    spoil_record(filled, place)
    filled.close()
    Store.rebuild_index(filled.path)
    with Store.open(filled.path) as store:
        store.collect_garbage()
        assert read(store) == BLOB
        assert_clean(store)


def test_a_rebuild_tells_of_what_is_lost_and_the_backup_keeps_it(filled: Store, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    filled.backup(target)
    raw_file(filled).unlink()
    filled.close()
    report = Store.rebuild_index(filled.path)
    assert report.encodings_lost == (DIGEST,)
    assert not report.is_clean
    with Store.open(filled.path) as store:
        with pytest.raises(ContentDamagedError, match="earlier backup"):
            store.backup(target)
        store.push_blob(BLOB, digest=DIGEST)
        store.put_image(*image_of(BLOB))
        store.backup(target)
        assert_clean(store)
    with Store.open(target) as copy:
        assert read(copy) == BLOB


@pytest.mark.parametrize("is_missing", [False, True])
def test_a_backup_tells_of_raw_files_that_it_could_not_copy(filled: Store, tmp_path: Path, is_missing: bool) -> None:
    if is_missing:
        raw_file(filled).unlink()
    else:
        spoil(raw_file(filled))
    report = filled.backup(tmp_path / "backup")
    assert report.encodings_damaged == (DIGEST,)
    with Store.open(tmp_path / "backup") as copy:
        assert not copy.has_blob(DIGEST)


def test_a_file_of_another_kind_is_left_alone(filled: Store, tmp_path: Path) -> None:
    (filled.path / "raw" / ".DS_Store").write_bytes(b"x")
    (filled.path / "raw" / "notes").mkdir()
    filled.collect_garbage()
    filled.backup(tmp_path / "backup")
    assert sorted(path.name for path in (filled.path / "raw").iterdir())[:2] == [".DS_Store", "notes"]


def test_an_orphan_that_an_image_names_is_spared_and_adopted(filled: Store) -> None:
    """As after a rebuild that was cut off."""

    def forget(transaction: object) -> None:
        record = transaction.encodings[DIGEST]  # type: ignore[attr-defined]
        layer = transaction.layers[DIFF_ID]  # type: ignore[attr-defined]
        transaction.encodings.delete(DIGEST)  # type: ignore[attr-defined]
        transaction.layer_encodings.delete((layer.number, DIGEST))  # type: ignore[attr-defined]
        for key, _ in list(transaction.layer_images.items_with_prefix(record.number.to_bytes(8, "big"))):  # type: ignore[attr-defined]
            transaction.layer_images.delete(key)  # type: ignore[attr-defined]

    filled._opened.index.write(forget)
    filled.collect_garbage()
    assert raw_file(filled).exists()
    filled.repair()
    assert read(filled) == BLOB
    assert filled.images["shop:1"].blobs == [DIGEST]
