"""A worker process: the application, its certificate, and what signals do to both."""

import contextlib
import logging
import signal
import ssl
import threading
from collections.abc import Callable
from multiprocessing import connection, parent_process
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from uvicorn.config import Config

from layerstore.errors import InvalidOptionError, LayerstoreError
from layerstore.registry.server import health
from layerstore.registry.server.application import create_application
from layerstore.registry.server.configuration import load_settings
from layerstore.registry.server.logs import log
from layerstore.registry.server.memory import bound_free_memory
from layerstore.registry.server.options import Options
from layerstore.registry.server.registry import Registry
from layerstore.registry.server.settings import ServerSettings


class Worker:
    """What a worker process is made of. It is passed to processes, so it holds plain values until it begins."""

    def __init__(self, settings: ServerSettings, options: Options) -> None:
        self._settings = settings
        self._options = options
        self._application: Starlette | None = None
        self._context: ssl.SSLContext | None = None
        self._reloading: threading.Lock | None = None

    def application(self) -> Starlette:
        """Make the application. uvicorn has set its own handlers of signals before it calls this."""
        bound_free_memory()
        self._application = create_application(self._settings)
        self._reloading = threading.Lock()
        signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=self._reload, daemon=True).start())
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            assert callable(previous), "uvicorn's"
            signal.signal(number, self._drain_before(previous))
        if parent_process() is not None:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        return self._application

    def tls(self, config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """The TLS context of this process."""
        self._context = tls_context(self._settings)
        return self._context

    def _reload(self) -> None:
        assert self._application is not None
        assert self._reloading is not None
        with self._reloading:
            try:
                settings = load_settings(self._settings.store, self._options)
                registry = self._application.state.registry
                assert isinstance(registry, Registry)
                registry.access.reload(settings)
                if self._context is not None:
                    _load_certificate(self._context, settings)
            except LayerstoreError as error:
                log(logging.ERROR, "the configuration was not read again", reason=str(error))
            else:
                log(logging.INFO, "accounts, rights and certificate were read again")

    def _drain_before(self, end: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            assert self._application is not None
            is_first = not getattr(self._application.state, "is_stopping", False)
            health.stop(self._application)
            if is_first and self._settings.drain_seconds:
                timer = threading.Timer(self._settings.drain_seconds, end, (number, frame))
                timer.daemon = True
                timer.start()
            else:
                end(number, frame)

        return handle


def tls_context(settings: ServerSettings) -> ssl.SSLContext:
    """TLS 1.2 and later with the server's certificate. Raises `InvalidOptionError` if that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_certificate(context, settings)
    return context


def _load_certificate(context: ssl.SSLContext, settings: ServerSettings) -> None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        raise InvalidOptionError("TLS needs a certificate and its key")
    try:
        context.load_cert_chain(certificate, key, password=_refuse_to_ask)
    except (OSError, ValueError) as error:
        raise InvalidOptionError(f"the certificate {certificate} with key {key} cannot be used: {error}") from error


def _refuse_to_ask() -> str:
    raise ValueError("the key is protected by a password")


def _end_with_parent() -> None:
    # Nobody would end, replace or reload a worker whose supervisor was killed, and it would hold the port.
    parent = parent_process()
    assert parent is not None
    with contextlib.suppress(OSError):
        connection.wait([parent.sentinel])
    signal.raise_signal(signal.SIGTERM)
