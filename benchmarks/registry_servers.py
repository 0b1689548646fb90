"""The two registries that are compared, each as the process that users run, and what its processes cost."""

import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.console import BenchmarkError
from benchmarks.image_measure import CACHE_MAX, REPOSITORY
from benchmarks.process_cost import Command, run
from layerstore import Store

OURS, THEIRS = "layerstore", "docker-registry"
KINDS = (OURS, THEIRS)
TOOLS = (THEIRS, "skopeo")
START_SECONDS = 60
STOP_SECONDS = 60
SETTLE_SECONDS = 10
TICKS = os.sysconf("SC_CLK_TCK")
NO_LIMITS = {"limits": {"requests": {"per_second": 0, "at_once": 0}}}
"""One client makes all requests here, and would be taken for one that is out of hand."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    kind: str
    port: int
    process_id: int
    data: Path
    """The folder in which everything lies that it keeps."""
    log: Path

    @property
    def address(self) -> str:
        """Host and port, as in a reference."""
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """What all its processes have used until now, and those that have ended."""
        return sum(cpu_of(one) for one in process_tree(self.process_id))

    def anonymous_bytes(self) -> int:
        """The memory that is its processes' own, without the pages of files."""
        return sum(anonymous_of(one) for one in process_tree(self.process_id))


def require_tools() -> None:
    """Raises `BenchmarkError` where what is compared is not installed."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise BenchmarkError(f"not installed: {', '.join(missing)} (apt-get install {' '.join(missing)})")


def process_tree(process_id: int) -> list[int]:
    """A process and all below it that run."""
    found = [process_id]
    for one in found:
        # Each thread has those that it started.
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, path.read_text().split())
    return found


def cpu_of(process_id: int) -> float:
    """CPU seconds of a process and of its children that ended; none if it is gone itself."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name of the program, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def anonymous_of(process_id: int) -> int:
    """RssAnon of a process. What two share counts for both, so a sum is never too small."""
    try:
        text = Path(f"/proc/{process_id}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("RssAnon:")), 0)


@contextmanager
def layerstore_server(
    store: Path, *, collection_interval: float = 0.0, workers: int = 1, keeps_house: bool = False
) -> Iterator[Running]:
    """``layerstore serve`` on a store, which is made where there is none.

    Unless it ``keeps_house``, it proves and collects nothing by itself, so that no measurement falls into that.
    """
    if not store.exists():
        # A cache that is large enough for any set of images, or pulls out of it would depend on what was thrown out.
        Store.create(store, trash_ttl=0, encoding_cache_max=CACHE_MAX).close()
    configuration, log = store.with_name(f"{store.name}.yaml"), store.with_name(f"{store.name}.log")
    # JSON is YAML, too.
    configuration.write_text(json.dumps({**NO_LIMITS, "collection_interval": collection_interval}))
    command = [sys.executable, "-m", "layerstore", "--json", "--store", str(store), "serve", "--anonymous", "all"]
    command += ["--host", "127.0.0.1", "--port", "0", "--workers", str(workers), "--config", str(configuration)]
    with _no_housekeeping(store, keeps_house), log.open("ab") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        try:
            port = int(json.loads(_first_line(process, log))["address"].rpartition(":")[2])
            _wait_until_it_answers(port, process, log)
            yield Running(OURS, port, process.pid, store, log)
        finally:
            _stop(process)


@contextmanager
def debian_server(folder: Path) -> Iterator[Running]:
    """Debian's docker-registry, whose files lie in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data, log, configuration = folder / "data", folder / "log", folder / "config.yml"
    port = _free_port()
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "benchmark"},
    }
    configuration.write_text(json.dumps(settings))
    with log.open("ab") as errors:
        process = subprocess.Popen([THEIRS, "serve", str(configuration)], stdout=subprocess.DEVNULL, stderr=errors)
    try:
        _wait_until_it_answers(port, process, log)
        yield Running(THEIRS, port, process.pid, data, log)
    finally:
        _stop(process)


@contextmanager
def server_of(kind: str, folder: Path) -> Iterator[Running]:
    """A server of a kind on what lies in a folder, if anything does."""
    folder.mkdir(parents=True, exist_ok=True)
    with layerstore_server(folder / "store") if kind == OURS else debian_server(folder / "registry") as server:
        yield server


def prove(store: Path) -> None:
    """Work off the proofs of a store that nobody serves, and empty its cache."""
    command = (sys.executable, "-m", "benchmarks.image_driver", "prove", str(store))
    run(Command(command), os.environ, REPOSITORY)
    for path in (store / "cache").iterdir():
        path.unlink()


def settle(server: Running) -> None:
    """Wait until a server does nothing any more."""
    end = time.monotonic() + SETTLE_SECONDS
    used = -1.0
    while used != (used := server.cpu_seconds()) and time.monotonic() < end:
        time.sleep(0.2)


@contextmanager
def _no_housekeeping(store: Path, keeps_house: bool) -> Iterator[None]:
    if keeps_house:
        yield
        return
    # Whoever has this file locked is the one that keeps house.
    folder = store / "registry"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "housekeeping.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _first_line(process: "subprocess.Popen[bytes]", log: Path) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if ready else b""
    if not line:
        raise BenchmarkError(f"layerstore serve does not start: {_end_of(log)}")
    return line


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if connection.recv(5) == b"HTTP/":
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise BenchmarkError(f"the server does not answer: {_end_of(log)}")
        time.sleep(0.02)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:].strip() or "it says nothing"
