"""What reviewers of copies found: each was wrong once."""

import gzip
import json
from pathlib import Path

import pytest
from samples import make_tar, text

from layerstore import Digest, Image, OCILayout, Store, copy
from layerstore.errors import DigestMismatchError, InvalidOptionError, InvalidReferenceError
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.opening import open_place

TAR = make_tar({"a": text(60_000, 1)})


@pytest.fixture
def odd(store: Store) -> Image:
    """An image whose layer is gzip bytes as they are, and is called a plain tar."""
    layer = store.push_layer(gzip.compress(TAR, 6, mtime=0), decode="never").layer
    return store.create_image([layer], tag="odd:1")


def other_store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "other")


def test_a_layer_that_looks_compressed_goes_out_and_in(store: Store, odd: Image, tmp_path: Path) -> None:
    copy(store, OCILayout(tmp_path / "layout"), ["odd:1"])
    with other_store(tmp_path) as other:
        copy(OCILayout(tmp_path / "layout"), other, name="odd:1")
        assert other.images["odd:1"].layers[0].diff_id == odd.layers[0].diff_id
        assert other.verify().is_clean


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_that_looks_compressed_is_compressed_as_it_is(
    store: Store, odd: Image, tmp_path: Path, compression: str
) -> None:
    copy(store, OCILayout(tmp_path / "layout"), ["odd:1"], compression=compression)
    with other_store(tmp_path) as other:
        copy(OCILayout(tmp_path / "layout"), other, name="odd:1")
        assert other.images["odd:1"].layers[0].diff_id == odd.layers[0].diff_id


def test_a_blob_that_is_not_what_the_config_says_is_not_compressed_anew(tmp_path: Path, store: Store) -> None:
    blob = gzip.compress(TAR, 6, mtime=0)
    store.create_image([store.push_layer(TAR).layer], tag="a:1")
    source = tmp_path / "layout"
    copy(store, OCILayout(source), ["a:1"])
    index = json.loads((source / "index.json").read_text())
    folder = source / "blobs" / "sha256"
    manifest = json.loads((folder / index["manifests"][0]["digest"][7:]).read_text())
    other = gzip.compress(TAR + b"more", 6, mtime=0)
    (folder / Digest.of(other).encoded).write_bytes(other)
    (folder / Digest.of(TAR).encoded).unlink()
    manifest["layers"][0] |= {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": Digest.of(other),
        "size": len(other),
    }
    data = json.dumps(manifest).encode()
    (folder / Digest.of(data).encoded).write_bytes(data)
    index["manifests"][0] |= {"digest": Digest.of(data), "size": len(data)}
    (source / "index.json").write_text(json.dumps(index))
    assert Digest.of(blob) != Digest.of(other)
    with pytest.raises(DigestMismatchError):
        copy(OCILayout(source), OCILayout(tmp_path / "new"), compression="zstd")


def test_a_digest_means_the_entry_without_a_name(store: Store, tmp_path: Path) -> None:
    image = store.create_image([store.push_layer(TAR).layer], tag="a:1")
    copy(store, OCILayout(tmp_path / "layout"), ["a:1"])
    path = tmp_path / "layout" / "index.json"
    index = json.loads(path.read_text())
    unnamed = {key: value for key, value in index["manifests"][0].items() if key != "annotations"}
    index["manifests"].append(unnamed)
    path.write_text(json.dumps(index))
    with other_store(tmp_path) as other:
        copy(OCILayout(tmp_path / "layout"), other, [image.digest])
        assert dict(other.tags) == {}


def test_a_name_that_containerd_noted_is_the_name(store: Store, tmp_path: Path) -> None:
    store.create_image([store.push_layer(TAR).layer], tag="acme/web:1.0")
    copy(store, DockerArchive(tmp_path / "web.tar"), ["acme/web:1.0"])
    source = OCILayout(tmp_path / "bx")
    copy(DockerArchive(tmp_path / "web.tar"), source)
    path = tmp_path / "bx" / "index.json"
    index = json.loads(path.read_text())
    index["manifests"][0]["annotations"]["io.containerd.image.name"] = "docker.io/acme/web:1.0"
    path.write_text(json.dumps(index))
    with other_store(tmp_path) as other:
        copy(source, other)
        assert list(other.tags) == ["acme/web:1.0"]
        copy(source, OCILayout(tmp_path / "named"), ["acme/web:1.0"])


@pytest.mark.parametrize("text", ["docker:shop:1.0", "docker-daemon:shop:1.0", "dir:shop"])
def test_places_of_other_tools_do_not_become_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOptionError, match="skopeo"):
        open_place(text)
    with pytest.raises(InvalidOptionError, match="RemoteRepository"):
        open_place("docker://reg.example/shop:1.0")
    (tmp_path / "dir:shop").mkdir(exist_ok=True)
    assert open_place("dir:shop")[1] is None


def test_a_damaged_document_of_a_layout_is_written_anew(store: Store, tmp_path: Path) -> None:
    image = store.create_image([store.push_layer(TAR).layer], tag="a:1")
    target = tmp_path / "layout"
    copy(store, OCILayout(target), ["a:1"])
    path = target / "blobs" / "sha256" / image.config_digest.encoded
    path.write_bytes(b"x" * path.stat().st_size)
    copy(store, OCILayout(target), ["a:1"])
    assert path.read_bytes() == image.config_bytes


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    store.create_image([store.push_layer(TAR).layer], tag="a:1")
    with pytest.raises(InvalidReferenceError):
        copy(store, OCILayout(tmp_path / "layout"), ["a:1"], name="\udcff")
    assert not (tmp_path / "layout").exists()


def test_a_docker_archive_lists_tags_alone(store: Store, tmp_path: Path) -> None:
    image = store.create_image([store.push_layer(TAR).layer], tag="a:1")
    copy(store, OCILayout(tmp_path / "layout"), ["a:1"])
    archive = DockerArchive(tmp_path / "a.tar")
    copy(OCILayout(tmp_path / "layout"), archive, name=f"shop@{image.digest}")
    assert b'"RepoTags":null' in (tmp_path / "a.tar").read_bytes()


def test_a_name_that_another_image_had_is_told(store: Store, tmp_path: Path) -> None:
    for number, name in enumerate(("shop:1.0", "other:1.0")):
        store.create_image([store.push_layer(make_tar({"a": text(9_000, number)})).layer], tag=name)
    target = OCILayout(tmp_path / "layout")
    assert copy(store, target, ["shop:1.0"]).replaced == ()
    assert copy(store, target, ["shop:1.0"]).replaced == ()
    assert copy(store, target, ["other:1.0"]).replaced == ("1.0",)
    assert sorted(str(root.name) for root in target.roots()) == ["1.0", "None"]
