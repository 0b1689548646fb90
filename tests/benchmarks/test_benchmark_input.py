import gzip
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.console import BenchmarkError
from benchmarks.debian_input import debian_corpus
from benchmarks.layer_tar import Node
from benchmarks.oci_input import oci_corpus, tar_corpus
from benchmarks.python_base import base_tree, patched_tree
from benchmarks.python_corpus import app_tree, python_corpus
from benchmarks.releases import BASE_DATES, RELEASES, timestamp
from benchmarks.wheels import WheelCache, wheel_tree
from benchmarks.zstd_codec import zstd


class Layout:
    """An OCI layout that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)

    def blob(self, content: bytes | dict[str, Any], **fields: Any) -> dict[str, Any]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        encoded = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs" / "sha256" / encoded).write_bytes(data)
        return {"digest": f"sha256:{encoded}", "size": len(data), **fields}

    def image(self, *layers: bytes, **fields: Any) -> dict[str, Any]:
        return self.blob({"config": self.blob({}), "layers": [self.blob(layer) for layer in layers]}, **fields)

    def index(self, *manifests: dict[str, Any]) -> None:
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


def name(value: str) -> dict[str, str]:
    return {"org.opencontainers.image.ref.name": value}


def test_oci_layers_are_decoded_and_shared(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    base, middle, top = b"base" * 100, b"middle" * 100, b"top" * 100
    packed = gzip.compress(base, mtime=0)
    layout.index(
        layout.image(packed, zstd.compress(middle), annotations=name("shop:1.0")),
        layout.image(packed, top),
    )
    corpus = oci_corpus(layout.folder, tmp_path / "work")
    assert [(image.name, image.family) for image in corpus.images] == [("shop:1.0", "shop"), ("image-2", "image-2")]
    contents = [[layer.path.read_bytes() for layer in image.layers] for image in corpus.images]
    assert contents == [[base, middle], [base, top]]
    assert [layer.digest for layer in corpus.layers] == [
        "sha256:" + hashlib.sha256(content).hexdigest() for content in (base, middle, top)
    ]
    assert corpus.logical_bytes == 2 * len(base) + len(middle) + len(top)


def test_oci_image_for_several_platforms_counts_once_and_attestations_never(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    about = {"vnd.docker.reference.type": "attestation-manifest"}
    nested = layout.blob(
        {
            "manifests": [
                layout.image(b"about", annotations=about),
                layout.image(b"amd64"),
                layout.image(b"arm64"),
            ]
        },
        annotations=name("tool:2"),
    )
    layout.index(nested)
    (image,) = oci_corpus(layout.folder, tmp_path / "work").images
    assert image.name == "tool:2"
    assert [layer.path.read_bytes() for layer in image.layers] == [b"amd64"]


def test_oci_layout_that_is_none_or_tries_to_leave_its_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="can't be read as JSON"):
        oci_corpus(tmp_path / "nothing", tmp_path / "work")
    layout = Layout(tmp_path / "layout")
    layout.index({"digest": "sha256:../../../index.json", "size": 1})
    with pytest.raises(BenchmarkError, match="no digest"):
        oci_corpus(layout.folder, tmp_path / "work")
    layout.index(layout.image(gzip.compress(b"cut off" * 100)[:30]))
    with pytest.raises(BenchmarkError, match="can't be decoded"):
        oci_corpus(layout.folder, tmp_path / "work")


def test_tar_files_are_images_of_one_layer(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.tar", tmp_path / "packed.tar.gz"
    plain.write_bytes(b"plain")
    packed.write_bytes(gzip.compress(b"packed"))
    corpus = tar_corpus([plain, packed], tmp_path / "work")
    assert [(image.name, image.layers[0].path.read_bytes()) for image in corpus.images] == [
        ("plain.tar", b"plain"),
        ("packed.tar.gz", b"packed"),
    ]
    with pytest.raises(BenchmarkError, match="not a file"):
        tar_corpus([tmp_path / "missing"], tmp_path / "work")


def test_debian_input_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="mmdebstrap is missing"):
        debian_corpus(tmp_path / "work")


def make_wheel(folder: Path, file_name: str, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / file_name, "w") as archive:
        for member, content in contents.items():
            archive.writestr(member, content)
    return folder / file_name


def test_wheels_unpack_to_where_an_installer_puts_them(tmp_path: Path) -> None:
    wheel = make_wheel(
        tmp_path,
        "shop-1.0-py3-none-any.whl",
        {"shop/__init__.py": b"1", "shop-1.0.data/scripts/shop": b"2", "shop-1.0.data/platlib/shop/x.so": b"3"},
    )
    assert {path: node.read() for path, node in wheel_tree(wheel).items()} == {
        "usr/local/lib/python3.11/site-packages/shop/__init__.py": b"1",
        "usr/local/bin/shop": b"2",
        "usr/local/lib/python3.11/site-packages/shop/x.so": b"3",
    }


def test_wheels_that_are_there_are_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path, "Shop_App-1.0-py3-none-any.whl", {"a": b""})
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("pip was run"))
    assert WheelCache(tmp_path).fetch(["shop-app==1.0"]) == {"shop-app==1.0": wheel}


def test_a_registry_out_of_reach_ends_with_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.wheels.WheelCache._download", lambda *_: "no route")
    monkeypatch.setattr("benchmarks.python_corpus.base_tree", lambda: {"a.py": Node(0o644, lambda: b"1\n2\n")})
    with pytest.raises(BenchmarkError, match="Is the registry of Python packages in reach"):
        python_corpus(tmp_path)
    assert "out of reach" in capsys.readouterr().err


def test_the_pinned_releases_are_in_order_and_have_what_the_corpus_needs() -> None:
    built = [release.built for release in RELEASES]
    assert built == sorted(built)
    assert len(RELEASES) >= 12
    assert len({release.family for release in RELEASES}) >= 3
    assert any(release.no_cache for release in RELEASES)
    assert all(timestamp(BASE_DATES[release.base]) <= release.built for release in RELEASES)
    assert len({release.name for release in RELEASES}) == len(RELEASES)


def test_the_patched_base_differs_in_some_modules_only() -> None:
    tree = {name: node for name, node in base_tree().items() if name.endswith(".py") and "/json/" not in name}
    patched = patched_tree(tree)
    changed = [name for name in tree if patched[name].read() != tree[name].read()]
    assert set(patched) == set(tree)
    assert len(tree) // 30 <= len(changed) <= len(tree) // 20


def test_an_application_changes_a_few_modules_with_each_release_and_none_with_a_rebuild() -> None:
    first, second, rebuilt = (app_tree("web", version) for version in ("1.0", "1.1", "1.1-rebuilt"))
    changed = [name for name in first if first[name].read() != second[name].read()]
    assert 0 < len(changed) <= 8
    assert all(second[name].read() == rebuilt[name].read() for name in second)
