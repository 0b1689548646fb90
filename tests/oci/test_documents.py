import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError
from layerstore.oci import media_types
from layerstore.oci.documents import (
    DOCUMENT_SIZE_MAX,
    Descriptor,
    Index,
    Manifest,
    Platform,
    image_manifest,
    parse_descriptor,
    parse_index,
    parse_manifest,
    serialize,
)

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64
C = "sha256:" + "c" * 64
EMPTY = {"mediaType": media_types.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2, "data": "e30="}

# As `docker push` sends it: indented by three spaces.
DOCKER = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.DOCKER_MANIFEST,
        "config": {"mediaType": media_types.DOCKER_CONFIG, "size": 7023, "digest": A},
        "layers": [
            {"mediaType": media_types.DOCKER_LAYER_GZIP, "size": 29126484, "digest": B},
            {
                "mediaType": media_types.DOCKER_FOREIGN_LAYER_GZIP,
                "size": 1,
                "digest": C,
                "urls": ["https://example.com/layer"],
            },
        ],
    },
    indent=3,
).encode()

# As buildah commits it: compact, annotated, with the base image named.
BUILDAH = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": A, "size": 1470},
        "layers": [
            {"mediaType": media_types.OCI_LAYER_GZIP, "digest": B, "size": 2812636},
            {"mediaType": media_types.OCI_LAYER_ZSTD, "digest": C, "size": 0, "annotations": {"io.example": ""}},
        ],
        "annotations": {
            "org.opencontainers.image.base.digest": A,
            "org.opencontainers.image.base.name": "docker.io/library/alpine:3.20",
        },
    },
    separators=(",", ":"),
).encode()

# As crane and older tools write it: without a media type.
CRANE = json.dumps(
    {
        "schemaVersion": 2,
        "config": {"mediaType": media_types.OCI_CONFIG, "size": 250, "digest": A},
        "layers": [{"mediaType": media_types.OCI_LAYER, "size": 10240, "digest": "blake3:" + "b" * 64}],
    }
).encode()

# A signature or a bill of materials that is attached to an image.
ARTIFACT = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": "application/vnd.example.sbom.v1",
        "config": EMPTY,
        "layers": [{"mediaType": "text/plain; charset=utf-8", "digest": B, "size": 3}],
        "subject": {"mediaType": media_types.OCI_MANIFEST, "digest": C, "size": 7682},
    }
).encode()

INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            {
                "mediaType": media_types.OCI_MANIFEST,
                "digest": A,
                "size": 480,
                "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
            },
            {
                "mediaType": media_types.OCI_MANIFEST,
                "digest": B,
                "size": 480,
                "platform": {
                    "architecture": "amd64",
                    "os": "windows",
                    "os.version": "10.0.14393.1066",
                    "os.features": ["win32k"],
                },
            },
            {
                "mediaType": media_types.OCI_MANIFEST,
                "digest": C,
                "size": 566,
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
                "platform": {"architecture": "unknown", "os": "unknown"},
            },
        ],
    }
).encode()


