"""Hostile requests: no failure of the server's, nothing stored, and it goes on answering."""

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fuzz_requests import (
    check,
    hostile_headers,
    hostile_names,
    hostile_queries,
    hostile_references,
    request,
    send,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from registry_requests import INDEX, MANIFEST, OCI, Registry, descriptor, image_of, index_of, manifest_of
from samples import assert_clean, make_tar, noise
from server_process import ServerProcess

from layerstore import Digest, Store
from layerstore.operations.leases import end_lease

LAYER = make_tar({"usr/lib/base": noise(50_000, 1)})
DOCUMENT, CONFIG = image_of(LAYER)
ADDED = noise(500, 9)
REFERENCES = ["1", *(str(Digest.of(one)) for one in (LAYER, CONFIG, DOCUMENT, ADDED))]
NAMES = hostile_names(["base/app", "fuzz/a"])
TARGETS = hostile_references(REFERENCES)
QUERIES = hostile_queries(TARGETS, NAMES)


class Fuzzed:
    """A server with one image, and what its store had before anybody was hostile."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.registry = Registry(server.address)
        self.registry.push_image("base/app", "1", LAYER)
        for blob in (CONFIG, LAYER):
            self.registry.push_blob("fuzz/a", blob)
        self.before = state_of(server.store)

    @property
    def port(self) -> int:
        return self.server.port

    def check_alive(self) -> None:
        """It answers, and has what it had."""
        assert self.registry.ask("GET", "/v2/").status == 200
        assert self.registry.manifest("base/app", "1").body == DOCUMENT
        assert self.registry.blob("base/app", LAYER).body == LAYER


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzz")
    Store.create(folder / "store", trash_ttl=0).close()
    (folder / "server.yaml").write_text(json.dumps({"collection_interval": 0.5}))
    server = ServerProcess(folder / "store", "--config", str(folder / "server.yaml"))
    with server:
        target = Fuzzed(server)
        yield target
        target.check_alive()
    a_day_later(server)
    assert state_of(server.store) == target.before
    assert "Traceback" not in server.log_text()


def state_of(path: Path) -> dict[str, object]:
    """What a store and its registry have."""
    uploads = path / "registry" / "uploads"
    with Store.open(path) as store:
        assert_clean(store)
        return {
            "images": sorted(store.images),
            "tags": dict(store.tags),
            # The config came as a blob, which is kept for a while.
            "layers": sorted(set(store.layers) - {Digest.of(CONFIG)}),
            "encodings": sorted(store.encodings),
            "raw": sorted(file.name for file in (path / "raw").iterdir()),
            "uploads": sorted(file.name for file in uploads.iterdir()) if uploads.exists() else [],
        }


def a_day_later(server: ServerProcess) -> None:
    """Let everything that was begun, and held for its manifest, be old; then the server tidies up."""
    with Store.open(server.store) as store:
        with store._opened.index.read() as transaction:
            names = [name for name, _ in transaction.leases.items()]
        for name in names:
            end_lease(store._opened, name)
        # What fuzz/a had no manifest for.
        store.collect_garbage()
    long_ago = time.time() - 3 * 24 * 3600
    folder = server.store / "registry"
    for upload in (folder / "uploads").iterdir():
        os.utime(upload, (long_ago, long_ago))
    links = sqlite3.connect(folder / "links.sqlite")
    with links:
        links.execute("UPDATE uploads SET begun = ?", (int(long_ago),))
    links.close()
    with server:
        end = time.monotonic() + 20
        while list((folder / "uploads").iterdir()) and time.monotonic() < end:
            time.sleep(0.1)


PATHS = st.one_of(
    st.tuples(NAMES, st.sampled_from([b"manifests", b"blobs", b"referrers"]), TARGETS).map(
        lambda parts: b"/v2/%s/%s/%s" % parts
    ),
    st.tuples(NAMES, TARGETS | st.builds(lambda: str(uuid4()).encode())).map(
        lambda parts: b"/v2/%s/blobs/uploads/%s" % parts
    ),
    NAMES.map(lambda name: b"/v2/%s/tags/list" % name),
    NAMES.map(lambda name: b"/v2/%s/blobs/uploads/" % name),
    NAMES.map(lambda name: b"/v2/%s" % name),
    NAMES.map(lambda name: b"/%s" % name),
    st.just(b"/v2/_catalog"),
)


@settings(max_examples=300)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "DELETE", "QUERY"]),
    path=PATHS,
    query=QUERIES,
    headers=hostile_headers(),
    body=st.sampled_from([b"", b"x", b"{}", LAYER, CONFIG, b"\x1f\x8b\x08", noise(3000)]),
)
def test_any_request(
    fuzzed: Fuzzed, method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Methods, paths, queries, headers and bodies of all kinds."""
    if method == "DELETE" and (b"base/app" in path or b"fuzz/a" in path):
        method = "GET"
    target = path + (b"?" + query if query else b"")
    check(send(fuzzed.port, request(method, target, headers, body), method=method), method, path)


def manifest_with(**fields: Any) -> bytes:
    """The manifest of the image, with other fields."""
    return json.dumps({**json.loads(DOCUMENT), **fields}).encode()


def layer_with(**fields: Any) -> bytes:
    """The manifest of the image, with another layer."""
    return manifest_with(layers=[{**descriptor(LAYER), **fields}])


HOSTILE_MANIFESTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<html>",
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "UTF-16": DOCUMENT.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + DOCUMENT,
    "bytes that are no text": DOCUMENT.replace(b"schemaVersion", b"schema\xff\xfe"),
    "something behind it": DOCUMENT + b"{}",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and closed": b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep annotations": manifest_with(annotations={"a": None}).replace(b"null", b"[" * 5000 + b"]" * 5000),
    "a huge number": DOCUMENT.replace(b'"size": ', b'"size": 1' + b"0" * 6000, 1),
    "a number beyond 64 bits": layer_with(size=1 << 64),
    "a negative size": layer_with(size=-1),
    "a fraction": layer_with(size=1.5),
    "infinity": DOCUMENT.replace(b'"size": ', b'"size": Infinity, "x": ', 1),
    "a size as text": layer_with(size=str(len(LAYER))),
    "a size that lies": layer_with(size=len(LAYER) + 1),
    "a size of zero": layer_with(size=0),
    "a config whose size lies": manifest_with(config={**descriptor(CONFIG, f"{OCI}.config.v1+json"), "size": 2}),
    "the digest of something else": layer_with(digest=str(Digest.of(b"something else"))),
    "a digest of another algorithm": layer_with(digest=f"md5:{'0' * 32}"),
    "the layer's sha512": layer_with(digest=str(Digest.of(LAYER, "sha512"))),
    "no digest": layer_with(digest="sha256:../../index/data.mdb"),
    "a digest in capitals": layer_with(digest=str(Digest.of(LAYER)).upper()),
    "a layer that is the config": layer_with(mediaType=MANIFEST, digest=str(Digest.of(b"none"))),
    "layers that are no list": manifest_with(layers={"0": descriptor(LAYER)}),
    "layers that are text": manifest_with(layers="x" * 1000),
    "config of null": manifest_with(config=None),
    "no config": json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).encode(),
    "version 1": manifest_with(schemaVersion=1),
    "a version of text": manifest_with(schemaVersion="2"),
    "another media type": manifest_with(mediaType="text/html"),
    "a manifest that says index": manifest_with(mediaType=INDEX),
    "two digests": DOCUMENT.replace(b'"digest":', b'"digest": "sha256:' + b"0" * 64 + b'", "digest":'),
    "two lists of layers": DOCUMENT[:-1] + b', "layers": []}',
    "a list of manifests as well": manifest_with(manifests=[descriptor(DOCUMENT, MANIFEST)]),
    "half of a surrogate pair": manifest_with(annotations={"a": "\ud800"}),
    "a surrogate as a key": manifest_with(annotations={"\udfff": "a"}),
    "a surrogate as a media type": layer_with(mediaType="\ud800/x"),
    "a NUL": manifest_with(annotations={"a\0b": "\0"}),
    "annotations that are no text": manifest_with(annotations={"a": 1}),
    "a newline in a media type": layer_with(mediaType="a/b\r\nX-Injected: 1"),
    "a media type that is too long": layer_with(mediaType="a/" + "b" * 100_000),
    "a subject that is no descriptor": manifest_with(subject="x"),
    "an artifact type with a newline": manifest_with(artifactType="a/b\r\nX-Injected: 1"),
    "many missing layers": manifest_with(
        layers=[{**descriptor(LAYER), "digest": f"sha256:{i:064}"} for i in range(5000)]
    ),
    "more than four mebibytes": manifest_with(annotations={"a": "b" * (5 << 20)}),
    "too large": manifest_with(annotations={"a": "b" * (8 << 20)}),
    "millions of objects": DOCUMENT[:-1] + b', "x": [' + b"{}," * 2_000_000 + b"0]}",
    "millions of escaped quotes": DOCUMENT[:-1] + b', "x": "' + b'\\"' * 3_000_000,
    "an index of what is not there": index_of(b"one", b"two"),
    "an index of blobs as manifests": json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(LAYER, MANIFEST)]}
    ).encode(),
    "an index of an index that is none": json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(CONFIG, INDEX)]}
    ).encode(),
    "a config that is a layer": manifest_of(descriptor(LAYER, f"{OCI}.config.v1+json"), descriptor(LAYER)),
    "docker's first schema": b'{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[],"history":[],"signatures":[]}',
}


