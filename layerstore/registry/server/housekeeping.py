"""What a server does beside its requests: collect, find recipes of encodings, give up uploads, note the store's ratio.

It runs on one thread, in one of the worker processes at a time: whoever has the lock file locked. All of it may be cut
off at any point.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from layerstore.errors import EncoderUnavailableError, LayerstoreError
from layerstore.registry.server.links import Links
from layerstore.registry.server.measures import count_collection, count_failed_collection
from layerstore.registry.server.registry import Registry

_LOG = logging.getLogger("layerstore.housekeeping")
_TICK_SECONDS = 1.0
_QUIET_SECONDS = 5.0
"""Proofs wait until no upload has ended for so long: they take the cores that pushes need."""
_PROVE_SECONDS = 2.0
_HISTORY_SECONDS = 3600.0
_UNUSED_LINK_SECONDS = 3600.0
_NICENESS = 10


class Housekeeping:
    """The thread. `stop` ends it at the next place where it can be left."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        interval = registry.settings.collection_interval
        self._tasks: list[_Task] = [_Task(self._note_ratio, _HISTORY_SECONDS, at_once=True)]
        if interval:
            self._tasks.append(_Task(self._collect, interval))
        self._tasks.append(_Task(self._prove, _PROVE_SECONDS))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for that."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)  # on Linux, of this thread alone
        descriptor = os.open(self._registry.folder / "housekeeping.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not self._stopping.wait(_TICK_SECONDS):
                if _is_ours(descriptor):
                    self._run_due()
        finally:
            os.close(descriptor)

    def _run_due(self) -> None:
        for task in self._tasks:
            if self._stopping.is_set() or not task.is_due():
                continue
            try:
                task.run()
            except (LayerstoreError, OSError) as error:
                _LOG.error("%s failed: %s", task.name, error)
            task.done()

    def _collect(self) -> None:
        registry = self._registry
        registry.links.forget_expired_blobs()
        abandoned = registry.uploads.remove_abandoned()
        evicted = self._evict()
        _forget_unused(registry.links, registry)
        begun = time.monotonic()
        try:
            report = registry.store.collect_garbage()
        except LayerstoreError:
            count_failed_collection(time.monotonic() - begun)
            raise
        count_collection(time.monotonic() - begun, report.bytes_freed + report.bytes_freed_by_rewriting)
        _LOG.info(
            "collected: %d bytes freed, %d images, %d layers, %d uploads given up, %d copies of upstream's evicted",
            report.bytes_freed,
            report.images,
            report.layers,
            abandoned,
            evicted,
        )

    def _evict(self) -> int:
        try:
            return self._registry.proxies.evict()
        except LayerstoreError as error:  # which must not keep the store from being collected
            _LOG.error("eviction failed: %s", error)
            return 0

    def _prove(self) -> None:
        store = self._registry.store
        for digest in store.encodings.queued():
            if self._stopping.is_set() or self._is_busy():
                return
            try:
                report = store.prove_encodings([digest])
            except EncoderUnavailableError:
                return
            _LOG.info("encoding %s: %s", digest, "has a recipe now" if report.proved else "is kept as it came")

    def _is_busy(self) -> bool:
        return time.monotonic() - self._registry.uploads.last_used < _QUIET_SECONDS

    def _note_ratio(self) -> None:
        stats = self._registry.store.stats()
        self._registry.links.add_history(time.time(), stats.logical_bytes, stats.disk_bytes)


class _Task:
    def __init__(self, run: Callable[[], None], interval: float, *, at_once: bool = False) -> None:
        self.run = run
        self.name = run.__name__.strip("_")
        self._interval = interval
        self._due = time.monotonic() + (0 if at_once else interval)

    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def done(self) -> None:
        self._due = time.monotonic() + self._interval


def _is_ours(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_unused(links: Links, registry: Registry) -> None:
    """Forget which repositories have images that the store does not have: someone else deleted them."""
    images = set(registry.store.images)
    limit = time.time() - _UNUSED_LINK_SECONDS
    for repository, digest in links.all_manifests(limit):
        if digest not in images:
            links.remove_old_manifest(repository, digest, limit)
