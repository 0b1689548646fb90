"""Layouts, made by hand: what the tests check comes from the specification, not from the code under test."""

import gzip
import hashlib
import io
import json
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samples import make_tar

from layerstore._zstd import zstd

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"

Json = dict[str, Any]


def layer_tar(files: dict[str, bytes]) -> bytes:
    return make_tar(files, tarfile.GNU_FORMAT)


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class LayoutMaker:
    """A layout that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.roots: list[Json] = []
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_bytes(b'{"imageLayoutVersion": "1.0.0"}')

    def blob_path(self, digest: str) -> Path:
        return self.path.joinpath("blobs", *digest.split(":"))

    def blob(self, data: bytes, media_type: str, algorithm: str = "sha256", **more: Any) -> Json:
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        path = self.blob_path(digest)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def json(self, value: Any, media_type: str, **more: Any) -> Json:
        return self.blob(dumps(value), media_type, **more)

    def layer(self, tar: bytes, compression: str = "gzip") -> Json:
        if compression == "gzip":
            return self.blob(gzip.compress(tar, mtime=0), LAYER + "+gzip")
        if compression == "zstd":
            return self.blob(zstd.compress(tar), LAYER + "+zstd")
        return self.blob(tar, LAYER)

    def image(self, tars: list[bytes], compression: str = "gzip", platform: str = "linux/amd64", **more: Any) -> Json:
        os, architecture, *variant = platform.split("/")
        config = {
            "architecture": architecture,
            "os": os,
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        }
        if variant:
            config["variant"] = variant[0]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.json(config, CONFIG),
            "layers": [self.layer(tar, compression) for tar in tars],
        }
        return self.json(manifest, MANIFEST, **more)

    def index(self, children: list[Json], **more: Any) -> Json:
        return self.json({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}, INDEX, **more)

    def list_root(self, descriptor: Json, name: str | None = None) -> Json:
        if name is not None:
            annotations = {**descriptor.get("annotations", {}), REF_NAME: name}
            names = ("mediaType", "digest", "size")
            rest = {key: value for key, value in descriptor.items() if key not in (*names, "annotations")}
            descriptor = {key: descriptor[key] for key in names} | {"annotations": annotations} | rest
        self.roots.append(descriptor)
        (self.path / "index.json").write_bytes(dumps({"schemaVersion": 2, "manifests": self.roots}))
        return descriptor


def platform_of(text: str) -> Json:
    os, architecture, *variant = text.split("/")
    return {"architecture": architecture, "os": os} | ({"variant": variant[0]} if variant else {})


def sample_layout(path: Path) -> LayoutMaker:
    """One image with two layers, named 1.0, and one with a third, named 1.1, and an index of two platforms."""
    maker = LayoutMaker(path)
    base = layer_tar({"etc/hostname": b"shop\n", "usr/lib/base": noise(1, 200_000)})
    app = layer_tar({"app/main": noise(2, 50_000)})
    maker.list_root(maker.image([base, app]), "1.0")
    maker.list_root(maker.image([base, app, layer_tar({"app/more": b"x"})], "zstd"), "1.1")
    children = [
        maker.image([base, layer_tar({"arch": name.encode()})], platform=name)
        for name in ("linux/amd64", "linux/arm64")
    ]
    for child, name in zip(children, ("linux/amd64", "linux/arm64"), strict=True):
        child["platform"] = platform_of(name)
    maker.list_root(maker.index(children), "multi")
    return maker


def tree(path: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def tar_of_folder(folder: Path, target: Path, change: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    """A tar of a folder's files with what ``change`` adds behind them."""
    with tarfile.open(target, "w") as tar:
        for name, data in tree(folder).items():
            add_file(tar, name, data)
        if change is not None:
            change(tar)
    return target


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def needs(tool: str) -> None:
    """Skip the test where a tool is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def run(*command: str | Path) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert not result.returncode, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout
