"""What the image benchmark measures of one OCI layout: bytes in the store, the cost of an import, that of an export."""

import hashlib
import os
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.console import BenchmarkError, tell
from benchmarks.image_tools import image_names
from benchmarks.images import disk_bytes
from benchmarks.oci_input import GZIP_MAGIC
from benchmarks.process_cost import Command, Cost, run
from layerstore import Store
from layerstore.operations.stats import EncodingClass
from layerstore.storage.layout import open_layout, write_config

REPOSITORY = Path(__file__).resolve().parents[1]
THREADS = (1, 2)
CACHE_MAX = 1 << 40
CACHE_ROWS = ("out of the cache", "cp of the same blobs", "out of the cache, on disk", "cp of the same blobs, on disk")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a layout takes in a store, the queue of proofs worked off. Bytes on disk are those that ``du`` counts."""

    name: str
    images: int
    layers: int
    tar_bytes: int
    """The distinct layers, uncompressed."""
    layout_bytes: int
    """What the layout's folder takes on disk."""
    queued_bytes: int
    """What the store's folder took before the proofs."""
    store_bytes: int
    """What it took after them."""
    pack_bytes: int
    dead_bytes: int
    """Those of the packs that a collection would give back."""
    index_bytes: int
    raw_bytes: int
    encodings: tuple[EncodingClass, ...]
    mismatches: tuple[str, ...]
    """Digests of blobs that did not come back bit for bit."""

    @property
    def share(self) -> float:
        """The store's bytes to the layout's."""
        return self.store_bytes / self.layout_bytes

    @property
    def other_bytes(self) -> int:
        """What is neither packs, index nor raw blobs: the journal, and what is left of the last block of files."""
        return self.store_bytes - self.pack_bytes - self.index_bytes - self.raw_bytes


@dataclass(slots=True)
class Imports:
    """What each round of an import cost, beside the same layout copied and decompressed."""

    copies: list[Cost] = field(default_factory=list)
    """skopeo, from the layout to another."""
    inflations: list[Cost] = field(default_factory=list)
    """zlib, over each blob once."""
    gunzips: list[Cost] = field(default_factory=list)
    """``gzip -dc`` over each blob once: no part of the yardstick, as it takes longer than zlib."""
    imports: list[Cost] = field(default_factory=list)
    proofs: list[Cost] = field(default_factory=list)

    @property
    def wall_ratios(self) -> list[float]:
        """Each import to copy and decompression of the same round."""
        yardsticks = [one + other for one, other in zip(self.copies, self.inflations, strict=True)]
        return [own.wall_seconds / bare.wall_seconds for own, bare in zip(self.imports, yardsticks, strict=True)]

    @property
    def cpu_ratios(self) -> list[float]:
        """The same for CPU time."""
        yardsticks = [one + other for one, other in zip(self.copies, self.inflations, strict=True)]
        return [own.cpu_seconds / bare.cpu_seconds for own, bare in zip(self.imports, yardsticks, strict=True)]


@dataclass(slots=True)
class Export:
    """Exports of all blobs of one kind; a cost each round."""

    name: str
    blobs: int
    blob_bytes: int
    tar_bytes: int
    threads: int
    costs: list[Cost] = field(default_factory=list)

    @property
    def tar_rates(self) -> list[float]:
        """Bytes of tar a second of wall time, each round."""
        return [self.tar_bytes / cost.wall_seconds for cost in self.costs]

    @property
    def tar_rates_per_core(self) -> list[float]:
        """Bytes of tar a second of CPU time."""
        return [self.tar_bytes / cost.cpu_seconds for cost in self.costs]

    @property
    def blob_rates(self) -> list[float]:
        """Bytes of the blobs a second of wall time."""
        return [self.blob_bytes / cost.wall_seconds for cost in self.costs]


def measure_store(name: str, layout: Path, root: Path) -> Stored:
    """Import a layout into a new store at ``root``, work the proofs off, and compare every blob with the layout's."""
    shutil.rmtree(root, ignore_errors=True)
    _drive("import", str(layout), str(root))
    queued_bytes = disk_bytes(root)
    _drive("prove", str(root))
    with Store.open(root) as store:
        mismatches = tuple(_mismatches(store, layout))
        figures = store.stats()
        images = len(store.images)
    return Stored(
        name=name,
        images=images,
        layers=figures.layers,
        tar_bytes=figures.unique_bytes,
        layout_bytes=disk_bytes(layout),
        queued_bytes=queued_bytes,
        store_bytes=disk_bytes(root),
        pack_bytes=figures.stored_bytes,
        dead_bytes=figures.dead_bytes,
        index_bytes=figures.index_bytes,
        raw_bytes=figures.raw_bytes,
        encodings=figures.encodings,
        mismatches=mismatches,
    )


