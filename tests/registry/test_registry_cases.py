"""What went wrong elsewhere in pushing, pulling and collecting, over HTTP against a server in a process of its own."""

import http.client
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import waiting
from registry_requests import INDEX, Registry, image_of, index_of
from samples import assert_clean, make_tar, noise, packs_of
from server_process import ServerProcess

from layerstore import Digest, Store
from layerstore.operations.leases import end_lease

LAYER = make_tar({"usr/lib/base": noise(150_000, 1)})
OTHER = make_tar({"usr/lib/other": noise(90_000, 2)})

eventually = partial(waiting.eventually, seconds=20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a store of its own."""
    with running(tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for the tests that look at their own repositories only."""
    with running(tmp_path_factory.mktemp("shared")) as process:
        yield process


def running(folder: Path, collection_interval: float = 0.2) -> ServerProcess:
    """A server that collects all the time, on a store whose trash keeps nothing."""
    path = folder / "store"
    Store.create(path, frame_size=1 << 15, pack_size_max=1 << 17, trash_ttl=0).close()
    (folder / "server.yaml").write_text(json.dumps({"collection_interval": collection_interval}))
    return ServerProcess(path, "--config", str(folder / "server.yaml"))


def end_leases(path: Path) -> None:
    """As time does: what was uploaded is no longer kept for its manifest."""
    with Store.open(path) as store:
        with store._opened.index.read() as transaction:
            names = [name for name, _ in transaction.leases.items()]
        for name in names:
            end_lease(store._opened, name)


def collect(path: Path) -> None:
    """Collect as another process does."""
    with Store.open(path) as store:
        store.collect_garbage()


def pack_bytes(path: Path) -> int:
    """Bytes of all packs; the server may remove one meanwhile."""
    total = 0
    for pack in (path / "packs").iterdir():
        with suppress(FileNotFoundError):
            total += pack.stat().st_size
    return total


def make_old(path: Path, upload: str, moment: float) -> None:
    """Let an upload have stood still since a moment."""
    os.utime(path / "registry" / "uploads" / upload, (moment, moment))
    links = sqlite3.connect(path / "registry" / "links.sqlite")
    with links:
        links.execute("UPDATE uploads SET begun = ? WHERE id = ?", (int(moment), upload))
    links.close()


def uploads_of(server: ServerProcess) -> list[Path]:
    folder = server.store / "registry" / "uploads"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_distribution_2077_two_pushes_of_the_same_content_at_once(shared: ServerProcess) -> None:
    """distribution#2077: both succeed, and the content is stored once."""
    registry = Registry(shared.address)
    layer = make_tar({"twice": noise(150_000, 50)})
    gate = threading.Barrier(4)
    statuses = []

    def push() -> None:
        gate.wait()
        statuses.append(registry.push_blob("a/b", layer).status)

    with Store.open(shared.store) as store:
        before = pack_bytes(store.path)
    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 4
    with Store.open(shared.store) as store:
        assert pack_bytes(store.path) < before + 1.2 * len(layer)
        assert_clean(store)
    assert registry.blob("a/b", layer).body == layer


def test_a_push_whose_digest_does_not_match_leaves_nothing(shared: ServerProcess) -> None:
    """Refused in each way to push; nothing is visible, and nothing is left behind after collection."""
    registry = Registry(shared.address)
    data = make_tar({"refused": noise(150_000, 51)})
    wrong = Digest.of(b"something else")
    before = uploads_of(shared)
    location = registry.begin("a/b")
    assert registry.ask("PATCH", location, data).status == 202
    answers = [
        registry.push_blob("a/b", data, wrong),
        registry.ask("PUT", f"{registry.begin('a/b')}?digest={wrong}", data),
        registry.ask("PUT", f"{location}?digest={wrong}"),
    ]
    assert [(one.status, one.code) for one in answers] == [(400, "DIGEST_INVALID")] * 3
    assert registry.blob("a/b", data).status == registry.blob("a/b", wrong).status == 404
    end_leases(shared.store)
    assert uploads_of(shared) == before
    with Store.open(shared.store) as store:
        assert Digest.of(data) not in store.layers
        eventually(lambda: pack_bytes(store.path) == store.stats().stored_bytes)
        assert_clean(store)


def test_zot_4442_a_push_of_the_good_content_heals(server: ServerProcess) -> None:
    """zot#4442: a damaged chunk of the right size is never sent as if it were good; a push of the layer heals it."""
    registry = Registry(server.address)
    registry.push_image("a/b", "1", LAYER)
    with Store.open(server.store) as store:
        (pack, *_) = sorted(packs_of(store), key=lambda path: path.stat().st_size, reverse=True)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    with pytest.raises((http.client.HTTPException, ConnectionError, AssertionError)):
        answer = registry.blob("a/b", LAYER)
        assert answer.status < 500
    assert registry.push_blob("a/b", LAYER).status == 201
    assert registry.blob("a/b", LAYER).body == LAYER
    with Store.open(server.store) as store:
        assert_clean(store)


def test_distribution_2367_zero_bytes_are_no_success(server: ServerProcess) -> None:
    """distribution#2367: a file of zeros, or an empty one, is never answered as if it were the blob."""
    registry = Registry(server.address)
    blob = noise(300_000, 7)
    registry.push_blob("a/b", blob)
    for with_zeros in (True, False):
        overwrite(server.store, with_zeros=with_zeros)
        check_no_success(registry, blob)


def overwrite(path: Path, *, with_zeros: bool) -> None:
    for folder in ("packs", "raw", "cache"):
        for file in (path / folder).iterdir():
            file.write_bytes(bytes(file.stat().st_size) if with_zeros else b"")


def check_no_success(registry: Registry, blob: bytes) -> None:
    headers: dict[str, str]
    for headers in ({}, {"Range": "bytes=1000-1999"}):
        try:
            answer = registry.blob("a/b", blob, headers)
        except (http.client.HTTPException, ConnectionError):
            continue  # what had begun was broken off
        assert answer.status == 500
        assert answer.code == "UNKNOWN"


def test_a_pull_that_is_cut_leaves_the_server_free(shared: ServerProcess) -> None:
    """Clients that go away in the middle of a blob, more of them than there are threads: nobody waits for them."""
    registry = Registry(shared.address)
    blob = noise(6_000_000, 3)
    assert registry.push_blob("a/b", blob).status == 201
    request = f"GET /v2/a/b/blobs/{Digest.of(blob)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    connections = []
    for _ in range(80):
        connection = socket.create_connection(("127.0.0.1", shared.port), timeout=10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request)
        assert connection.recv(12) == b"HTTP/1.1 200"
        connections.append(connection)
    for connection in connections:
        connection.close()
    assert registry.blob("a/b", blob).body == blob


def test_an_upload_in_many_small_pieces(shared: ServerProcess) -> None:
    """A body that arrives in odd pieces, and chunks of a few bytes, are the same blob."""
    registry = Registry(shared.address)
    data = noise(3_000, 4)
    pieces = (data[start : start + 7] for start in range(0, len(data), 7))
    location = registry.begin("a/b")
    assert registry.ask("PATCH", location, pieces).status == 202
    assert registry.ask("PUT", f"{location}?digest={Digest.of(data)}").status == 201
    other = noise(60, 5)
    location = registry.begin("a/b")
    for start in range(0, len(other), 7):
        chunk = other[start : start + 7]
        headers = {"Content-Range": f"{start}-{start + len(chunk) - 1}"}
        assert registry.ask("PATCH", location, chunk, headers).status == 202
    assert registry.ask("PUT", f"{location}?digest={Digest.of(other)}").status == 201
    assert (registry.blob("a/b", data).body, registry.blob("a/b", other).body) == (data, other)


def test_an_upload_whose_client_dies_is_resumed(shared: ServerProcess) -> None:
    """The client dies, then the server; the upload goes on where it was, and is what it was to be."""
    registry = Registry(shared.address)
    location = registry.begin("a/b")
    data = noise(3_000_000, 9)
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[:2_000_000])

    def received() -> int:
        return int(registry.ask("GET", location).headers["range"].partition("-")[2]) + 1

    # What has come may still be being written; who goes on before that is told so.
    eventually(lambda: received() > 1_000_000)
    shared.kill()
    shared.start()
    begun = received()
    headers = {"Content-Range": f"{begun}-{len(data) - 1}"}
    assert registry.ask("PATCH", location, data[begun:], headers).status == 202
    assert registry.ask("PUT", f"{location}?digest={Digest.of(data)}").status == 201
    assert registry.blob("a/b", data).body == data


