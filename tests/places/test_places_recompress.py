"""Copies whose layers are compressed otherwise."""

import gzip
import json
import subprocess
from pathlib import Path

import pytest
from places_samples import Json, LayoutMaker, layer_tar, needs, noise, platform_of, run, sample_layout, sha256, tree

from layerstore import Store
from layerstore._zstd import zstd
from layerstore.errors import BlobNotFoundError, InvalidOptionError, OversizedError
from layerstore.places.archive import OCIArchive
from layerstore.places.copying import CopyReport, copy
from layerstore.places.layout import OCILayout
from layerstore.places.recompress import Compression, encode

BASE = layer_tar({"base": noise(1, 30_000) * 50})
APP = layer_tar({"app": b"text\n" * 9999})
SUFFIXES = {"none": "tar", "gzip": "tar+gzip", "zstd": "tar+zstd"}
DECODERS = {"none": bytes, "gzip": gzip.decompress, "zstd": zstd.decompress}


def recopy(maker: LayoutMaker, compression: str) -> tuple[CopyReport, Path]:
    target = maker.path.parent / f"as-{compression}"
    return copy(OCILayout(maker.path), OCILayout(target), compression=compression), target


def load(layout: Path, descriptor: Json) -> bytes:
    data = layout.joinpath("blobs", *descriptor["digest"].split(":")).read_bytes()
    assert (len(data), sha256(data)) == (descriptor["size"], descriptor["digest"])
    return data


def roots_of(layout: Path) -> list[Json]:
    return list(json.loads((layout / "index.json").read_bytes())["manifests"])


@pytest.mark.parametrize("before", SUFFIXES)
@pytest.mark.parametrize("after", SUFFIXES)
def test_layers_are_the_same_and_compressed_otherwise(tmp_path: Path, before: str, after: str) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    original = maker.list_root(maker.image([BASE, APP], before), "1.0")
    report, target = recopy(maker, after)
    (root,) = roots_of(target)
    assert (report.images[0].digest, report.images[0].source_digest) == (root["digest"], original["digest"])
    assert (root == original) is (before == after)
    manifest = json.loads(load(target, root))
    assert [layer["mediaType"].partition("layer.v1.")[2] for layer in manifest["layers"]] == [SUFFIXES[after]] * 2
    assert [DECODERS[after](load(target, layer)) for layer in manifest["layers"]] == [BASE, APP]
    assert manifest["config"] == json.loads(load(maker.path, original))["config"]
    again, _ = recopy(maker, after)
    assert [image.digest for image in again.images] == [root["digest"]]
    assert again.blobs_copied == 0


def test_gzip_is_that_of_pgzip_on_every_machine() -> None:
    blocks = [BASE[start : start + 70_001] for start in range(0, len(BASE), 70_001)]
    whole = b"".join(encode(blocks, Compression.GZIP))
    assert whole == b"".join(encode([BASE], Compression.GZIP))
    assert whole[:10] == bytes.fromhex("1f8b08000000000000ff")
    assert gzip.decompress(whole) == BASE
    assert gzip.decompress(b"".join(encode([], Compression.GZIP))) == b""
    assert zstd.decompress(b"".join(encode([], Compression.ZSTD))) == b""


