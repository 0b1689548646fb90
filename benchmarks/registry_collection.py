"""How long small pushes wait while collection runs all the time, beside a bare commit to the same disk."""

import gzip
import io
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from benchmarks.console import BenchmarkError, tell
from benchmarks.image_measure import REPOSITORY
from benchmarks.registry_client import Client, digest_of, image_documents
from benchmarks.registry_report import Part, percentile
from benchmarks.registry_servers import Running, debian_server, layerstore_server
from benchmarks.report import table

QUIET, BUSY, COLLECTING = "layerstore, nothing else", "layerstore, others push", "layerstore, the same, collecting"
THEIRS = "docker-registry, nothing else"
PHASES = (QUIET, BUSY, COLLECTING, THEIRS)
COLLECTION_SECONDS = 0.1
"""Less than the server looks for something to do, so that one collection begins when the last has ended."""
FIRST_SECONDS = 60
"""How long it may be until a collection has found something."""
LAYER_SIZE = 4096
COMMIT_SIZE = 200
HEADER = (
    *("server", "what", "pushes", "p50, ms", "p99, ms", "longest, ms"),
    *("bare commit p50, ms", "p99, ms", "p50 ratio", "p99 ratio"),
)
_COLLECTED = re.compile(r"collected: (\d+) bytes freed")


@dataclass(slots=True)
class Waits:
    """Seconds that each push took, and each bare commit between them."""

    blobs: list[float] = field(default_factory=list)
    manifests: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    collections: int = 0
    freed_bytes: int = 0
    failures: list[str] = field(default_factory=list)

    def rows(self, name: str) -> Iterator[list[str]]:
        """Two lines of the table."""
        for what, values in (("blob", self.blobs), ("manifest", self.manifests)):
            if values:
                figures = [*_middle_and_tail(values), max(values), *_middle_and_tail(self.commits)]
                ratios = (figures[0] / figures[3], figures[1] / figures[4])
                shown = [f"{one * 1e3:,.2f}" for one in figures]
                yield [name, what, str(len(values)), *shown, *(f"{one:,.1f}" for one in ratios)]


class _Commits:
    """A store of keys and values that does nothing but commit, with an fsync each."""

    def __init__(self, folder: Path) -> None:
        self._environment = lmdb.open(str(folder), map_size=1 << 28)
        self._number = 0

    def commit(self) -> float:
        """Put one small value durably; the seconds."""
        started = time.perf_counter()
        with self._environment.begin(write=True) as transaction:
            transaction.put(self._number.to_bytes(8, "big"), bytes(COMMIT_SIZE))
        self._number += 1
        return time.perf_counter() - started

    def close(self) -> None:
        """Close the file."""
        self._environment.close()


def measure_collection(work: Path, *, rounds: int, seconds: float) -> Part:
    """Push for so many seconds to each server in every round."""
    folder = work / "registry-collection"
    waits = {name: Waits() for name in PHASES}
    for number in range(rounds):
        for name in PHASES:
            tell(f"collection: round {number + 1} of {rounds}, {name}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _phase(name, waits[name], folder, seconds, number)
    shutil.rmtree(folder)
    failures = [f"{name}: {failure}" for name, one in waits.items() for failure in one.failures]
    document = {name: _figures(one) for name, one in waits.items()}
    return Part("collection", _text(waits), {"seconds": seconds, "rounds": rounds, **document}, failures)


def push_small(client: Client, source: random.Random, waits: Waits) -> None:
    """Push a small image, and note how long its layer and its manifest took."""
    tar = _small_tar(source.randbytes(LAYER_SIZE))
    layer = gzip.compress(tar, mtime=0)
    started = time.perf_counter()
    digest = client.put_blob(layer)
    pushed = time.perf_counter()
    config, manifest = image_documents(digest, len(layer), digest_of(tar))
    client.put_blob(config)
    begun = time.perf_counter()
    client.put_manifest(manifest, "newest")
    waits.manifests.append(time.perf_counter() - begun)
    waits.blobs.append(pushed - started)


def _phase(name: str, waits: Waits, folder: Path, seconds: float, seed: int) -> None:
    commits = _Commits(folder / "commits")
    source = random.Random(seed)
    os.sync()
    try:
        with _serving(name, folder) as server, Client(server.address, "team/small") as client:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                try:
                    push_small(client, source, waits)
                except BenchmarkError as error:
                    waits.failures.append(str(error))
                    client.close()  # the next request opens another connection
                waits.commits.append(commits.commit())
    finally:
        commits.close()
    if name == COLLECTING:
        freed = _freed(server)
        waits.collections += len(freed)
        waits.freed_bytes += sum(freed)


@contextmanager
def _serving(name: str, folder: Path) -> Iterator[Running]:
    """A server, and what gives it work."""
    if name == THEIRS:
        with debian_server(folder / "registry") as server:
            yield server
    elif name == QUIET:
        with layerstore_server(folder / "store") as server:
            yield server
    elif name == BUSY:
        with layerstore_server(folder / "store") as server, _litter(folder / "store"):
            yield server
    else:
        root, interval = folder / "store", COLLECTION_SECONDS
        with layerstore_server(root, collection_interval=interval, keeps_house=True) as server, _litter(root):
            _wait_for_collection(server)
            yield server


def _wait_for_collection(server: Running) -> None:
    end = time.monotonic() + FIRST_SECONDS
    while not sum(_freed(server)):
        if time.monotonic() > end:
            raise BenchmarkError("the server collects nothing")
        time.sleep(0.05)


def _freed(server: Running) -> list[int]:
    """The bytes that each collection has given back."""
    return [int(match[1]) for match in _COLLECTED.finditer(server.log.read_text(errors="replace"))]


@contextmanager
def _litter(store: Path) -> Iterator[None]:
    """Another process makes garbage in the store."""
    command = [sys.executable, "-m", "benchmarks.registry_driver", "litter", str(store)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        yield
        if process.poll() is not None:
            raise BenchmarkError(f"what makes garbage has ended with status {process.returncode}")
    finally:
        process.terminate()
        process.wait()


def _small_tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _middle_and_tail(values: Sequence[float]) -> tuple[float, float]:
    return statistics.median(values), percentile(values, 0.99)


def _figures(waits: Waits) -> dict[str, object]:
    series = {"blob": waits.blobs, "manifest": waits.manifests, "commit": waits.commits}
    return {
        **{f"{what}_seconds": values for what, values in series.items()},
        "collections": waits.collections,
        "freed_bytes": waits.freed_bytes,
        "failures": waits.failures,
    }


def _text(waits: dict[str, Waits]) -> str:
    rows = [row for name, one in waits.items() for row in one.rows(name)]
    collecting = waits[COLLECTING]
    failed = sum(len(one.failures) for one in waits.values())
    return "\n".join(
        [
            "Pushes of a layer of 4 KB and of a manifest, one after another, a bare LMDB commit after each",
            table(HEADER, rows, left=(0, 1)),
            f"{collecting.collections} collections freed {collecting.freed_bytes / 1e6:,.1f} MB in all; "
            f"{failed} pushes failed.",
        ]
    )
