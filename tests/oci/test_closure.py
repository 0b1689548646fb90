"""What hangs on a root: found whole, each document read once, within limits."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, InvalidManifestError
from layerstore.oci import closure as closure_module
from layerstore.oci.closure import Closure, Walker, gather
from layerstore.oci.documents import CONFIG_SIZE_MAX, DOCUMENT_SIZE_MAX, Descriptor
from layerstore.oci.media_types import (
    DOCKER_FOREIGN_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)

Json = dict[str, Any]


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def layer(text: str, media_type: str = OCI_LAYER_GZIP) -> Json:
    return {"mediaType": media_type, "digest": digest(text), "size": len(text)}


class Documents:
    """Documents by digest; how often each was read."""

    def __init__(self) -> None:
        self.data: dict[Digest, bytes] = {}
        self.reads: dict[Digest, int] = {}

    def add(self, document: Json | bytes, media_type: str, **more: Any) -> Json:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.data[Digest.of(data)] = data
        return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data), **more}

    def manifest(self, layers: list[Json], config: Json, **more: Any) -> Json:
        return self.add(
            {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}, OCI_MANIFEST, **more
        )

    def image(self, layers: list[Json], diff_ids: list[Digest], **more: Any) -> Json:
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        return self.manifest(layers, self.add(config, OCI_CONFIG), **more)

    def artifact(self, layers: list[Json]) -> Json:
        return self.manifest(layers, self.add(b"{}", OCI_EMPTY))

    def index(self, children: list[Json]) -> Json:
        return self.add({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}, OCI_INDEX)

    def read(self, wanted: Digest) -> bytes | None:
        self.reads[wanted] = self.reads.get(wanted, 0) + 1
        return self.data.get(wanted)

    def gather(self, root: Json) -> Closure:
        return gather(root["digest"], self.read)

    def walk(self, root: Json) -> Closure:
        walker = Walker(lambda one: self.data[one.digest], reads_configs=False)
        return walker.closure(Descriptor.model_validate_json(json.dumps(root)))


@pytest.fixture
def documents() -> Documents:
    return Documents()


def both(documents: Documents) -> list[Callable[[Json], Closure]]:
    return [documents.gather, documents.walk]


def test_everything_that_hangs_on_an_index(documents: Documents) -> None:
    one = documents.image([layer("base"), layer("one")], [digest("BASE"), digest("ONE")])
    two = documents.image([layer("base"), layer("two")], [digest("BASE"), digest("TWO")])
    note = {"mediaType": "text/plain", "digest": digest("note"), "size": 4}
    root = documents.index([one, two, note, one])
    closure = documents.gather(root)
    assert next(iter(closure.documents)) == root["digest"]
    assert closure.documents == documents.data
    assert list(closure.diff_ids) == [digest("BASE"), digest("ONE"), digest("TWO")]
    assert closure.blob_digests == (digest("base"), digest("one"), digest("two"), digest("note"))
    assert [blob.diff_id for blob in closure.blobs] == [*map(digest, ("BASE", "ONE", "BASE", "TWO")), None]
    assert list(closure.needed_blob_digests) == [digest("note")]
    assert closure.config is None
    assert set(documents.reads.values()) == {1}


def test_a_manifest_that_was_read_as_a_config_is_visited_nevertheless(documents: Documents) -> None:
    inner = documents.image([layer("one")], [digest("ONE")])
    outer = documents.manifest([layer("two")], inner)
    for children in ([outer, inner], [inner, outer]):
        for walk in both(documents):
            closure = walk(documents.index(children))
            assert set(closure.blob_digests) == {digest("one"), digest("two")}
    assert list(documents.gather(documents.index([outer, inner])).diff_ids) == [digest("ONE")]


def test_an_index_that_was_read_as_a_config_is_visited_nevertheless(documents: Documents) -> None:
    inner_index = documents.index([documents.artifact([layer("one")])])
    outer = documents.manifest([layer("two")], inner_index)
    assert set(documents.gather(documents.index([outer, inner_index])).blob_digests) == {digest("one"), digest("two")}


def test_a_layer_that_may_be_missing_once_and_is_needed_once_is_needed(documents: Documents) -> None:
    foreign = documents.image([layer("a", DOCKER_FOREIGN_LAYER_GZIP), layer("b")], [digest("A"), digest("B")])
    needing = documents.image([layer("a"), layer("c", DOCKER_FOREIGN_LAYER_GZIP)], [digest("A"), digest("C")])
    assert list(documents.gather(foreign).needed_diff_ids) == [digest("B")]
    for children in ([foreign, needing], [needing, foreign]):
        needed = documents.gather(documents.index(children)).needed_diff_ids
        assert set(needed) == {digest("A"), digest("B")}


def test_blobs_without_a_diff_id_are_needed_unless_they_come_from_elsewhere(documents: Documents) -> None:
    artifact = documents.artifact([layer("a"), layer("b", DOCKER_FOREIGN_LAYER_GZIP), layer("a")])
    assert list(documents.gather(artifact).needed_blob_digests) == [digest("a")]
    strict = documents.artifact([layer("b")])
    assert list(documents.gather(documents.index([artifact, strict])).needed_blob_digests) == [digest("a"), digest("b")]


def test_a_config_that_is_too_large_for_a_document_is_a_blob(documents: Documents) -> None:
    config = {"mediaType": "application/x-model", "digest": digest("config"), "size": CONFIG_SIZE_MAX + 1}
    root = documents.manifest([layer("a")], config)
    for walk in both(documents):
        closure = walk(root)
        assert list(closure.documents) == [root["digest"]]
        assert closure.blob_digests == (digest("config"), digest("a"))
        assert closure.config is None
    assert list(documents.gather(root).needed_blob_digests) == [digest("config"), digest("a")]


def test_a_config_of_another_number_of_layers_is_told(documents: Documents) -> None:
    closure = documents.gather(documents.image([layer("a")], [digest("A"), digest("B")]))
    assert "names 2 layers, its manifest 1" in closure.contradiction
    assert list(closure.needed_diff_ids) == [digest("A"), digest("B")]
    assert not documents.walk(documents.image([layer("a")], [digest("A"), digest("B")])).contradiction


def test_indexes_nest_to_one_limit(documents: Documents) -> None:
    inner = documents.image([layer("a")], [digest("A")])
    for _ in range(8):
        inner = documents.index([inner, inner])
    for walk in both(documents):
        assert walk(inner).blob_digests == (digest("a"),)
        with pytest.raises(InvalidManifestError, match="more than 8 deep"):
            walk(documents.index([inner]))


def test_documents_are_bounded_in_number_and_in_sum(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    root = documents.index([documents.image([layer(str(n))], [digest(f"L{n}")]) for n in range(5)])
    size = sum(map(len, documents.data.values()))
    for walk in both(documents):
        for name, limit in (("DOCUMENTS_MAX", 11), ("DOCUMENT_BYTES_MAX", size)):
            with monkeypatch.context() as patch:
                patch.setattr(closure_module, name, limit)
                walk(root)
                patch.setattr(closure_module, name, limit - 1)
                with pytest.raises(InvalidManifestError, match="too many documents"):
                    walk(root)


def test_a_document_may_not_be_larger_than_any(documents: Documents) -> None:
    config = documents.add(b" " * (DOCUMENT_SIZE_MAX + 1), "application/x-model")
    for walk in both(documents):
        with pytest.raises(InvalidManifestError, match=f"documents over {DOCUMENT_SIZE_MAX}"):
            walk(documents.index([documents.manifest([], config | {"size": 1})]))


def test_a_child_must_be_what_its_descriptor_calls_it(documents: Documents) -> None:
    child = documents.image([], [])
    for walk in both(documents):
        for called in (DOCKER_MANIFEST, OCI_INDEX):
            with pytest.raises(InvalidManifestError, match=child["digest"]):
                walk(documents.index([child | {"mediaType": called}]))
            with pytest.raises(InvalidManifestError, match=f"{child['digest']} is called"):
                walk(documents.index([child, child | {"mediaType": called}]))


def test_a_missing_document_is_named_with_its_index_and_platform(documents: Documents) -> None:
    child = documents.image([], [], platform={"os": "linux", "architecture": "arm", "variant": "v7"})
    root = documents.index([child])
    del documents.data[child["digest"]]
    with pytest.raises(
        BlobNotFoundError, match=f"{child['digest']}.* the index {root['digest']} lists for linux/arm/v7"
    ):
        documents.gather(root)
    with pytest.raises(BlobNotFoundError, match=child["digest"]):
        documents.gather(child)


def test_a_wide_index_takes_no_time(documents: Documents) -> None:
    children = [
        documents.image([layer(f"{n}-{m}") for m in range(3)], [digest(f"L{n}-{m}") for m in range(3)])
        for n in range(4500)
    ]
    root = documents.index(children)
    begin = time.process_time()
    closure = documents.gather(root)
    assert len(closure.needed_diff_ids) == sum(one in closure.needed_diff_ids for one in closure.diff_ids) == 13_500
    assert not closure.needed_blob_digests
    taken = time.process_time() - begin
    assert set(documents.reads.values()) == {1}
    assert taken < 3, taken  # 0.3 s; whatever is quadratic takes a minute
