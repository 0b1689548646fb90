"""Manifests that are larger than others: 4 MiB, which every registry has to take, and more."""

import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from places_samples import layer_tar, needs
from registry_requests import INDEX, OCI, Registry, descriptor, image_of, index_of, manifest_of
from threaded_server import served

from layerstore import Digest, Store
from layerstore.oci.documents import CONFIG_SIZE_MAX, DOCUMENT_SIZE_MAX
from layerstore.places.copying import copy
from layerstore.places.layout import OCILayout
from layerstore.registry.client.remote import RemoteRepository
from layerstore.registry.server import repositories
from layerstore.registry.server.settings import ServerSettings

MIB = 1 << 20
LAYER = layer_tar({"file": b"contents" * 1000})


def manifest_of_size(size: int, text: str = "x") -> bytes:
    """The manifest of an image of `LAYER`, with an annotation that fills it up."""
    manifest, _ = image_of(LAYER)
    document = json.loads(manifest) | {"annotations": {"filling": ""}}
    filling = size - len(json.dumps(document))
    return json.dumps(document | {"annotations": {"filling": text * filling}}).encode()


def push_blobs(registry: Registry, repository: str) -> None:
    for blob in (LAYER, image_of(LAYER)[1]):
        assert registry.push_blob(repository, blob).status == 201


@pytest.mark.parametrize("size", [4 * MIB, 4 * MIB + 1, 8 * MIB])
def test_a_large_manifest_comes_back_byte_for_byte(registry: Registry, size: int, tmp_path: Path) -> None:
    manifest = manifest_of_size(size)
    assert len(manifest) == size
    push_blobs(registry, "a")
    assert registry.put("a", "large", manifest).status == 201
    digest = Digest.of(manifest)
    for reference in ("large", digest):
        answer = registry.manifest("a", reference)
        assert (answer.status, answer.body == manifest) == (200, True)
    head = registry.ask("HEAD", "/v2/a/manifests/large")
    assert (head.status, head.headers["content-length"]) == (200, str(size))
    copy(RemoteRepository(f"{registry.address}/a:large"), OCILayout(tmp_path / "layout"))
    with Store.create(tmp_path / "again") as again:
        copy(OCILayout(tmp_path / "layout"), again, name="a")
        assert again.read_document(digest) == manifest
        assert again.verify().is_clean


def test_the_limit_of_the_configuration_is_the_last_size_that_is_taken(settings: ServerSettings) -> None:
    with served(replace(settings, manifest_size_max=5 * MIB)) as registry:
        push_blobs(registry, "a")
        assert registry.put("a", "last", manifest_of_size(5 * MIB)).status == 201
        refused = registry.put("a", "over", manifest_of_size(5 * MIB + 1))
    assert (refused.status, refused.code) == (413, "SIZE_INVALID")


def test_the_largest_document_of_all_is_taken_if_it_is_allowed(settings: ServerSettings) -> None:
    manifest = manifest_of_size(DOCUMENT_SIZE_MAX)
    with served(replace(settings, manifest_size_max=DOCUMENT_SIZE_MAX)) as registry:
        push_blobs(registry, "a")
        assert registry.put("a", "largest", manifest).status == 201
        assert registry.manifest("a", "largest").body == manifest
        assert registry.put("a", "over", manifest_of_size(DOCUMENT_SIZE_MAX + 1)).status == 413
    with Store.open(settings.store) as store:
        assert store.verify().is_clean
    Store.rebuild_index(settings.store)
    with Store.open(settings.store) as store:
        assert store.read_document(Digest.of(manifest)) == manifest


def test_an_index_over_four_mebibytes(registry: Registry) -> None:
    push_blobs(registry, "a")
    manifest, _ = image_of(LAYER)
    registry.put("a", "one", manifest)
    filled = json.loads(index_of(manifest)) | {"annotations": {"filling": "é" * (3 * MIB)}}
    index = json.dumps(filled, ensure_ascii=False).encode()
    assert len(index) > 4 * MIB
    assert registry.put("a", "index", index, INDEX).status == 201
    assert registry.manifest("a", "index").body == index


