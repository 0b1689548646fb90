"""How a server is set up: what the command line and the configuration file say, checked."""

from dataclasses import dataclass
from pathlib import Path

from layerstore.registry.server.repositories import BLOB_TTL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything that a worker process has to know. It is passed to processes, so it holds plain values."""

    store: Path
    blob_size_max: int = 64 << 30
    manifest_size_max: int = 4 << 20
    blob_ttl: float = BLOB_TTL_SECONDS
    is_delete_enabled: bool = True
    collection_interval: float = 3600.0
    """Seconds between collections; 0: never."""
