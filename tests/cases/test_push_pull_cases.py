"""What went wrong elsewhere in pushing and pulling. Cases with several processes are in ``tests/concurrency``."""

import io
from pathlib import Path

import pytest
from samples import Pipe, assert_clean, noise, packs_of, packs_on_disk, pulled, sha256

from layerstore import Store
from layerstore.errors import ContentDamagedError, DigestMismatchError


def test_push_with_another_digest_is_refused_and_leaves_nothing(store: Store) -> None:
    """Refused, nothing visible, nothing left behind after collection."""
    with pytest.raises(DigestMismatchError):
        store.push_layer(noise(500_000), expected=sha256(b"something else"))
    assert not store.layers
    store.collect_garbage()
    assert packs_on_disk(store) == 0
    assert_clean(store)


def test_zot_4442_a_push_of_the_good_content_heals(store: Store) -> None:
    """zot#4442: a damaged chunk of the right size is never returned, and a push of the same content heals it."""
    data = noise(200_000)
    layer = store.push_layer(data).layer
    pack = packs_of(store)[0]
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.write_bytes(content)
    with pytest.raises(ContentDamagedError):
        pulled(layer)
    assert store.push_layer(data).already_present
    assert pulled(layer) == data
    assert_clean(store)


def test_distribution_2367_zero_bytes_are_no_success(store: Store) -> None:
    """distribution#2367: a pack that answers with zeros, or with nothing, is an error."""
    layer = store.push_layer(noise(100_000)).layer
    pack = packs_of(store)[0]
    size = pack.stat().st_size
    for content in (bytes(size), b""):
        pack.write_bytes(content)
        with pytest.raises(ContentDamagedError):
            pulled(layer)


def test_pull_that_is_cut_leaves_no_half_file(store: Store, tmp_path: Path) -> None:
    """The target's name has the old bytes or the new ones, and no part lies beside it."""
    layer = store.push_layer(noise(3_000_000)).layer
    target = tmp_path / "target" / "layer.tar"
    target.parent.mkdir()
    target.write_bytes(b"old")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull_layer(layer, target, on_progress=stop)
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_upload_in_many_small_pieces(store: Store) -> None:
    """A body that arrives byte by byte, or in odd pieces, is the same layer."""
    data = noise(30_000)
    assert store.push_layer(bytes([byte]) for byte in data).layer.diff_id == sha256(data)
    assert store.push_layer(Pipe(data)).already_present


def test_upload_whose_source_fails_half_way(store: Store) -> None:
    """Nothing is visible, all of it is collected, and the next push succeeds."""
    data = noise(3_000_000)

    def broken():
        yield data[:2_500_000]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.push_layer(broken())
    assert not store.layers
    store.collect_garbage()
    assert packs_on_disk(store) == 0
    buffer = io.BytesIO()
    store.pull_layer(store.push_layer(data).layer, buffer)
    assert buffer.getvalue() == data
