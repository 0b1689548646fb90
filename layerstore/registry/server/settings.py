"""How a server is set up: what the command line and the configuration file say, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from layerstore.registry.server.repositories import BLOB_TTL_SECONDS

EVERYONE = "@everyone"
"""In rights: all who make requests, whether they say who they are or not."""
ACCOUNTS = "@accounts"
"""In rights: all who have an account."""


class Anonymous(StrEnum):
    """What may be done in every repository without an account; each includes the one before."""

    NONE = "none"
    READ = "read"
    WRITE = "write"
    ALL = "all"
    """Deletes, too."""


class MetricsAccess(StrEnum):
    """Who may read ``/metrics`` without its token."""

    NOBODY = "nobody"
    LOOPBACK = "loopback"
    """Programs on the same machine that come without a proxy."""
    EVERYONE = "everyone"


class LogFormat(StrEnum):
    """How the log is written."""

    AUTO = "auto"
    """As text on a terminal, as JSON elsewhere."""
    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Some accounts may do something in some repositories."""

    who: frozenset[str]
    """Names of accounts, `EVERYONE` or `ACCOUNTS`."""
    repositories: tuple[str, ...]
    """Patterns: ``*`` is any part of one component of a name, ``**`` any number of components."""
    actions: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A registry that is read through this one."""

    url: str
    """Where it is. A path in it comes before the names of its repositories."""
    username: str | None = None
    password: Path | None = None
    """A file that has the password of `username`."""
    ca: Path | None = None
    """Certificates (PEM) of authorities that are trusted beside the system's."""
    fresh_seconds: float = 60.0
    """How long what a tag names is not asked for again."""
    silent_seconds: float = 30.0
    """How long it may say nothing until it counts as unreachable."""
    keep_seconds: float = 0.0
    """How long the copy of an image is kept that nobody pulls; 0: for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything that a worker process has to know. It is passed to processes, so it holds plain values."""

    store: Path
    blob_size_max: int = 64 << 30
    manifest_size_max: int = 8 << 20
    """At most `DOCUMENT_SIZE_MAX`."""
    blob_ttl: float = BLOB_TTL_SECONDS
    is_delete_enabled: bool = True
    collection_interval: float = 3600.0
    """Seconds between collections; 0: never."""
    compression_level: int = 3
    """zstd's, of what is pushed; that of the store itself is higher, and would keep clients waiting."""
    proxies: Mapping[str, Upstream] = field(default_factory=dict)
    """Registries that are read through this one, by the first component of the names that repositories have here."""

    host: str = "127.0.0.1"
    port: int = 5000
    """0: a free one."""
    workers: int = 1
    """Processes that answer requests."""
    url: str | None = None
    """Under which clients reach the server, if that is not what their requests say."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    htpasswd: Path | None = None
    """The accounts; without it there are none."""
    anonymous: Anonymous = Anonymous.ALL
    rights: tuple[Right, ...] = ()
    """What may be done beyond `anonymous`. They add up."""
    token_lifetime: float = 300.0
    token_secret: Path | None = None
    """A file; by default the server makes one in the store."""
    service: str = "layerstore"
    """The name of the server in its tokens."""

    header_size_max: int = 64 << 10
    """Bytes of a request before its body."""
    requests_per_second: float = 200.0
    """Of one client in the long run, over all workers; 0: no limit."""
    requests_burst: int = 2000
    """How many requests a client may make at once before `requests_per_second` counts."""
    requests_at_once: int = 256
    """How many requests of one client a worker answers at the same time; 0: no limit."""
    connections_max: int = 4000
    """Open connections of a worker."""
    client_connections_max: int = 500
    """Those of one client to a worker; 0: no limit."""
    client_uploads_max: int = 1000
    """Uploads that one account, or a client without one, has begun and not ended; 0: no limit."""
    login_failures: int = 10
    """Wrong passwords of one client at once; one more every ten seconds."""
    idle_seconds: float = 60.0
    """How long a client may stand still in the middle of a request or an answer."""

    audit: Path | None = None
    """Where pushes, deletes and failed logins are recorded."""
    metrics: MetricsAccess = MetricsAccess.LOOPBACK
    metrics_token: Path | None = None
    """A file whose text, as a bearer token, opens ``/metrics`` to anyone."""
    log: LogFormat = LogFormat.AUTO
    is_quiet: bool = False
    """Whether only what goes wrong is logged."""
    drain_seconds: float = 0.0
    """How long ``/readyz`` says no before the server takes no more connections."""
    shutdown_seconds: float = 300.0
    """How long running transfers have to end."""

    @property
    def folder(self) -> Path:
        """Where in the store's folder the server keeps what is its own."""
        return self.store / "registry"

    @property
    def has_accounts(self) -> bool:
        """Whether anybody can say who they are."""
        return self.htpasswd is not None