def test_quay_6318_collection_between_a_blob_and_its_manifest(shared: ServerProcess) -> None:
    """quay#6318: whoever collects in between, the image is whole."""
    registry = Registry(shared.address)
    layers = [make_tar({f"file-{number}": noise(20_000, number)}) for number in range(4)]
    manifest, config = image_of(*layers)
    for blob in (config, *layers):
        assert registry.push_blob("a/b", blob).status == 201
        collect(shared.store)
    assert registry.put("a/b", "1", manifest).status == 201
    end_leases(shared.store)
    collect(shared.store)
    assert [registry.blob("a/b", blob).body for blob in (config, *layers)] == [config, *layers]
    with Store.open(shared.store) as store:
        assert_clean(store)


def test_distribution_3178_content_pushed_again_while_collected(shared: ServerProcess) -> None:
    """distribution PR#3544, #3178, #4939: what a push was told is here stays, whatever is deleted meanwhile."""
    registry = Registry(shared.address)
    digest = registry.push_image("a/b", "1", LAYER)
    manifest, config = image_of(LAYER)
    for _ in range(10):
        assert registry.delete("a/b", digest).status == 202
        if registry.ask("HEAD", f"/v2/a/b/blobs/{Digest.of(LAYER)}").status == 404:
            assert registry.push_blob("a/b", LAYER).status == 201
        end_leases_but_the_newest(shared.store)
        collect(shared.store)
        for blob in (config, LAYER):
            if registry.ask("HEAD", f"/v2/a/b/blobs/{Digest.of(blob)}").status == 404:
                assert registry.push_blob("a/b", blob).status == 201
        assert registry.put("a/b", "1", manifest).status == 201
        assert registry.blob("a/b", LAYER).body == LAYER
    with Store.open(shared.store) as store:
        assert_clean(store)