@pytest.mark.parametrize("name", HOSTILE_MANIFESTS)
def test_hostile_manifests(fuzzed: Fuzzed, name: str) -> None:
    """Refused; or accepted, and given back byte for byte."""
    document = HOSTILE_MANIFESTS[name]
    for media_type in (MANIFEST, INDEX):
        for reference in ("hostile", str(Digest.of(document))):
            put_hostile(fuzzed, reference, document, media_type)
    fuzzed.check_alive()


def put_hostile(fuzzed: Fuzzed, reference: str, document: bytes, media_type: str) -> None:
    path = f"/v2/fuzz/a/manifests/{reference}".encode()
    answer = send(fuzzed.port, request("PUT", path, [(b"Content-Type", media_type.encode())], document))
    check(answer)
    digest = str(Digest.of(document))
    if answer.status == 201:
        assert answer.headers["docker-content-digest"] == digest
        for one in (reference, digest):
            assert fuzzed.registry.manifest("fuzz/a", one).body == document
        assert fuzzed.registry.delete("fuzz/a", digest).status == 202
    else:
        assert fuzzed.registry.manifest("fuzz/a", digest).status == 404
        assert fuzzed.registry.manifest("fuzz/a", "hostile").status == 404


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*REFERENCES, MANIFEST, INDEX]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=10,
)
FIELDS = ("schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType")


