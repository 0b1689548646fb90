"""Blobs: compressed layers come back bit for bit, whatever they are kept in."""

import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import assert_clean, make_tar, noise, packs_on_disk, sha256, text
from store_images import image_of

from layerstore import Digest, PromisedDigest, Store
from layerstore._zstd import zstd
from layerstore.errors import (
    BlobNotFoundError,
    ContentDamagedError,
    DigestMismatchError,
    InvalidManifestError,
    InvalidOptionError,
    LayerInUseError,
    LayerNotFoundError,
    OversizedError,
)
from layerstore.oci.documents import Manifest
from layerstore.oci.media_types import OCI_LAYER

TAR = make_tar({f"usr/lib/{i}.py": text(40_000, i) for i in range(40)} | {"bin/tool": noise(300_000, 1)})
BLOB = gzip.compress(TAR, 6, mtime=0)
DIGEST = Digest.of(BLOB)
UNKNOWN = gzip.compress(TAR, 0, mtime=0)[:-8] + b"\x01\x00\x00\xff\xff"


def read(store: Store, digest: str) -> bytes:
    with store.open_blob(digest) as file:
        return file.read()


def classes(store: Store) -> dict[str, int]:
    return {one.name: one.encodings for one in store.stats().encodings if one.encodings}


def test_a_gzip_blob_comes_back_raw_then_from_its_recipe_then_from_the_cache(store: Store) -> None:
    pushed = store.push_blob(BLOB, digest=DIGEST)
    assert (pushed.diff_id, pushed.size, pushed.already_present) == (Digest.of(TAR), len(BLOB), False)
    assert store.layers[pushed.diff_id].open().read() == TAR
    assert classes(store) == {"queued": 1}
    assert read(store, DIGEST) == BLOB
    report = store.prove_encodings()
    assert (report.proved, report.bytes_freed, report.unproved) == (1, len(BLOB), 0)
    assert classes(store) == {"recipe": 1}
    assert store.stats().raw_bytes == 0
    assert store.encodings[DIGEST].encoders == ["zlib level 6"]
    assert list((store.path / "raw").iterdir()) == []
    assert read(store, DIGEST) == BLOB
    assert store.stats().cache_bytes == len(BLOB)
    assert read(store, DIGEST) == BLOB
    assert store.verify().is_clean


def test_every_part_of_a_blob_can_be_read(store: Store) -> None:
    store.push_blob(BLOB, digest=DIGEST)
    randomly = random.Random(1)
    starts = [0, 1, len(BLOB) - 1, len(BLOB), *(randomly.randrange(len(BLOB)) for _ in range(5))]
    for _ in range(2):
        for start in starts:
            assert b"".join(store.blob_blocks(DIGEST, start=start)) == BLOB[start:]
        with store.open_blob(DIGEST) as file:
            assert file.seek(-100, io.SEEK_END) == len(BLOB) - 100
            assert file.read() == BLOB[-100:]
            assert file.seek(7) == 7
            assert file.read(11) == BLOB[7:18]
            assert file.read(5) == BLOB[18:23]
        store.prove_encodings()


def test_what_is_there_is_not_read_again(store: Store) -> None:
    store.push_blob(BLOB, digest=DIGEST)

    def never() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    assert store.push_blob(never(), digest=DIGEST).already_present
    assert store.has_blob(DIGEST)
    assert not store.has_blob(Digest.of(b"other"))


@pytest.mark.parametrize("algorithm", ["sha512", "blake3"])
@pytest.mark.parametrize("data", [TAR, BLOB], ids=["plain", "gzip"])
def test_digests_of_every_algorithm(store: Store, algorithm: str, data: bytes) -> None:
    digest = Digest.of(data, algorithm)
    assert store.push_blob(data, digest=digest).diff_id == Digest.of(TAR)
    assert read(store, digest) == data
    store.prove_encodings()
    assert b"".join(store.blob_blocks(digest)) == data
    assert store.verify().is_clean


def test_a_blob_that_no_encoder_makes_stays_raw(store: Store) -> None:
    blob = zstd.compress(TAR, 3)
    digest = Digest.of(blob)
    store.push_blob(BLOB, digest=DIGEST)
    stored = store.stats().stored_bytes
    pushed = store.push_blob(blob, digest=digest)
    assert pushed.diff_id == Digest.of(TAR)
    assert store.stats().stored_bytes - stored < 4096, "the layer is there already"
    report = store.prove_encodings()
    assert (report.proved, report.unproved) == (1, 1)
    assert classes(store) == {"recipe": 1, "raw": 1}
    assert store.stats().raw_bytes == len(blob)
    assert store.prove_encodings().unproved == 0, "it is not tried twice"
    assert read(store, digest) == blob


