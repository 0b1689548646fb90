"""What a copy takes along, and what it refuses."""

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from places_samples import (
    CONFIG,
    LAYER,
    MANIFEST,
    Json,
    LayoutMaker,
    layer_tar,
    noise,
    platform_of,
    sample_layout,
    tree,
)

from layerstore.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidInputError,
    InvalidManifestError,
    InvalidOptionError,
    InvalidReferenceError,
    NoSpaceError,
)
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor
from layerstore.places.copying import copy
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.layout import OCILayout
from layerstore.progress import Progress


@pytest.fixture
def maker(tmp_path: Path) -> LayoutMaker:
    return LayoutMaker(tmp_path / "shop")


def copied(maker: LayoutMaker, *references: str, **options: object) -> list[tuple[str, str | None]]:
    target = OCILayout(maker.path.parent / "copy")
    copy(OCILayout(maker.path), target, references or None, **options)  # type: ignore[arg-type]
    return [(root.descriptor.digest, root.name) for root in target.roots()]


def test_references_are_names_digests_or_whole_references(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    digest = maker.roots[1]["digest"]
    assert copied(maker, "1.0") == [(maker.roots[0]["digest"], "1.0")]
    assert copied(maker, digest)[1:] == [(digest, "1.1")]
    assert copied(maker, "docker.io/library/shop:multi")[2:] == [(maker.roots[2]["digest"], "multi")]
    with pytest.raises(ImageNotFoundError, match=r"no image 'web:1\.0': it has 1\.0, 1\.1, multi"):
        copied(maker, "web:1.0")


def test_only_so_many_names_are_listed(maker: LayoutMaker) -> None:
    image = maker.image([])
    for number in range(30):
        maker.list_root(image, f"v{number}")
    with pytest.raises(ImageNotFoundError, match=r"v9 and 20 more$"):
        copied(maker, "none")


def test_a_platform_picks_one_image_as_the_root(maker: LayoutMaker) -> None:
    names = ("linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "windows/amd64")
    children = [
        maker.image([layer_tar({name: b""})], platform=name) | {"platform": platform_of(name)} for name in names
    ]
    root = maker.list_root(maker.index(children), "1.0")
    digests = dict(zip(names, (child["digest"] for child in children), strict=True))
    wanted = {
        "linux/arm64": "linux/arm64/v8",
        "linux/aarch64": "linux/arm64/v8",
        "linux/arm": "linux/arm/v7",
        "linux/arm/v6": "linux/arm/v6",
        "linux/arm/v8": "linux/arm/v7",
        "linux/amd64/v3": "linux/amd64",
        "Linux/x86_64": "linux/amd64",
    }
    for text, name in wanted.items():
        assert (digests[name], "1.0") in copied(maker, "1.0", platform=text), text
    assert root["digest"] not in {digest for digest, _ in copied(maker, platform="linux/arm64")}
    with pytest.raises(ImageNotFoundError, match=r"not there for linux/s390x; it is for: linux/amd64, linux/arm/v6"):
        copied(maker, platform="linux/s390x")
    with pytest.raises(InvalidOptionError, match="no platform"):
        copied(maker, platform="linux")


def test_a_missing_child_of_an_index_is_named_with_its_platform(maker: LayoutMaker) -> None:
    there, missing = (
        maker.image([layer_tar({name: b""})], platform=name) | {"platform": platform_of(name)}
        for name in ("linux/amd64", "linux/arm64")
    )
    maker.blob_path(missing["digest"]).unlink()
    maker.list_root(maker.index([there, missing]), "1.0")
    with pytest.raises(BlobNotFoundError, match=r"linux/arm64: copy one platform that is there"):
        copied(maker)
    assert copied(maker, platform="linux/amd64") == [(there["digest"], "1.0")]


def test_indexes_nest_to_a_limit(maker: LayoutMaker) -> None:
    inner = maker.image([layer_tar({"a": b"1"})])
    for _ in range(8):
        inner = maker.index([inner, inner])
    maker.list_root(inner, "deep")
    assert copied(maker) == [(inner["digest"], "deep")]
    maker.list_root(maker.index([inner]), "deeper")
    with pytest.raises(InvalidManifestError, match="more than 8 deep"):
        copied(maker, "deeper")


def test_documents_are_bounded(maker: LayoutMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.list_root(maker.index([maker.image([layer_tar({str(n): b""})]) for n in range(5)]), "wide")
    monkeypatch.setattr("layerstore.oci.closure.DOCUMENTS_MAX", 9)
    with pytest.raises(InvalidManifestError, match="too many documents"):
        copied(maker)
    assert not (maker.path.parent / "copy").exists()


def test_a_huge_document_is_not_read(maker: LayoutMaker) -> None:
    root = maker.image([])
    maker.list_root(root | {"size": DOCUMENT_SIZE_MAX + 1}, "1.0")
    with pytest.raises(InvalidManifestError, match=f"documents over {DOCUMENT_SIZE_MAX}"):
        copied(maker)


def test_a_document_that_calls_itself_otherwise_is_refused(maker: LayoutMaker) -> None:
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    maker.list_root(maker.image([]) | {"mediaType": docker}, "1.0")
    with pytest.raises(InvalidManifestError, match="its descriptor calls it"):
        copied(maker)


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"[]",
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}',
        b"[" * 100_000,
    ],
    ids=["cut", "array", "version", "both", "deep"],
)
def test_a_malformed_document_is_refused(maker: LayoutMaker, document: bytes) -> None:
    maker.list_root(maker.blob(document, MANIFEST), "1.0")
    with pytest.raises(InvalidManifestError, match=maker.roots[0]["digest"]):
        copied(maker)


