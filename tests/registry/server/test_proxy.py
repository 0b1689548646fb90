"""Repositories of upstream registries: fetched once, compared, kept, and given when upstream is away."""

import http.client
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from client_servers import docker_registry
from places_samples import LayoutMaker, layer_tar, needs, noise, platform_of, run, tree
from proxy_relay import Relay, relaying
from registry_requests import MANIFEST, Registry, descriptor, image_of, manifest_of
from server_process import ServerProcess
from threaded_server import basic, htpasswd, served
from waiting import eventually

from layerstore import Digest, Store
from layerstore.errors import InvalidOptionError
from layerstore.registry.server import proxy_fetches
from layerstore.registry.server.configuration import load_settings
from layerstore.registry.server.options import Options
from layerstore.registry.server.proxy_upstream import UpstreamRegistry
from layerstore.registry.server.registry import Registry as OpenRegistry
from layerstore.registry.server.settings import Anonymous, Right, ServerSettings, Upstream

_BIG = noise(1, 3_000_000)
_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> LayoutMaker:
    """Images 1 and 2, which share a large layer, and an index of two platforms."""
    maker = LayoutMaker(tmp_path_factory.mktemp("upstream") / "layout")
    base = layer_tar({"base": noise(5, 1_000_000)})
    maker.list_root(maker.image([base, layer_tar({"one": b"1" * 5000})]), "1")
    maker.list_root(maker.image([base, layer_tar({"two": b"2" * 5000})]), "2")
    children = []
    for name in ("linux/amd64", "linux/arm64"):
        child = maker.image([layer_tar({"arch": noise(len(name), 9000)})], platform=name)
        children.append(child | {"platform": platform_of(name)})
    maker.list_root(maker.index(children), "multi")
    return maker


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, layout: LayoutMaker) -> Iterator[str]:
    """Debian's docker-registry with the images, as team/shop."""
    needs("skopeo")
    with docker_registry(tmp_path_factory.mktemp("upstream") / "registry") as address:
        for name in ("1", "2", "multi"):
            target = f"docker://{address}/team/shop:{name}"
            run("skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{layout.path}:{name}", target)
        yield address


@pytest.fixture
def relay(debian: str) -> Iterator[Relay]:
    with relaying(debian) as running:
        yield running


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Registry]:
    """A layerstore as upstream, which tests push to."""
    Store.create(tmp_path / "origin").close()
    with served(ServerSettings(store=tmp_path / "origin", collection_interval=0)) as registry:
        yield registry


def settings_of(store: Path, url: str, **more: Any) -> ServerSettings:
    """A server that reads hub/* from a URL, and asks again for every tag."""
    upstream = Upstream(url=url, **{"fresh_seconds": 0.0, "silent_seconds": 2.0, **more})
    return ServerSettings(store=store, proxies={"hub": upstream}, collection_interval=0)


def skopeo_pull(address: str, image: str, target: Path, *options: str) -> None:
    source = f"docker://{address}/{image}"
    run("skopeo", "copy", *options, "--src-tls-verify=false", source, f"oci:{target}:{image.rpartition(':')[2]}")


def blobs_of(manifest: bytes) -> list[str]:
    document = json.loads(manifest)
    return [one["digest"] for one in [document["config"], *document["layers"]]]


def pull(registry: Registry, repository: str, reference: str) -> bytes:
    """Pull an image with all its blobs, each of which is what its digest says; its manifest."""
    manifest = registry.manifest(repository, reference)
    assert manifest.status == 200, manifest
    for digest in blobs_of(manifest.body):
        answer = registry.blob(repository, digest)
        assert answer.status == 200, answer
        assert Digest.of(answer.body) == digest
    return manifest.body


@contextmanager
def begun_blob(address: str, repository: str, data: bytes) -> Iterator[http.client.HTTPResponse]:
    """The answer with a blob, of which ten bytes have come."""
    connection = http.client.HTTPConnection(address, timeout=_SECONDS_MAX)
    connection.request("GET", f"/v2/{repository}/blobs/{Digest.of(data)}")
    answer = connection.getresponse()
    try:
        assert answer.read(10) == data[:10]
        yield answer
    finally:
        answer.close()
        connection.close()


