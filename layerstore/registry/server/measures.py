"""What is counted while the server runs, for ``/metrics``. Several workers count into files that are added up."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# prometheus_client has annotations, but not everywhere.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY: Final = CollectorRegistry()
"""The measures of this process."""

_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

REQUESTS: Final = Counter(
    "layerstore_requests", "Requests that were answered.", ["method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS: Final = Histogram(
    "layerstore_request_seconds",
    "How long requests took, transfer included.",
    ["method", "route"],
    buckets=_SECONDS_BUCKETS,
    registry=REGISTRY,
)
REQUESTS_RUNNING: Final = Gauge(
    "layerstore_requests_running", "Requests that are being answered.", registry=REGISTRY, multiprocess_mode="livesum"
)
RECEIVED_BYTES: Final = Counter("layerstore_received_bytes", "Bytes of bodies that came in.", registry=REGISTRY)
SENT_BYTES: Final = Counter("layerstore_sent_bytes", "Bytes of bodies that went out.", registry=REGISTRY)
LOGIN_FAILURES: Final = Counter("layerstore_login_failures", "Logins with a wrong password.", registry=REGISTRY)
CONNECTIONS_REFUSED: Final = Counter(
    "layerstore_connections_refused", "Connections of clients that had too many.", registry=REGISTRY
)
INVALID_REQUESTS: Final = Counter(
    "layerstore_invalid_requests",
    "What clients sent that is no HTTP; those that try TLS first do so once.",
    registry=REGISTRY,
)

_COLLECTIONS = Counter("layerstore_collections", "Collections, by how they ended.", ["result"], registry=REGISTRY)
_COLLECTION_SECONDS = Counter("layerstore_collection_seconds", "How long collections took.", registry=REGISTRY)
_COLLECTED_BYTES = Counter("layerstore_collected_bytes", "Bytes that collections freed.", registry=REGISTRY)
_COLLECTION_ENDED = Gauge(
    "layerstore_collection_ended_timestamp_seconds",
    "When the last collection ended.",
    registry=REGISTRY,
    multiprocess_mode="max",
)


def count_collection(seconds: float, bytes_freed: int) -> None:
    """Count a collection that has ended."""
    _COLLECTIONS.labels("done").inc()
    _COLLECTION_SECONDS.inc(seconds)
    _COLLECTED_BYTES.inc(bytes_freed)
    _COLLECTION_ENDED.set_to_current_time()


def count_failed_collection(seconds: float) -> None:
    """Count a collection that an error ended."""
    _COLLECTIONS.labels("failed").inc()
    _COLLECTION_SECONDS.inc(seconds)
