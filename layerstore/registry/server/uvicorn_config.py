"""uvicorn's configuration out of ours."""

import ipaddress
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config

from layerstore.registry.server.buckets import client_of
from layerstore.registry.server.configuration import is_loopback
from layerstore.registry.server.logs import log_configuration
from layerstore.registry.server.settings import ServerSettings

_KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 seconds for which common proxies keep connections, so that none is closed under a request."""
_WORKER_SILENT_SECONDS = 60
"""A worker that does not answer its supervisor for so long is replaced."""


class ServerConfig(Config):
    """It goes to each worker process, with the settings that `connections` needs."""

    def __init__(
        self,
        application: Callable[[], Any],
        settings: ServerSettings,
        connection: type[Any],
        tls: Callable[[Config, Callable[[], ssl.SSLContext]], ssl.SSLContext] | None,
    ) -> None:
        super().__init__(
            application,
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            http=connection,
            ws="none",
            lifespan="on",
            log_config=log_configuration(settings.log, is_quiet=settings.is_quiet),
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            limit_concurrency=settings.connections_max,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, int(settings.shutdown_seconds)),
            timeout_worker_healthcheck=_WORKER_SILENT_SECONDS,
            ssl_context_factory=tls,
        )
        self.settings = settings
        self.connections_of: Counter[str] = Counter()
        """How many connections each client has to this worker."""
        self._uncounted = [ipaddress.ip_network(one) for one in settings.trusted_proxies]

    def counted_client(self, address: str) -> str | None:
        """Whose a connection from an address is; None for proxies and this machine, which stand for many."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        if is_loopback(address) or any((mapped or parsed) in network for network in self._uncounted):
            return None
        return client_of(address)