def test_what_is_no_image_at_all_is_refused(maker: LayoutMaker) -> None:
    maker.list_root(maker.blob(b"text", "text/plain"), "1.0")
    with pytest.raises(InvalidManifestError, match="not that of a manifest"):
        copied(maker)


def test_one_digest_with_two_sizes_is_refused(maker: LayoutMaker) -> None:
    layer = maker.layer(layer_tar({"a": b"1"}))
    config = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    layers = [layer, layer | {"size": layer["size"] + 1}]
    maker.list_root(maker.json({"schemaVersion": 2, "config": config, "layers": layers}, MANIFEST), "1.0")
    with pytest.raises(InvalidManifestError, match="is said to have"):
        copied(maker)


def artifact(maker: LayoutMaker, text: str, subject: Json | None = None) -> Json:
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x-note",
        "config": maker.blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [maker.blob(text.encode(), "text/plain; charset=utf-8")],
    }
    return maker.json(manifest | ({"subject": subject} if subject else {}), MANIFEST, artifactType="application/x-note")


def test_referrers_are_found_by_subject_and_by_tag(maker: LayoutMaker) -> None:
    image = maker.image([layer_tar({"a": b"1"})])
    other = maker.image([layer_tar({"b": b"1"})])
    names = ("mediaType", "digest", "size")
    maker.list_root(image, "1.0")
    maker.list_root(other, "other")
    signature = maker.list_root(artifact(maker, "signature", {key: image[key] for key in names}))
    second = maker.list_root(artifact(maker, "of a signature", {key: signature[key] for key in names}))
    maker.list_root(artifact(maker, "elsewhere", {key: other[key] for key in names}))
    tagged = maker.list_root(artifact(maker, "cosign"), image["digest"].replace(":", "-") + ".sig")
    assert copied(maker, "1.0") == [(image["digest"], "1.0")]
    found = dict(copied(maker, "1.0", referrers=True))
    assert set(found) == {root["digest"] for root in (image, signature, second, tagged)}


def test_an_artifact_without_its_subject(maker: LayoutMaker) -> None:
    gone = {"mediaType": MANIFEST, "digest": "sha256:" + "0" * 64, "size": 1}
    root = maker.list_root(artifact(maker, "text", gone), "note")
    assert copied(maker) == [(root["digest"], "note")]
    assert tree(maker.path.parent / "copy") == tree(maker.path)


def test_a_large_config_is_streamed(maker: LayoutMaker) -> None:
    config = maker.blob(noise(1, 5 << 20), "application/x-model")
    maker.list_root(maker.json({"schemaVersion": 2, "config": config, "layers": []}, MANIFEST), "1.0")
    copied(maker)
    assert tree(maker.path.parent / "copy") == tree(maker.path)


def test_an_index_may_list_anything(maker: LayoutMaker) -> None:
    maker.list_root(maker.index([maker.image([]), maker.blob(b"notes", "text/plain")]), "1.0")
    copied(maker)
    assert tree(maker.path.parent / "copy") == tree(maker.path)


