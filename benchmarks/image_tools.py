"""Layers compressed by real tools, and the layout that a registry's client would make of them.

Each tool gets the tars as they are and gives gzip blobs: skopeo and umoci in a layout of their own, Go's compress/gzip
in a small program that does what docker push and BuildKit do. The blobs are then put together in one layout.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.console import BenchmarkError, megabytes, tell
from benchmarks.image_packages import run
from benchmarks.image_plans import GO, SKOPEO, UMOCI
from benchmarks.images import Image, LayerFile, sha256_of

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
TAR_TYPE = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
GO_PROGRAM = """package main

import (
\t"compress/gzip"
\t"io"
\t"os"
)

func main() {
\twriter := gzip.NewWriter(os.Stdout)
\tif _, err := io.Copy(writer, os.Stdin); err != nil {
\t\tpanic(err)
\t}
\tif err := writer.Close(); err != nil {
\t\tpanic(err)
\t}
}
"""


class Layout:
    """An OCI image layout that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifests: list[dict[str, Any]] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, digest: str) -> Path:
        """Where the blob of a digest lies."""
        return self.folder / "blobs" / "sha256" / digest.partition(":")[2]

    def document(self, media_type: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Put a JSON document; its descriptor."""
        data = json.dumps(value).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blob(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def image(self, name: str, diff_ids: Sequence[str], blobs: Sequence[LayerFile], media_type: str) -> None:
        """Put an image; its blobs become hard links of the files."""
        for blob in blobs:
            if not self.blob(blob.digest).exists():
                os.link(blob.path, self.blob(blob.digest))
        config = {"architecture": "amd64", "os": "linux", "config": {}}
        config |= {"rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}
        layers = [{"mediaType": media_type, "digest": blob.digest, "size": blob.size} for blob in blobs]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": self.document(CONFIG_TYPE, config)}
        described = self.document(MANIFEST_TYPE, {**manifest, "layers": layers})
        self._manifests.append({**described, "annotations": {REF_NAME: name}})

    def finish(self) -> Path:
        """Write the index; the layout's folder."""
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": self._manifests}
        (self.folder / "index.json").write_text(json.dumps(index))
        return self.folder


def image_names(layout: Path) -> list[str]:
    """Return the names of a layout's images, in its order."""
    index = json.loads((layout / "index.json").read_bytes())
    return [entry["annotations"][REF_NAME] for entry in index["manifests"]]


def first_layers(layout: Path) -> list[str]:
    """Return the digests of the layers of a layout's first image, from the lowest up."""
    index = json.loads((layout / "index.json").read_bytes())
    path = layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
    return [layer["digest"] for layer in json.loads(path.read_bytes())["layers"]]


def compress_layers(layers: Sequence[LayerFile], tools: Mapping[str, str], work: Path) -> dict[str, LayerFile]:
    """Return the gzip blob of each layer by its DiffID; those that are in ``work`` are not made again."""
    folder = work / "image-blobs"
    folder.mkdir(parents=True, exist_ok=True)
    targets = {layer.digest: folder / f"{layer.digest[7:]}.{tools[layer.digest]}.gz" for layer in layers}
    for tool, compress in COMPRESSORS.items():
        missing = [layer for layer in layers if tools[layer.digest] == tool and not targets[layer.digest].exists()]
        if missing:
            tell(f"images: {tool} compresses {megabytes(sum(layer.size for layer in missing))} MB")
            scratch = work / f"image-{tool}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            for layer, blob in zip(missing, compress(missing, scratch), strict=True):
                blob.replace(targets[layer.digest])
            shutil.rmtree(scratch)
    return {digest: LayerFile.of(path) for digest, path in targets.items()}


def write_layout(images: Iterable[Image], blobs: Mapping[str, LayerFile], folder: Path) -> Path:
    """Write a layout of images, their layers as the gzip blobs that belong to them."""
    shutil.rmtree(folder, ignore_errors=True)
    layout = Layout(folder)
    for image in images:
        diff_ids = [layer.digest for layer in image.layers]
        layout.image(image.name, diff_ids, [blobs[diff_id] for diff_id in diff_ids], TAR_TYPE + "+gzip")
    return layout.finish()


def _with_skopeo(layers: Sequence[LayerFile], scratch: Path) -> list[Path]:
    plain = Layout(scratch / "plain")
    plain.image("all", [layer.digest for layer in layers], layers, TAR_TYPE)
    source, target = plain.finish(), scratch / "packed"
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{source}:all", f"oci:{target}:all"]
    run(command, "skopeo compressed nothing (apt-get install skopeo)")
    return _blobs(target, layers)


def _with_umoci(layers: Sequence[LayerFile], scratch: Path) -> list[Path]:
    target = scratch / "packed"
    failure = "umoci compressed nothing (apt-get install umoci)"
    run(["umoci", "init", "--layout", str(target)], failure)
    run(["umoci", "new", "--image", f"{target}:all"], failure)
    for layer in layers:
        run(["umoci", "raw", "add-layer", "--image", f"{target}:all", str(layer.path)], failure)
    return _blobs(target, layers)


def _with_go(layers: Sequence[LayerFile], scratch: Path) -> list[Path]:
    source, program = scratch / "main.go", scratch / "gzip"
    source.write_text(GO_PROGRAM)
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    command = ["go", "build", "-o", str(program), str(source)]
    run(command, "Go compressed nothing (apt-get install golang-go)", environment)
    paths = []
    for layer in layers:
        path = scratch / layer.digest[7:]
        with layer.path.open("rb") as tar, path.open("wb") as blob:
            subprocess.run([program], stdin=tar, stdout=blob, check=True)
        paths.append(path)
    return paths


def _blobs(layout: Path, layers: Sequence[LayerFile]) -> list[Path]:
    digests = first_layers(layout)
    paths = [layout / "blobs" / digest.replace(":", "/") for digest in digests]
    if len(paths) != len(layers) or any(sha256_of(path) != digest for path, digest in zip(paths, digests, strict=True)):
        raise BenchmarkError(f"{layout} does not have the layers that it was given")
    return paths


COMPRESSORS: dict[str, Callable[[Sequence[LayerFile], Path], list[Path]]] = {
    SKOPEO: _with_skopeo,
    UMOCI: _with_umoci,
    GO: _with_go,
}
