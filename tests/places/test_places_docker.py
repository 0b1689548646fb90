"""Docker archives, old and new, made by hand as docker save and skopeo make them."""

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from places_samples import (
    Json,
    LayoutMaker,
    add_file,
    dumps,
    layer_tar,
    noise,
    platform_of,
    sample_layout,
    sha256,
    tar_of_folder,
    tree,
)

from layerstore.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    InvalidInputError,
    InvalidManifestError,
)
from layerstore.places.archive import OCIArchive
from layerstore.places.copying import copy
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.layout import OCILayout

BASE = layer_tar({"base": noise(1, 20_000)})
APP = layer_tar({"app": noise(2, 5_000)})


def docker_config(*tars: bytes) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]}
    return dumps({"architecture": "amd64", "os": "linux", "docker_version": "20.10", "rootfs": rootfs})


def link(name: str, target: str, type_: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = type_
    info.linkname = target
    return info


def old_archive(path: Path, entries: Any, files: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            if isinstance(data, bytes):
                add_file(tar, name, data)
            else:
                tar.addfile(data)
        if entries is not None:
            add_file(tar, "manifest.json", dumps(entries))
    return path


def sample_old(path: Path) -> Path:
    config, small = docker_config(BASE, APP), docker_config(BASE)
    entries = [
        {
            "Config": "c.json",
            "RepoTags": ["shop:1.0", "docker.io/library/shop:latest"],
            "Layers": ["1/layer.tar", "2/layer.tar"],
        },
        {"Config": "s.json", "RepoTags": None, "Layers": ["3/layer.tar"]},
    ]
    files: dict[str, bytes | tarfile.TarInfo] = {
        "c.json": config,
        "s.json": small,
        "1/VERSION": b"1.0",
        "1/layer.tar": BASE,
        "2/layer.tar": gzip.compress(APP, mtime=0),
        "3/layer.tar": link("3/layer.tar", "../1/layer.tar"),
    }
    return old_archive(path, entries, files)


def test_the_old_form_gets_manifests(tmp_path: Path) -> None:
    source = DockerArchive(sample_old(tmp_path / "shop.tar"))
    roots = source.roots()
    assert [root.name for root in roots] == ["shop:1.0", "shop:latest", None]
    assert roots[0].descriptor == roots[1].descriptor
    manifest = json.loads(source.read_document(roots[0].descriptor))
    assert manifest["config"]["digest"] == sha256(docker_config(BASE, APP))
    assert [(layer["mediaType"].rpartition(".")[2], layer["digest"]) for layer in manifest["layers"]] == [
        ("tar", sha256(BASE)),
        ("tar+gzip", sha256(gzip.compress(APP, mtime=0))),
    ]
    assert DockerArchive(source.path).roots() == roots
    report = copy(source, OCILayout(tmp_path / "layout"))
    assert [image.name for image in report.images] == ["1.0", "latest", None]
    assert report.blobs_copied == 2


@pytest.mark.parametrize(
    ("target", "type_", "error"),
    [
        ("/etc/passwd", tarfile.SYMTYPE, InvalidInputError),
        ("../../etc/passwd", tarfile.SYMTYPE, InvalidInputError),
        ("layer.tar", tarfile.SYMTYPE, InvalidInputError),
        ("../../1/layer.tar", tarfile.SYMTYPE, InvalidInputError),
        ("../2/layer.tar", tarfile.SYMTYPE, BlobNotFoundError),
        ("../../etc/passwd", tarfile.LNKTYPE, InvalidInputError),
        ("", tarfile.CHRTYPE, InvalidInputError),
        ("", tarfile.DIRTYPE, InvalidInputError),
    ],
)
def test_links_lead_nowhere_but_into_the_archive(tmp_path: Path, target: str, type_: bytes, error) -> None:  # type: ignore[no-untyped-def]
    entries = [{"Config": "c.json", "RepoTags": ["shop:1.0"], "Layers": ["1/layer.tar"]}]
    files = {"c.json": docker_config(BASE), "1/layer.tar": link("1/layer.tar", target, type_)}
    with pytest.raises(error):
        DockerArchive(old_archive(tmp_path / "bad.tar", entries, files)).roots()


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ({}, InvalidManifestError),
        ([{"Config": 1}], InvalidManifestError),
        ([{"RepoTags": []}], InvalidManifestError),
        ([{"Config": "none.json", "Layers": []}], BlobNotFoundError),
        ([{"Config": "../c.json", "Layers": ["1/layer.tar"]}], BlobNotFoundError),
        ([{"Config": "c.json", "Layers": ["none"]}], BlobNotFoundError),
        ([{"Config": "c.json", "Layers": []}], InvalidManifestError),
        ([{"Config": "c.json", "Layers": ["1/layer.tar"] * 2}], InvalidManifestError),
        ([{"Config": "c.json", "Layers": ["c.json"]}], DigestMismatchError),
        ([{"Config": "1/layer.tar", "Layers": ["c.json"]}], InvalidManifestError),
        ([{"Config": "c.json", "Layers": ["1/layer.tar"], "RepoTags": ["No Name"]}], InvalidInputError),
        (None, InvalidInputError),
    ],
)
def test_a_malformed_list_of_images_is_refused(tmp_path: Path, entries: Any, error) -> None:  # type: ignore[no-untyped-def]
    files: dict[str, bytes | tarfile.TarInfo] = {"c.json": docker_config(BASE), "1/layer.tar": BASE}
    with pytest.raises(error):
        DockerArchive(old_archive(tmp_path / "bad.tar", entries, files)).roots()