def end_leases_but_the_newest(path: Path) -> None:
    with Store.open(path) as store:
        with store._opened.index.read() as transaction:
            names = [name for name, record in sorted(transaction.leases.items(), key=lambda item: item[1].expires)]
        for name in names[:-1]:
            end_lease(store._opened, name)


def test_artifact_keeper_1776_deleting_a_tag_removes_that_tag_only(shared: ServerProcess) -> None:
    """artifact-keeper#1776: other tags of the image, and the same image elsewhere, stay."""
    registry = Registry(shared.address)
    digest = registry.push_image("a/b", "1", LAYER)
    manifest, _ = image_of(LAYER)
    assert registry.put("a/b", "2", manifest).status == 201
    registry.push_image("c/d", "1", LAYER)
    assert registry.delete("a/b", "1").status == 202
    end_leases(shared.store)
    collect(shared.store)
    assert registry.ask("GET", "/v2/a/b/tags/list").json["tags"] == ["2"]
    assert registry.manifest("a/b", "1").status == 404
    assert registry.manifest("a/b", "2").body == registry.manifest("a/b", digest).body == manifest
    assert registry.delete("a/b", digest).status == 202
    assert registry.manifest("a/b", "2").status == registry.manifest("a/b", digest).status == 404
    collect(shared.store)
    assert registry.manifest("c/d", "1").body == manifest
    assert registry.blob("c/d", LAYER).body == LAYER


def test_distribution_3178_an_index_keeps_its_children_alive(shared: ServerProcess) -> None:
    """distribution#3178: a manifest that only an index names is not collected."""
    registry = Registry(shared.address)
    manifests = []
    for number, layer in enumerate((LAYER, OTHER)):
        registry.push_image("a/b", f"part-{number}", layer)
        manifests.append(image_of(layer)[0])
    assert registry.put("a/b", "both", index_of(*manifests), INDEX).status == 201
    for number in range(2):
        assert registry.delete("a/b", f"part-{number}").status == 202
    end_leases(shared.store)
    collect(shared.store)
    for manifest, layer in zip(manifests, (LAYER, OTHER), strict=True):
        assert registry.manifest("a/b", Digest.of(manifest)).body == manifest
        assert registry.blob("a/b", layer).body == layer


