"""The images of the registry benchmark, and skopeo, which carries them to a registry and back."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.console import BenchmarkError
from benchmarks.image_builder import build_images
from benchmarks.image_plans import FAMILIES, LINE, SKOPEO, Application, ImagePlan, LayerPlan
from benchmarks.image_tools import REF_NAME, compress_layers, image_names, write_layout
from benchmarks.process_cost import Command, Cost, run_all
from benchmarks.releases import timestamp

LINE_LAYOUT, FAMILIES_LAYOUT, SERVICES_LAYOUT = "product line", "families", "services"
PAIRS = (
    ("debian:12", "debian:12-nightly"),
    ("debian:12", "debian:12-security"),
    ("shop:1.4", "shop:1.5"),
    ("shop:1.5", "shop:1.5-rebuilt"),
)
"""What a client has, and what it then pulls or pushes: a nightly rebuild, a security update, a release, a rebuild."""


def _service(family: str, number: int, below: ImagePlan) -> ImagePlan:
    application = Application(family, f"1.{number}", timestamp(f"2024-11-{number + 1:02}"))
    return ImagePlan(family, f"1.{number}", (*below.layers, LayerPlan(application, SKOPEO)))


SERVICES = tuple(
    _service(family, number, FAMILIES[below][2])
    for family, below in (("notebook", "science"), ("agent", "go"))
    for number in range(3)
)
"""Six small applications over images of the families: with them there are thirty images."""
PLANS = {
    LINE_LAYOUT: LINE,
    FAMILIES_LAYOUT: tuple(plan for family in FAMILIES.values() for plan in family),
    SERVICES_LAYOUT: SERVICES,
}


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images of one OCI layout, in order of publication."""

    layout: Path
    manifests: dict[str, str]
    """The digest of each image's manifest, by name."""
    blobs: dict[str, int]
    """The sizes of all distinct blobs that manifests name, by digest."""
    layers: dict[str, str]
    """Of each layer's blob the name of an image that has it."""

    @classmethod
    def of(cls, layout: Path) -> "ImageSet":
        """Read the documents of a layout."""
        manifests: dict[str, str] = {}
        blobs: dict[str, int] = {}
        layers: dict[str, str] = {}
        try:
            index = json.loads((layout / "index.json").read_bytes())
            for entry in index["manifests"]:
                name = entry["annotations"][REF_NAME]
                manifests[name] = entry["digest"]
                manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
                blobs |= {one["digest"]: one["size"] for one in (manifest["config"], *manifest["layers"])}
                for one in manifest["layers"]:
                    layers.setdefault(one["digest"], name)
        except (OSError, ValueError, KeyError) as error:
            raise BenchmarkError(f"{layout} is no layout of images that have names: {error!r}") from error
        return cls(layout, manifests, blobs, layers)

    @property
    def names(self) -> list[str]:
        """The names, ``family:version``."""
        return list(self.manifests)

    @property
    def blob_bytes(self) -> int:
        """The bytes of all distinct blobs: what has to travel at least."""
        return sum(self.blobs.values())

    def new_bytes(self, old: str, new: str) -> int:
        """The bytes of the blobs that an image has and another one lacks."""
        return sum(self.blobs[digest] for digest in self._blobs_of(new) - self._blobs_of(old))

    def _blobs_of(self, name: str) -> set[str]:
        manifest = json.loads((self.layout / "blobs" / self.manifests[name].replace(":", "/")).read_bytes())
        return {one["digest"] for one in (manifest["config"], *manifest["layers"])}


def make_set(name: str, work: Path) -> ImageSet:
    """A layout, made if it is not there or lacks an image."""
    folder = work / f"image-layout-{name.replace(' ', '-')}"
    if (folder / "index.json").exists() and image_names(folder) == [plan.name for plan in PLANS[name]]:
        return ImageSet.of(folder)
    built = build_images(PLANS[name], name, work)
    blobs = compress_layers(built.corpus.layers, built.tools, work)
    return ImageSet.of(write_layout(built.corpus.images, blobs, folder))


def repository_of(name: str, prefix: str) -> str:
    """Where in a registry an image lies: the path of its reference, with its tag."""
    return f"{prefix}/{name}"


def push(images: ImageSet, address: str, prefix: str, names: Sequence[str] | None = None) -> Cost:
    """Push images one after another; what skopeo cost."""
    return _skopeo(
        ("--dest-tls-verify=false", f"oci:{images.layout}:{name}", _remote(address, prefix, name))
        for name in (images.names if names is None else names)
    )


def pull(names: Iterable[str], address: str, prefix: str, target: Path) -> Cost:
    """Pull images into a layout, one after another; what it has already is not pulled again."""
    return _skopeo(("--src-tls-verify=false", _remote(address, prefix, name), f"oci:{target}:{name}") for name in names)


def take(images: ImageSet, names: Iterable[str], target: Path) -> None:
    """Copy images of the set into another layout."""
    _skopeo((f"oci:{images.layout}:{name}", f"oci:{target}:{name}") for name in names)


def differing(images: ImageSet, target: Path) -> list[str]:
    """The blobs of the set, and the manifests, that a layout does not have as they were."""
    wrong = []
    for digest in (*images.blobs, *images.manifests.values()):
        path = Path("blobs") / digest.replace(":", "/")
        found = target / path
        if not found.exists() or found.read_bytes() != (images.layout / path).read_bytes():
            wrong.append(digest)
    return wrong


def _remote(address: str, prefix: str, name: str) -> str:
    return f"docker://{address}/{repository_of(name, prefix)}"


def _skopeo(copies: Iterable[tuple[str, ...]]) -> Cost:
    os.sync()  # what was written before is no burden of what is measured now
    head = ("skopeo", "--insecure-policy", "copy", "--quiet")
    return run_all([Command((*head, *arguments)) for arguments in copies], os.environ, Path.cwd())
