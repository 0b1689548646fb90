"""uvicorn's configuration out of ours."""

import ssl
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config

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
            log_config=log_configuration(settings.log),
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
