"""What the command line says about a server. It needs none of the server's packages, which are an extra."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says; None: what the file says holds."""

    configuration: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    url: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    htpasswd: Path | None = None
    anonymous: str | None = None
    no_delete: bool = False
    audit: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False
    """Log no requests, only what goes wrong."""