def is_put(store: Path, manifest: bytes) -> bool:
    with Store.open(store) as opened:
        return Digest.of(manifest) in opened.images


def test_second_pull_needs_no_upstream(debian: str, layout: LayoutMaker, tmp_path: Path) -> None:
    """skopeo pulls all images twice; the second time upstream is away, and the server was started anew in between."""
    server = ServerProcess(tmp_path / "store", "--proxy", "hub=http://127.0.0.1:1")
    with relaying(debian) as relay:
        server.options = ("--proxy", f"hub={relay.url}")
        with server:
            for name in ("1", "2", "multi"):
                skopeo_pull(server.address, f"hub/team/shop:{name}", tmp_path / "first", "--all")
            assert tree(tmp_path / "first" / "blobs") == tree(layout.path / "blobs")
            digests = {digest for _, path, _ in relay.requests if "/blobs/" in (digest := path)}
            assert all(relay.count("GET", digest) == 1 for digest in digests)
            with Store.open(server.store) as store:
                eventually(lambda: len(store.tags) == 3)
                store.collect_garbage()
    with server:
        for name in ("1", "2", "multi"):
            skopeo_pull(server.address, f"hub/team/shop:{name}", tmp_path / "second", "--all")
        assert tree(tmp_path / "second" / "blobs") == tree(layout.path / "blobs")
        answer = Registry(server.address).ask("GET", "/v2/hub/team/shop/tags/list")
        assert answer.json["tags"] == ["1", "2", "multi"]


def test_blob_is_fetched_once_for_clients_of_several_processes(origin: Registry, tmp_path: Path) -> None:
    """Four clients of two workers and four of another server on the same store all get the first bytes while upstream
    holds back the second half.
    """
    origin.push_image("big", "1", _BIG)
    with relaying(origin.address) as relay:
        relay.gate = threading.Event()
        options = ("--proxy", f"hub={relay.url}")
        one = ServerProcess(tmp_path / "store", *options, "--workers", "2")
        with one, ServerProcess(tmp_path / "store", *options) as two:
            begun = threading.Barrier(8, relay.gate.set, timeout=_SECONDS_MAX)

            def fetch(address: str) -> bytes:
                with begun_blob(address, "hub/big", _BIG) as answer:
                    begun.wait()
                    return _BIG[:10] + answer.read()

            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(fetch, [one.address, two.address] * 4)) == {_BIG}
            assert relay.count("GET", "/blobs/") == 1
            relay.forget()
            eventually(lambda: not list((tmp_path / "store/registry/fetches").iterdir()))
            assert Registry(one.address).blob("hub/big", _BIG).body == _BIG
            assert Registry(two.address).blob("hub/big", _BIG).body == _BIG
            assert not relay.requests


