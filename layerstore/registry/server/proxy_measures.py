"""What is counted of blobs that come from upstream, for ``/metrics``."""

from prometheus_client import Counter

from layerstore.registry.server.measures import REGISTRY

_FETCHES = Counter("layerstore_fetches", "Blobs from upstream, by how they came.", ["result"], registry=REGISTRY)
_FETCHED_BYTES = Counter("layerstore_fetched_bytes", "Bytes of blobs from upstream.", registry=REGISTRY)
_FETCH_SECONDS = Counter("layerstore_fetch_seconds", "How long blobs from upstream took.", registry=REGISTRY)


def count_fetch(size: int, seconds: float) -> None:
    """Count a blob that has come."""
    _FETCHES.labels("done").inc()
    _FETCHED_BYTES.inc(size)
    _FETCH_SECONDS.inc(seconds)


def count_failed_fetch() -> None:
    """Count a blob that did not come, or was not the right one."""
    _FETCHES.labels("failed").inc()
