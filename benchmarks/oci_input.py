"""Input from an OCI image layout: its images, with their layers as uncompressed tars."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.console import BenchmarkError, tell
from benchmarks.images import Corpus, Image, LayerFile, make_image
from benchmarks.zstd_codec import zstd

REF_NAME = "org.opencontainers.image.ref.name"
REFERENCE_TYPE = "vnd.docker.reference.type"
"""An annotation of manifests that are not images but say something about one."""
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COPY_SIZE = 1 << 20


def oci_corpus(layout: Path, work: Path) -> Corpus:
    """Read the images of the layout in the order of its index; its layers are decoded into ``work``."""
    folder = work / "oci-layers"
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[Path, LayerFile] = {}
    images: list[Image] = []
    for number, descriptor in enumerate(_manifests(layout, _read_json(layout / "index.json"))):
        manifest = _read_json(_blob(layout, descriptor["digest"]))
        name = descriptor.get("annotations", {}).get(REF_NAME, "") or f"image-{number + 1}"
        paths = [
            decoded(_blob(layout, layer["digest"]), folder / f"{layer['digest'].replace(':', '-')}.tar")
            for layer in manifest["layers"]
        ]
        if paths:
            images.append(make_image(name, name.rpartition(":")[0] or name, paths, known))
    if not images:
        raise BenchmarkError(f"{layout} has no image with layers in its index.json")
    return Corpus(tuple(images), f"the images of the OCI layout {layout.name}")


def tar_corpus(files: list[Path], work: Path) -> Corpus:
    """Take each file as an image of one layer; gzip and zstd are decoded into ``work``."""
    folder = work / "tar-layers"
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[Path, LayerFile] = {}
    images = []
    for number, file in enumerate(files):
        if not file.is_file():
            raise BenchmarkError(f"{file} is not a file")
        layer = decoded(file, folder / f"{number:03}-{file.name}.tar") if _magic(file) else file
        images.append(make_image(file.name, file.name.partition(".")[0], [layer], known))
    return Corpus(tuple(images), f"{len(files)} files, each taken as an image of one layer")


def decoded(blob: Path, target: Path) -> Path:
    """Write the uncompressed bytes of a blob to ``target``, whatever its compression; keep what is there already."""
    if not target.exists() or target.stat().st_mtime < blob.stat().st_mtime:
        tell(f"corpus: decoding {blob.name}")
        partial = target.with_name(target.name + ".partial")
        try:
            with _opened(blob) as source, partial.open("wb") as file:
                shutil.copyfileobj(source, file, COPY_SIZE)
        except (OSError, EOFError, zstd.ZstdError) as error:
            raise BenchmarkError(f"{blob} can't be decoded: {error}") from error
        partial.replace(target)
    return target


def _opened(blob: Path) -> BinaryIO:
    match _magic(blob):
        case "gzip":
            return gzip.open(blob, "rb")  # type: ignore[return-value]  # a GzipFile reads as a BinaryIO does
        case "zstd":
            return zstd.open(blob, "rb")  # type: ignore[return-value]  # so does a ZstdFile
    return blob.open("rb")


def _magic(blob: Path) -> str:
    """Return the compression that the first bytes show: ``gzip``, ``zstd`` or nothing."""
    with blob.open("rb") as file:
        start = file.read(4)
    if start.startswith(GZIP_MAGIC):
        return "gzip"
    return "zstd" if start == ZSTD_MAGIC else ""


def _manifests(layout: Path, index: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the descriptors of image manifests; of an image for several platforms, the first that is an image."""
    for descriptor in index.get("manifests", []):
        if REFERENCE_TYPE in descriptor.get("annotations", {}):
            continue
        document = _read_json(_blob(layout, descriptor["digest"]))
        if "manifests" in document:
            for nested in list(_manifests(layout, document))[:1]:
                yield {**nested, "annotations": {**nested.get("annotations", {}), **descriptor.get("annotations", {})}}
        elif "layers" in document:
            yield descriptor


def _blob(layout: Path, digest: str) -> Path:
    algorithm, _, encoded = digest.partition(":")
    if not (algorithm.isalnum() and encoded.isalnum()):
        raise BenchmarkError(f"{layout} names a blob by {digest!r}, which is no digest")
    return layout / "blobs" / algorithm / encoded


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise BenchmarkError(f"{path} is not a JSON object")
    return document