@settings(max_examples=150)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=4), as_layer=st.booleans())
@example(fields={"annotations": {"a": "\ud800"}}, as_layer=False)
def test_any_manifest(fuzzed: Fuzzed, fields: dict[str, Any], as_layer: bool) -> None:
    """Values of any kind at any place of a manifest."""
    document = layer_with(**fields) if as_layer else manifest_with(**fields)
    if document != DOCUMENT:
        put_hostile(fuzzed, "hostile", document, MANIFEST)


@settings(max_examples=100)
@given(
    first=st.binary(max_size=300),
    headers=hostile_headers(),
    method=st.sampled_from(["PATCH", "PUT"]),
    body=st.binary(max_size=300),
    query=QUERIES,
)
def test_any_use_of_an_upload(
    fuzzed: Fuzzed, first: bytes, headers: list[tuple[bytes, bytes]], method: str, body: bytes, query: bytes
) -> None:
    """Whatever is done to an upload, what it has is what was acknowledged, and it can be given up."""
    registry = fuzzed.registry
    location = registry.begin("fuzz/a")
    assert registry.ask("PATCH", location, first).status == 202
    answer = send(fuzzed.port, request(method, location.encode() + b"?" + query, headers, body), method=method)
    check(answer)
    now = registry.ask("GET", location)
    assert now.status in (204, 404), now
    if now.status == 204:
        size = int(now.headers["range"].partition("-")[2]) + 1
        assert size in (1, max(1, len(first)), len(first) + len(body))
        assert registry.ask("DELETE", location).status == 204
    assert registry.ask("DELETE", location).status == 404


