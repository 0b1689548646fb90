"""Pushes that begin before their upload ends: what they gain, and that giving one up changes nothing."""

import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import assert_clean, make_tar, noise, packs_on_disk, sha256
from waiting import eventually

from layerstore import Digest, Store
from layerstore.errors import DigestMismatchError, OversizedError
from layerstore.registry.server import ahead
from layerstore.registry.server.links import Links
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.repositories import Repositories
from layerstore.registry.server.uploads import Uploads

BATCH = 40 << 20
COMMITTED = 20 << 20
PIECE = 1 << 20


class Server:
    """The uploads of one repository."""

    def __init__(self, folder: Path, store: Store, links: Links) -> None:
        self.store = store
        self.repositories = Repositories(store, links)
        self.uploads = Uploads(self.repositories, folder / "uploads", pushes=1, size_max=1 << 40)

    def begin(self, data: bytes) -> str:
        """Begin an upload, and send some bytes."""
        identifier = self.uploads.begin("app", "sha256")
        self.send(identifier, data)
        return identifier

    def send(self, identifier: str, data: bytes) -> None:
        """Send more bytes."""
        with self.uploads.opened("app", identifier) as upload:
            for start in range(0, len(data), PIECE):
                upload.write(data[start : start + PIECE])

    def finish(self, identifier: str, digest: Digest) -> None:
        """End the upload."""
        with self.uploads.opened("app", identifier, digest.algorithm) as upload:
            self.uploads.finish("app", upload, digest)

    def give(self, digest: Digest) -> bytes:
        """The blob as the store gives it back."""
        assert self.repositories.has_blob("app", digest)
        return b"".join(self.store.blob_blocks(digest))

    @property
    def has_free_turn(self) -> bool:
        """Whether nothing is being pushed."""
        if self.uploads.turns.take():
            self.uploads.turns.give_back()
            return True
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    links = Links(tmp_path / "links.sqlite")
    with Store.create(tmp_path / "store", trash_ttl=0) as store:
        found = Server(tmp_path, store, links)
        yield found
        found.uploads.close()
        assert_clean(store)
    links.close()


def test_a_layer_is_in_the_store_before_its_last_byte_has_come(server: Server) -> None:
    tar = make_tar({"file": noise(BATCH)})
    identifier = server.begin(tar[:-PIECE])
    eventually(lambda: packs_on_disk(server.store) > COMMITTED)
    assert list(server.store.layers) == []
    server.send(identifier, tar[-PIECE:])
    server.finish(identifier, sha256(tar))
    assert server.give(sha256(tar)) == tar


@pytest.mark.parametrize("layers", [1, 3])
def test_gzip_comes_back_bit_for_bit_and_takes_no_second_copy(server: Server, layers: int) -> None:
    for number in range(layers):
        blob = gzip.compress(make_tar({"file": noise(6 << 20, number)}), 1) + b"trailing"
        identifier = server.begin(blob[: 5 << 20])
        server.send(identifier, blob[5 << 20 :])
        path = server.uploads._path(identifier)
        inode = path.stat().st_ino
        server.finish(identifier, sha256(blob))
        assert not path.exists()
        assert server.give(sha256(blob)) == blob
        assert inode in [one.stat().st_ino for one in (server.store.path / "raw").iterdir()]
    eventually(lambda: server.has_free_turn)


def test_what_looks_like_gzip_and_is_none(server: Server) -> None:
    blob = gzip.compress(b"")[:10] + noise(6 << 20)
    identifier = server.begin(blob[: 5 << 20])
    server.send(identifier, blob[5 << 20 :])
    server.finish(identifier, sha256(blob))
    assert server.give(sha256(blob)) == blob


@pytest.mark.parametrize("algorithm", ["sha512", "blake3"])
def test_another_algorithm_at_the_end(server: Server, algorithm: str) -> None:
    blob = gzip.compress(make_tar({"file": noise(6 << 20)}), 1)
    identifier = server.begin(blob)
    server.finish(identifier, Digest.of(blob, algorithm))
    assert server.give(Digest.of(blob, algorithm)) == blob


def test_a_wrong_digest_leaves_nothing(server: Server) -> None:
    tar = make_tar({"file": noise(BATCH)})
    identifier = server.begin(tar)
    eventually(lambda: packs_on_disk(server.store) > COMMITTED)
    with pytest.raises(DigestMismatchError):
        server.finish(identifier, sha256(b"something else"))
    check_nothing_is_left(server)


def test_a_cancelled_upload_leaves_nothing(server: Server) -> None:
    tar = make_tar({"file": noise(BATCH)})
    identifier = server.begin(tar)
    eventually(lambda: packs_on_disk(server.store) > COMMITTED)
    server.uploads.cancel("app", identifier)
    check_nothing_is_left(server)


