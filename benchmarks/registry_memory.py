"""The memory of the servers' processes while large layers are uploaded at the same time."""

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.console import megabytes, tell
from benchmarks.image_measure import REPOSITORY
from benchmarks.registry_report import Part
from benchmarks.registry_servers import KINDS, OURS, Running, debian_server, layerstore_server
from benchmarks.report import table

SAMPLE_SECONDS = 0.02
HEADER = ("server", "uploads", "MB each", "s", "MB/s", "idle, MB", "peak, MB", "reach")
REACH = {OURS: "at most 400 MB"}


@dataclass(frozen=True, slots=True)
class Peak:
    """What one server needed."""

    kind: str
    uploads: int
    size: int
    seconds: float
    idle_bytes: int
    peak_bytes: int

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        return [
            self.kind,
            str(self.uploads),
            megabytes(self.size),
            f"{self.seconds:.1f}",
            f"{self.uploads * self.size / 1e6 / self.seconds:,.0f}",
            megabytes(self.idle_bytes),
            megabytes(self.peak_bytes),
            REACH.get(self.kind, ""),
        ]


class Watch:
    """Looks at the memory of a server 50 times a second."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._server.anonymous_bytes())
            if self._stop.wait(SAMPLE_SECONDS):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def measure_memory(work: Path, *, uploads: int, size: int, workers: int) -> Part:
    """Upload so many layers at once, each of at least ``size`` compressed bytes, to each kind of server."""
    folder = work / "registry-memory"
    peaks, failures = [], []
    for kind in KINDS:
        tell(f"memory: {uploads} uploads of {megabytes(size)} MB to {kind}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # Keeping house belongs to the memory that the server needs.
        with (
            layerstore_server(folder / "store", workers=workers, keeps_house=True)
            if kind == OURS
            else debian_server(folder / "registry") as server
        ):
            peak, wrong = _upload(server, uploads, size)
        peaks.append(peak)
        failures += wrong
    shutil.rmtree(folder)
    document = {"workers": workers, "peaks": [asdict(one) for one in peaks]}
    text = (
        f"RssAnon of all processes of a server (layerstore with {workers} that answer), looked at 50 times a second\n"
    )
    return Part("memory", text + table(HEADER, [one.row for one in peaks]), document, failures)


def _upload(server: Running, uploads: int, size: int) -> tuple[Peak, list[str]]:
    idle = server.anonymous_bytes()
    driver = [sys.executable, "-m", "benchmarks.registry_driver", "upload", server.address]
    started = time.perf_counter()
    failures = []
    os.sync()
    with Watch(server) as watch:
        processes = [
            subprocess.Popen(
                [*driver, f"team/upload-{number}", str(size), str(number)],
                cwd=REPOSITORY,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(uploads)
        ]
        for number, process in enumerate(processes):
            _, said = process.communicate()
            if process.returncode:
                failures.append(f"upload {number} to {server.kind}: {said.strip()[-500:]}")
    seconds = time.perf_counter() - started
    return Peak(server.kind, uploads, size, seconds, idle, watch.peak_bytes), failures