def measure_imports(layout: Path, work: Path, rounds: int) -> Imports:
    """Copy, decompress and import a layout in turn, and prove what was imported; all of it is read from the cache."""
    target, root = work / "image-copy", work / "image-import"
    names = image_names(layout)
    blobs = [str(path) for path in gzip_blobs(layout)]
    copies = [
        ("skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:{name}", f"oci:{target}:{name}")
        for name in names
    ]
    result = Imports()
    for number in range(rounds):
        tell(f"images: round {number + 1} of {rounds} of the import")
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)
        result.copies.append(sum((_cost(command) for command in copies), Cost()))
        result.inflations.append(_drive("inflate", *blobs))
        result.imports.append(_drive("import", str(layout), str(root)))
        result.gunzips.append(_cost(("gzip", "-dc", "--", *blobs)))
        result.proofs.append(_drive("prove", str(root)))
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    return result


def measure_exports(root: Path, work: Path, rounds: int) -> list[Export]:
    """Write the blobs of a store to files: made again by each encoder, from the cache, and by ``cp`` for comparison."""
    target = work / "image-export"
    with Store.open(root) as store:
        groups = _by_encoder(store)
        exports = [_export(store, name, digests, count) for name, digests in groups.items() for count in THREADS]
        for number in range(rounds):
            tell(f"images: round {number + 1} of {rounds} of the export")
            for export in exports:
                export.costs.append(_write_blobs(store, groups[export.name], target, export.threads))
    return exports + _measure_cache(root, work, rounds)


def _measure_cache(root: Path, work: Path, rounds: int) -> list[Export]:
    """Give the store a cache, fill it, and export out of it."""
    source, target = work / "image-export", work / "image-export-2"
    layout, config = open_layout(root)
    write_config(layout, config.model_copy(update={"encoding_cache_max": CACHE_MAX}))
    with Store.open(root) as store:
        digests = [digest for group in _by_encoder(store).values() for digest in group]
        _write_blobs(store, digests, source, max(THREADS))  # this fills the cache
        if store.stats().cache_bytes < sum(store.blob_size(digest) for digest in digests):
            raise BenchmarkError("the cache has not kept all blobs, so nothing can be measured of it")
        hit, copy, hit_on_disk, copy_on_disk = (_export(store, name, digests, 1) for name in CACHE_ROWS)
        paths = [str(source / _file_name(digest)) for digest in digests]
        copies = [str(target / _file_name(digest)) for digest in digests]
        for number in range(rounds):
            tell(f"images: round {number + 1} of {rounds} of the export out of the cache")
            for export, step in ((copy, ""), (copy_on_disk, ' && exec sync "$@"')):
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                script = f"cp --reflink=never -- {shlex.join(paths)} {shlex.quote(str(target))}{step}"
                export.costs.append(_cost(("sh", "-c", script, "sh", *copies)))
            hit.costs.append(_write_blobs(store, digests, target, 1))
            hit_on_disk.costs.append(_write_blobs(store, digests, target, 1, durable=True))
    for folder in (source, target):
        shutil.rmtree(folder, ignore_errors=True)
    return [hit, copy, hit_on_disk, copy_on_disk]


def gzip_blobs(layout: Path) -> list[Path]:
    """Return the files of a layout's gzip blobs."""
    return [path for path in sorted((layout / "blobs").rglob("*")) if path.is_file() and _begins_as_gzip(path)]


def _begins_as_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _by_encoder(store: Store) -> dict[str, list[str]]:
    """The encodings that are made again, by what makes them."""
    groups: dict[str, list[str]] = {}
    for digest in store.encodings:
        encoding = store.encodings[digest]
        if encoding.kept_as == "recipe":
            groups.setdefault("; ".join(encoding.encoders), []).append(str(digest))
    return dict(sorted(groups.items()))


def _export(store: Store, name: str, digests: Sequence[str], threads: int) -> Export:
    encodings = [store.encodings[digest] for digest in digests]
    return Export(
        name,
        len(encodings),
        sum(encoding.size for encoding in encodings),
        sum(encoding.layer.size for encoding in encodings),
        threads,
    )


def _write_blobs(store: Store, digests: Iterable[str], target: Path, threads: int, *, durable: bool = False) -> Cost:
    """Write blobs to new files in an empty folder; what this process spent on it. With ``durable`` they are on disk."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    os.sync()
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    for digest in digests:
        with (target / _file_name(digest)).open("wb", buffering=0) as file:
            for block in store.blob_blocks(digest, threads=threads):
                file.write(block)
            if durable:
                os.fsync(file.fileno())
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def _file_name(digest: str) -> str:
    return digest.replace(":", "-")


def _mismatches(store: Store, layout: Path) -> Iterable[str]:
    """Read every blob of the layout out of the store."""
    for path in sorted((layout / "blobs").glob("*/*")):
        digest = f"{path.parent.name}:{path.name}"
        state = hashlib.new(path.parent.name)
        for block in store.blob_blocks(digest, threads=max(THREADS)):
            state.update(block)
        if state.hexdigest() != path.name:
            yield digest


def _drive(*arguments: str) -> Cost:
    return _cost((sys.executable, "-m", "benchmarks.image_driver", *arguments))


def _cost(command: tuple[str, ...]) -> Cost:
    os.sync()  # what was written before is no burden of what is measured now
    return run(Command(command), os.environ, REPOSITORY)
