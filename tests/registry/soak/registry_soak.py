"""The soak: threads that use a registry, a server that is killed again and again, others at work on its store.

``python registry_soak.py FOLDER OPERATIONS`` prints the figures.
"""

import json
import os
import random
import shutil
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from server_process import ServerProcess
from soak_worker import Worker

from layerstore import Store
from layerstore.operations.leases import end_lease

WORKERS = 8
_CONFIGURATION = {
    "listen": {"workers": 2},
    "blob_ttl": 60,
    "collection_interval": 1,
    # Eight threads are meant to keep it busy.
    "limits": {"requests": {"per_second": 0, "burst": 1_000_000, "at_once": 0}},
}

_WORKER_KILLS = 0.3
_KILL_SECONDS_MAX = 10.0
_TABLES = ("manifests", "blobs", "uploads")


@dataclass
class Figures:
    """What happened."""

    operations: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    worker_kills: int = 0
    collections: int = 0
    images_collected: int = 0
    bytes_freed: int = 0
    encodings_proved: int = 0
    images: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Soak:
    """A server, its clients, and what disturbs them."""

    def __init__(self, folder: Path, operations: int, seconds_max: float) -> None:
        self.store = folder / "store"
        Store.create(self.store, frame_size=1 << 14, pack_size_max=1 << 17, trash_ttl=0).close()
        configuration = folder / "server.yaml"
        configuration.write_text(json.dumps(_CONFIGURATION))  # JSON is YAML
        self.server = ServerProcess(self.store, "--config", str(configuration))
        self.figures = Figures()
        self._operations = operations
        self._seconds_max = seconds_max
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._chooser = random.Random("kills")
        self.workers: list[Worker] = []

    def run(self) -> Figures:
        """All of it: use, kill, check, delete, collect."""
        begun = time.monotonic()
        self.server.start()
        names = [f"soak/{number}/{kind}" for number in range(WORKERS) for kind in ("app", "base")]
        self.workers = [Worker(self.server.address, number, names, self._stopped) for number in range(WORKERS)]
        try:
            self._use_and_kill(begun)
            self._in_threads(lambda worker: worker.check_all())
            self.server.stop()
            self._verify()
            self.server.start()
            self._in_threads(lambda worker: worker.delete_all())
        finally:
            self.server.stop()
        self._a_day_later()
        self._check_nothing_is_left()
        self.figures.seconds = time.monotonic() - begun
        return self.figures

    def _use_and_kill(self, begun: float) -> None:
        end = begun + self._seconds_max
        threads = [threading.Thread(target=self._work, args=(worker, end)) for worker in self.workers]
        threads.append(threading.Thread(target=self._collect_and_prove))
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads[:WORKERS]):
                self._wait_for_operations(self._chooser.randrange(self._operations // 50 + 1))
                if self._chooser.random() < _WORKER_KILLS:
                    self.server.kill_worker()
                    self.figures.worker_kills += 1
                else:
                    self.server.kill()
                    self.figures.kills += 1
                    self.server.start()
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()
        counts: Counter[str] = Counter()
        for worker in self.workers:
            self.figures.operations += worker.operations
            counts += worker.counts
            self.figures.images += sum(len(repository.documents) for repository in worker.repositories)
        self.figures.kinds = dict(counts.most_common())

    def _wait_for_operations(self, count: int) -> None:
        """Wait until so many more operations are done, and then some of the next."""
        target = sum(worker.operations for worker in self.workers) + count
        end = time.monotonic() + _KILL_SECONDS_MAX
        while sum(worker.operations for worker in self.workers) < target and time.monotonic() < end:
            if self._stopped.wait(0.01):
                return
        self._stopped.wait(self._chooser.uniform(0, 0.05))

    def _work(self, worker: Worker, end: float) -> None:
        try:
            while worker.operations < self._operations // WORKERS and time.monotonic() < end:
                if self._stopped.is_set():
                    return
                worker.turn()
        except Exception:  # whatever it is, it is a fault, and the others go on
            self._fault()

    def _in_threads(self, action: Callable[[Worker], None]) -> None:
        self._stopped.clear()

        def guarded(worker: Worker) -> None:
            try:
                action(worker)
            except Exception:
                self._fault()
            finally:
                worker.client.close()

        threads = [threading.Thread(target=guarded, args=(worker,)) for worker in self.workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _fault(self) -> None:
        with self._lock:
            traceback.print_exc()
            self.figures.faults.append(traceback.format_exc()[-1500:])

    def _collect_and_prove(self) -> None:
        """Another process would do the same: the store is opened anew each time, beside the server."""
        try:
            while not self._stopped.wait(1):
                with Store.open(self.store) as store:
                    report = store.collect_garbage()
                    self.figures.collections += 1
                    self.figures.images_collected += report.images
                    self.figures.bytes_freed += report.bytes_freed
                    queued = list(store.encodings.queued())[:10]
                    self.figures.encodings_proved += store.prove_encodings(queued).proved
        except Exception:
            self._fault()

    def _verify(self) -> None:
        with Store.open(self.store) as store:
            report = store.verify()
            self.figures.faults += [f"verify: {problem.text}" for problem in report.problems]

    def _a_day_later(self) -> None:
        """Let the leases of uploads end, and the uploads that were left be old; then the server tidies up."""
        with Store.open(self.store) as store:
            with store._opened.index.read() as transaction:
                names = [name for name, _ in transaction.leases.items()]
            for name in names:
                end_lease(store._opened, name)
        long_ago = time.time() - 3 * 24 * 3600
        registry = self.store / "registry"
        for upload in (registry / "uploads").iterdir():
            os.utime(upload, (long_ago, long_ago))
        with sqlite3.connect(registry / "links.sqlite") as links:
            links.execute("UPDATE uploads SET begun = ?", (int(long_ago),))
            links.execute("UPDATE blobs SET expires = ?", (int(long_ago),))
            links.execute("UPDATE manifests SET pushed = ?", (int(long_ago),))
        links.close()
        with self.server:
            end = time.monotonic() + 60
            while time.monotonic() < end and self._left_over():
                time.sleep(0.2)

    def _left_over(self) -> list[str]:
        """What lies in the store that an empty one does not have."""
        folders = [
            self.store / name for name in ("packs", "raw", "tmp", "registry/uploads") if (self.store / name).exists()
        ]
        files = [str(path.relative_to(self.store)) for folder in folders for path in folder.iterdir()]
        links = sqlite3.connect(self.store / "registry" / "links.sqlite")
        counts = {one: links.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in _TABLES}
        links.close()
        return files + [f"{count} rows of {table}" for table, count in counts.items() if count]

    def _check_nothing_is_left(self) -> None:
        with Store.open(self.store) as store:
            store.collect_garbage(store.plan_collection(empty_trash=True))
            report = store.verify()
            self.figures.faults += [f"verify of the empty store: {problem.text}" for problem in report.problems]
            for name in ("layers", "encodings", "images", "tags", "trash"):
                if len(getattr(store, name)):
                    self.figures.faults.append(f"left: {len(getattr(store, name))} {name}")
        self.figures.faults += [f"left: {one}" for one in self._left_over()]


def _tell(soak: Soak) -> None:
    while True:
        time.sleep(10)
        done = sum(worker.operations for worker in soak.workers)
        print(f"{done} operations, {soak.figures.kills} kills, {len(soak.figures.faults)} faults", flush=True)


def main(folder: str, operations: str) -> None:
    """Run it and print what happened."""
    path = Path(folder)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    soak = Soak(path, int(operations), 3600)
    threading.Thread(target=_tell, args=(soak,), daemon=True).start()
    figures = soak.run()
    print(json.dumps(asdict(figures), indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(*sys.argv[1:])
