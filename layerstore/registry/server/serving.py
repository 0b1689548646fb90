"""The server: checks, sockets, and one or more worker processes, until a signal ends it."""

import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.server import Server
from uvicorn.supervisors.multiprocess import Multiprocess

from layerstore.errors import InvalidOptionError, UnavailableError
from layerstore.os_errors import translate_os_errors
from layerstore.registry.server.audit import AuditLog
from layerstore.registry.server.configuration import is_loopback, load_settings
from layerstore.registry.server.connections import BoundedConnection
from layerstore.registry.server.logs import log
from layerstore.registry.server.metrics import prepare_metrics
from layerstore.registry.server.options import Options
from layerstore.registry.server.registry import Registry
from layerstore.registry.server.settings import Anonymous, ServerSettings
from layerstore.registry.server.uvicorn_config import ServerConfig
from layerstore.registry.server.worker import Worker, tls_context

_BACKLOG = 2048


def serve(store: Path, options: Options, announce: Callable[[str], None]) -> None:
    """Serve a store until SIGTERM or SIGINT. Everything that can be wrong is looked at before ``announce(address)``."""
    settings = load_settings(store, options)
    Registry(settings).close()  # all that it needs can be opened, or the command says why not
    if settings.audit is not None:
        with closing(AuditLog(settings.audit)) as audit:
            audit.check()
    if settings.metrics_token is not None and not settings.metrics_token.is_file():
        raise InvalidOptionError(f"there is no file {settings.metrics_token} with the token of the metrics")
    if settings.tls_certificate is not None:
        tls_context(settings)
    _allow_descriptors()
    listener = _listener(settings)
    worker = Worker(settings, options)
    tls = worker.tls if settings.tls_certificate is not None else None
    config = ServerConfig(worker.application, settings, BoundedConnection, tls)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises them again when all is done: this ends the command as it should.
        signal.signal(number, lambda *_: None)
    announce(_address(settings, listener))
    _warn(settings)
    if settings.workers == 1:
        _run_here(config, listener)
    else:
        prepare_metrics(settings)
        _Supervisor(config, [listener]).run_to_the_end()


def _run_here(config: ServerConfig, listener: socket.socket) -> None:
    try:
        Server(config).run([listener])
    except SystemExit as error:
        raise UnavailableError("the server could not start; its log says why") from error


class _Supervisor(Multiprocess):
    """uvicorn's, but SIGHUP reaches the workers instead of replacing them, and a second signal ends the waiting."""

    def run_to_the_end(self) -> None:
        self.run()
        if any(
            process.exitcode not in (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL) for process in self.processes
        ):
            raise UnavailableError("the workers could not start; the log says why")

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            # prometheus_client has annotations, but not everywhere.
            mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def handle_hup(self) -> None:
        for process in self.processes:
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, signal.SIGHUP)

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()  # the workers close theirs; this one would go on taking connections that nobody answers
        super().terminate_all()

    def join_all(self) -> None:
        for process in self.processes:
            while process.exitcode is None:
                process.process.join(0.2)
                if any(one in self.signal_queue for one in (signal.SIGTERM, signal.SIGINT)):
                    process.process.kill()


def _listener(settings: ServerSettings) -> socket.socket:
    where = f"{settings.host} port {settings.port}"
    with translate_os_errors(f"cannot listen on {where}"):
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    listener.set_inheritable(True)
    return listener


def _allow_descriptors() -> None:
    """Connections alone may be more than the limit that shells give programs; the kernel allows many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _address(settings: ServerSettings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _warn(settings: ServerSettings) -> None:
    if is_loopback(settings.host):
        return
    if settings.anonymous in (Anonymous.WRITE, Anonymous.ALL):
        log(logging.WARNING, "everyone who reaches this server can write")
    is_protected = settings.tls_certificate is not None or (settings.url or "").startswith("https:")
    if settings.has_accounts and not is_protected:
        log(logging.WARNING, "passwords travel unencrypted: set up TLS, or a proxy that has it and listen.url")
