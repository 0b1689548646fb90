"""Downloads from registries that break, lie or never end."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_samples import EMPTY, INDEX, MANIFEST, Images, sha256
from client_servers import Answer, Request, Server, serving
from memory_registry import MemoryRegistry, first
from samples import noise

from layerstore import ConnectionOptions, Credentials, OCILayout, Proxies, RemoteRepository, Store, copy
from layerstore.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidManifestError,
    OversizedError,
    RegistryError,
)
from layerstore.oci.documents import DOCUMENT_SIZE_MAX
from layerstore.registry.client.addresses import followed

QUICK = ConnectionOptions(tries=3, back_off_seconds=0.01, plain_http=True, read_seconds_max=5)
DATA = noise(2_500_000, 7)


@pytest.fixture
def registry() -> MemoryRegistry:
    """With an artifact ``shop:1.0`` of one blob."""
    made = MemoryRegistry()
    layer = {"mediaType": "application/octet-stream", "digest": made.hold(DATA), "size": len(DATA)}
    config = {"mediaType": EMPTY, "digest": made.hold(b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    made.hold_manifest("1.0", MANIFEST, json.dumps(manifest).encode())
    return made


@pytest.fixture
def server(registry: MemoryRegistry) -> Iterator[Server]:
    with serving(registry) as running:
        yield running


def is_layer(request: Request) -> bool:
    return request.method == "GET" and sha256(DATA) in request.path


def pull(server: Server, target: Path) -> bytes:
    copy(RemoteRepository(f"{server.host}/shop:1.0", options=QUICK), OCILayout(target))
    return target.joinpath("blobs", "sha256", sha256(DATA)[7:]).read_bytes()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_was(
    registry: MemoryRegistry, server: Server, tmp_path: Path, ranges: bool
) -> None:
    """Also from a registry that knows no ranges, which gives all of it again."""
    registry.ranges = ranges
    breaks = iter([700_000, 1_500_000])

    def cut(request: Request) -> Answer:
        answer = registry._blob(request, sha256(DATA))
        answer.cut = next(breaks)
        return answer

    registry.misbehave = first(2, is_layer, cut)
    assert pull(server, tmp_path / "back") == DATA
    asked = [request.headers.get("Range") for request in server.asked("GET", sha256(DATA))]
    assert asked == [None, "bytes=700000-", f"bytes={2_200_000 if ranges else 1_500_000}-"]


def test_a_download_into_a_store_goes_on_too(registry: MemoryRegistry, server: Server, store: Store) -> None:
    registry.misbehave = first(1, is_layer, lambda request: Answer(200, {}, DATA, cut=1_000_000))
    copy(RemoteRepository(f"{server.host}/shop:1.0", options=QUICK), store)
    assert b"".join(store.blob_blocks(sha256(DATA))) == DATA


def test_a_download_that_always_breaks_ends(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    registry.misbehave = lambda request: Answer(200, {}, DATA, cut=10) if is_layer(request) else None
    with pytest.raises(RegistryError, match=f"{server.host} closed the connection in the middle of an answer"):
        pull(server, tmp_path / "back")
    assert len(server.asked("GET", sha256(DATA))) == QUICK.tries
    assert not (tmp_path / "back").exists()


def test_another_range_than_was_asked_for(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    def lie(request: Request) -> Answer:
        if "Range" in request.headers:
            return Answer(206, {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}, DATA[5:])
        return Answer(200, {}, DATA, cut=1000)

    registry.misbehave = first(2, is_layer, lie)
    with pytest.raises(RegistryError, match="gives another part"):
        pull(server, tmp_path / "back")


@pytest.mark.parametrize("spoiled", [DATA[:-1] + b"x", DATA + b"more", DATA[:-1]])
def test_a_blob_that_is_another(registry: MemoryRegistry, server: Server, tmp_path: Path, spoiled: bytes) -> None:
    registry.blobs[sha256(DATA)] = spoiled
    with pytest.raises((DigestMismatchError, InvalidManifestError)):
        pull(server, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_blob_without_end(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    registry.misbehave = lambda request: Answer(200, {}, DATA, endless=True) if is_layer(request) else None
    with pytest.raises(InvalidManifestError, match="more than"):
        pull(server, tmp_path / "back")


def test_a_blob_that_is_missing(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    del registry.blobs[sha256(DATA)]
    with pytest.raises(BlobNotFoundError):
        pull(server, tmp_path / "back")


def test_busy_registries_are_waited_for(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    statuses = iter([503, 429])
    registry.misbehave = first(2, is_layer, lambda request: Answer(next(statuses), {"Retry-After": "1"}))
    begun = time.monotonic()
    assert pull(server, tmp_path / "back") == DATA
    assert 2 <= time.monotonic() - begun < 5


def test_who_asks_for_too_long_a_wait_is_told(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    busy = Answer(429, {"Retry-After": "3600"}, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "later"}]}')
    registry.misbehave = lambda request: busy if "manifests" in request.path else None
    with pytest.raises(RegistryError, match="TOOMANYREQUESTS: later; it asks us to wait for 3600 s"):
        pull(server, tmp_path / "back")


def test_a_registry_that_stays_ill(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    registry.misbehave = lambda request: Answer(502, {}, b"<html>") if "manifests" in request.path else None
    with pytest.raises(RegistryError, match="answers 502"):
        pull(server, tmp_path / "back")
    assert len(server.asked("GET", "manifests")) == QUICK.tries


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer(200, {"Content-Type": MANIFEST}, b"", endless=True), OversizedError, "more than"),
        (Answer(200, {"Content-Type": MANIFEST}, b" " * DOCUMENT_SIZE_MAX + b"{}"), OversizedError, "more than"),
        (Answer(200, {"Content-Type": MANIFEST}, b"{}"), InvalidManifestError, "invalid manifest"),
        (Answer(200, {"Content-Type": INDEX}, b"[" * 100_000), InvalidManifestError, "JSON|nested"),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>"), InvalidManifestError, "JSON"),
        (
            Answer(200, {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, b"{}"),
            InvalidManifestError,
            "first schema",
        ),
        (
            Answer(200, {"Content-Type": MANIFEST, "Docker-Content-Digest": sha256(b"")}, b"{}"),
            DigestMismatchError,
            "expected",
        ),
        (Answer(404), ImageNotFoundError, "has no image shop:1.0"),
        (Answer(418, {}, b'{"errors": [{"code": 7}, "text", null]}'), RegistryError, "answers 418.*7; text; None"),
        (Answer(500, {}, b'{"errors": {}}'), RegistryError, "does not say why"),
        (
            Answer(200, {"Content-Type": MANIFEST, "X": "y" * 100_000}, b"{}"),
            RegistryError,
            "answers with what is not HTTP",
        ),
    ],
)
def test_manifests_of_a_hostile_registry(
    registry: MemoryRegistry,
    server: Server,
    tmp_path: Path,
    answer: Answer,
    error: type[Exception],
    message: str,
) -> None:
    registry.misbehave = lambda request: answer if "manifests" in request.path else None
    with pytest.raises(error, match=message):
        pull(server, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_manifest_that_is_cut_is_read_again(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    data = registry.manifests["1.0"][1]
    registry.misbehave = first(
        1,
        lambda request: "manifests" in request.path,
        lambda request: Answer(200, {"Content-Type": MANIFEST}, data, cut=20),
    )
    assert pull(server, tmp_path / "back") == DATA


def test_redirects_to_another_host_get_no_credentials(registry: MemoryRegistry, tmp_path: Path) -> None:
    """And what they give is verified as everything else."""
    with serving(lambda request: Answer(200, {}, DATA)) as elsewhere, serving(registry) as server:

        def misbehave(request: Request) -> Answer | None:
            if "Authorization" not in request.headers:
                return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
            if is_layer(request):
                return Answer(307, {"Location": f"{elsewhere.url}/there?signature=1"})
            return None

        registry.misbehave = misbehave
        options = ConnectionOptions(plain_http=True, credentials=lambda _: Credentials("shop", "word"))
        copy(RemoteRepository(f"{server.host}/shop:1.0", options=options), OCILayout(tmp_path / "back"))
        assert [request.path for request in elsewhere.requests] == ["/there?signature=1"]
        assert "Authorization" not in elsewhere.requests[0].headers


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/again", "more than 8 times"),
        ("http://192.0.2.1/blob", "not encrypted"),
        ("file:///etc/passwd", "no address"),
        ("http://user:word@127.0.0.1/", "no address"),
        ("http://[::1", "no address"),
        ("http://127.0.0.1:99999/", "no address"),
        ("https://" + "a" * 20_000, "no address"),
        ("", "no address"),
    ],
)
def test_redirects_to_nowhere(registry: MemoryRegistry, tmp_path: Path, location: str, message: str) -> None:
    def misbehave(request: Request) -> Answer | None:
        return Answer(307, {"Location": location}) if is_layer(request) or request.path == "/again" else None

    registry.misbehave = misbehave
    with serving(registry) as server:
        server_options = ConnectionOptions(tries=1)
        with pytest.raises(RegistryError, match=message):
            copy(RemoteRepository(f"{server.host}/shop:1.0", options=server_options), OCILayout(tmp_path / "back"))


@pytest.mark.parametrize(
    ("base", "location", "allowed"),
    [
        ("https://r.example.com/v2/", "/v2/x", True),
        ("https://r.example.com/v2/", "https://cdn.example.com/x?a=b#c", True),
        ("https://r.example.com/v2/", "http://r.example.com/x", False),
        ("https://r.example.com/v2/", "https://127.0.0.1/x", False),
        ("https://r.example.com/v2/", "http://localhost:8080/x", False),
        ("https://r.example.com/v2/", "http://[::1]/x", False),
        ("https://r.example.com/v2/", "https://0.0.0.0/x", False),
        ("https://r.example.com/v2/", "https://[::]/x", False),
        ("https://r.example.com/v2/", "https://[::ffff:127.0.0.1]/x", False),
        ("https://r.example.com/v2/", "https://[::ffff:7f00:1]/x", False),
        ("https://r.example.com/v2/", "https://169.254.169.254/x", False),
        ("https://r.example.com/v2/", "https://[fe80::1]/x", False),
        ("https://r.example.com/v2/", "https://2130706433/x", False),
        ("https://r.example.com/v2/", "https://0x7f.1/x", False),
        ("https://r.example.com/v2/", "https://localhost./x", False),
        ("https://r.example.com/v2/", "https://a.localhost/x", False),
        ("https://r.example.com/v2/", "https://10.0.0.1/x", True),
        ("https://169.254.1.1/v2/", "https://169.254.1.2/x", True),
        ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:6000/x", True),
        ("http://127.0.0.1:5000/v2/", "https://cdn.example.com/x", True),
    ],
)
def test_where_a_registry_may_lead(base: str, location: str, allowed: bool) -> None:
    """Not out of TLS, and not to what only this machine should reach."""
    if allowed:
        assert "#" not in followed(base, location, plain_http=False)
    else:
        with pytest.raises(RegistryError):
            followed(base, location, plain_http=False)


def test_layers_come_at_the_same_time(tmp_path: Path, store: Store) -> None:
    """Each waits for the other one, so that one after the other they would not come at all."""
    registry = MemoryRegistry()
    images = Images(tmp_path / "shop")
    digest = images.add(images.image({"a": noise(1000, 1)}, {"b": noise(1000, 2)}), "1.0")
    layers = [layer["digest"] for layer in images.layers_of(digest)]
    both = threading.Barrier(2)

    def wait(request: Request) -> Answer | None:
        if request.method == "GET" and request.path.rpartition("/")[2] in layers:
            both.wait(10)
        return None

    with serving(registry) as server:
        copy(OCILayout(images.path), RemoteRepository(f"{server.host}/shop", options=QUICK))
        registry.misbehave = wait
        copy(RemoteRepository(f"{server.host}/shop:1.0", options=QUICK), store)
    assert all(store.has_blob(layer) for layer in layers)


def test_lists_without_end(registry: MemoryRegistry, server: Server) -> None:
    """Pages that lead to each other, and to other pages without end."""
    numbers = iter(range(1_000_000))

    def misbehave(request: Request) -> Answer | None:
        if "tags/list" not in request.path:
            return None
        target = f"/v2/shop/tags/list?n={next(numbers)}" if "ever" in request.path else "/v2/shop/tags/list?n=1"
        return Answer(200, {"Link": f'<{target}&more>; rel="next"'}, b'{"tags": ["1.0", "../x", 7]}')

    registry.misbehave = misbehave
    with pytest.raises(RegistryError, match="without an end"):
        RemoteRepository(f"{server.host}/shop", options=QUICK).roots()
    assert len(server.asked("GET", "tags/list")) == 2
    with pytest.raises(RegistryError, match="without an end"):
        RemoteRepository(f"{server.host}/ever", options=QUICK).roots()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags": "1.0"}', b"[" * 100_000])
def test_lists_that_are_none(registry: MemoryRegistry, server: Server, body: bytes) -> None:
    registry.misbehave = lambda request: Answer(200, {}, body) if "tags/list" in request.path else None
    with pytest.raises(RegistryError, match="no list of tags"):
        RemoteRepository(f"{server.host}/shop", options=QUICK).roots()


def test_referrers_of_a_registry_with_the_api(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    """In pages; and what the registry only says to be a referrer is not believed to be a manifest."""
    subject = sha256(registry.manifests["1.0"][1])
    signature = dict(json.loads(registry.manifests["1.0"][1]), artifactType="application/x", layers=[])
    found = []
    for number in range(3):
        data = json.dumps(signature | {"annotations": {"number": str(number)}}).encode()
        found.append({"mediaType": MANIFEST, "digest": registry.hold_manifest(f"s{number}", MANIFEST, data)})
        found[-1]["size"] = len(data)

    def misbehave(request: Request) -> Answer | None:
        if "tags/list" in request.path:
            return Answer(200, {}, b'{"tags": null}')
        if "/referrers/" not in request.path:
            return None
        page = int(request.path.partition("page=")[2] or 0)
        listed = found[page : page + 1] if subject in request.path else []
        more = {"Link": f'<{request.path.partition("?")[0]}?page={page + 1}>; rel="next"'} if page < 2 else {}
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
        return Answer(200, {"Content-Type": INDEX, **more}, body)

    registry.misbehave = misbehave
    source = RemoteRepository(f"{server.host}/shop:1.0", options=QUICK)
    report = copy(source, OCILayout(tmp_path / "back"), referrers=True)
    assert {one.digest for one in report.images} == {subject, *(one["digest"] for one in found)}


def test_through_a_proxy(registry: MemoryRegistry, tmp_path: Path) -> None:
    """What is not of this machine goes through the proxy, which is told who asks."""
    with serving(registry) as proxy:
        registry.misbehave = lambda request: None
        inner = registry.__call__

        def through(request: Request) -> Answer:
            assert request.path.startswith("http://registry.invalid/v2/")
            assert request.headers["Proxy-Authorization"] == "Basic dXNlcjp3b3Jk"
            request.path = request.path.removeprefix("http://registry.invalid")
            return inner(request)

        proxy.answer = through
        options = ConnectionOptions(plain_http=True, proxies=Proxies(http=f"http://user:word@{proxy.host}"), tries=1)
        copy(RemoteRepository("registry.invalid/shop:1.0", options=options), OCILayout(tmp_path / "back"))
        spared = Proxies(http=f"http://{proxy.host}", bypass=lambda host: host == "registry.invalid:80")
        options = ConnectionOptions(plain_http=True, proxies=spared, tries=1)
        with pytest.raises(RegistryError, match=r"registry\.invalid cannot be found: nobody knows that name"):
            RemoteRepository("registry.invalid/shop:1.0", options=options).roots()


def test_layers_that_may_be_absent_are_asked_for(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    manifest = json.loads(registry.manifests["1.0"][1])
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    manifest["layers"].append({"mediaType": foreign, "digest": sha256(b"elsewhere"), "size": 9})
    registry.hold_manifest("1.0", MANIFEST, json.dumps(manifest).encode())
    report = copy(RemoteRepository(f"{server.host}/shop:1.0", options=QUICK), OCILayout(tmp_path / "back"))
    assert (report.blobs_absent, report.blobs_copied) == (1, 1)
    assert [request.path for request in server.asked("HEAD")] == [f"/v2/shop/blobs/{sha256(b'elsewhere')}"]
