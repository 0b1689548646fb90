"""OCI layouts as folders: same bytes, names as skopeo keeps them, and nothing over symbolic links."""

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from places_samples import MANIFEST, REF_NAME, LayoutMaker, dumps, layer_tar, noise, sample_layout, tree

from layerstore.digest import Digest
from layerstore.errors import (
    BlobNotFoundError,
    ConflictError,
    DigestMismatchError,
    InvalidInputError,
    InvalidManifestError,
    LayerstoreError,
    UnsupportedFormatError,
)
from layerstore.oci.documents import DOCUMENT_SIZE_MAX
from layerstore.places.copying import copy
from layerstore.places.files import TEMPORARY_PREFIX, opened_directory, temporary_within
from layerstore.places.layout import OCILayout


def test_a_copy_has_the_same_bytes_in_all_files(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    report = copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(maker.path)
    assert [image.name for image in report.images] == ["1.0", "1.1", "multi"]
    assert report.blobs_present == 0
    assert report.blobs_copied + report.documents == len(list((maker.path / "blobs").rglob("*"))) - 1


def test_a_second_copy_copies_nothing(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    target = OCILayout(tmp_path / "copy")
    first = copy(OCILayout(maker.path), target)
    before = {file: file.stat().st_mtime_ns for file in target.path.rglob("*") if file.is_file()}
    again = copy(OCILayout(maker.path), target)
    assert (again.blobs_copied, again.blobs_present) == (0, first.blobs_copied)
    assert {file: file.stat().st_mtime_ns for file in target.path.rglob("*") if file.is_file()} == before


def test_the_index_is_written_as_the_go_tools_do(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    image = maker.image([layer_tar({"a": b"1"})])
    fields = {"platform": {"architecture": "arm", "os": "linux", "variant": "v7"}, "artifactType": "a/b"}
    maker.list_root(image | {"annotations": {"title": "salt & <pepper>"}} | fields, "1.0")
    maker.list_root(maker.image([layer_tar({"b": b"1"})]))
    text = (maker.path / "index.json").read_text().replace("&", "\\u0026").replace("<", "\\u003c")
    (maker.path / "index.json").write_text(text.replace(">", "\\u003e").replace(REF_NAME, REF_NAME))
    target = tmp_path / "copy"
    copy(OCILayout(maker.path), OCILayout(target), ["1.0"])
    copy(OCILayout(maker.path), OCILayout(target), [maker.roots[1]["digest"]])
    written = (target / "index.json").read_text()
    assert json.loads(written) == json.loads((maker.path / "index.json").read_text())
    assert (
        '"annotations":{"org.opencontainers.image.ref.name":"1.0","title":"salt \\u0026 \\u003cpepper\\u003e"},'
        in written
    )
    assert '"platform":{"architecture":"arm","os":"linux","variant":"v7"},"artifactType":"a/b"}' in written
    assert written.startswith('{"schemaVersion":2,"manifests":[{"mediaType"')


def test_unknown_fields_of_both_files_stay(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    index = json.loads((maker.path / "index.json").read_text())
    (maker.path / "index.json").write_bytes(dumps(index | {"annotations": {"by": "hand"}, "x-more": [1]}) + b"\n")
    (maker.path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0","x":1}\n')
    target = tmp_path / "copy"
    copy(OCILayout(maker.path), OCILayout(target))
    assert tree(target) == tree(maker.path)
    copy(OCILayout(maker.path), OCILayout(target), ["1.0"], name="again")
    changed = json.loads((target / "index.json").read_text())
    assert changed["x-more"] == [1]
    assert changed["annotations"] == {"by": "hand"}
    assert (target / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0","x":1}\n'


def test_a_name_is_taken_from_what_had_it(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    target = tmp_path / "copy"
    for reference in ("1.0", "1.1", "1.1"):
        copy(OCILayout(maker.path), OCILayout(target), [reference], name="latest")
    listed = json.loads((target / "index.json").read_text())["manifests"]
    assert [(entry["digest"], entry.get("annotations")) for entry in listed] == [
        (maker.roots[0]["digest"], None),
        (maker.roots[1]["digest"], {REF_NAME: "latest"}),
    ]


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"mine")
    with pytest.raises(ConflictError, match="not empty"):
        copy(OCILayout(maker.path), OCILayout(tmp_path / "other"))
    assert tree(tmp_path / "other") == {"file": b"mine"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ConflictError, match="no folder"):
        copy(OCILayout(maker.path), OCILayout(tmp_path / "file"))


def test_a_failing_writer_takes_nothing_from_another(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    root = OCILayout(maker.path).roots()[0]
    document = OCILayout(maker.path).read_document(root.descriptor)
    target = OCILayout(tmp_path / "copy")
    with ExitStack() as second:
        with pytest.raises(KeyError), target.writing():
            writer = second.enter_context(target.writing())
            raise KeyError
        writer.put_blob(root.descriptor, [document])
        writer.put_root(root, {})
    assert target.roots() == [root]
    with pytest.raises(KeyError), OCILayout(tmp_path / "alone").writing():
        raise KeyError
    assert not (tmp_path / "alone").exists()


def test_an_index_that_nobody_would_read_is_not_written(tmp_path: Path) -> None:
    target = OCILayout(tmp_path / "copy")
    for number in range(3):
        maker = LayoutMaker(tmp_path / f"shop{number}")
        image = maker.image([layer_tar({str(number): b""})])
        maker.list_root(image | {"annotations": {"x": "y" * (DOCUMENT_SIZE_MAX * 3 // 8)}}, f"v{number}")
        if number < 2:
            copy(OCILayout(maker.path), target)
    with pytest.raises(InvalidManifestError, match="nobody reads"):
        copy(OCILayout(maker.path), target)
    assert len(target.roots()) == 2


@pytest.mark.parametrize("missing", ["oci-layout", "index.json"])
def test_what_is_no_layout_is_refused(tmp_path: Path, missing: str) -> None:
    maker = sample_layout(tmp_path / "shop")
    (maker.path / missing).unlink()
    with pytest.raises(InvalidInputError, match=missing):
        OCILayout(maker.path).roots()
    with pytest.raises(InvalidInputError, match="no such folder"):
        OCILayout(tmp_path / "nothing").roots()


def test_another_version_is_refused(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    (maker.path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(UnsupportedFormatError, match=r"2\.0\.0"):
        OCILayout(maker.path).roots()


def spoil_link(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    outside = path.parents[3] / "outside"
    outside.write_bytes(data)
    path.symlink_to(outside)


def spoil_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def spoil_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def spoil_long(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


SPOILS = [
    (spoil_link, InvalidInputError),
    (spoil_fifo, InvalidInputError),
    (spoil_folder, InvalidInputError),
    (spoil_bit, DigestMismatchError),
    (spoil_short, InvalidManifestError),
    (spoil_long, InvalidManifestError),
    (Path.unlink, BlobNotFoundError),
]


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
@pytest.mark.parametrize(("spoil", "error"), SPOILS, ids=[spoil.__name__ for spoil, _ in SPOILS])
def test_a_spoiled_blob_is_refused_and_nothing_is_left(tmp_path: Path, part: str, spoil, error) -> None:  # type: ignore[no-untyped-def]
    maker = LayoutMaker(tmp_path / "shop")
    root = maker.list_root(maker.image([layer_tar({"a": noise(3, 3_000_000)})]), "1.0")
    manifest = json.loads(maker.blob_path(root["digest"]).read_bytes())
    digest = {"manifest": root, "config": manifest["config"], "layer": manifest["layers"][0]}[part]["digest"]
    spoil(maker.blob_path(digest))
    with pytest.raises(error):
        copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_folders_of_blobs_are_not_followed_either(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    (maker.path / "blobs").rename(tmp_path / "elsewhere")
    (maker.path / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match="symbolic link"):
        copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"))
    target = tmp_path / "target"
    copy(OCILayout(sample_layout(tmp_path / "good").path), OCILayout(target), ["1.0"])
    (tmp_path / "outside").mkdir()
    for file in (target / "blobs" / "sha256").iterdir():
        file.unlink()
    (target / "blobs" / "sha256").rmdir()
    (target / "blobs" / "sha256").symlink_to(tmp_path / "outside")
    with pytest.raises(LayerstoreError):
        copy(OCILayout(tmp_path / "good"), OCILayout(target))
    assert not list((tmp_path / "outside").iterdir())


def test_a_blob_of_the_wrong_size_in_the_target_is_written_anew(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    target = OCILayout(tmp_path / "copy")
    copy(OCILayout(maker.path), target)
    for spoil in (spoil_short, spoil_fifo, spoil_link):
        for blob in sorted((target.path / "blobs" / "sha256").iterdir())[:3]:
            spoil(blob)
        copy(OCILayout(maker.path), target)
        assert tree(target.path) == tree(maker.path)
        assert not any(blob.is_symlink() for blob in (target.path / "blobs" / "sha256").iterdir())


def test_leftovers_are_removed_unless_they_are_being_written(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    target = tmp_path / "copy"
    target.mkdir()
    (target / f"{TEMPORARY_PREFIX}0123456789abcdef").write_bytes(b"left behind")
    with opened_directory(target) as root, temporary_within(root) as (_, name):
        copy(OCILayout(maker.path), OCILayout(target))
        assert {file.name for file in target.iterdir()} == {"blobs", "index.json", "oci-layout", name}
    assert tree(target) == tree(maker.path)


def test_digests_of_other_algorithms(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    config = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    layer = maker.blob(b"some bytes", "application/x-some", "sha512")
    manifest = {"schemaVersion": 2, "artifactType": "a/b", "config": config, "layers": [layer]}
    maker.list_root(maker.blob(dumps(manifest), MANIFEST, "sha512"), "thing")
    copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(maker.path)


def test_an_interrupted_copy_publishes_nothing_and_goes_on(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"a": noise(seed, 300_000)}) for seed in range(4)]), "1.0")
    manifest = json.loads(maker.blob_path(maker.roots[0]["digest"]).read_bytes())
    last = maker.blob_path(manifest["layers"][3]["digest"])
    good = last.read_bytes()
    spoil_bit(last)
    target = OCILayout(tmp_path / "copy")
    with pytest.raises(DigestMismatchError):
        copy(OCILayout(maker.path), target, jobs=1)
    assert target.roots() == []
    assert not [file for file in target.path.iterdir() if file.name.startswith(TEMPORARY_PREFIX)]
    assert Digest.of(good) not in {f"sha256:{file.name}" for file in (target.path / "blobs" / "sha256").iterdir()}
    last.write_bytes(good)
    report = copy(OCILayout(maker.path), target)
    assert (report.blobs_copied, report.blobs_present) == (1, 3)
    assert tree(target.path) == tree(maker.path)