def test_a_foreign_layer_may_be_absent_and_no_other(maker: LayoutMaker) -> None:
    foreign = maker.blob(b"foreign", "application/vnd.oci.image.layer.nondistributable.v1.tar")
    layer = maker.layer(layer_tar({"a": b"1"}))
    config = maker.blob(b"{}", CONFIG)
    manifest = {"schemaVersion": 2, "config": config, "layers": [foreign, layer]}
    maker.list_root(maker.json(manifest, MANIFEST), "1.0")
    maker.blob_path(foreign["digest"]).unlink()
    report = copy(OCILayout(maker.path), OCILayout(maker.path.parent / "copy"))
    assert (report.blobs_copied, report.blobs_absent) == (1, 1)
    maker.blob_path(layer["digest"]).unlink()
    with pytest.raises(BlobNotFoundError, match=layer["digest"]):
        copy(OCILayout(maker.path), OCILayout(maker.path.parent / "second"))
    assert not (maker.path.parent / "second").exists()
    # What the target has need not be in the source.
    assert copy(OCILayout(maker.path), OCILayout(maker.path.parent / "copy")).blobs_present == 1


def test_names_towards_and_from_references(tmp_path: Path) -> None:
    shop, web = sample_layout(tmp_path / "Shop_Front.oci"), sample_layout(tmp_path / "web")
    first = DockerArchive(tmp_path / "first.tar")
    copy(OCILayout(shop.path), first, ["1.0", "1.1"])
    assert [root.name for root in first.roots()] == ["shop-front:1.0", "shop-front:1.1"]
    second = DockerArchive(tmp_path / "second.tar")
    copy(OCILayout(web.path), second, ["1.0"], name="registry.example:5000/team/app:9")
    assert [root.name for root in second.roots()] == ["registry.example:5000/team/app:9"]
    target = OCILayout(tmp_path / "target")
    copy(first, target)
    copy(second, target, ["registry.example:5000/team/app:9"])
    assert [root.name for root in target.roots()] == ["1.0", "1.1", "9"]


def test_whole_references_where_tags_alone_would_collide(maker: LayoutMaker) -> None:
    maker.list_root(maker.image([layer_tar({"a": b"1"})]), "shop:1.0")
    maker.list_root(maker.image([layer_tar({"b": b"1"})]), "web:1.0")
    archive = DockerArchive(maker.path.parent / "both.tar")
    copy(OCILayout(maker.path), archive)
    target = OCILayout(maker.path.parent / "target")
    copy(archive, target)
    assert [root.name for root in target.roots()] == ["shop:1.0", "web:1.0"]


def test_a_name_that_cannot_be_a_reference_is_refused(maker: LayoutMaker) -> None:
    maker.list_root(maker.image([]), "my image: the second")
    with pytest.raises(InvalidReferenceError):
        copy(OCILayout(maker.path), DockerArchive(maker.path.parent / "d.tar"))
    assert not (maker.path.parent / "d.tar").exists()
    copy(OCILayout(maker.path), DockerArchive(maker.path.parent / "d.tar"), name="shop:2")


def test_names_that_come_to_the_same(maker: LayoutMaker) -> None:
    maker.list_root(maker.image([layer_tar({"a": b"1"})]), "1.0")
    maker.list_root(maker.image([layer_tar({"b": b"1"})]), "shop:1.0")
    with pytest.raises(InvalidInputError, match="two images would be called"):
        copy(OCILayout(maker.path), DockerArchive(maker.path.parent / "d.tar"))
    assert len(copied(maker)) == 2