def _with_wrong_end(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("size", [1000, 3_000_000])
@pytest.mark.parametrize(
    "spoil",
    [_with_wrong_end, lambda body: body + b"more", lambda body: body[:-1]],
    ids=["changed", "longer", "shorter"],
)
def test_wrong_bytes_never_complete(
    origin: Registry, store_path: Path, size: int, spoil: Callable[[bytes], bytes]
) -> None:
    """No client gets all bytes of a wrong blob, whole or by ranges, and the store none; right ones are taken later."""
    data = noise(2, size)
    origin.push_image("shop", "1", data)
    with relaying(origin.address) as relay, served(settings_of(store_path, relay.url)) as registry:
        relay.spoil = lambda path, body: spoil(body) if "/blobs/" in path else body
        assert len(received(registry, "hub/shop", data, {})) <= max(0, size - 1000)
        for span in (f"bytes={size - 10}-", "bytes=0-99"):
            assert received(registry, "hub/shop", data, {"Range": span}) == b""
        with Store.open(store_path) as store:
            assert (list(store.encodings), list(store.layers)) == ([], [])
        relay.spoil = lambda path, body: body
        assert registry.blob("hub/shop", data).body == data
        metrics = registry.ask("GET", "/metrics").body
        assert b'layerstore_fetches_total{result="failed"}' in metrics
        assert b"layerstore_fetched_bytes_total" in metrics


def received(registry: Registry, repository: str, data: bytes, headers: Mapping[str, str]) -> bytes:
    """What comes of a blob until the connection is cut; nothing of an error."""
    connection = http.client.HTTPConnection(registry.address, timeout=_SECONDS_MAX)
    connection.request("GET", f"/v2/{repository}/blobs/{Digest.of(data)}", headers=dict(headers))
    answer = connection.getresponse()
    try:
        body = answer.read()
        assert answer.status == 502, answer.status
        return b""
    except http.client.IncompleteRead as error:
        body = error.partial
    finally:
        connection.close()
    return body


def test_too_many_bytes_are_refused_and_too_few_are_continued(origin: Registry, store_path: Path) -> None:
    """A manifest with a byte too many is none; a blob that breaks off is asked for from there on, once."""
    origin.push_image("shop", "1", _BIG)
    with relaying(origin.address) as relay, served(settings_of(store_path, relay.url)) as registry:
        relay.spoil = lambda path, body: body + b" " if "/manifests/" in path else body
        assert registry.manifest("hub/shop", "1").status == 502
        relay.cut = 1_000_000
        assert registry.blob("hub/shop", _BIG).body == _BIG
        assert relay.ranges() == [None, "bytes=1000000-"]


def test_manifest_of_upstream_that_is_larger_than_ours_may_be(origin: Registry, store_path: Path) -> None:
    origin.push_image("shop", "1", b"layer" * 10)
    settings = settings_of(store_path, f"http://{origin.address}")
    with served(replace(settings, manifest_size_max=100)) as registry:
        assert registry.manifest("hub/shop", "1").status == 502
    with served(settings) as registry:
        assert registry.manifest("hub/shop", "1").status == 200


def test_failing_upstream(relay: Relay, store_path: Path) -> None:
    """What is known is given with a warning; of what is not, upstream's state is told."""
    with served(settings_of(store_path, relay.url)) as registry:
        manifest = pull(registry, "hub/team/shop", "1")
        for status in (500, 503, 429):
            relay.status = status
            answer = registry.manifest("hub/team/shop", "1")
            assert (answer.status, answer.body) == (200, manifest)
            assert answer.headers["warning"].startswith("110 ")
        missing = registry.manifest("hub/team/shop", "2")
        assert (missing.status, missing.code) == (502, "UNAVAILABLE")
        assert registry.blob("hub/team/shop", str(Digest.of(b"nothing"))).status == 502
        assert registry.manifest("hub/team/shop", str(Digest.of(manifest))).body == manifest
        relay.status = 401
        assert (registry.manifest("hub/team/shop", "2").status, registry.ask("GET", "/v2/").status) == (404, 200)
        assert registry.blob("hub/team/shop", blobs_of(manifest)[1]).status == 200


def test_upstream_that_stands_still(relay: Relay, store_path: Path) -> None:
    """Upstream accepts and says nothing: what is known is given, at once from the second time on; the rest is 504."""
    with served(settings_of(store_path, relay.url)) as registry:
        manifest = pull(registry, "hub/team/shop", "1")
    with served(settings_of(store_path, relay.url, silent_seconds=0.3)) as registry, relay.lock:
        assert registry.manifest("hub/team/shop", "2").status == 504
        for _ in range(2):
            answer = registry.manifest("hub/team/shop", "1")
            assert (answer.body, answer.headers["warning"][:4]) == (manifest, "110 ")


def test_upstream_that_trickles_is_given_up(relay: Relay, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never stands still for too long, but what it gives in a while is too little."""
    monkeypatch.setattr(proxy_fetches, "_PACE_SECONDS", 0.3)
    with served(settings_of(store_path, relay.url)) as registry:
        manifest = registry.manifest("hub/team/shop", "1").body
        layer = blobs_of(manifest)[1]
        monkeypatch.setattr(proxy_fetches, "_BYTES_PER_SECOND_MIN", 1e9)
        relay.gate = threading.Event()
        threading.Timer(0.5, relay.gate.set).start()
        with pytest.raises(http.client.HTTPException):
            registry.blob("hub/team/shop", layer)
        monkeypatch.setattr(proxy_fetches, "_BYTES_PER_SECOND_MIN", 1000.0)
        assert Digest.of(registry.blob("hub/team/shop", layer).body) == layer


def test_upstream_that_gives_a_byte_now_and_then_is_given_up(
    relay: Relay, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_fetches, "_PACE_SECONDS", 0.3)
    with served(settings_of(store_path, relay.url)) as registry:
        layer = blobs_of(registry.manifest("hub/team/shop", "1").body)[1]
        relay.pause_seconds = 0.01
        begun = time.monotonic()
        with pytest.raises(http.client.HTTPException):
            registry.blob("hub/team/shop", layer)
        assert time.monotonic() - begun < _SECONDS_MAX
        relay.pause_seconds = None
        assert Digest.of(registry.blob("hub/team/shop", layer).body) == layer


def test_housekeeping_evicts_what_nobody_pulls(origin: Registry, tmp_path: Path) -> None:
    digest = origin.push_image("shop", "1", noise(4, 10_000))
    file = tmp_path / "server.yaml"
    file.write_text(f"proxies: {{hub: {{url: 'http://{origin.address}', keep: 1h}}}}\ncollection_interval: 1s\n")
    store = tmp_path / "store"
    with ServerProcess(store, "--config", str(file)) as server:
        registry = Registry(server.address)
        pull(registry, "hub/shop", "1")
        eventually(lambda: "hub/shop" in registry.ask("GET", "/v2/_catalog").json["repositories"])
        pulled_long_ago(ServerSettings(store=store), digest)
        eventually(lambda: "hub/shop" not in registry.ask("GET", "/v2/_catalog").json["repositories"])


def test_who_waits_for_upstream_keeps_nobody_else_waiting(relay: Relay, store_path: Path) -> None:
    """More requests than the server has threads for its own wait for upstream, and a push and a pull go through."""
    settings = settings_of(store_path, relay.url, silent_seconds=60.0)
    with served(settings) as registry, ThreadPoolExecutor(45) as pool:
        with relay.lock:
            waiting = [pool.submit(registry.manifest, "hub/team/shop", f"no-{number}") for number in range(45)]
            registry.push_image("own", "1", b"others do not wait")
            pull(registry, "own", "1")
            assert not any(one.done() for one in waiting)
        assert {one.result().status for one in waiting} == {404}


def test_what_upstream_does_not_have(relay: Relay, store_path: Path) -> None:
    with served(settings_of(store_path, relay.url)) as registry:
        assert registry.manifest("hub/team/shop", "none").code == "MANIFEST_UNKNOWN"
        assert registry.manifest("hub/no/where", "1").code == "MANIFEST_UNKNOWN"
        assert registry.manifest("hub/team/shop", str(Digest.of(b"x"))).code == "MANIFEST_UNKNOWN"
        assert registry.blob("hub/team/shop", b"x").code == "BLOB_UNKNOWN"
        assert registry.ask("GET", "/v2/hub/no/where/tags/list").code == "NAME_UNKNOWN"
        assert registry.manifest("hub", "1").code == "NAME_UNKNOWN"
        assert registry.manifest("other/team/shop", "1").status == 404


def test_tag_is_fresh_then_asked_for_again(origin: Registry, store_path: Path) -> None:
    """Eight who ask first cost one GET; while it is fresh upstream is not asked, then unchanged costs a HEAD; a moved
    tag moves in the store as well.
    """
    origin.push_image("shop", "1", b"first")
    with relaying(origin.address) as relay:
        with served(settings_of(store_path, relay.url, fresh_seconds=600.0)) as registry:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: registry.manifest("hub/shop", "1"), range(8)))
            assert relay.count("GET", "/manifests/") == 1
            first = pull(registry, "hub/shop", "1")
            origin.push_image("shop", "1", b"second")
            relay.forget()
            assert registry.manifest("hub/shop", "1").body == first
            assert not relay.requests
        with served(settings_of(store_path, relay.url)) as registry:
            second = pull(registry, "hub/shop", "1")
            assert second != first
            relay.forget()
            assert registry.manifest("hub/shop", "1").body == second
            assert [method for method, path, _ in relay.requests if "manifests" in path] == ["HEAD"]
            assert registry.manifest("hub/shop", str(Digest.of(first))).body == first
            with Store.open(store_path) as store:
                eventually(lambda: store.tags.get("hub/shop:1") == Digest.of(second))


def test_tag_that_is_gone_upstream_is_gone_here(origin: Registry, store_path: Path) -> None:
    origin.push_image("shop", "1", b"layer")
    with served(settings_of(store_path, f"http://{origin.address}")) as registry:
        manifest = pull(registry, "hub/shop", "1")
        eventually(lambda: is_put(store_path, manifest))
        assert origin.delete("shop", "1").status == 202
        assert registry.manifest("hub/shop", "1").code == "MANIFEST_UNKNOWN"
        with Store.open(store_path) as store:
            assert "hub/shop:1" not in store.tags
            store.collect_garbage(store.plan_collection(empty_trash=True))
        assert pull(registry, "hub/shop", str(Digest.of(manifest))) == manifest


def test_index_of_which_one_platform_is_pulled(debian: str, tmp_path: Path) -> None:
    """The platform is an image of the store that collection keeps; the index answers all the same, offline, too."""
    Store.create(tmp_path / "store").close()
    with relaying(debian) as relay:
        settings = settings_of(tmp_path / "store", relay.url)
        with served(settings) as registry:
            skopeo_pull(registry.address, "hub/team/shop:multi", tmp_path / "one", "--override-arch", "arm64")
            index = registry.manifest("hub/team/shop", "multi").body
            amd64, arm64 = (one["digest"] for one in json.loads(index)["manifests"])
            with Store.open(tmp_path / "store") as store:
                eventually(lambda: list(store.images) == [arm64])
    with served(settings) as registry:
        with Store.open(tmp_path / "store") as store:
            store.collect_garbage(store.plan_collection(empty_trash=True))
        skopeo_pull(registry.address, "hub/team/shop:multi", tmp_path / "two", "--override-arch", "arm64")
        assert tree(tmp_path / "one" / "blobs") == tree(tmp_path / "two" / "blobs")
        assert registry.manifest("hub/team/shop", amd64).status == 504
        with relaying(debian, relay.port):
            eventually(lambda: registry.manifest("hub/team/shop", amd64).status == 200)
            pull(registry, "hub/team/shop", amd64)
            eventually(lambda: is_put(tmp_path / "store", index))
    with Store.open(tmp_path / "store") as store:
        assert store.tags["hub/team/shop:multi"] == Digest.of(index)


def test_blob_of_another_repository_is_not_given_for_its_digest(origin: Registry, store_path: Path) -> None:
    """Upstream's manifest names a secret of another repository: upstream does not have it, so nobody gets it."""
    secret = noise(9, 50_000)
    with relaying(origin.address) as relay, served(settings_of(store_path, relay.url)) as registry:
        registry.push_image("private", "1", secret)
        manifest, config = image_of(secret)
        origin.push_blob("shop", config)
        origin.push_image("shop", "1", b"something else")
        relay.spoil = lambda path, body: manifest if "/manifests/" in path else body
        relay.drop = frozenset({"docker-content-digest"})
        assert registry.manifest("hub/shop", "1").body == manifest
        assert registry.blob("hub/shop", config).status == 200
        assert registry.blob("hub/shop", secret).code == "BLOB_UNKNOWN"
        assert registry.manifest("hub/shop", "1").status == 200
        assert registry.blob("hub/shop", secret).code == "BLOB_UNKNOWN"


def test_layers_are_shared(origin: Registry, store_path: Path) -> None:
    """Upstream says that another repository has a blob that is here: it is not fetched; what differs is little."""
    base = layer_tar({"base": noise(4, 2_000_000)})
    origin.push_image("one", "1", base)
    origin.push_image("two", "1", base, layer_tar({"more": b"x" * 100_000}))
    changed = layer_tar({"base": noise(4, 2_000_000), "new": b"y" * 50_000})
    origin.push_image("three", "1", changed)
    with relaying(origin.address) as relay, served(settings_of(store_path, relay.url)) as registry:
        manifest = pull(registry, "hub/one", "1")
        eventually(lambda: is_put(store_path, manifest))
        with Store.open(store_path) as store:
            before = store.stats().stored_bytes
            for name in ("two", "three"):
                manifest = pull(registry, f"hub/{name}", "1")
                eventually(lambda one=manifest: is_put(store_path, one))
            assert relay.count("GET", f"/blobs/{Digest.of(base)}") == 1
            assert store.stats().stored_bytes - before < 50_000
            assert before > 1_900_000
            assert store.verify().is_clean


def test_pushes_are_refused_and_deletes_remove_the_copy(origin: Registry, store_path: Path) -> None:
    origin.push_image("shop", "1", b"layer")
    with served(settings_of(store_path, f"http://{origin.address}")) as registry:
        manifest = pull(registry, "hub/shop", "1")
        for answer in (
            registry.ask("POST", "/v2/hub/shop/blobs/uploads/"),
            registry.push_blob("hub/shop", b"x"),
            registry.put("hub/shop", "2", manifest),
            registry.ask("PUT", f"/v2/hub/shop/_layerstore/blobs/{Digest.of(b'x')}", b"x"),
        ):
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
            assert "copy" in answer.json["errors"][0]["message"]
        eventually(lambda: is_put(store_path, manifest))
        assert registry.delete("hub/shop", str(Digest.of(manifest))).status == 202
        # The fetch that brought the last of it may just be putting it once more.
        eventually(lambda: registry.delete("hub/shop", str(Digest.of(manifest))).status == 404)
        assert not is_put(store_path, manifest)
        assert pull(registry, "hub/shop", "1") == manifest
        assert registry.delete("hub/shop", "1").status == 202
        assert registry.delete("hub/shop", "1").status == 404


def test_tags_and_referrers_are_upstreams(origin: Registry, store_path: Path) -> None:
    """Offline they are what was pulled."""
    first = Digest(origin.push_image("shop", "1", b"layer"))
    origin.push_image("shop", "2", b"other")
    origin.push_blob("shop", b"{}")
    subject = {"mediaType": MANIFEST, "digest": str(first), "size": len(origin.manifest("shop", "1").body)}
    note = manifest_of(descriptor(b"{}", "application/vnd.oci.empty.v1+json"), subject=subject, artifactType="a/b")
    assert origin.put("shop", str(Digest.of(note)), note).status == 201
    with relaying(origin.address) as relay, served(settings_of(store_path, relay.url)) as registry:
        listed = registry.ask("GET", "/v2/hub/shop/tags/list?n=1")
        assert (listed.json["tags"], "link" in listed.headers) == (["1"], True)
        referrers = registry.ask("GET", f"/v2/hub/shop/referrers/{first}")
        assert [one["digest"] for one in referrers.json["manifests"]] == [Digest.of(note)]
        pull(registry, "hub/shop", "1")
        pull(registry, "hub/shop", str(Digest.of(note)))
        eventually(lambda: is_put(store_path, note))
        relay.status = 503
        assert registry.ask("GET", "/v2/hub/shop/tags/list").json["tags"] == ["1"]
        referrers = registry.ask("GET", f"/v2/hub/shop/referrers/{first}")
        assert [one["digest"] for one in referrers.json["manifests"]] == [Digest.of(note)]


def test_upstream_with_accounts(tmp_path: Path, store_path: Path) -> None:
    """The server logs in by token as it is set up; who pulls here needs rights here, and never sees the password."""
    accounts = htpasswd(tmp_path / "accounts", robot="s3cret")
    Store.create(tmp_path / "origin").close()
    rights = (Right(who=frozenset({"@accounts"}), repositories=("**",), actions=frozenset({"read", "write"})),)
    closed = ServerSettings(
        store=tmp_path / "origin",
        htpasswd=accounts,
        anonymous=Anonymous.NONE,
        rights=rights,
        collection_interval=0,
    )
    (tmp_path / "password").write_text("s3cret\n")
    manifest, config = image_of(b"layer")
    with served(closed) as origin:
        for blob in (config, b"layer"):
            path = f"/v2/shop/blobs/uploads/?digest={Digest.of(blob)}"
            assert origin.ask("POST", path, blob, basic("robot", "s3cret")).status == 201
        headers = {"Content-Type": MANIFEST, **basic("robot", "s3cret")}
        assert origin.ask("PUT", "/v2/shop/manifests/1", manifest, headers).status == 201
        url = f"http://{origin.address}"
        with served(settings_of(store_path, url)) as registry:
            assert registry.manifest("hub/shop", "1").code == "MANIFEST_UNKNOWN"
        settings = settings_of(store_path, url, username="robot", password=tmp_path / "password")
        with served(settings) as registry:
            assert pull(registry, "hub/shop", "1") == manifest
            assert "s3cret" not in str(registry.manifest("hub/shop", "1"))
        own = htpasswd(tmp_path / "own", alice="alice")
        guarded = replace(closed, store=store_path, htpasswd=own, proxies=settings.proxies)
        with served(guarded) as registry:
            assert registry.manifest("hub/shop", "1").status == 401
            answer = registry.ask("GET", "/v2/hub/shop/manifests/1", headers=basic("alice", "alice"))
            assert answer.body == manifest


def test_range_and_head_of_a_blob_that_is_not_here(origin: Registry, store_path: Path) -> None:
    """HEAD fetches nothing, nor does the question for a difference; a range fetches the blob, and is right at once."""
    origin.push_image("shop", "1", _BIG)
    with relaying(origin.address) as relay, served(settings_of(store_path, relay.url)) as registry:
        head = registry.ask("HEAD", f"/v2/hub/shop/blobs/{Digest.of(_BIG)}")
        assert (head.status, head.headers["content-length"]) == (200, str(len(_BIG)))
        asked = json.dumps({"have": [Digest.of(b"layer")]}).encode()
        assert registry.ask("POST", f"/v2/hub/shop/_layerstore/blobs/{Digest.of(_BIG)}", asked).status == 204
        assert not relay.count("GET", "/blobs/")
        part = registry.blob("hub/shop", _BIG, {"Range": "bytes=1000000-1999999"})
        assert (part.status, part.body) == (206, _BIG[1_000_000:2_000_000])
        assert relay.count("GET", "/blobs/") == 1


def test_empty_blob(origin: Registry, store_path: Path) -> None:
    origin.push_image("shop", "1", b"")
    with served(settings_of(store_path, f"http://{origin.address}")) as registry:
        pull(registry, "hub/shop", "1")


def test_fetch_goes_on_without_its_client(origin: Registry, store_path: Path) -> None:
    origin.push_image("shop", "1", _BIG)
    with relaying(origin.address) as relay, served(settings_of(store_path, relay.url)) as registry:
        relay.gate = threading.Event()
        with begun_blob(registry.address, "hub/shop", _BIG):
            pass
        relay.gate.set()
        with Store.open(store_path) as store:
            eventually(lambda: store.has_blob(Digest.of(_BIG)))
        assert registry.blob("hub/shop", _BIG).body == _BIG
        assert relay.count("GET", "/blobs/") == 1


def test_process_that_fetches_is_killed(origin: Registry, tmp_path: Path) -> None:
    """Who waits in another process is cut off, and the next one gets the blob, which is fetched anew."""
    origin.push_image("shop", "1", _BIG)
    with relaying(origin.address) as relay:
        relay.gate = threading.Event()
        options = ("--proxy", f"hub={relay.url}")
        one = ServerProcess(tmp_path / "store", *options)
        one.start()
        with ServerProcess(tmp_path / "store", *options) as two:
            with begun_blob(one.address, "hub/shop", _BIG), begun_blob(two.address, "hub/shop", _BIG) as answer:
                one.kill()
                with pytest.raises(http.client.IncompleteRead):
                    answer.read()
            relay.gate.set()
            assert Registry(two.address).blob("hub/shop", _BIG).body == _BIG
            assert relay.count("GET", "/blobs/") == 2


def test_names_at_upstream() -> None:
    """Docker's own images need no library/ here; a path in the URL comes first."""

    def path(url: str, name: str) -> str | None:
        return UpstreamRegistry(Upstream(url=url), 1).path(name)

    assert path("https://registry-1.docker.io", "debian") == "library/debian"
    assert path("https://registry-1.docker.io", "team/shop") == "team/shop"
    assert path("https://r.example", "debian") == "debian"
    assert path("https://r.example/all", "team/shop") == "all/team/shop"
    assert path("https://r.example", "") is None
    assert path("https://r.example/all", "x" * 250 + "/yyy") is None


def test_settings_of_an_upstream(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(
        "proxies:\n  hub: https://registry-1.docker.io\n"
        "  corp: {url: 'https://r.example/team', username: u, password: p, ca: ca.pem, fresh: 5m, silent: 10s,\n"
        "    keep: 30d}\n"
    )
    proxies = load_settings(tmp_path, Options(configuration=file)).proxies
    assert proxies == {
        "hub": Upstream(url="https://registry-1.docker.io"),
        "corp": Upstream(
            url="https://r.example/team",
            username="u",
            password=tmp_path / "p",
            ca=tmp_path / "ca.pem",
            fresh_seconds=300.0,
            silent_seconds=10.0,
            keep_seconds=30 * 86400.0,
        ),
    }
    for wrong in (
        "{hub: ftp://x}",
        "{a/b: http://x}",
        "{a: {url: http://x, username: u}}",
        "{a: http://x/UPPER}",
        "{a: {url: http://x, keep: 5m}}",
    ):
        file.write_text(f"proxies: {wrong}\n")
        with pytest.raises(InvalidOptionError, match="prox"):
            load_settings(tmp_path, Options(configuration=file))


def pulled_long_ago(settings: ServerSettings, *digests: str) -> None:
    with sqlite3.connect(settings.folder / "proxy.sqlite") as database:
        for digest in digests:
            assert database.execute("UPDATE pulls SET pulled = 1000 WHERE digest = ?", (digest,)).rowcount == 1


def evicted(settings: ServerSettings) -> int:
    """How many manifests go when it is looked what nobody pulls."""
    with closing(OpenRegistry(settings)) as registry:
        return registry.proxies.evict()


def test_what_nobody_pulls_is_evicted_and_comes_back_from_upstream(origin: Registry, store_path: Path) -> None:
    layers = [noise(number, 100_000) for number in range(2)]
    digests = [origin.push_image("shop", str(number), layer) for number, layer in enumerate(layers)]
    settings = settings_of(store_path, f"http://{origin.address}", keep_seconds=3600.0)
    with served(settings) as registry:
        own = registry.push_image("own", "1", b"pushed here")
        manifests = [pull(registry, "hub/shop", str(number)) for number in range(2)]
        eventually(lambda: all(is_put(store_path, one) for one in manifests))
    assert evicted(settings) == 0
    pulled_long_ago(settings, digests[0])
    assert evicted(replace(settings, proxies={"hub": replace(settings.proxies["hub"], keep_seconds=0.0)})) == 0
    assert evicted(settings) == 1
    assert evicted(settings) == 0
    with Store.open(store_path) as store:
        assert {str(one) for one in store.images} == {own, digests[1]}
        assert "hub/shop:0" not in store.tags
        assert "hub/shop:1" in store.tags
    with served(settings) as registry:
        assert pull(registry, "hub/shop", "0") == manifests[0]


def test_what_an_index_lists_is_kept_with_it(debian: str, store_path: Path) -> None:
    settings = settings_of(store_path, f"http://{debian}", keep_seconds=3600.0)
    with served(settings) as registry:
        index = registry.manifest("hub/team/shop", "multi")
        child = index.json["manifests"][0]["digest"]
        manifest = pull(registry, "hub/team/shop", child)
        eventually(lambda: is_put(store_path, manifest))
    pulled_long_ago(settings, child)
    assert evicted(settings) == 0
    pulled_long_ago(settings, index.headers["docker-content-digest"])
    assert evicted(settings) == 2
    with Store.open(store_path) as store:
        assert not store.images


def test_images_from_before_pulls_were_noted_are_new(origin: Registry, store_path: Path) -> None:
    origin.push_image("shop", "1", noise(3, 10_000))
    settings = settings_of(store_path, f"http://{origin.address}", keep_seconds=3600.0)
    with served(settings) as registry:
        pull(registry, "hub/shop", "1")
    with sqlite3.connect(settings.folder / "proxy.sqlite") as database:
        database.execute("DROP TABLE pulls")
    assert evicted(settings) == 0
