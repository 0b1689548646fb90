"""Changed chunks over HTTP: few bytes go over the wire, and nobody gets or claims what they may not read."""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import bcrypt
import pytest
from registry_requests import OCI, Answer, Registry, descriptor, image_of, index_of, manifest_of
from samples import make_tar, noise
from server_process import ServerProcess

from layerstore import Digest, RemoteRepository, Store, copy
from layerstore.operations.difference_format import MAGIC, Copy, Head, InstructionCoder, RecordKind, encode_head
from layerstore.operations.difference_format import encode_record as record
from layerstore.registry.protocol import DIFFERENCE_TYPE

GZIP = f"{OCI}.layer.v1.tar+gzip"
OLD = {f"usr/file{n:03}": noise(20_000, n) for n in range(120)}
NEW = OLD | {"usr/file050": noise(21_000, 1000)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server") / "store", "--anonymous", "all") as process:
        yield process


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "local") as store:
        yield store


def put_image(store: Store, files: Mapping[str, bytes], tag: str, *, compressed: bool) -> bytes:
    """An image of one layer in a store; the blob of the layer."""
    layer = make_tar(files)
    blob = gzip.compress(layer, 6, mtime=0) if compressed else layer
    store.push_blob(blob, digest=Digest.of(blob))
    _, config = image_of(layer)
    kind = GZIP if compressed else f"{OCI}.layer.v1.tar"
    manifest = manifest_of(descriptor(config, f"{OCI}.config.v1+json"), descriptor(blob, kind))
    store.put_image(manifest, config, tag=tag)
    store.prove_encodings()
    return blob