def manifest(**changes: Any) -> bytes:
    """A valid manifest with some fields changed; ``...`` takes a field out."""
    fields = {**json.loads(BUILDAH), **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def layer(**changes: Any) -> bytes:
    """A valid manifest with one layer, some of whose fields are changed; ``...`` takes a field out."""
    fields = {"mediaType": media_types.OCI_LAYER, "digest": B, "size": 1, **changes}
    return manifest(layers=[{name: value for name, value in fields.items() if value is not ...}])


def test_docker_manifest() -> None:
    parsed = parse_manifest(DOCKER)
    assert parsed.media_type == media_types.DOCKER_MANIFEST
    assert parsed.schema_version == 2
    assert parsed.config.digest == Digest(A)
    assert type(parsed.config.digest) is Digest
    assert [item.size for item in parsed.layers] == [29126484, 1]
    assert parsed.layers[1].urls == ("https://example.com/layer",)


def test_buildah_manifest() -> None:
    parsed = parse_manifest(BUILDAH)
    assert parsed.annotations["org.opencontainers.image.base.name"] == "docker.io/library/alpine:3.20"
    assert parsed.layers[1].annotations == {"io.example": ""}
    assert parsed.subject is None
    assert serialize(parsed) == BUILDAH


def test_manifest_without_a_media_type_is_an_oci_one() -> None:
    assert parse_manifest(CRANE).media_type == media_types.OCI_MANIFEST
    assert parse_manifest(manifest(mediaType=None)).media_type == media_types.OCI_MANIFEST
    assert parse_index(b'{"schemaVersion":2,"manifests":[]}').media_type == media_types.OCI_INDEX


def test_artifact_manifest() -> None:
    parsed = parse_manifest(ARTIFACT)
    assert parsed.artifact_type == "application/vnd.example.sbom.v1"
    assert parsed.subject is not None
    assert parsed.subject.digest == C
    assert parsed.config.data == "e30="


def test_index() -> None:
    parsed = parse_index(INDEX)
    assert [item.platform.os for item in parsed.manifests if item.platform] == ["linux", "windows", "unknown"]
    windows = parsed.manifests[1].platform
    assert windows == Platform(
        architecture="amd64", os="windows", os_version="10.0.14393.1066", os_features=("win32k",)
    )
    docker_list = INDEX.replace(media_types.OCI_INDEX.encode(), media_types.DOCKER_INDEX.encode())
    assert parse_index(docker_list).media_type == media_types.DOCKER_INDEX


@pytest.mark.parametrize("data", [DOCKER, BUILDAH, CRANE, ARTIFACT])
def test_written_manifests_read_the_same(data: bytes) -> None:
    parsed = parse_manifest(data)
    assert parse_manifest(serialize(parsed)) == parsed
    assert json.loads(serialize(parsed)) == {"mediaType": media_types.OCI_MANIFEST, **json.loads(data)}


def test_written_indexes_and_descriptors_read_the_same() -> None:
    parsed = parse_index(INDEX)
    assert json.loads(serialize(parsed)) == json.loads(INDEX)
    descriptor = parsed.manifests[1]
    assert parse_descriptor(serialize(descriptor)) == descriptor


def test_unknown_fields_are_kept() -> None:
    extra: dict[str, Any] = {
        "x": None,
        "y": [1, 2.5, {"z": "ü", "a": [], "n": None, "f": False}],
        "": 0,
        "copy": 1,
        "_p": 2,
        "__class__": 3,
    }
    # A Python name of a known field is as unknown as any other.
    extra["media_type"] = "application/x"
    data = manifest(**extra, config={**EMPTY, **extra})
    parsed = parse_manifest(data)
    assert parsed.model_extra == extra
    assert parsed.media_type == media_types.OCI_MANIFEST
    assert parsed.config.model_extra == extra
    assert json.loads(serialize(parsed)) == json.loads(data)
    assert parse_manifest(serialize(parsed)) == parsed


def test_null_stands_for_absent() -> None:
    parsed = parse_manifest(manifest(annotations=None, subject=None, layers=None, artifactType=None))
    assert (parsed.annotations, parsed.subject, parsed.layers) == ({}, None, ())
    assert b'"layers":[]' in serialize(parsed)
    assert b"annotations" not in serialize(parsed)
    described = parse_manifest(layer(urls=None, annotations=None, data=None, platform=None)).layers[0]
    assert (described.urls, described.annotations, described.platform) == ((), {}, None)


def test_nulls_share_no_state() -> None:
    first, second = (parse_manifest(manifest(annotations=None)) for _ in range(2))
    assert first.annotations is not second.annotations


def test_serialize_is_canonical() -> None:
    one = Descriptor(media_type="a/b", digest=Digest(A), size=0, annotations={"b": "2", "a": "ü"})
    other = Descriptor(annotations={"a": "ü", "b": "2"}, size=0, digest=Digest(A), media_type="a/b")
    expected = f'{{"mediaType":"a/b","digest":"{A}","size":0,"annotations":{{"a":"ü","b":"2"}}}}'.encode()
    assert serialize(one) == serialize(other) == expected
    spaced = b'{ "z": {"k": 1, "j": 2}, "size": 0, "digest": "%b", "y": null, "mediaType": "a/b" }' % A.encode()
    assert serialize(parse_descriptor(spaced)).endswith(b',"size":0,"y":null,"z":{"j":2,"k":1}}')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800", {1: 2, "a": 3}])
def test_serialize_refuses_what_json_cannot_express(value: object) -> None:
    fields: dict[str, Any] = {"media_type": "a/b", "digest": Digest(A), "size": 1, "x": value}
    with pytest.raises(InvalidManifestError, match="cannot be written"):
        serialize(Descriptor.model_validate(fields))


def test_documents_are_frozen() -> None:
    parsed = parse_manifest(BUILDAH)
    with pytest.raises(ValueError, match="frozen"):
        parsed.schema_version = 3


def test_image_manifest() -> None:
    config = Descriptor(media_type=media_types.OCI_CONFIG, digest=Digest(A), size=10)
    base = Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=Digest(B), size=20)
    made = image_manifest(config, iter([base]), annotations={"a": "b"})
    assert serialize(made).startswith(b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",')
    assert parse_manifest(serialize(made)) == made
    assert b"annotations" not in serialize(image_manifest(config, []))
    with pytest.raises(InvalidManifestError, match=r"annotations\.a: .*string"):
        image_manifest(config, [base], annotations={"a": 1})  # type: ignore[dict-item]


REFUSED = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"null", "object"),
    (b"[]", "object"),
    (b'"text"', "object"),
    (b"{}", "schemaVersion: Field required"),
    (b"\xef\xbb\xbf" + BUILDAH, "BOM"),
    (BUILDAH.decode().encode("utf-16"), "not UTF-8"),
    (manifest(x="é").replace(b"\\u00e9", b"\xe9"), "not UTF-8"),
    (BUILDAH + b"{}", "not JSON"),
    (BUILDAH[:-1] + b',"schemaVersion":2}', "'schemaVersion' stands twice"),
    (BUILDAH[:-1] + b',"x":[{"a":1,"a":1}]}', "'a' stands twice"),
    (BUILDAH[:-1] + b',"schema\\u0056ersion":2}', "'schemaVersion' stands twice"),
    (BUILDAH[:-1] + b',"x":NaN}', "NaN"),
    (BUILDAH[:-1] + b',"x":-Infinity}', "-Infinity"),
    (BUILDAH[:-1] + b',"x":1e999}', "out of range"),
    (BUILDAH[:-1] + b',"x":' + b"9" * 5000 + b"}", "not JSON"),
    (BUILDAH[:-1] + b',"x":"\\ud800"}', "Invalid JSON"),
    (BUILDAH[:-1] + b',"x":"\x00"}', "not JSON"),
    (b"[" * 1_000_000, "nested too deeply"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    (b" " * (DOCUMENT_SIZE_MAX + 1), f"{DOCUMENT_SIZE_MAX + 1} bytes"),
    (BUILDAH[:-1] + b',"manifests":[' + b"{}," * 600_000 + b"{}]}", "more than 1000000 names and values"),
    (BUILDAH[:-1] + b',"x":[' + b'"",' * 600_000 + b"0]}", "more than 1000000 names and values"),
    (BUILDAH[:-1] + b',"x":"' + b'\\"' * 3_000_000, "not JSON"),
    (BUILDAH[:-1] + b',"x":"' + b"," * 3_000_000 + b"\\", "not JSON"),
    (manifest(schemaVersion=1), "schemaVersion: must be 2, not 1"),
    (manifest(schemaVersion="2"), "schemaVersion: .*integer"),
    (manifest(schemaVersion=2.0), "schemaVersion: .*integer"),
    (manifest(schemaVersion=True), "schemaVersion: .*integer"),
    (manifest(schemaVersion=None), "schemaVersion: .*integer"),
    (manifest(schemaVersion=...), "schemaVersion: Field required"),
    (manifest(mediaType=media_types.OCI_INDEX), "mediaType: .*not the media type of a manifest"),
    (manifest(mediaType=""), "mediaType: "),
    (manifest(mediaType=1), "mediaType: .*string"),
    (manifest(config=...), "config: Field required"),
    (manifest(config=None), "config: .*object"),
    (manifest(config="x"), "config: .*object"),
    (manifest(layers=...), "layers: Field required"),
    (manifest(layers={}), "layers: "),
    (manifest(layers=[1]), r"layers\[0\]: .*object"),
    (manifest(annotations={"a": 1}), "annotations.a: .*string"),
    (manifest(annotations={"a": None}), "annotations.a: .*string"),
    (manifest(annotations=[]), "annotations: "),
    (manifest(subject={}), "subject.mediaType: Field required"),
    (manifest(manifests=[]), "'manifests' belongs to another"),
    (manifest(fsLayers=[]), "'fsLayers' belongs to another"),
    (layer(size=-1), r"layers\[0\]\.size: .*greater than or equal to 0"),
    (layer(size="1"), r"layers\[0\]\.size: .*integer"),
    (layer(size=1.0), r"layers\[0\]\.size: .*integer"),
    (layer(size=False), r"layers\[0\]\.size: .*integer"),
    (layer(size=2**63), r"layers\[0\]\.size: .*less than"),
    (layer(size=10**100), r"layers\[0\]\.size: .*less than"),
    (layer(size=...), r"layers\[0\]\.size: Field required"),
    (layer(digest=...), r"layers\[0\]\.digest: Field required"),
    (layer(digest="sha256:" + "A" * 64), r"layers\[0\]\.digest: .*lower-case"),
    (layer(digest="md5:" + "a" * 32), r"layers\[0\]\.digest: .*no digest"),
    (layer(digest=1), r"layers\[0\]\.digest: .*string"),
    (layer(mediaType=...), r"layers\[0\]\.mediaType: Field required"),
    (layer(mediaType=""), r"layers\[0\]\.mediaType: "),
    (layer(mediaType="tar"), r"layers\[0\]\.mediaType: "),
    (layer(mediaType="a/b\r\nX-Header: 1"), r"layers\[0\]\.mediaType: "),
    (layer(mediaType="a/" + "b" * 300), r"layers\[0\]\.mediaType: "),
    (layer(media_type="a/b", mediaType=...), r"layers\[0\]\.mediaType: Field required"),
    (layer(urls="http://example"), r"layers\[0\]\.urls: "),
    (layer(urls=[1]), r"layers\[0\]\.urls\[0\]: .*string"),
    (layer(data=1), r"layers\[0\]\.data: .*string"),
    (layer(platform={"os": "linux"}), r"layers\[0\]\.platform\.architecture: Field required"),
]


