"""Uploads to registries that break, forget, refuse, or lead elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from client_samples import Images, sha256
from client_servers import Answer, Request, Server, serving
from memory_registry import MemoryRegistry, first
from samples import noise

from layerstore import ConnectionOptions, Credentials, OCILayout, RemoteRepository, Store, copy
from layerstore.errors import DeniedError, DigestMismatchError, InvalidManifestError, LayerstoreError, RegistryError

QUICK = ConnectionOptions(tries=3, back_off_seconds=0.01, plain_http=True)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def server(registry: MemoryRegistry) -> Iterator[Server]:
    with serving(registry) as running:
        yield running


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    made = Images(tmp_path_factory.mktemp("images") / "shop")
    made.add(made.image({"lib/data": noise(2_000_000, 3)}), "1.0")
    return made


def layer_of(images: Images) -> bytes:
    return images.read(images.layers_of(images.roots[0]["digest"])[0]["digest"])


def push(server: Server, images: Images, options: ConnectionOptions = QUICK) -> None:
    copy(OCILayout(images.path), RemoteRepository(f"{server.host}/shop", options=options))


def test_manifests_come_last(registry: MemoryRegistry, server: Server, images: Images) -> None:
    """Layers, configs, and at last the manifest by its tag: nobody sees half of an image."""
    push(server, images)
    written = [request.path.partition("?")[0] for request in server.requests if request.method in ("PUT", "PATCH")]
    assert written[-1] == "/v2/shop/manifests/1.0"
    assert not any("manifests" in path for path in written[:-1])
    assert registry.blobs[sha256(layer_of(images))] == layer_of(images)
    assert set(registry.manifests) == {"1.0", images.roots[0]["digest"]}
    assert not registry.uploads


def test_an_index_comes_after_its_manifests(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    images = Images(tmp_path / "multi")
    children = [images.image({"a": name.encode()}) for name in ("a", "b")]
    digest = images.add(images.index(images.index(*children), children[0]), "multi")
    push(server, images)
    put = [request.path.rpartition("/")[2] for request in server.asked("PUT", "manifests")]
    assert put[:2] == [child["digest"] for child in children]
    assert len(put) == 4 and put[-1] == "multi"
    assert registry.manifests["multi"] == registry.manifests[digest]


@pytest.mark.parametrize("known", [0, 1_500_000])
def test_a_broken_upload_goes_on_where_the_registry_is(
    registry: MemoryRegistry, server: Server, images: Images, known: int
) -> None:
    """Or anew, if it has nothing."""
    data = layer_of(images)

    def keep_some(request: Request) -> Answer:
        registry.uploads[request.path] = data[:known]
        return Answer(503)

    registry.misbehave = first(1, lambda request: request.method == "PATCH", keep_some)
    push(server, images)
    assert registry.blobs[sha256(data)] == data
    ranges = [request.headers["Content-Range"] for request in server.asked("PATCH")]
    assert ranges == [f"0-{len(data) - 1}", f"{known}-{len(data) - 1}"]
    assert len(server.asked("POST")) == (2 if known else 3)  # one is for the config


def test_a_connection_that_is_cut_in_the_middle(registry: MemoryRegistry, server: Server, images: Images) -> None:
    data = layer_of(images)

    def keep(request: Request) -> None:
        registry.uploads[request.path] += request.body

    server.cut = (700_000, keep)
    push(server, images)
    assert registry.blobs[sha256(data)] == data
    assert [request.headers["Content-Range"] for request in server.asked("PATCH")] == [f"700000-{len(data) - 1}"]


def test_a_token_that_ends_in_the_middle_is_replaced(registry: MemoryRegistry, server: Server, images: Images) -> None:
    valid = {"Bearer 1"}
    tokens = iter("12")

    def misbehave(request: Request) -> Answer | None:
        if request.path.startswith("/token"):
            return Answer(200, {}, b'{"token": "%s"}' % next(tokens).encode())
        if request.method == "PATCH" and "Bearer 1" in valid:
            valid.clear()
            valid.add("Bearer 2")
        if request.headers.get("Authorization") not in valid:
            return Answer(401, {"Www-Authenticate": f'Bearer realm="{server.url}/token",service="x"'})
        return None

    registry.misbehave = misbehave
    push(server, images)
    assert registry.blobs[sha256(layer_of(images))] == layer_of(images)
    assert len(server.asked("PATCH")) == 2


@pytest.mark.parametrize("told", [50, 5_000_000])
def test_a_registry_that_has_another_part_than_it_says(
    registry: MemoryRegistry, server: Server, images: Images, told: int
) -> None:
    """More than the blob has is not believed; of less, the digest tells."""

    def misbehave(request: Request) -> Answer | None:
        if request.method == "GET" and "uploads" in request.path:
            return Answer(204, {"Range": f"0-{told - 1}"})
        return breaks(request)

    breaks = first(1, lambda request: request.method == "PATCH", lambda request: Answer(503))
    registry.misbehave = misbehave
    if told > len(layer_of(images)):
        push(server, images)
        assert registry.blobs[sha256(layer_of(images))] == layer_of(images)
    else:
        with pytest.raises(RegistryError, match="took only a part"):
            push(server, images)
        assert not registry.manifests


def test_a_mount_that_is_not_allowed_becomes_an_upload(
    registry: MemoryRegistry, server: Server, images: Images
) -> None:
    push(server, images)

    def misbehave(request: Request) -> Answer | None:
        if request.method == "HEAD" and "/other/" in request.path:
            return Answer(404)
        return Answer(403) if "mount=" in request.path else None

    registry.misbehave = misbehave
    other = RemoteRepository(f"{server.host}/other", options=QUICK)
    report = copy(RemoteRepository(f"{server.host}/shop:1.0", options=QUICK), other)
    assert (report.blobs_copied, len(server.asked("POST", "mount="))) == (1, 2)


def test_an_upload_that_was_forgotten_begins_anew(registry: MemoryRegistry, server: Server, images: Images) -> None:
    def forget(request: Request) -> Answer:
        registry.uploads.pop(request.path)
        return Answer(404)

    registry.misbehave = first(1, lambda request: request.method == "PATCH", forget)
    push(server, images)
    assert registry.blobs[sha256(layer_of(images))] == layer_of(images)


def test_an_end_whose_answer_was_lost_is_not_repeated(registry: MemoryRegistry, server: Server, images: Images) -> None:
    data = layer_of(images)

    def end(request: Request) -> Answer:
        registry.uploads.clear()
        registry.hold(data)
        return Answer(503)

    registry.misbehave = first(1, lambda request: request.method == "PUT" and sha256(data)[7:] in request.path, end)
    push(server, images)
    assert len(server.asked("PATCH")) == 1


def test_a_store_sends_a_blob_again(registry: MemoryRegistry, server: Server, images: Images, store: Store) -> None:
    copy(OCILayout(images.path), store)
    registry.misbehave = first(2, lambda request: request.method == "PATCH", lambda request: Answer(503))
    copy(store, RemoteRepository(f"{server.host}/shop:1.0", options=QUICK))
    assert registry.blobs[sha256(layer_of(images))] == layer_of(images)


def test_an_upload_that_always_breaks_ends(registry: MemoryRegistry, server: Server, images: Images) -> None:
    registry.misbehave = lambda request: Answer(503) if request.method == "PATCH" else None
    with pytest.raises(RegistryError, match="answers 503"):
        push(server, images)
    assert len(server.asked("PATCH")) == QUICK.tries
    assert not registry.manifests


def test_smaller_parts_where_a_request_may_not_be_so_large(
    registry: MemoryRegistry, server: Server, tmp_path: Path
) -> None:
    images = Images(tmp_path / "large")
    images.add(images.image({"lib/data": noise(9_000_000, 4)}), "1.0")
    registry.misbehave = lambda request: Answer(413) if len(request.body) > 8 << 20 else None
    push(server, images)
    assert registry.blobs[sha256(layer_of(images))] == layer_of(images)


def test_a_spoiled_blob_is_not_put(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    """The source is read to its end before the registry has the last bytes, and the upload is taken back."""
    images = Images(tmp_path / "shop")
    images.add(images.image({"lib/data": noise(1_500_000, 3)}), "1.0")
    path = images.path.joinpath("blobs", "sha256", sha256(layer_of(images))[7:])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError):
        push(server, images)
    assert not registry.blobs and not registry.manifests and not registry.uploads
    assert server.asked("DELETE")


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, b'{"errors": [{"code": "SIZE_INVALID", "message": "no"}]}', RegistryError, "SIZE_INVALID: no"),
        (403, b'{"errors": [{"code": "DENIED", "message": "read only"}]}', DeniedError, "does not allow.*read only"),
        (405, b"", RegistryError, "does not say why"),
    ],
)
def test_refusals(
    registry: MemoryRegistry,
    server: Server,
    images: Images,
    status: int,
    body: bytes,
    error: type[LayerstoreError],
    message: str,
) -> None:
    registry.misbehave = lambda request: Answer(status, {}, body) if request.method == "POST" else None
    with pytest.raises(error, match=message):
        push(server, images)


def test_a_registry_that_changes_manifests(registry: MemoryRegistry, server: Server, images: Images) -> None:
    told = Answer(201, {"Docker-Content-Digest": sha256(b"other")})
    registry.misbehave = lambda request: told if request.method == "PUT" and "manifests" in request.path else None
    with pytest.raises(RegistryError, match="it changes manifests"):
        push(server, images)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (None, "does not say where"),
        ("http://192.0.2.1/upload", "not encrypted"),
        ("ftp://127.0.0.1/upload", "no address"),
        ("/upload\tx", "no address"),
    ],
)
def test_uploads_that_lead_nowhere(
    registry: MemoryRegistry, server: Server, images: Images, location: str | None, message: str
) -> None:
    headers = {} if location is None else {"Location": location}
    registry.misbehave = lambda request: Answer(202, headers) if request.method == "POST" else None
    options = ConnectionOptions(tries=2, back_off_seconds=0.01)
    with pytest.raises(RegistryError, match=message):
        push(server, images, options)


def test_uploads_at_another_host_get_no_credentials(registry: MemoryRegistry, images: Images) -> None:
    other = MemoryRegistry()
    with serving(other) as elsewhere, serving(registry) as server:

        def misbehave(request: Request) -> Answer | None:
            if "Authorization" not in request.headers:
                return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
            if request.method == "POST":
                location = f"/v2/shop/blobs/uploads/{len(other.uploads)}"
                other.uploads[location] = b""
                return Answer(202, {"Location": elsewhere.url + location})
            return None

        registry.misbehave = misbehave
        options = ConnectionOptions(plain_http=True, credentials=lambda _: Credentials("shop", "word"))
        push(server, images, options)
        assert other.blobs[sha256(layer_of(images))] == layer_of(images)
        assert elsewhere.requests
        assert not any("Authorization" in request.headers for request in elsewhere.requests)


def test_a_registry_that_notes_subjects_needs_no_tag(registry: MemoryRegistry, server: Server, tmp_path: Path) -> None:
    images = Images(tmp_path / "signed")
    image = images.image({"a": b"a"})
    images.add(image, "1.0")
    images.add(images.signature(image))

    def misbehave(request: Request) -> Answer | None:
        if request.method != "PUT" or "manifests" not in request.path:
            return None
        answer = registry._manifest(request, request.path.rpartition("/")[2])
        if b"subject" in request.body:
            answer.headers["OCI-Subject"] = image["digest"]
        return answer

    registry.misbehave = misbehave
    push(server, images)
    assert set(registry.manifests) == {"1.0", *(root["digest"] for root in images.roots)}


def test_a_tag_of_referrers_that_is_something_else_stays(
    registry: MemoryRegistry, server: Server, tmp_path: Path
) -> None:
    images = Images(tmp_path / "signed")
    image = images.image({"a": b"a"})
    images.add(images.signature(image))
    tag = image["digest"].replace(":", "-")
    registry.hold_manifest(tag, "text/plain", b"mine")
    with pytest.raises(InvalidManifestError, match="JSON"):
        push(server, images)
    assert registry.manifests[tag] == ("text/plain", b"mine")