PUT = b"PUT /v2/fuzz/a/manifests/hostile HTTP/1.1\r\nHost: x\r\nContent-Type: " + MANIFEST.encode() + b"\r\n"
BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "an empty line": b"\r\n\r\n",
    "half of a first line": b"GET /v2/",
    "half of the headers": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /v2/\r\n",
    "HTTP/9.9": b"GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n",
    "an absolute address": b"GET http://other.test/v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a proxy's request": b"CONNECT other.test:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "all of the server": b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "no host": b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n",
    "a strange host": b"GET /v2/ HTTP/1.1\r\nHost: [::1\xff]:x\r\nConnection: close\r\n\r\n",
    "a strange host on a listing": b"GET /v2/a/tags/list?n=1 HTTP/1.1\r\nHost: a b/c?d\r\nConnection: close\r\n\r\n",
    "bare line feeds": b"GET /v2/ HTTP/1.1\nHost: x\nConnection: close\n\n",
    "a header without a colon": b"GET /v2/ HTTP/1.1\r\nHost\r\n\r\n",
    "a NUL in a header": b"GET /v2/ HTTP/1.1\r\nHost: x\0y\r\n\r\n",
    "a folded header": b"GET /v2/ HTTP/1.1\r\nHost: x\r\n y\r\nConnection: close\r\n\r\n",
    "a header that never ends": b"GET /v2/ HTTP/1.1\r\nA: " + b"a" * (1 << 20),
    "many headers": b"GET /v2/ HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    "a path that never ends": b"GET /v2/" + b"a/" * (1 << 19),
    "a length that is no number": PUT + b"Content-Length: x\r\n\r\n" + DOCUMENT,
    "a negative length": PUT + b"Content-Length: -5\r\n\r\n" + DOCUMENT,
    "a length beyond 64 bits": PUT + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + DOCUMENT,
    "two lengths": PUT + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + DOCUMENT,
    "a length and chunks": PUT + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": PUT + b"Transfer-Encoding: gzip\r\n\r\n" + DOCUMENT,
    "a body that is shorter": PUT + b"Content-Length: %d\r\n\r\n" % (len(DOCUMENT) + 10) + DOCUMENT,
    "a body that is missing": PUT + b"Content-Length: 500\r\n\r\n",
    "a chunk of no size": PUT + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    "a negative chunk": PUT + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a huge chunk": PUT + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nx",
    "a chunk that is shorter": PUT + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (len(DOCUMENT) + 9) + DOCUMENT,
    "chunks without an end": PUT + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(DOCUMENT) + DOCUMENT + b"\r\n",
    "a chunk with a long extension": PUT + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 100_000,
    "an upload cut in one request": b"POST /v2/fuzz/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length: %d\r\n\r\n" % (str(Digest.of(ADDED)).encode(), len(ADDED)) + ADDED[:-1],
    "an upload in broken chunks": b"POST /v2/fuzz/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" % str(Digest.of(ADDED)).encode() + b"1f4\r\n" + ADDED + b"zz\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http(fuzzed: Fuzzed, name: str) -> None:
    """What is no request, or only part of one, and then the end: nobody else notices, and nothing is there of it."""
    answer = send(fuzzed.port, BROKEN[name], closes=True)
    assert answer.status < 500, answer
    assert fuzzed.registry.manifest("fuzz/a", "hostile").status == 404
    assert fuzzed.registry.blob("fuzz/a", ADDED).status == 404
    fuzzed.check_alive()


def test_a_request_behind_a_request(fuzzed: Fuzzed) -> None:
    """A body that looks like a request is a body: nothing of it is carried out."""
    inner = b"DELETE /v2/base/app/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /v2/fuzz/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    for more in (
        b"Content-Length: %d\r\n\r\n" % len(inner),
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        send(fuzzed.port, head + more + inner, closes=True)
        fuzzed.check_alive()


def test_many_who_say_nothing(fuzzed: Fuzzed) -> None:
    """Connections on which nothing, or half of a request, comes take no place from the others."""
    waiting = []
    try:
        for number in range(200):
            connection = socket.create_connection(("127.0.0.1", fuzzed.port), timeout=10)
            connection.sendall(
                b"PUT /v2/fuzz/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"[: number % 90]
            )
            waiting.append(connection)
        fuzzed.check_alive()
    finally:
        for connection in waiting:
            connection.close()
    fuzzed.check_alive()
