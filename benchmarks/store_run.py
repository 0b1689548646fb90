"""layerstore over a corpus: push in order of publication, pull everything back, compare."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.console import tell
from benchmarks.images import Image, disk_bytes, sha256_of
from benchmarks.report import StoreRun
from layerstore import Store


def run_store(images: Sequence[Image], work: Path) -> StoreRun:
    """Push the images into a new store under ``work``, pull every layer, and compare what came back."""
    folder = work / "store"
    shutil.rmtree(folder, ignore_errors=True)
    with Store.create(folder) as store:
        disk, push_seconds, push_cpu = _push(store, images, folder)
        mismatches, pull_seconds, pull_cpu = _pull(store, images, work / "pulled.tar")
    disk[-1] = disk_bytes(folder)
    return StoreRun(disk, push_seconds, push_cpu, pull_seconds, pull_cpu, mismatches)


def _push(store: Store, images: Sequence[Image], folder: Path) -> tuple[list[int], float, float]:
    """Push the images; return the bytes on disk after each, and the time that pushing took."""
    disk, seconds, cpu = [], 0.0, 0.0
    for number, image in enumerate(images):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        layers = [store.push_layer(layer.path).layer for layer in image.layers]
        store.create_image(layers, tag=f"benchmark:{number}")
        seconds += time.perf_counter() - wall_start
        cpu += time.process_time() - cpu_start
        disk.append(disk_bytes(folder))
        tell(f"layerstore: pushed {image.name}")
    return disk, seconds, cpu


def _pull(store: Store, images: Sequence[Image], target: Path) -> tuple[list[str], float, float]:
    """Pull each distinct layer; return the digests that came back wrong, and the time that pulling took."""
    wrong, seconds, cpu = [], 0.0, 0.0
    for digest in dict.fromkeys(layer.digest for image in images for layer in image.layers):
        target.unlink(missing_ok=True)
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        store.pull_layer(digest, target)
        seconds += time.perf_counter() - wall_start
        cpu += time.process_time() - cpu_start
        if sha256_of(target) != digest:
            wrong.append(digest)
    target.unlink(missing_ok=True)
    tell("layerstore: pulled every layer")
    return wrong, seconds, cpu
