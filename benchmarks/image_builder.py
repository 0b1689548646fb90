"""Building the images of a plan: layer tars, each made once, as a corpus that knows which tool compresses each."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import debian_input
from benchmarks.console import BenchmarkError, tell
from benchmarks.image_packages import fetch, package_tree, run
from benchmarks.image_plans import REBUILDS, Application, ImagePlan, LayerPlan, Packages, System
from benchmarks.images import Corpus, LayerFile, make_image
from benchmarks.layer_tar import Node, write_layer
from benchmarks.python_corpus import app_tree
from benchmarks.releases import timestamp
from benchmarks.wheels import WheelCache, wheel_tree

FORMAT = 1
"""Goes up when the way layers are made changes, so that tars made earlier are made anew."""
MIRROR = "deb http://deb.debian.org/debian {} main"
RELEASE = (MIRROR.format("bookworm"),)
UPDATED = (
    *RELEASE,
    MIRROR.format("bookworm-updates"),
    "deb http://deb.debian.org/debian-security bookworm-security main",
)


@dataclass(frozen=True, slots=True)
class BuiltImages:
    """Images as layer tars, and the tool that compresses each of their layers."""

    corpus: Corpus
    tools: dict[str, str]
    """By the digest of the tar. A layer that is built twice with the same bytes is what was published first."""


def build_images(plans: Iterable[ImagePlan], description: str, work: Path) -> BuiltImages:
    """Make the layers that are not in ``work`` yet."""
    builder = _Builder(work)
    known: dict[Path, LayerFile] = {}
    tools: dict[str, str] = {}
    images = []
    for plan in plans:
        paths = [builder.layer(layer) for layer in plan.layers]
        images.append(make_image(plan.name, plan.family, paths, known))
        for layer, file in zip(plan.layers, images[-1].layers, strict=True):
            tools.setdefault(file.digest, layer.tool)
    return BuiltImages(Corpus(tuple(images), description), tools)


class _Builder:
    """Builds layers into a folder, each under a name that follows from what it is made of."""

    def __init__(self, work: Path) -> None:
        self._folder = work / "image-layers"
        self._downloads = work / "downloads"
        self._wheels = WheelCache(work / "wheels")
        self._folder.mkdir(parents=True, exist_ok=True)

    def layer(self, plan: LayerPlan) -> Path:
        """Return the tar of a layer."""
        match plan.content:
            case System(rebuild, ()):
                return self._system(rebuild, ())
            case System(rebuild, packages):
                # It comes to lie beside the system, whose name says what it is made of.
                return debian_input.difference(self._system(rebuild, ()), self._system(rebuild, packages))
            case Packages(kind, requirements, built):
                return self._packages(kind, requirements, built)
            case Application(family, version, built):
                path = self._path("app", family, version, str(built))
                if not path.exists():
                    write_layer(path, app_tree(family, version), built)
                return path

    def _system(self, rebuild: str, packages: tuple[str, ...]) -> Path:
        mirrors = UPDATED if rebuild.endswith("security") else RELEASE
        path = self._path("system", rebuild, *packages).with_suffix(".full.tar")
        if path.exists():
            return path
        if os.geteuid() != 0:
            raise BenchmarkError("mmdebstrap makes the Debian images as root: start the benchmark as root")
        tell(f"images: mmdebstrap makes debian:{rebuild} {' '.join(packages)}".rstrip())
        partial = path.with_suffix(".partial.tar")
        command = ["mmdebstrap", "--variant=minbase", "--mode=root", "--quiet"]
        command += [f"--include={','.join(packages)}"] if packages else []
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(timestamp(REBUILDS[rebuild]))}
        run([*command, debian_input.SUITE, str(partial), *mirrors], f"no debian:{rebuild}", environment)
        partial.replace(path)
        return path

    def _packages(self, kind: str, requirements: tuple[str, ...], built: int) -> Path:
        path = self._path(kind, *requirements, str(built))
        if path.exists():
            return path
        tell(f"images: building a layer of {', '.join(requirements)}")
        tree: dict[str, Node] = {}
        if kind == "wheel":
            wheels = self._wheels.fetch(requirements)
            missing = [requirement for requirement in requirements if requirement not in wheels]
            if missing:
                raise BenchmarkError(f"the registry of Python packages has not given {', '.join(missing)}")
            for requirement in requirements:
                tree |= wheel_tree(wheels[requirement])
        else:
            for requirement in requirements:
                tree |= package_tree(kind, requirement, fetch(kind, requirement, self._downloads))
        write_layer(path, tree, built)
        return path

    def _path(self, kind: str, *parts: str) -> Path:
        text = "\n".join([str(FORMAT), kind, *parts])
        return self._folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.tar"
