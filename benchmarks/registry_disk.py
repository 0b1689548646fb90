"""What both registries take on disk for the same images, the proofs of ours worked off."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.console import megabytes, tell
from benchmarks.images import disk_bytes
from benchmarks.registry_images import ImageSet, push
from benchmarks.registry_report import Part
from benchmarks.registry_servers import KINDS, OURS, THEIRS, prove, server_of
from benchmarks.report import table
from layerstore import Store

HEADER = ("images", "compressed blobs", "docker-registry", "layerstore, before proofs", "layerstore", "ratio")


def measure_disk(sets: Sequence[ImageSet], work: Path) -> Part:
    """Push all sets into both, prove, and compare every blob with the one that was pushed."""
    folder = work / "registry-disk"
    shutil.rmtree(folder, ignore_errors=True)
    for kind in KINDS:
        with server_of(kind, folder / kind) as server:
            for images in sets:
                tell(f"disk: {images.layout.name} goes into {kind}")
                push(images, server.address, "team")
    store = folder / OURS / "store"
    queued_bytes = disk_bytes(store)
    tell("disk: proofs")
    prove(store)
    blobs = {digest: size for images in sets for digest, size in images.blobs.items()}
    figures = {
        "images": sum(len(images.names) for images in sets),
        "blob_bytes": sum(blobs.values()),
        "docker_registry_bytes": disk_bytes(folder / THEIRS / "registry" / "data"),
        "queued_bytes": queued_bytes,
        "store_bytes": disk_bytes(store),
    }
    wrong = list(_wrong(store, blobs))
    shutil.rmtree(folder)
    return Part("disk", _text(figures), figures | {"ratio": _ratio(figures)}, wrong)


def _wrong(root: Path, blobs: dict[str, int]) -> Iterator[str]:
    with Store.open(root) as store:
        for digest in blobs:
            state = hashlib.sha256()
            for block in store.blob_blocks(digest):
                state.update(block)
            if f"sha256:{state.hexdigest()}" != digest:
                yield f"{digest} did not come back"


def _ratio(figures: dict[str, int]) -> float:
    return figures["store_bytes"] / figures["docker_registry_bytes"]


def _text(figures: dict[str, int]) -> str:
    names = ("blob_bytes", "docker_registry_bytes", "queued_bytes", "store_bytes")
    row = [str(figures["images"]), *(megabytes(figures[name]) for name in names), f"{_ratio(figures):.1%}"]
    return f"MB (10^6 bytes) on disk, as du counts them, no cache\n{table(HEADER, [row])}"