@pytest.mark.parametrize(("data", "says"), REFUSED, ids=range(len(REFUSED)))
def test_refuses_and_says_where_and_what(data: bytes, says: str) -> None:
    with pytest.raises(InvalidManifestError, match=says) as caught:
        parse_manifest(data)
    assert len(str(caught.value)) < 1000
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (INDEX[:-1] + b',"layers":[]}', "'layers' belongs to another"),
        (INDEX[:-1] + b',"config":{}}', "'config' belongs to another"),
        (BUILDAH, "not the media type of an index"),
        (b'{"schemaVersion":2}', "manifests: Field required"),
        (b'{"schemaVersion":1,"manifests":[]}', "must be 2"),
    ],
)
def test_index_refuses(data: bytes, says: str) -> None:
    with pytest.raises(InvalidManifestError, match=says):
        parse_index(data)


def test_moderate_nesting_is_fine() -> None:
    data = BUILDAH[:-1] + b',"x":' + b"[" * 100 + b"]" * 100 + b"}"
    parsed = parse_manifest(data)
    assert parse_manifest(serialize(parsed)) == parsed


@pytest.mark.parametrize("depth", range(150, 1200, 25))
def test_any_nesting_is_read_and_written_or_refused(depth: int) -> None:
    data = BUILDAH[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}"
    try:
        serialize(parse_manifest(data))
    except InvalidManifestError:
        assert depth > 150