def test_distribution_3254_push_again_after_collection(shared: ServerProcess) -> None:
    """distribution#3254: what was deleted and collected can be pushed and pulled again."""
    registry = Registry(shared.address)
    layer = make_tar({"again": noise(90_000, 52)})
    for _ in range(2):
        digest = registry.push_image("a/b", "1", layer)
        assert registry.blob("a/b", layer).body == layer
        assert registry.delete("a/b", digest).status == 202
        assert registry.manifest("a/b", "1").status == 404
        end_leases(shared.store)
        with Store.open(shared.store) as store:
            eventually(lambda layers=store.layers: Digest.of(layer) not in layers)
            assert_clean(store)


def test_zot_4271_one_missing_blob_does_not_stop_collection(server: ServerProcess) -> None:
    """zot#4271: a pack is gone; everything else that was deleted is still collected, and the rest is served."""
    registry = Registry(server.address)
    gone = registry.push_image("a/gone", "1", noise(120_000, 20))
    with Store.open(server.store) as store:
        for pack in packs_of(store):
            pack.unlink()
    deleted = registry.push_image("a/deleted", "1", noise(120_000, 21))
    registry.push_image("a/kept", "1", LAYER)
    for repository, digest in (("a/gone", gone), ("a/deleted", deleted)):
        assert registry.delete(repository, digest).status == 202
    end_leases(server.store)

    def is_collected() -> bool:
        with Store.open(server.store) as store:
            return len(store.images) == 1 and len(store.layers) == 1 and not store.trash

    eventually(is_collected)
    assert registry.blob("a/kept", LAYER).body == LAYER


def test_zot_2598_abandoned_uploads_are_collected(shared: ServerProcess) -> None:
    """zot#2598: an upload that nobody goes on with is given up after a day, one that goes on is not."""
    registry = Registry(shared.address)
    old, young = (registry.begin("a/b") for _ in range(2))
    for location in (old, young):
        assert registry.ask("PATCH", location, noise(10_000)).status == 202
    long_ago = time.time() - 2 * 24 * 3600
    shared.stop()
    make_old(shared.store, old.rpartition("/")[2], long_ago)
    shared.start()
    eventually(lambda: registry.ask("GET", old).status == 404)
    assert registry.ask("GET", old).code == "BLOB_UPLOAD_UNKNOWN"
    assert registry.ask("GET", young).status == 204
    names = {path.name for path in uploads_of(shared)}
    assert {old.rpartition("/")[2], young.rpartition("/")[2]} & names == {young.rpartition("/")[2]}


def test_distribution_2212_space_is_returned_and_stats_agree(shared: ServerProcess) -> None:
    """distribution#2212: what is deleted frees its bytes on disk, and what `stats` says is what the disk says."""
    registry = Registry(shared.address)
    registry.push_image("a/kept", "1", LAYER)
    digest = registry.push_image("a/gone", "1", noise(400_000, 30))
    with Store.open(shared.store) as store:
        before = pack_bytes(store.path)
        assert registry.delete("a/gone", digest).status == 202
        end_leases(shared.store)
        eventually(lambda: pack_bytes(store.path) < before - 390_000)
        eventually(lambda: store.stats().stored_bytes == pack_bytes(store.path))
    assert registry.blob("a/kept", LAYER).body == LAYER


def test_zot_4235_collection_is_proportional_to_the_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zot#4235, Harbor#19991: one image less takes as many steps with fourteen others as with two."""
    counts = []
    with running(tmp_path, collection_interval=0) as server:
        registry = Registry(server.address)
        for number, others in enumerate((2, 12)):
            for seed in range(others):
                registry.push_image(f"kept/{number}", f"t{seed}", noise(20_000, 1000 * number + seed))
            digest = registry.push_image("gone", "1", noise(100_000, 100 + number))
            end_leases(server.store)
            collect(server.store)
            assert registry.delete("gone", digest).status == 202
            with Store.open(server.store) as store:
                calls: list[int] = []
                real = store._opened.index.read
                monkeypatch.setattr(
                    store._opened.index, "read", lambda real=real, calls=calls: calls.append(1) or real()
                )
                report = store.collect_garbage()
            assert (report.images, report.layers) == (1, 1)
            counts.append(len(calls))
    assert counts[1] <= 1.3 * counts[0] + 10