def test_one_name_for_several_images_is_refused(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    with pytest.raises(InvalidOptionError, match="3 images"):
        copied(maker, name="latest")


def test_one_name_in_the_source_for_several_images(maker: LayoutMaker) -> None:
    roots = [
        maker.list_root(maker.image([], platform=name) | {"platform": platform_of(name)}, "1.0")
        for name in ("linux/amd64", "linux/arm64")
    ]
    with pytest.raises(InvalidInputError, match=r"several images '1\.0'"):
        copied(maker)
    assert copied(maker, platform="linux/arm64") == [(roots[1]["digest"], "1.0")]
    assert copied(maker, roots[0]["digest"])[-1] == (roots[0]["digest"], "1.0")


def test_progress_of_each_blob_and_of_all(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    seen: list[Progress] = []
    thread = threading.get_ident()

    def on_progress(progress: Progress) -> None:
        assert threading.get_ident() == thread
        seen.append(progress)

    target = OCILayout(tmp_path / "copy")
    report = copy(OCILayout(maker.path), target, on_progress=on_progress)
    last = {progress.subject: progress for progress in seen}
    assert len(last) == report.blobs_copied + 1
    assert all(progress.done == progress.total and not progress.note for progress in last.values())
    assert last[str(maker.path)].total == report.bytes_copied
    seen.clear()
    copy(OCILayout(maker.path), target, on_progress=on_progress)
    assert {progress.note for progress in seen if progress.subject != str(maker.path)} == {"already there"}


class SlowLayout(OCILayout):
    """One blob fails while the others wait for it."""

    def __init__(self, path: Path, failing: str) -> None:
        super().__init__(path)
        self.failing = failing
        self.begun: list[str] = []
        self.failed = threading.Event()

    @contextmanager
    def read_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        with super().read_blob(descriptor) as blocks:
            if descriptor.media_type.startswith(LAYER):
                self.begun.append(descriptor.digest)
                yield self._fail() if descriptor.digest == self.failing else self._wait(blocks)
            else:
                yield blocks

    def _fail(self) -> Iterator[bytes]:
        yield b"not what it should be"
        self.failed.set()

    def _wait(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(blocks)
        assert self.failed.wait(20)
        for _ in range(200):  # ends early, as the copy has stopped
            threading.Event().wait(0.01)
            yield b""
        yield from blocks


def test_the_first_error_stops_the_others(maker: LayoutMaker) -> None:
    maker.list_root(maker.image([layer_tar({"a": noise(seed, 100)}) for seed in range(12)], "none"), "1.0")
    manifest = json.loads(maker.blob_path(maker.roots[0]["digest"]).read_bytes())
    source = SlowLayout(maker.path, manifest["layers"][1]["digest"])
    with pytest.raises(
        (DigestMismatchError, InvalidManifestError), match=r"not the expected|where its descriptor says"
    ):
        copy(source, OCILayout(maker.path.parent / "copy"), jobs=3)
    assert len(source.begun) < 12
    assert not (maker.path.parent / "copy").exists()


def test_one_images_foreign_layer_that_another_one_needs_is_missed(maker: LayoutMaker) -> None:
    layer = maker.layer(layer_tar({"a": b"1"}))
    maker.blob_path(layer["digest"]).unlink()
    config = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    foreign = layer | {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
    for one, name in ((layer, "needs"), (foreign, "foreign")):
        maker.list_root(maker.json({"schemaVersion": 2, "config": config, "layers": [one]}, MANIFEST), name)
    assert copied(maker, "foreign")
    for names in (("needs", "foreign"), ("foreign", "needs")):
        with pytest.raises(BlobNotFoundError, match=layer["digest"]):
            copied(maker, *names)


def test_a_large_blob_is_read_ahead_and_an_error_on_either_side_ends_it(
    maker: LayoutMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    data = noise(1, 12 << 20)
    blob = maker.blob(data, "application/x-thing")
    config = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    maker.list_root(maker.json({"schemaVersion": 2, "config": config, "layers": [blob]}, MANIFEST), "1.0")
    before = threading.active_count()
    real = os.pwrite

    def full(file: int, data: bytes, offset: int) -> int:
        if offset >= 1 << 20:
            raise OSError(errno.ENOSPC, "no room")
        return real(file, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        with pytest.raises(NoSpaceError):
            copied(maker)
    maker.blob_path(blob["digest"]).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestMismatchError):
        copied(maker)
    maker.blob_path(blob["digest"]).write_bytes(data)
    writing: set[int] = set()
    reading: set[int] = set()
    monkeypatch.setattr("os.pwrite", _noting(writing, real))
    monkeypatch.setattr("os.pread", _noting(reading, os.pread))
    copied(maker)
    assert threading.active_count() == before
    assert reading - writing - {threading.get_ident()}
    again = maker.path.parent / "copy" / "blobs" / "sha256" / blob["digest"].partition(":")[2]
    assert again.read_bytes() == data


def _noting(threads: set[int], function: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*given: Any) -> Any:
        threads.add(threading.get_ident())
        return function(*given)

    return noting
