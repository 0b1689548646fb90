"""A blob of an upstream layerstore comes as what differs from layers that are here."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy_relay import Relay, relaying
from registry_requests import OCI, Registry, descriptor, image_of, manifest_of
from samples import make_tar, noise
from threaded_server import served
from waiting import eventually

from layerstore import Digest, Store
from layerstore.operations.difference_format import (
    MAGIC,
    Copy,
    Head,
    InstructionCoder,
    RecordKind,
    encode_head,
    encode_record,
)
from layerstore.registry.server.settings import ServerSettings, Upstream

OLD = {f"usr/{number}": noise(20_000, number) for number in range(40)}
NEW = OLD | {"usr/7": noise(20_000, 100)}
SECONDS_MAX = 30.0


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Registry]:
    """A layerstore as upstream, with two versions of an image."""
    Store.create(tmp_path / "origin").close()
    with served(ServerSettings(store=tmp_path / "origin", collection_interval=0)) as registry:
        for tag, files in (("1", OLD), ("2", NEW)):
            push(registry, tag, make_tar(files))
        yield registry


@pytest.fixture
def relay(origin: Registry) -> Iterator[Relay]:
    with relaying(origin.address) as running:
        yield running


def blob_of(layer: bytes) -> bytes:
    return gzip.compress(layer, 6, mtime=0)


def push(registry: Registry, tag: str, layer: bytes) -> None:
    _, config = image_of(layer)
    blob = blob_of(layer)
    for one in (config, blob):
        assert registry.push_blob("shop", one).status == 201
    manifest = manifest_of(descriptor(config, f"{OCI}.config.v1+json"), descriptor(blob, f"{OCI}.layer.v1.tar+gzip"))
    assert registry.put("shop", tag, manifest).status == 201


def settings_of(store: Path, url: str) -> ServerSettings:
    return ServerSettings(store=store, proxies={"hub": Upstream(url=url)}, collection_interval=0)


def pull(registry: Registry, tag: str) -> list[bytes]:
    """The blobs of an image, each what its digest says."""
    manifest = registry.manifest("hub/shop", tag)
    assert manifest.status == 200
    blobs = []
    for one in [manifest.json["config"], *manifest.json["layers"]]:
        answer = registry.blob("hub/shop", one["digest"])
        assert (answer.status, Digest.of(answer.body)) == (200, one["digest"])
        blobs.append(answer.body)
    return blobs


def pull_first(registry: Registry, store: Path) -> None:
    """Pull the first version, and wait until it is an image here."""
    pull(registry, "1")

    def is_put() -> bool:
        with Store.open(store) as opened:
            return "hub/shop:1" in opened.tags

    eventually(is_put)


def test_an_update_costs_what_changed(relay: Relay, store_path: Path) -> None:
    new = blob_of(make_tar(NEW))
    with served(settings_of(store_path, relay.url)) as registry:
        pull_first(registry, store_path)
        relay.forget()
        assert pull(registry, "2")[1] == new
        assert relay.count("POST", f"/_layerstore/blobs/{Digest.of(new)}") == 1
        assert relay.count("GET", f"/blobs/{Digest.of(new)}") == 0
        assert pull(registry, "2")[1] == new
        assert relay.count("POST", "/_layerstore/") == 1, "now it is here"
    with Store.open(store_path) as store:
        assert "hub/shop:2" in store.tags
        assert store.verify().is_clean
        assert b"".join(store.blob_blocks(Digest.of(new))) == new


def test_where_nothing_is_known_the_blob_comes_as_it_is(relay: Relay, store_path: Path) -> None:
    new = blob_of(make_tar(NEW))
    with served(settings_of(store_path, relay.url)) as registry:
        assert pull(registry, "2")[1] == new
    assert relay.count("POST", "/_layerstore/") == 0
    assert relay.count("GET", f"/blobs/{Digest.of(new)}") == 1


def hostile_differences(secret: Digest) -> dict[str, bytes]:
    """What an upstream registry could answer."""
    layer = Digest.of(make_tar(NEW))

    def copying(base: Digest, size: int, times: int) -> bytes:
        copies = InstructionCoder(1).encode([Copy(0, 0, size)] * times)
        return (
            MAGIC + encode_head(Head(layer, layer, size * times, b"", (base,))) + copies + encode_record(RecordKind.END)
        )

    old = Digest.of(make_tar(OLD))
    return {
        "nothing": b"",
        "noise": noise(50_000),
        "a layer that was not offered": copying(secret, 100_000, 1),
        "another layer": copying(old, 100_000, 1),
        "too much": copying(old, 800_000, 4000),
        "more than the blob": MAGIC + noise(2_000_000),
    }


@pytest.mark.parametrize("kind", list(hostile_differences(Digest.of(b""))))
def test_a_difference_that_is_wrong_does_no_harm(relay: Relay, store_path: Path, kind: str) -> None:
    secret = make_tar({"secret": noise(100_000, 5)})
    new = blob_of(make_tar(NEW))
    with served(settings_of(store_path, relay.url)) as registry:
        registry.push_image("private", "1", secret)
        pull_first(registry, store_path)
        relay.difference = hostile_differences(Digest.of(secret))[kind]
        assert pull(registry, "2")[1] == new
        assert relay.count("POST", "/_layerstore/") == 1
        assert relay.count("GET", f"/blobs/{Digest.of(new)}") == 1