def test_few_bytes_that_would_take_much_memory_are_refused(registry: Registry) -> None:
    push_blobs(registry, "a")
    manifest, _ = image_of(LAYER)
    for piece in (b"{},", b"[],", b"0,", b'"",', b'{"a":{}},'):
        hostile = manifest[:-1] + b', "x": [' + piece * (4 * MIB // len(piece)) + b"0]}"
        answer = registry.put("a", "hostile", hostile)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID"), piece
        assert "names and values" in str(answer.json)


def test_signs_that_stand_in_texts_are_not_counted(registry: Registry) -> None:
    push_blobs(registry, "a")
    manifest = manifest_of_size(5 * MIB, text=",")
    assert registry.put("a", "commas", manifest).status == 201


def test_large_manifests_that_come_at_once_take_turns(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[int] = []
    most = 0
    parse = repositories.parse_image

    def counted(data: bytes) -> object:
        nonlocal most
        if len(data) > MIB:
            running.append(1)
            most = max(most, len(running))
            try:
                return parse(data)
            finally:
                running.pop()
        return parse(data)

    monkeypatch.setattr(repositories, "parse_image", counted)
    statuses = []

    def push(number: int) -> None:
        manifest = manifest_of_size(2 * MIB + number)
        statuses.append(registry.put("a", f"tag{number}", manifest).status)
        statuses.append(registry.manifest("a", f"tag{number}").status)

    with served(settings) as registry:
        push_blobs(registry, "a")
        threads = [threading.Thread(target=push, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200] * 12 + [201] * 12
    assert 1 <= most <= repositories.LARGE_DOCUMENTS_AT_ONCE


def test_what_breaks_off_leaves_nothing(settings: ServerSettings) -> None:
    with served(settings) as registry:
        push_blobs(registry, "a")
        before = sorted(path.name for path in settings.folder.rglob("*"))
        assert registry.put("a", "none", b"{" * (3 * MIB)).status == 400
        assert registry.put("a", "none", b"x" * (9 * MIB)).status == 413
        assert sorted(path.name for path in settings.folder.rglob("*")) == before


def test_a_config_over_four_mebibytes_is_a_blob(registry: Registry) -> None:
    config = b"m" * (CONFIG_SIZE_MAX + 1)
    manifest = manifest_of(descriptor(config, "application/x-model"), descriptor(LAYER, f"{OCI}.layer.v1.tar"))
    push_blobs(registry, "a")
    assert registry.push_blob("a", config).status == 201
    assert registry.put("a", "model", manifest).status == 201
    assert registry.blob("a", config).body == config


def test_skopeo_pulls_a_manifest_of_four_mebibytes(registry: Registry, tmp_path: Path) -> None:
    needs("skopeo")
    push_blobs(registry, "a")
    manifest = manifest_of_size(4 * MIB)  # it reads no larger ones
    registry.put("a", "large", manifest)
    source, sink = f"docker://{registry.address}/a:large", f"dir:{tmp_path}/pulled"
    command = ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", source, sink]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "pulled" / "manifest.json").read_bytes() == manifest


def test_pages_of_a_large_image_are_made_at_once(registry: Registry) -> None:
    """Those who look at it, its list and its files wait for each other, and none for ever."""
    push_blobs(registry, "a")
    manifest = manifest_of_size(2 * MIB)
    registry.put("a", "large", manifest)
    digest = Digest.of(manifest)
    statuses = []
    paths = (f"/images/a@{digest}", "/repositories/a", f"/images/a@{digest}/files", "/", f"/v2/a/manifests/{digest}")
    threads = [
        threading.Thread(target=lambda path=path: statuses.append(registry.ask("GET", path).status))
        for path in paths * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * len(threads)