def test_what_only_looks_compressed_is_kept_as_it_is(store: Store) -> None:
    blob = BLOB[:-9]
    assert store.push_blob(io.BytesIO(blob), digest=Digest.of(blob)).diff_id == Digest.of(blob)
    assert read(store, Digest.of(blob)) == blob
    assert len(store.encodings) == 0
    assert list((store.path / "raw").iterdir()) == []


@pytest.mark.parametrize("trailing", [b"\0", bytes(700), b"junk", BLOB[:9], b"\x1f"])
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_what_follows_the_last_member_is_the_blobs_alone(store: Store, trailing: bytes, size: int) -> None:
    blob = gzip.compress(TAR[:size], 6, mtime=0) + gzip.compress(TAR[size:], 6, mtime=0) + trailing
    if trailing == BLOB[:9]:
        assert store.push_blob(blob, digest=Digest.of(blob)).diff_id == Digest.of(blob), "a member that is cut"
        return
    assert store.push_blob(blob, digest=Digest.of(blob)).diff_id == Digest.of(TAR)
    for _ in range(2):
        assert read(store, Digest.of(blob)) == blob
        store.prove_encodings()
    assert store.encodings[Digest.of(blob)].kept_as == "recipe"
    assert store.verify().is_clean


@pytest.mark.parametrize("data", [BLOB, TAR, BLOB[:-9]], ids=["gzip", "plain", "cut"])
def test_a_wrong_digest_leaves_nothing(store: Store, data: bytes) -> None:
    with pytest.raises(DigestMismatchError):
        store.push_blob(data, digest=Digest.of(b"something else"))
    assert (len(store.layers), len(store.encodings)) == (0, 0)
    for folder in ("raw", "tmp", "cache"):
        assert list((store.path / folder).iterdir()) == []


def test_a_decompression_bomb_leaves_nothing(store: Store) -> None:
    compressor = zstd.ZstdCompressor(level=1)
    bomb = b"".join([compressor.compress(bytes(1 << 20)) for _ in range(200)]) + compressor.flush()
    assert len(bomb) < 100_000
    with pytest.raises(OversizedError):
        store.push_blob(bomb, digest=Digest.of(bomb))
    assert (len(store.layers), len(store.encodings)) == (0, 0)
    assert list((store.path / "raw").iterdir()) == []


def test_an_image_keeps_its_encodings_and_collection_takes_them(store: Store) -> None:
    manifest, config = image_of(BLOB)
    with pytest.raises(LayerNotFoundError):
        store.put_image(manifest, config)
    with store.lease(60) as lease:
        store.push_blob(BLOB, digest=DIGEST, lease=lease)
        image = store.put_image(manifest, config, tag="a:1")
    assert image.blobs == [DIGEST]
    assert store.encodings[DIGEST].images == [image]
    store.collect_garbage()
    assert read(store, DIGEST) == BLOB
    assert store.why(DIGEST).reasons == (f"layer 1 of image {image.digest} (a:1)",)
    with pytest.raises(LayerInUseError):
        store.release_blob(DIGEST)
    store.delete_image(image, ttl=0)
    plan = store.plan_collection()
    assert plan.encodings == (DIGEST,)
    before = store.stats()
    report = store.collect_garbage(plan)
    assert (report.encodings, report.layers) == (1, 1)
    assert report.bytes_freed == plan.bytes_freed
    after = store.stats()
    assert report.bytes_freed == before.stored_bytes + before.raw_bytes - after.stored_bytes - after.raw_bytes
    assert (len(store.encodings), len(store.layers), after.raw_bytes) == (0, 0, 0)
    assert store.verify().is_clean


def test_one_of_two_encodings_of_a_layer_goes_without_it(store: Store) -> None:
    other = gzip.compress(TAR, 9, mtime=0)
    images = []
    for blob in (BLOB, other):
        store.push_blob(blob, digest=Digest.of(blob))
        images.append(store.put_image(*image_of(blob)))
    store.delete_image(images[0], ttl=0)
    report = store.collect_garbage()
    assert (report.encodings, report.layers, report.bytes_freed) == (1, 0, len(BLOB))
    assert read(store, Digest.of(other)) == other
    with pytest.raises(BlobNotFoundError):
        read(store, DIGEST)
    assert store.verify().is_clean


def test_a_lease_that_ends_takes_the_blob(store: Store) -> None:
    with store.lease(60) as lease:
        store.push_blob(BLOB, digest=DIGEST, lease=lease)
    report = store.collect_garbage()
    assert (report.encodings, report.layers) == (1, 1)
    assert store.stats().raw_bytes == 0
    assert store.verify().is_clean


