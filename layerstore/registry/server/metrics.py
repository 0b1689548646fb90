"""``/metrics``: figures for Prometheus, to those who may see them."""

import hmac
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from layerstore.os_errors import translate_os_errors
from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.configuration import is_loopback
from layerstore.registry.server.measures import REGISTRY
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.registry import registry_of
from layerstore.registry.server.settings import MetricsAccess, ServerSettings
from layerstore.store import Store

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Tells prometheus_client, when it is imported, where workers count together."""
_STATS_SECONDS = 30.0
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_FIGURES = (
    ("images", "Images."),
    ("trash_images", "Images in the trash."),
    ("layers", "Layers."),
    ("chunks", "Chunks."),
    ("frames", "Frames."),
    ("packs", "Packs."),
    ("leases", "Leases that have not ended."),
    ("logical_bytes", "The layers of every image."),
    ("unique_bytes", "Every layer once."),
    ("chunk_bytes", "Every chunk once, uncompressed."),
    ("stored_bytes", "Every chunk once, compressed, in packs."),
    ("dead_bytes", "What collection can give back of it."),
    ("index_bytes", "The index."),
    ("raw_bytes", "Encodings that are kept as they are."),
    ("cache_bytes", "Encodings that were made again, for the next who asks."),
    ("disk_bytes", "The whole store on disk."),
    ("ratio", "Logical bytes to bytes on disk."),
)


class _StoreCollector(Collector):
    """The store's own figures. They are counted anew when they are half a minute old."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted = 0.0
        self._found: list[Metric] = []

    def count(self, store: Store) -> None:
        """Count, if it is time, what is in the store that this process serves."""
        with self._lock:
            now = time.monotonic()
            if not self._found or now - self._counted > _STATS_SECONDS:
                self._found, self._counted = list(_figures(store)), now

    def collect(self) -> Iterable[Metric]:
        """What was counted."""
        return self._found


def _figures(store: Store) -> Iterator[Metric]:
    stats = store.stats()
    for name, text in _FIGURES:
        yield GaugeMetricFamily(f"layerstore_store_{name}", text, getattr(stats, name))
    encodings = GaugeMetricFamily("layerstore_store_encodings", "Encodings, by how they are kept.", labels=["kept"])
    for one in stats.encodings:
        encodings.add_metric([one.name], one.encodings)
    yield encodings


_STORE = _StoreCollector()
_OF_STORE = CollectorRegistry()
_OF_STORE.register(_STORE)


def prepare_metrics(settings: ServerSettings) -> None:
    """Let the worker processes that are started from now on count together. What others counted before is forgotten."""
    folder = settings.folder / "metrics"
    with translate_os_errors(f"cannot make {folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in folder.glob("*.db"):
            path.unlink(missing_ok=True)
    # prometheus_client has no other way to be told.
    os.environ[_FOLDER_VARIABLE] = str(folder)


def _metrics(request: Request) -> Response:
    registry = registry_of(request)
    _check_access(request, registry.settings)
    measures = REGISTRY
    if _FOLDER_VARIABLE in os.environ:
        measures = CollectorRegistry()
        # prometheus_client has annotations, but not everywhere.
        MultiProcessCollector(measures)  # type: ignore[no-untyped-call]
    _STORE.count(registry.store)
    return Response(generate_latest(measures) + generate_latest(_OF_STORE), media_type=_TYPE)


def _check_access(request: Request, settings: ServerSettings) -> None:
    if settings.metrics is MetricsAccess.EVERYONE:
        return
    if settings.metrics_token is not None and _has_token(request, settings.metrics_token):
        return
    address = request.client.host if request.client else ""
    is_direct = not any(name in request.headers for name in _FORWARDING)
    if settings.metrics is MetricsAccess.LOOPBACK and is_loopback(address) and is_direct:
        return
    raise ProblemError(403, ErrorCode.DENIED, "the metrics are not for you")


def _has_token(request: Request, path: Path) -> bool:
    with translate_os_errors(f"cannot read {path}"):
        token = path.read_bytes().strip()
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    is_same = hmac.compare_digest(given.strip().encode("latin-1"), token)
    return is_same and bool(token) and kind.lower() == "bearer"


routes = [Route("/metrics", _metrics, methods=["GET"])]
