"""The default corpus: releases of real packages over a Python base layer, built the way an image builder does.

As a build cache does, a layer is reused when its base, the layers below it and its requirements are those of an earlier
image. Otherwise everything in it has the time of the build. An image that is built without the cache has the same
content under other times.
"""

import hashlib
import random
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.console import BenchmarkError, megabytes, tell
from benchmarks.images import Corpus, Image, LayerFile, make_image
from benchmarks.layer_tar import Node, Tree, write_layer
from benchmarks.python_base import base_tree, fingerprint, patched_tree
from benchmarks.releases import BASE_DATES, RELEASES, Release, timestamp
from benchmarks.wheels import WheelCache, wheel_tree

IMAGES_MIN, FAMILIES_MIN, LOGICAL_BYTES_MIN = 12, 3, 1_000_000_000
APP_MODULES, APP_LINES, APP_CHANGED = 40, 60, 4
"""An application has so many modules of so many lines; so many of them change with a release."""
FORMAT = 1
"""Goes up when the way layers are made changes, so that tars cached earlier are made anew."""


def python_corpus(work: Path, releases: Iterable[Release] = RELEASES) -> Corpus:
    """Download what is missing, build the layers that are not in ``work`` yet, and return the images."""
    chosen = list(releases)
    wheels = WheelCache(work / "wheels").fetch(
        requirement for release in chosen for layer in release.layers for requirement in layer
    )
    builder = _Builder(work / "layers", wheels)
    images: list[Image] = []
    for release in chosen:
        paths = builder.build(release)
        if len(paths) < 3:  # no dependency is left between the base and the application
            tell(f"corpus: {release.name} is left out, none of its packages could be had")
            continue
        images.append(make_image(release.name, release.family, paths, builder.known))
    corpus = Corpus(tuple(images), "releases of Python packages, unpacked from their wheels over a Python base layer")
    _check(corpus)
    return corpus


def _check(corpus: Corpus) -> None:
    """Refuse a corpus that is too small to say anything."""
    families = {image.family for image in corpus.images}
    if len(corpus.images) < IMAGES_MIN or len(families) < FAMILIES_MIN or corpus.logical_bytes < LOGICAL_BYTES_MIN:
        raise BenchmarkError(
            f"the corpus has only {len(corpus.images)} images of {len(families)} families, "
            f"{megabytes(corpus.logical_bytes)} MB; at least {IMAGES_MIN} of {FAMILIES_MIN} with "
            f"{megabytes(LOGICAL_BYTES_MIN)} MB are needed. Is the registry of Python packages in reach of pip? "
            "Or give other input: --oci DIR, --tar FILE..."
        )


class _Builder:
    """Builds layers into a folder, each under a name that follows from all that decides its bytes."""

    def __init__(self, folder: Path, wheels: Mapping[str, Path]) -> None:
        self.known: dict[Path, LayerFile] = {}
        self._folder = folder
        self._wheels = wheels
        self._base = base_tree()
        self._base_key = fingerprint(self._base)
        self._cache: dict[tuple[str, ...], int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def build(self, release: Release) -> list[Path]:
        """Return the layers of the release from the base upwards."""
        paths = [self._base_layer(release.base)]
        steps: tuple[str, ...] = (release.base,)
        for requirements in release.layers:
            present = [requirement for requirement in requirements if requirement in self._wheels]
            if present:
                steps = (*steps, " ".join(present))
                paths.append(self._dependency_layer(steps, present, release))
        app = self._folder / f"{self._name('app', release.name, str(release.built))}.tar"
        if not app.exists():
            write_layer(app, app_tree(release.family, release.version), release.built)
        return [*paths, app]

    def _base_layer(self, base: str) -> Path:
        path = self._folder / f"{self._name('base', self._base_key, base)}.tar"
        if not path.exists():
            tell(f"corpus: building {base}")
            tree = self._base if base == "base-1" else patched_tree(self._base)
            write_layer(path, tree, timestamp(BASE_DATES[base]))
        return path

    def _dependency_layer(self, steps: tuple[str, ...], requirements: list[str], release: Release) -> Path:
        """Return the layer of these steps: the one of the build cache, unless the release is built without it."""
        if release.no_cache or steps not in self._cache:
            self._cache[steps] = release.built
        built = self._cache[steps]
        path = self._folder / f"{self._name('packages', *steps, str(built))}.tar"
        if not path.exists():
            tell(f"corpus: building a layer of {release.name}: {', '.join(requirements)}")
            tree: dict[str, Node] = {}
            for requirement in requirements:
                tree |= wheel_tree(self._wheels[requirement])
            write_layer(path, tree, built)
        return path

    def _name(self, kind: str, *parts: str) -> str:
        text = "\n".join([str(FORMAT), kind, *parts])
        return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def app_tree(family: str, version: str) -> Tree:
    """Return a small application: modules of its family, a few of which changed with each release."""
    base_version = version.removesuffix("-rebuilt")
    changed = random.Random(f"{family} {base_version}").sample(range(APP_MODULES), APP_CHANGED)
    tree = {}
    for number in range(APP_MODULES):
        seed = f"{family} {number}" + (f" {base_version}" if number in changed else "")
        tree[f"srv/app/{family}/module_{number:02}.py"] = Node(0o644, partial(_module, seed))
    return tree


def _module(seed: str) -> bytes:
    """Return lines that look like a program and compress about as well as one."""
    chance = random.Random(seed)
    words = ("value", "request", "item", "result", "index", "session", "record", "total", "query", "field")
    lines = [f'"""Module {seed}."""']
    for number in range(APP_LINES):
        left, right = chance.choice(words), chance.choice(words)
        lines.append(f"{left}_{chance.randrange(100)} = {right}_{number}({chance.randrange(10**6)})")
    return "\n".join(lines).encode()