def test_an_error_names_only_the_first_of_many_faults() -> None:
    faulty = manifest(annotations={str(number): number for number in range(1000)})
    with pytest.raises(InvalidManifestError, match="and 997 more"):
        parse_manifest(faulty)


def test_the_largest_document_is_read() -> None:
    assert parse_manifest(BUILDAH + b" " * (DOCUMENT_SIZE_MAX - len(BUILDAH))) == parse_manifest(BUILDAH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations", "manifests"]
)


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_only_the_declared_error_comes_out_of_arbitrary_bytes(data: bytes) -> None:
    for parse in (parse_manifest, parse_index, parse_descriptor):
        with pytest.raises(InvalidManifestError):
            parse(data)


@given(st.dictionaries(FIELDS | st.text(), JSON, max_size=5))
def test_only_the_declared_error_comes_out_of_mutated_manifests(changes: dict[str, Any]) -> None:
    try:
        parsed = parse_manifest(manifest(**changes))
    except InvalidManifestError:
        return
    assert parse_manifest(serialize(parsed)) == parsed


@given(st.integers(0, len(BUILDAH) - 1), st.binary(max_size=3))
def test_only_the_declared_error_comes_out_of_damaged_manifests(position: int, patch: bytes) -> None:
    try:
        parsed = parse_manifest(BUILDAH[:position] + patch + BUILDAH[position + len(patch) :])
    except InvalidManifestError:
        return
    assert isinstance(parsed, Manifest)
    assert not isinstance(parsed, Index)
