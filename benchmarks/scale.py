"""What size does to a store: pushing into one of millions of chunks, and collecting the same garbage from a larger one.

The large index is synthetic: rows of chunks, frames and counts that belong to no layer, spread over the whole table as
real ones are. What is pushed, and what is collected, is real. See ``--help``.
"""

import argparse
import io
import json
import random
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed import interpreter_tar
from layerstore import Store
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import CountsRecord, FrameRecord, Place

POSITIONS = 128
PASSES = 6
ROWS_PER_TRANSACTION = 250_000
BUCKETS = 64


def fill_index(store: Store, chunks: int) -> None:
    """Add rows for ``chunks`` chunks that lie in no pack.

    Several passes over the key space leave the pages as full as rows that come one by one.
    """
    opened: OpenedStore = store._opened
    rng = random.Random(7)
    frame = 1 << 40  # beyond all numbers that a push gets
    for _ in range(PASSES):
        for bucket in range(BUCKETS):
            count = chunks // PASSES // BUCKETS
            low = bucket * (256 // BUCKETS)
            rows = []
            for index in range(count):
                first = bytes([low + rng.randrange(256 // BUCKETS)])
                rows.append((first + rng.randbytes(31), (frame + index // POSITIONS, index % POSITIONS)))
            frames = range(frame, frame + count // POSITIONS + 1)
            frame += len(frames)
            for start in range(0, len(rows), ROWS_PER_TRANSACTION):
                some = rows[start : start + ROWS_PER_TRANSACTION]
                opened.index.write(lambda transaction, some=some: transaction.chunks.put_many(some))  # type: ignore[misc]
            opened.index.write(lambda transaction, frames=frames: _put_frames(transaction, frames))  # type: ignore[misc]


def _put_frames(transaction: Transaction, frames: range) -> None:
    lengths = array("I", [16384] * POSITIONS)
    counts = CountsRecord(0, array("I", [1] * POSITIONS))
    record = FrameRecord(Place(1 << 40, 48, 1 << 19), 1, bytes(32), lengths, bytes(POSITIONS))
    for number in frames:
        transaction.frames.put(number, record)
        transaction.counts.put(number, counts)


def new_content(path: Path, salt: int) -> Iterator[bytes]:
    """The bytes of a tar, changed everywhere, so that no chunk of it is known; they compress about as before."""
    mark = salt.to_bytes(8, "big")
    with path.open("rb") as file:
        while block := bytearray(file.read(1 << 20)):
            for offset in range(1024, len(block) - 8, 4096):
                block[offset : offset + 8] = mark
            yield bytes(block)


def push_seconds(store: Store, path: Path, salt: int) -> float:
    """Wall time of a push of content that is all new."""
    blocks = list(new_content(path, salt))
    started = time.perf_counter()
    store.push_layer(blocks)
    return time.perf_counter() - started


def many_small_files(count: int, seed: int) -> bytes:
    """A tar of ``count`` files of 2 KiB, each a chunk of its own."""
    rng = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(count):
            info = tarfile.TarInfo(f"files/{seed}/{index}")
            info.size = 2048
            tar.addfile(info, io.BytesIO(rng.randbytes(2048)))
    return buffer.getvalue()


def collect_figures(folder: Path, kept_layers: int, chunks: int) -> dict[str, float]:
    """Collect one layer of ``chunks`` chunks from a store that keeps ``kept_layers`` of the same size."""
    root = folder / f"collect-{kept_layers}"
    with Store.create(root) as store:
        for seed in range(kept_layers):
            store.create_image([store.push_layer(many_small_files(chunks, seed)).layer], tag=f"kept:{seed}")
        garbage = store.push_layer(many_small_files(chunks, 10_000)).layer
        store.release_layer(garbage)
        started = time.perf_counter()
        report = store.collect_garbage()
        seconds = time.perf_counter() - started
        figures = store.stats()
        live = figures.stored_bytes - figures.dead_bytes
    shutil.rmtree(root)
    return {
        "seconds": seconds,
        "chunks per second": report.chunks / seconds,
        "disk / live": figures.stored_bytes / live if live else 1.0,
    }


def mixed_garbage(folder: Path, layers: int, chunks: int) -> dict[str, float]:
    """Delete every other image of a store whose layers share half of their files; what disk / live is then."""
    root = folder / "mixed"
    rng = random.Random(3)
    with Store.create(root, pack_size_max=16 << 20) as store:
        pool = [rng.randbytes(4096) for _ in range(chunks)]
        for number in range(layers):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                for index in range(chunks):
                    data = pool[index] if rng.random() < 0.5 else rng.randbytes(4096)
                    info = tarfile.TarInfo(f"f/{index}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
            store.create_image([store.push_layer(buffer.getvalue()).layer], tag=f"mixed:{number}")
        for number in range(0, layers, 2):
            store.delete_image(f"mixed:{number}", ttl=0)
        plan = store.plan_collection()
        started = time.perf_counter()
        report = store.collect_garbage(plan)
        seconds = time.perf_counter() - started
        figures = store.stats()
    shutil.rmtree(root)
    return {
        "seconds": seconds,
        "bytes planned": plan.bytes_freed + plan.bytes_freed_by_rewriting,
        "bytes freed": report.bytes_freed + report.bytes_freed_by_rewriting,
        "disk / live": figures.stored_bytes / max(1, figures.stored_bytes - figures.dead_bytes),
    }


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m benchmarks.scale --chunks 20000000 --tar layer.tar",
    )
    parser.add_argument("--chunks", type=int, default=20_000_000, help="chunks of the large store")
    parser.add_argument(
        "--tar", type=Path, help="what is pushed, changed so that all is new; by default the standard library"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--garbage", type=int, default=50_000, help="chunks that are collected")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    document: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as name:
        folder = Path(name)
        path = options.tar or interpreter_tar(folder)
        small = collect_figures(folder, 1, options.garbage)
        large = collect_figures(folder, 19, options.garbage)
        document["collection"] = {"from 2 layers": small, "from 20 layers": large}
        print(f"collecting {options.garbage} chunks: {small['chunks per second']:.0f} chunks/s (reach: 50,000)")
        print(f"  from a store 10 times as large: {large['seconds'] / small['seconds']:.2f} times as long (reach: 1.3)")
        document["mixed"] = mixed = mixed_garbage(folder, 8, 4000)
        print(f"deleting every other image of 8 that share half: disk / live {mixed['disk / live']:.2f} (reach: 1.2)")
        with Store.create(folder / "large") as big:
            started = time.perf_counter()
            fill_index(big, options.chunks)
            print(f"index of {options.chunks} chunks: made in {time.perf_counter() - started:.0f} s", end=", ")
            print(f"{(folder / 'large' / 'index' / 'data.mdb').stat().st_blocks * 512 / 1e9:.2f} GB")
            store_index = big._opened.index
            store_index.write_seconds_max = 0.0
            ratios = []
            for number in range(options.rounds):
                with Store.create(folder / f"empty-{number}") as empty:
                    ratios.append(push_seconds(empty, path, number) / push_seconds(big, path, number))
            document["push into large / empty"] = ratios
            print(
                f"push speed into it, against an empty store: {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f}-{max(ratios):.2f}) (reach: 0.7)"
            )
            held = big._opened.index.write_seconds_max * 1e3
            print(f"longest time the write lock was held by these pushes: {held:.0f} ms (reach: 20)")
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
