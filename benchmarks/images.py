"""The input of every benchmark: images in order of publication, each a stack of uncompressed layer tars."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class LayerFile:
    """One layer as a file: an uncompressed tar, or any other bytes that stand for a layer."""

    path: Path
    digest: str
    """``sha256:`` and the hex digest of the file's bytes, which is the DiffID of a layer tar."""
    size: int

    @classmethod
    def of(cls, path: Path) -> "LayerFile":
        """Read the file once to learn its digest and size."""
        return cls(path, sha256_of(path), path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its name, the family it belongs to, and its layers from the base upwards."""

    name: str
    family: str
    layers: tuple[LayerFile, ...]

    @property
    def logical_bytes(self) -> int:
        """The sum of the sizes of its layers."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Images in order of publication, and one sentence on where they come from."""

    images: tuple[Image, ...]
    description: str

    @property
    def logical_bytes(self) -> int:
        """The sum of the sizes of all images, each counted as if it shared nothing."""
        return sum(image.logical_bytes for image in self.images)

    @property
    def unique_bytes(self) -> int:
        """The sum of the sizes of the distinct layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def layers(self) -> list[LayerFile]:
        """The distinct layers, in the order in which a registry sees them first."""
        return [layer for group in new_layers(self.images) for layer in group]


def new_layers(images: Iterable[Image]) -> list[list[LayerFile]]:
    """Return for each image the layers that no earlier image had, by digest."""
    seen: set[str] = set()
    groups: list[list[LayerFile]] = []
    for image in images:
        group = []
        for layer in image.layers:
            if layer.digest not in seen:
                seen.add(layer.digest)
                group.append(layer)
        groups.append(group)
    return groups


def make_image(name: str, family: str, paths: Sequence[Path], known: dict[Path, LayerFile]) -> Image:
    """Make an image of layer files; ``known`` keeps each file from being read twice."""
    for path in paths:
        if path not in known:
            known[path] = LayerFile.of(path)
    return Image(name, family, tuple(known[path] for path in paths))


def sha256_of(path: Path) -> str:
    """Return the digest of a file's bytes as ``sha256:`` and hex."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes on disk as ``du`` counts it: allocated blocks, hard links once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in [folder, *folder.rglob("*")]:
        state = path.lstat()
        if (state.st_dev, state.st_ino) not in seen:
            seen.add((state.st_dev, state.st_ino))
            total += state.st_blocks * 512
    return total