def counted(server: ServerProcess, name: str) -> float:
    """A counter of the server's, over all its labels."""
    text = Registry(server.address).ask("GET", "/metrics").body.decode()
    return sum(
        float(value) for value in re.findall(rf"^layerstore_{name}_bytes_total(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
    )


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_an_update_costs_what_changed_both_ways(
    server: ServerProcess, local: Store, tmp_path: Path, compressed: bool
) -> None:
    name = f"{server.address}/updates/{'gzip' if compressed else 'plain'}"
    put_image(local, OLD, "app:1", compressed=compressed)
    blob = put_image(local, NEW, "app:2", compressed=compressed)
    copy(local, RemoteRepository(f"{name}:1"), ["app:1"])
    before = counted(server, "received")
    copy(local, RemoteRepository(f"{name}:2"), ["app:2"])
    pushed = counted(server, "received") - before
    assert 21_000 < pushed < 60_000 < len(blob) // 20, "the changed file, a few headers, config and manifest"

    with Store.create(tmp_path / "other") as other:
        copy(RemoteRepository(f"{name}:1"), other)
        before = counted(server, "sent")
        copy(RemoteRepository(f"{name}:2"), other)
        pulled = counted(server, "sent") - before
        assert 21_000 < pulled < 60_000
        assert b"".join(other.blob_blocks(Digest.of(blob))) == blob
        assert other.verify().is_clean
    plain = Registry(server.address).blob(f"updates/{'gzip' if compressed else 'plain'}", blob)
    assert plain.body == blob, "what came as a difference is a blob as any other"


def test_what_has_nothing_in_common_comes_whole(server: ServerProcess, local: Store, tmp_path: Path) -> None:
    name = f"{server.address}/unlike"
    put_image(local, {"a": noise(200_000, 7)}, "app:1", compressed=True)
    copy(local, RemoteRepository(f"{name}:1"), ["app:1"])
    with Store.create(tmp_path / "other") as other:
        put_image(other, {"b": noise(200_000, 8)}, "unlike:0", compressed=True)
        copy(RemoteRepository(f"{name}:1"), other)
        assert other.images[f"{name}:1"].digest == local.images["app:1"].digest


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"have": 1}', b'{"have": ["x"]}', b'{"have": [1]}', b"\xff", b"[" * 60_000,
     json.dumps({"have": [Digest.of(bytes([n % 256, n // 256])) for n in range(300)]}).encode()],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(server: ServerProcess, body: bytes) -> None:
    registry = Registry(server.address)
    registry.push_image("questions", "1", make_tar({"a": b"a"}))
    answer = registry.ask("POST", f"/v2/questions/_layerstore/blobs/{Digest.of(make_tar({'a': b'a'}))}", body)
    assert answer.status == 400
    assert answer.code == "UNSUPPORTED"


@pytest.mark.parametrize("data", [b"", b"junk", MAGIC, MAGIC + b"\x01\xff\xff\xff\xff\x7f"])
def test_a_difference_that_makes_no_sense_is_refused(server: ServerProcess, data: bytes) -> None:
    registry = Registry(server.address)
    digest = Digest.of(b"wanted")
    answer = registry.ask("PUT", f"/v2/questions/_layerstore/blobs/{digest}", data, {"Content-Type": DIFFERENCE_TYPE})
    assert answer.status == 400, answer
    assert registry.blob("questions", digest).status == 404
    assert not list((server.store / "registry" / "uploads").iterdir())


SECRET = make_tar({"etc/secret": noise(50_000, 99)})


class Account:
    """Requests with a name and password."""

    def __init__(self, address: str, name: str) -> None:
        self._registry = Registry(address)
        text = base64.b64encode(f"{name}:password of {name}".encode()).decode()
        self._headers = {"Authorization": f"Basic {text}"}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._registry.ask(method, path, body, self._headers | more)

    def push_blob(self, repository: str, data: bytes) -> None:
        assert self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={Digest.of(data)}", data).status == 201

    def put(self, repository: str, tag: str, manifest: bytes) -> Answer:
        kind = json.loads(manifest)["mediaType"]
        return self.ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, Content_Type=kind)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on which alice has a secret image, and mallory a repository of his own."""
    path = tmp_path_factory.mktemp("guarded")
    hashes = {one: bcrypt.hashpw(f"password of {one}".encode(), bcrypt.gensalt(4)) for one in ("alice", "mallory")}
    (path / "htpasswd").write_text("".join(f"{name}:{text.decode()}\n" for name, text in hashes.items()))
    (path / "server.yaml").write_text(
        "accounts: {htpasswd: htpasswd}\nanonymous: none\nrights:\n"
        "  - {who: [alice], repositories: [secret], actions: [read, write, delete]}\n"
        "  - {who: [mallory], repositories: ['mallory/**'], actions: [read, write, delete]}\n"
    )
    with ServerProcess(path / "store", "--config", str(path / "server.yaml")) as process:
        alice = Account(process.address, "alice")
        manifest, config = image_of(SECRET)
        for blob in (SECRET, config):
            alice.push_blob("secret", blob)
        assert alice.put("secret", "1", manifest).status == 201
        yield process


@pytest.fixture
def mallory(guarded: ServerProcess) -> Account:
    return Account(guarded.address, "mallory")


def claim(layer: Digest, *, base: Digest) -> bytes:
    """A difference that says: the layer is all of the base."""
    size = len(SECRET)
    data = MAGIC + encode_head(Head(layer, layer, size, b"", (base,)))
    return data + InstructionCoder(1).encode([Copy(0, 0, size)]) + record(RecordKind.END)


def gets_nothing(mallory: Account, repository: str) -> bool:
    """Whether none of the ways to content leads to the secret layer."""
    digest = Digest.of(SECRET)
    base = f"/v2/{repository}"
    answers = [
        mallory.ask("GET", f"{base}/blobs/{digest}"),
        mallory.ask("HEAD", f"{base}/blobs/{digest}"),
        mallory.ask("PUT", f"{base}/_layerstore/blobs/{digest}", claim(digest, base=digest)),
        mallory.ask("GET", f"{base}/blobs/{digest}"),
        mallory.ask("POST", f"{base}/_layerstore/blobs/{digest}", json.dumps({"have": [digest]}).encode()),
    ]
    known = mallory.ask("POST", f"{base}/_layerstore/layers", json.dumps({"layers": [digest]}).encode())
    assert all(SECRET[600:700] not in one.body for one in answers)
    return all(one.status in (400, 404) for one in answers) and known.json == {"layers": []}


def test_knowing_a_digest_gives_nothing(mallory: Account) -> None:
    assert gets_nothing(mallory, "mallory/a")


def test_a_config_that_claims_a_layer_gives_nothing(mallory: Account) -> None:
    """The manifest is taken, as registries do; what it claims is not believed."""
    own = make_tar({"own": b"own"})
    rootfs = {"type": "layers", "diff_ids": [Digest.of(SECRET)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    for kind in (f"{OCI}.layer.v1.tar", GZIP):
        manifest = manifest_of(descriptor(config, f"{OCI}.config.v1+json"), descriptor(own, kind))
        for blob in (own, config):
            mallory.push_blob("mallory/b", blob)
        assert mallory.put("mallory/b", "1", manifest).status == 201
        assert gets_nothing(mallory, "mallory/b")
        page = mallory.ask("GET", f"/images/mallory/b@{Digest.of(manifest)}/files?path=etc")
        assert page.status == 404
        assert b"secret" not in page.body


def test_a_layer_that_may_be_missing_gives_nothing(mallory: Account) -> None:
    _, config = image_of()
    mallory.push_blob("mallory/c", config)
    named = descriptor(SECRET, f"{OCI}.layer.nondistributable.v1.tar")
    manifest = manifest_of(descriptor(config, f"{OCI}.config.v1+json"), named)
    assert mallory.put("mallory/c", "1", manifest).status == 201
    assert gets_nothing(mallory, "mallory/c")


def test_a_manifest_cannot_name_what_its_repository_does_not_have(mallory: Account) -> None:
    _, config = image_of(SECRET)
    mallory.push_blob("mallory/d", config)
    manifest = manifest_of(descriptor(config, f"{OCI}.config.v1+json"), descriptor(SECRET))
    answer = mallory.put("mallory/d", "1", manifest)
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert gets_nothing(mallory, "mallory/d")


def test_a_config_is_no_manifest_that_an_index_can_list(mallory: Account) -> None:
    """A config may be any bytes, also a manifest that nobody has looked at."""
    _, config = image_of(SECRET)
    mallory.push_blob("mallory/i", config)
    hidden = manifest_of(descriptor(config, f"{OCI}.config.v1+json"), descriptor(SECRET))
    mallory.push_blob("mallory/i", hidden)
    outer = manifest_of(descriptor(hidden, "application/octet-stream"))
    assert mallory.put("mallory/i", "1", outer).status == 201
    answer = mallory.put("mallory/i", "2", index_of(hidden))
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert gets_nothing(mallory, "mallory/i")


def test_a_tiny_difference_cannot_ask_for_a_huge_layer(mallory: Account) -> None:
    own = make_tar({"own": noise(900_000, 5)})
    _, config = image_of(own)
    for blob in (own, config):
        mallory.push_blob("mallory/j", blob)
    manifest = manifest_of(descriptor(config, f"{OCI}.config.v1+json"), descriptor(own))
    assert mallory.put("mallory/j", "1", manifest).status == 201
    layer = Digest.of(b"whatever")
    data = MAGIC + encode_head(Head(layer, layer, 1 << 40, b"", (Digest.of(own),)))
    data += InstructionCoder(1).encode([Copy(0, 0, len(own))] * 4000) + record(RecordKind.END)
    assert mallory.ask("PUT", f"/v2/mallory/j/_layerstore/blobs/{layer}", data).status == 413


def test_a_mount_from_what_may_not_be_read_begins_an_upload(mallory: Account) -> None:
    digest = Digest.of(SECRET)
    for more in ("&from=secret", "", "&from=..%2Fsecret", "&from=SECRET"):
        answer = mallory.ask("POST", f"/v2/mallory/e/blobs/uploads/?mount={digest}{more}")
        assert answer.status == 202, more
    assert gets_nothing(mallory, "mallory/e")


def test_who_has_the_bytes_may_push_them(mallory: Account) -> None:
    """Possession is proved by sending all bytes, also of what the store has already."""
    mallory.push_blob("mallory/f", SECRET)
    assert mallory.ask("GET", f"/v2/mallory/f/blobs/{Digest.of(SECRET)}").body == SECRET
    wrong = mallory.ask("POST", f"/v2/mallory/g/blobs/uploads/?digest={Digest.of(SECRET)}", b"not the secret")
    assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")
    assert (
        gets_nothing(mallory, "mallory/g")
        or mallory.ask("GET", f"/v2/mallory/g/blobs/{Digest.of(SECRET)}").status == 404
    )