def test_an_index_with_attestations_and_a_signature(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    names = ("mediaType", "digest", "size")
    children = [
        maker.image([BASE, layer_tar({"arch": name.encode()})], platform=name) | {"platform": platform_of(name)}
        for name in ("linux/amd64", "linux/arm64")
    ]
    statement = maker.blob(b'{"predicate":1}', "application/vnd.in-toto+json")
    config = {
        "architecture": "unknown",
        "os": "unknown",
        "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]},
    }
    manifest_type = children[0]["mediaType"]
    attestation = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": maker.json(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [statement],
        "subject": {key: children[0][key] for key in names},
    }
    annotations = {
        "vnd.docker.reference.digest": children[0]["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    last = maker.json(attestation, manifest_type, annotations=annotations, platform=platform_of("unknown/unknown"))
    index = maker.list_root(maker.index([*children, last]), "1.0")
    empty = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    note = {"schemaVersion": 2, "artifactType": "a/b", "config": empty, "layers": [empty], "x-kept": True}
    maker.list_root(maker.json(note | {"subject": {key: index[key] for key in names}}, manifest_type))
    gone = {"mediaType": manifest_type, "digest": "sha256:" + "0" * 64, "size": 5}
    stays = maker.list_root(maker.json(note | {"subject": gone}, manifest_type))

    _, target = recopy(maker, "zstd")
    new_index, new_note, new_stays = roots_of(target)
    assert new_stays == stays
    entries = json.loads(load(target, new_index))["manifests"]
    assert [entry["platform"] for entry in entries] == [child["platform"] for child in (*children, last)]
    assert entries[2]["annotations"] == annotations | {"vnd.docker.reference.digest": entries[0]["digest"]}
    new_attestation = json.loads(load(target, entries[2]))
    assert new_attestation["subject"] == {key: entries[0][key] for key in names}
    assert new_attestation["layers"] == [statement]
    assert json.loads(load(target, new_note))["subject"] == {key: new_index[key] for key in names}
    assert json.loads(load(target, new_note))["x-kept"] is True
    # Nothing of the old images has been brought along.
    copy(OCILayout(target), OCILayout(tmp_path / "again"))
    assert tree(tmp_path / "again" / "blobs") == tree(target / "blobs")


def test_what_describes_the_old_compression_goes(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    image = maker.image([BASE])
    manifest = json.loads(load(maker.path, image))
    toc = {"containerd.io/snapshot/stargz/toc.digest": sha256(b""), "title": "base"}
    manifest["layers"][0] |= {"annotations": toc, "urls": ["https://example.org/base"]}
    maker.list_root(maker.json(manifest, image["mediaType"]), "1.0")
    _, target = recopy(maker, "none")
    (layer,) = json.loads(load(target, roots_of(target)[0]))["layers"]
    assert layer == {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": sha256(BASE),
        "size": len(BASE),
        "annotations": {"title": "base"},
    }


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.places.recompress.DECODED_SIZE_FREE", 1 << 20)
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([bytes(100 << 20)], "zstd"), "1.0")
    with pytest.raises(OversizedError):
        recopy(maker, "gzip")
    assert not (tmp_path / "as-gzip").exists()


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="choose one of none, gzip, zstd"):
        recopy(sample_layout(tmp_path / "shop"), "bzip2")


@pytest.mark.parametrize("compression", SUFFIXES)
def test_layers_that_a_store_has_without_their_encodings(tmp_path: Path, store: Store, compression: str) -> None:
    layer = store.push_layer(BASE).layer
    image = store.create_image([layer], tag="shop:1.0")
    report = copy(store, OCIArchive(tmp_path / "a.tar"), compression=compression)
    assert (report.images[0].digest == image.digest) is (compression == "none")
    copy(OCIArchive(tmp_path / "a.tar"), OCILayout(tmp_path / "layout"))
    (root,) = roots_of(tmp_path / "layout")
    (entry,) = json.loads(load(tmp_path / "layout", root))["layers"]
    assert DECODERS[compression](load(tmp_path / "layout", entry)) == BASE


@pytest.mark.parametrize("compression", SUFFIXES)
def test_layers_that_are_only_there_decoded(tmp_path: Path, compression: str) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    root = maker.list_root(maker.image([BASE, APP]), "1.0")
    for layer in json.loads(load(maker.path, root))["layers"]:
        maker.blob_path(layer["digest"]).unlink()
    with pytest.raises(BlobNotFoundError):
        copy(OCILayout(maker.path), OCILayout(tmp_path / "never"))
    for tar in (BASE, APP):
        maker.layer(tar, "none")
    report, target = recopy(maker, compression)
    manifest = json.loads(load(target, roots_of(target)[0]))
    assert [DECODERS[compression](load(target, layer)) for layer in manifest["layers"]] == [BASE, APP]
    assert report.blobs_copied == 2


def test_skopeo_agrees_that_it_is_the_same_image(tmp_path: Path) -> None:
    needs("skopeo")
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([BASE, APP], "none"), "1.0")
    _, target = recopy(maker, "gzip")
    run("skopeo", "copy", "--dest-decompress", f"oci:{target}:1.0", f"dir:{tmp_path}/dir")
    assert (tmp_path / "dir" / sha256(BASE)[7:]).read_bytes() == BASE
    assert subprocess.run(["gzip", "-t"], input=load(target, first_layer(target)), check=False).returncode == 0


def first_layer(layout: Path) -> Json:
    return dict(json.loads(load(layout, roots_of(layout)[0]))["layers"][0])