def test_the_new_form_keeps_its_manifests(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "layout")
    first, second = maker.image([BASE, APP], "none"), maker.image([BASE], "none")
    maker.list_root(first | {"annotations": {"io.containerd.image.name": "docker.io/library/shop:1.0"}}, "1.0")
    maker.list_root(second)
    config = json.loads(maker.blob_path(second["digest"]).read_bytes())["config"]["digest"]
    entries = [{"Config": f"blobs/{config.replace(':', '/')}", "RepoTags": ["web:2", "web:latest"], "Layers": []}]
    archive = tar_of_folder(
        maker.path, tmp_path / "shop.tar", lambda tar: add_file(tar, "manifest.json", dumps(entries))
    )
    assert [(root.name, root.descriptor.digest) for root in DockerArchive(archive).roots()] == [
        ("shop:1.0", first["digest"]),
        ("web:2", second["digest"]),
        ("web:latest", second["digest"]),
    ]
    copy(DockerArchive(archive), OCILayout(tmp_path / "again"))
    again = tree(tmp_path / "again")
    assert {name: data for name, data in again.items() if name.startswith("blobs")} == {
        name: data for name, data in tree(maker.path).items() if name.startswith("blobs")
    }


def written(archive: Path) -> tuple[list[Json], Json]:
    with tarfile.open(archive) as tar:
        entries, index = (json.load(tar.extractfile(name)) for name in ("manifest.json", "index.json"))  # type: ignore[arg-type]
    return entries, index


def test_what_is_written_is_a_layout_and_a_list(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "a.tar", platform="linux/arm64"))
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "b.tar", platform="linux/arm64"), jobs=1)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    entries, index = written(tmp_path / "a.tar")
    assert [entry["RepoTags"] for entry in entries] == [
        [f"docker.io/library/shop:{tag}"] for tag in ("1.0", "1.1", "multi")
    ]
    arm = json.loads(maker.blob_path(maker.roots[2]["digest"]).read_bytes())["manifests"][1]
    manifest = json.loads(maker.blob_path(arm["digest"]).read_bytes())
    assert entries[2]["Config"] == "blobs/" + manifest["config"]["digest"].replace(":", "/")
    assert entries[2]["Layers"] == ["blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]]
    assert [entry["digest"] for entry in index["manifests"]] == [root["digest"] for root in maker.roots]
    assert index["manifests"][0]["annotations"] == {
        "io.containerd.image.name": "docker.io/library/shop:1.0",
        "org.opencontainers.image.ref.name": "1.0",
    }
    assert [root.name for root in DockerArchive(tmp_path / "a.tar").roots()] == ["shop:1.0", "shop:1.1", "shop:multi"]
    assert [root.name for root in OCIArchive(tmp_path / "a.tar").roots()] == ["1.0", "1.1", "multi"]


def test_the_list_has_no_artifacts_and_no_attestations(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    attestation = maker.image([APP]) | {"platform": platform_of("unknown/unknown")}
    image = maker.image([BASE], platform="linux/s390x") | {"platform": platform_of("linux/s390x")}
    maker.list_root(maker.index([attestation, image]), "1.0")
    empty = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    note = {"schemaVersion": 2, "artifactType": "a/b", "config": empty, "layers": [empty]}
    maker.list_root(maker.json(note, "application/vnd.oci.image.manifest.v1+json"), "note")
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "a.tar"))
    entries, index = written(tmp_path / "a.tar")
    config = json.loads(maker.blob_path(image["digest"]).read_bytes())["config"]["digest"]
    assert [entry["Config"] for entry in entries] == ["blobs/" + config.replace(":", "/")]
    assert len(index["manifests"]) == 2
    copy(DockerArchive(tmp_path / "a.tar"), OCILayout(tmp_path / "again"))
    blobs = tree(maker.path / "blobs")
    assert tree(tmp_path / "again" / "blobs") == blobs


def test_names_of_several_images_with_one_tag(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([BASE]), "shop:1.0")
    maker.list_root(maker.image([APP]), "quay.io/team/web:1.0")
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "a.tar"))
    archive = DockerArchive(tmp_path / "a.tar")
    assert [root.name for root in archive.roots()] == ["shop:1.0", "quay.io/team/web:1.0"]
    copy(archive, DockerArchive(tmp_path / "b.tar"))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