def test_a_released_blob_is_collected(store: Store) -> None:
    store.push_blob(BLOB, digest=DIGEST)
    assert store.collect_garbage().encodings == 0
    store.release_blob(DIGEST)
    report = store.collect_garbage()
    assert (report.encodings, report.layers) == (1, 1)


def test_a_config_that_contradicts_a_blob_is_refused(store: Store) -> None:
    other = gzip.compress(make_tar({"a": b"other"}), 6, mtime=0)
    store.push_blob(BLOB, digest=DIGEST)
    store.push_blob(other, digest=Digest.of(other))
    _, config = image_of(other)
    manifest = json.loads(image_of(BLOB)[0])
    manifest["config"] |= {"digest": Digest.of(config), "size": len(config)}
    with pytest.raises(InvalidManifestError, match="decodes to"):
        store.put_image(json.dumps(manifest).encode(), config)


def test_a_damaged_raw_file_is_told_of_and_mended(store: Store, tmp_path: Path) -> None:
    store.push_blob(BLOB, digest=DIGEST)
    other = Store.create(tmp_path / "other")
    other.push_blob(BLOB, digest=DIGEST)
    other.prove_encodings()
    (path,) = (store.path / "raw").iterdir()
    for damaged in (BLOB[:1000] + b"x" + BLOB[1001:], None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(ContentDamagedError):
            read(store, DIGEST)
        with pytest.raises(ContentDamagedError):
            b"".join(store.blob_blocks(DIGEST, start=2000))
        assert len(store.verify().problems) >= 1
        assert store.prove_encodings().damaged == (DIGEST,)
        assert store.repair(from_=other).encodings_healed == 1
        assert read(store, DIGEST) == BLOB
        assert store.verify().is_clean
    path.unlink()
    assert not store.push_blob(BLOB, digest=DIGEST).already_present
    assert read(store, DIGEST) == BLOB
    other.close()


def test_a_damaged_cache_is_passed_by(store: Store) -> None:
    store.push_blob(BLOB, digest=DIGEST)
    store.prove_encodings()
    assert read(store, DIGEST) == BLOB
    (path,) = (store.path / "cache").iterdir()
    path.write_bytes(BLOB[:1000] + b"x" + BLOB[1001:])
    assert b"".join(store.blob_blocks(DIGEST, start=2000)) == BLOB[2000:]
    assert read(store, DIGEST) == BLOB
    assert store.verify().is_clean


def test_the_cache_has_a_budget(tmp_path: Path) -> None:
    blobs = [gzip.compress(make_tar({"a": noise(50_000, i)}), 6, mtime=0) for i in range(4)]
    with Store.create(tmp_path / "store", encoding_cache_max=2 * len(blobs[0]) + 1000) as store:
        for blob in blobs:
            store.push_blob(blob, digest=Digest.of(blob))
        store.prove_encodings()
        for blob in blobs:
            assert read(store, Digest.of(blob)) == blob
        assert 0 < store.stats().cache_bytes <= store.config.encoding_cache_max
        names = {path.name for path in (store.path / "cache").iterdir()}
        assert names == {f"sha256-{Digest.of(blob).encoded}" for blob in blobs[2:]}
    with Store.create(tmp_path / "none", encoding_cache_max=0) as store:
        store.push_blob(BLOB, digest=DIGEST)
        store.prove_encodings()
        assert read(store, DIGEST) == BLOB
        assert store.stats().cache_bytes == 0


def test_rebuild_backup_and_upgrade_keep_encodings(store: Store, tmp_path: Path) -> None:
    raw = zstd.compress(TAR, 3)
    other = gzip.compress(make_tar({"b": text(50_000, 9)}), 6, mtime=0)
    for blob in (BLOB, raw, other):
        store.push_blob(blob, digest=Digest.of(blob))
    store.put_image(*image_of(BLOB), tag="a:1")
    store.prove_encodings([DIGEST])
    target = tmp_path / "backup"
    store.backup(target)
    store.close()
    Store.rebuild_index(store.path)
    for path in (store.path, target):
        with Store.open(path) as again:
            for blob in (BLOB, raw, other):
                assert read(again, Digest.of(blob)) == blob
            assert again.verify().is_clean
            assert classes(again) == {"recipe": 1, "queued": 2}
            again.collect_garbage()
            assert len(again.encodings) == 3
            again.delete_image("a:1", ttl=0)
            again.collect_garbage()
            assert again.verify().is_clean


def test_to_release_a_blob_leaves_the_holds_of_others(store: Store) -> None:
    with Store.open(store.path) as other:
        other.push_layer(TAR)
        store.push_blob(BLOB, digest=DIGEST)
        store.release_blob(DIGEST)
        store.collect_garbage()
        assert list(other.layers) == [Digest.of(TAR)]
        assert len(other.encodings) == 0


def test_a_compressed_layer_that_is_there_as_it_is_becomes_an_encoding_too(store: Store) -> None:
    store.push_layer(BLOB, decode="never")
    assert not store.keep_blob(DIGEST)
    assert store.push_blob(BLOB, digest=DIGEST).diff_id == Digest.of(TAR)
    store.put_image(*image_of(BLOB))
    assert read(store, DIGEST) == BLOB
    assert store.verify().is_clean


def test_edges_of_a_blob(store: Store) -> None:
    store.push_blob(BLOB, digest=DIGEST)
    for _ in range(2):
        for start in (len(BLOB), len(BLOB) + 1, 1 << 40):
            assert list(store.blob_blocks(DIGEST, start=start)) == []
        with pytest.raises(InvalidOptionError):
            list(store.blob_blocks(DIGEST, start=-1))
        store.prove_encodings()


def test_an_uncompressed_blob_must_be_the_layer_that_the_config_names(store: Store) -> None:
    for data in (TAR, BLOB):
        store.push_blob(data, digest=Digest.of(data))
    manifest, config = image_of(BLOB)
    document = json.loads(manifest)
    document["layers"][0] |= {"mediaType": OCI_LAYER, "digest": Digest.of(b"other"), "size": 5}
    store.push_blob(b"other", digest=Digest.of(b"other"))
    with pytest.raises(InvalidManifestError, match="decodes to"):
        store.put_image(json.dumps(document).encode(), config)


def test_a_manifest_is_what_it_was(store: Store) -> None:
    manifest, config = image_of(BLOB)
    store.push_blob(BLOB, digest=DIGEST)
    image = store.put_image(manifest, config)
    assert isinstance(image.manifest, Manifest)
    assert (store.read_document(image.digest), store.read_document(image.config_digest)) == (manifest, config)
    assert image.descriptor.digest == image.digest
    assert [layer.diff_id for layer in image.layers] == [Digest.of(TAR)]


@pytest.mark.parametrize("blob", ["gzip", "plain"])
def test_a_digest_that_is_known_at_the_end(store: Store, blob: str) -> None:
    """It is asked for when the source has ended; a wrong one changes nothing."""
    tar = make_tar({"file": noise(50_000)})
    data = gzip.compress(tar) if blob == "gzip" else tar
    ended = False

    def blocks() -> Iterator[bytes]:
        nonlocal ended
        yield data[:1000]
        yield data[1000:]
        ended = True

    def resolve(digest: Digest) -> Digest:
        assert ended
        return digest

    with pytest.raises(DigestMismatchError):
        store.push_blob(blocks(), digest=PromisedDigest("sha256", lambda: resolve(sha256(b"other"))))
    assert list(store.layers) == []
    ended = False
    pushed = store.push_blob(blocks(), digest=PromisedDigest("sha256", lambda: resolve(sha256(data))))
    assert pushed.digest == sha256(data)
    assert b"".join(store.blob_blocks(sha256(data))) == data
    again = store.push_blob(blocks(), digest=PromisedDigest("sha256", lambda: sha256(data)))
    assert (again.digest, again.diff_id) == (sha256(data), sha256(tar))
    store.collect_garbage()
    assert_clean(store)


def test_pushes_can_be_compressed_in_another_way_than_the_store_s(tmp_path: Path) -> None:
    """The level is that of who pushes; what is compressed anew gets the store's own."""
    sizes = {}
    for level in (None, -7):
        Store.create(tmp_path / str(level), compression_level=9).close()
        with Store.open(tmp_path / str(level), compression_level=level) as store:
            store.push_layer(TAR)
            sizes[level] = packs_on_disk(store)
            assert store.config.compression_level == 9
            assert_clean(store)
    assert sizes[-7] > 1.2 * sizes[None]
    with pytest.raises(InvalidOptionError):
        Store.open(tmp_path / "None", compression_level=99)


def test_a_file_is_given_away(store: Store, tmp_path: Path) -> None:
    """It is kept itself; where it cannot have a second name, as on another file system, it is copied."""
    near, far = tmp_path / "near", Path("/dev/shm") / f"layerstore-test-{tmp_path.name}"
    other = gzip.compress(TAR, 1)
    try:
        for path, data in ((near, BLOB), (far, other)):
            path.write_bytes(data)
            store.push_blob(path, digest=Digest.of(data), give_file=True)
            assert read(store, Digest.of(data)) == data
        kept = {one.stat().st_ino for one in (store.path / "raw").iterdir()}
        assert near.stat().st_ino in kept
        assert far.read_bytes() == other
        assert len(kept) == 2
    finally:
        far.unlink(missing_ok=True)
