"""How far push and pull are from the primitives that they cannot do without.

Each round runs the bare primitives and layerstore on the same bytes, one after the other, and compares their CPU and
wall time; the table shows the median ratio over the rounds and its spread. See ``--help``.
"""

import argparse
import hashlib
import json
import resource
import shutil
import statistics
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from blake3 import blake3
from pyfastcdc import FastCDC

from layerstore import Store
from layerstore._zstd import zstd

FRAME_SIZE = 2 << 20
READ_SIZE = 1 << 20


@dataclass(frozen=True)
class Cost:
    """CPU seconds of all threads, and wall seconds."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Row:
    """One line of the result: ratios of layerstore's cost to the primitives', over all rounds."""

    name: str
    cpu_ratios: list[float]
    wall_ratios: list[float]
    megabytes_per_second: float
    reach: str


def measure(work: Callable[[], object]) -> Cost:
    """Run ``work`` once."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    work()
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def chunker() -> FastCDC:
    """FastCDC with the store's parameters."""
    return FastCDC(16384, min_size=4096, max_size=65536, normalized_chunking=2)


def hash_primitives(path: Path) -> None:
    """sha256 of the stream, FastCDC, BLAKE3 of every chunk."""
    cdc = chunker()
    sha = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_SIZE):
            sha.update(block)
            view = memoryview(block)
            for chunk in cdc.cut_buf(view):
                blake3(view[chunk.offset : chunk.offset + chunk.length]).digest()


def store_primitives(path: Path, level: int) -> None:
    """The same, and zstd of what is new, in frames."""
    cdc = chunker()
    sha = hashlib.sha256()
    seen: set[bytes] = set()
    frame: list[memoryview] = []
    size = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_SIZE):
            sha.update(block)
            view = memoryview(block)
            for chunk in cdc.cut_buf(view):
                data = view[chunk.offset : chunk.offset + chunk.length]
                identity = blake3(data).digest()
                if identity in seen:
                    continue
                seen.add(identity)
                frame.append(data)
                size += len(data)
                if size >= FRAME_SIZE:
                    zstd.compress(b"".join(frame), level=level)
                    frame, size = [], 0
    if frame:
        zstd.compress(b"".join(frame), level=level)


def restore_primitives(frames: list[bytes], sizes: list[int]) -> None:
    """zstd decompression, BLAKE3 and sha256 of every frame."""
    sha = hashlib.sha256()
    for frame, size in zip(frames, sizes, strict=True):
        data = zstd.ZstdDecompressor().decompress(frame, size)
        blake3(data).digest()
        sha.update(data)


def compressed_frames(path: Path, level: int) -> tuple[list[bytes], list[int]]:
    """The stream in frames, compressed: what `restore_primitives` decompresses."""
    frames, sizes = [], []
    with path.open("rb", buffering=0) as file:
        while block := file.read(FRAME_SIZE):
            frames.append(zstd.compress(block, level=level))
            sizes.append(len(block))
    return frames, sizes


class Discard:
    """A binary file that keeps nothing."""

    def write(self, data: memoryview) -> int:
        """Take everything."""
        return len(data)


def run(path: Path, folder: Path, rounds: int) -> tuple[list[Row], dict[str, float]]:
    """All measurements on one tar."""
    costs: dict[str, list[tuple[Cost, Cost]]] = {"first push": [], "push, already present": [], "pull": []}
    level = 5  # the store's default
    frames, sizes = compressed_frames(path, level)
    lock_ms, index_share, open_ms, look_up_ms = 0.0, 0.0, [], []
    for number in range(rounds):
        root = folder / f"store-{number}"
        with Store.create(root, compression_level=level) as store:
            bare = measure(lambda: store_primitives(path, level))
            costs["first push"].append((bare, measure(lambda store=store: store.push_layer(path))))  # type: ignore[misc]
            bare = measure(lambda: hash_primitives(path))
            costs["push, already present"].append((bare, measure(lambda store=store: store.push_layer(path))))  # type: ignore[misc]
            layer = next(iter(store.layers.values()))
            bare = measure(lambda: restore_primitives(frames, sizes))
            costs["pull"].append((bare, measure(lambda layer=layer: layer.pull(Discard()))))  # type: ignore[misc]
            figures = store.stats()
            lock_ms = max(lock_ms, store._opened.index.write_seconds_max * 1e3)
            index_share = figures.index_bytes / figures.stored_bytes
            diff_id = layer.diff_id
        started = time.perf_counter()
        with Store.open(root) as store:
            open_ms.append((time.perf_counter() - started) * 1e3)
            started = time.perf_counter()
            for _ in range(1000):
                store.layers[diff_id]
            look_up_ms.append(time.perf_counter() - started)
        shutil.rmtree(root)
    reaches = {"first push": "CPU <= 1.33", "push, already present": "wall <= 1.67", "pull": "CPU <= 1.6"}
    size = path.stat().st_size
    rows = [
        Row(
            name,
            [ours.cpu / bare.cpu for bare, ours in pairs],
            [ours.wall / bare.wall for bare, ours in pairs],
            size / 1e6 / statistics.median(ours.wall for _, ours in pairs),
            reaches[name],
        )
        for name, pairs in costs.items()
    ]
    other = {
        "longest time the write lock is held, ms (reach: 20)": lock_ms,
        "index, share of stored bytes (reach: 0.05)": index_share,
        "opening a store, ms (reach: 20)": statistics.median(open_ms),
        "looking a layer up, ms (reach: 0.1)": statistics.median(look_up_ms),
    }
    return rows, other


def interpreter_tar(folder: Path) -> Path:
    """A tar of the running interpreter's standard library, without packages and byte code."""
    path = folder / "input.tar"

    def keep(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if any(part in info.name for part in ("__pycache__", "site-packages")) else info

    with tarfile.open(path, "w") as tar:
        tar.add(sysconfig.get_paths()["stdlib"], "lib", filter=keep)
    return path


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m benchmarks.speed --tar layer.tar --rounds 5",
    )
    parser.add_argument("--tar", type=Path, help="the input; by default a tar of the interpreter's standard library")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as name:
        folder = Path(name)
        path = options.tar or interpreter_tar(folder)
        rows, other = run(path, folder, options.rounds)
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, " if path.exists() else "", end="")
    print(f"{options.rounds} rounds; ratios of layerstore to its bare primitives: median (min-max)")
    for row in rows:
        cpu, wall = _spread(row.cpu_ratios), _spread(row.wall_ratios)
        print(f"  {row.name:<24} CPU {cpu}   wall {wall}   {row.megabytes_per_second:6.0f} MB/s   reach: {row.reach}")
    for label, value in other.items():
        print(f"  {label:<56} {value:.3f}")
    if options.json:
        document = {"rows": [asdict(row) for row in rows], "other": other}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    sys.exit(main())