def check_nothing_is_left(server: Server) -> None:
    eventually(lambda: server.has_free_turn)
    server.store.collect_garbage()
    assert packs_on_disk(server.store) < PIECE
    assert list(server.store.layers) == []
    assert list((server.store.path / "raw").iterdir()) == []


def test_a_silent_client_loses_its_turn_and_no_bytes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a turn gets it; the upload goes on afterwards."""
    monkeypatch.setattr(ahead, "_PATIENCE_SECONDS", 3600)
    slow = gzip.compress(make_tar({"file": noise(8 << 20, 1)}), 1)
    identifier = server.begin(slow[: 6 << 20])
    assert not server.has_free_turn
    with server.uploads.turns.turn():
        pass
    server.send(identifier, slow[6 << 20 :])
    server.finish(identifier, sha256(slow))
    assert server.give(sha256(slow)) == slow


def test_patience_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_PATIENCE_SECONDS", 0.2)
    blob = gzip.compress(make_tar({"file": noise(6 << 20)}), 1)
    identifier = server.begin(blob[: 5 << 20])
    eventually(lambda: server.has_free_turn)
    server.send(identifier, blob[5 << 20 :])
    server.finish(identifier, sha256(blob))
    assert server.give(sha256(blob)) == blob


def test_small_ones_and_those_without_a_turn_wait_for_their_end(server: Server) -> None:
    with server.uploads.turns.turn():
        large = server.begin(noise(6 << 20, 1))
    small = server.begin(noise(1 << 20, 2))
    assert server.has_free_turn
    server.finish(small, sha256(noise(1 << 20, 2)))
    server.finish(large, sha256(noise(6 << 20, 1)))
    assert server.give(sha256(noise(6 << 20, 1))) == noise(6 << 20, 1)


def test_what_fails_ahead_is_told_at_the_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.operations.blobs.LAYER_SIZE_MAX", 1 << 20)
    blob = gzip.compress(make_tar({"file": noise(6 << 20)}), 1)
    identifier = server.begin(blob)
    eventually(lambda: server.has_free_turn)
    with pytest.raises(OversizedError):
        server.finish(identifier, sha256(blob))
    check_nothing_is_left(server)
    with pytest.raises(ProblemError, match="no such upload"):
        server.finish(identifier, sha256(blob))


def test_closing_gives_up_what_has_begun(server: Server) -> None:
    server.begin(make_tar({"file": noise(BATCH)}))
    assert not server.has_free_turn
    server.uploads.close()
    check_nothing_is_left(server)


def test_a_long_upload_is_kept_as_long_as_a_short_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is that of the moment at which the push began; the manifest comes after the end of the upload."""
    blob = gzip.compress(make_tar({"file": noise(6 << 20)}), 1)
    identifier = server.begin(blob[: 5 << 20])
    later = time.time() + 20 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    server.send(identifier, blob[5 << 20 :])
    server.finish(identifier, sha256(blob))
    assert server.repositories.links.blob_expires("app", sha256(blob)) > later + 23 * 3600


def test_another_process_may_add_bytes(server: Server, tmp_path: Path) -> None:
    """A push that one worker has begun gets those of the others when the upload is finished."""
    links = Links(tmp_path / "links.sqlite")
    with Store.open(tmp_path / "store") as store:
        other = Server(tmp_path, store, links)
        blob = gzip.compress(make_tar({"file": noise(9 << 20)}), 1)
        identifier = server.begin(blob[: 5 << 20])
        other.send(identifier, blob[5 << 20 :])
        server.finish(identifier, sha256(blob))
        assert server.give(sha256(blob)) == blob
        assert sha256(blob) in server.store.encodings
        other.uploads.close()
    links.close()


def test_a_trickle_does_not_keep_the_turn(server: Server) -> None:
    """Bytes that come too slowly are none to whoever waits."""
    identifier = server.begin(gzip.compress(make_tar({"file": noise(6 << 20)}), 1)[: 5 << 20])
    had = threading.Event()

    def wait_for_turn() -> None:
        with server.uploads.turns.turn():
            had.set()

    thread = threading.Thread(target=wait_for_turn)
    thread.start()
    eventually(lambda: server.send(identifier, b"x") or had.wait(0.02))
    thread.join()


def test_giving_up_does_not_wait_for_what_is_behind(server: Server) -> None:
    with server.uploads.turns.turn():
        identifier = server.begin(noise(200 << 20))
    server.send(identifier, b"x")
    assert not server.has_free_turn
    server.uploads.cancel("app", identifier)
    eventually(lambda: server.has_free_turn)
    assert packs_on_disk(server.store) < 150 << 20


def test_what_is_no_blob_does_not_go_ahead(server: Server) -> None:
    identifier = server.uploads.begin("app", "sha256")
    with server.uploads.opened("app", identifier, goes_ahead=False) as upload:
        upload.write(noise(6 << 20))
        assert server.has_free_turn
