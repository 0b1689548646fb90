"""Registries for tests: Debian's docker-registry, and small ones in threads that misbehave as they are told."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REGISTRY = "docker-registry"
USER, PASSWORD = "shop", "s3cret:word"

PASSWORD_LINE = f"{USER}:$2b$04$eDVArlFOxg3YFUet96Mf9eSSRxUoNpaDNQkyZJ7Nu9ow1zZCp9G5K"
"""As htpasswd writes it, with the cheapest bcrypt."""

_SECONDS_MAX = 10.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "registry.crt", folder / "registry.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=registry"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key],
        check=True,
        capture_output=True,
    )
    return certificate, key


@contextmanager
def docker_registry(
    folder: Path, *, users: str | None = None, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Runs docker-registry on a free port; ``host:port``."""
    if shutil.which(REGISTRY) is None:
        pytest.skip(f"{REGISTRY} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    lines = [
        "version: 0.1",
        "log: {level: error, accesslog: {disabled: true}}",
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}",
        "http:",
        f"  addr: 127.0.0.1:{port}",
        "  secret: test",
    ]
    if certificate is not None:
        lines.append(f"  tls: {{certificate: {certificate[0]}, key: {certificate[1]}}}")
    if users is not None:
        (folder / "htpasswd").write_text(users + "\n")
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}")
    (folder / "config.yml").write_text("\n".join(lines) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([REGISTRY, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        _await(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_SECONDS_MAX)


def _await(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, "the registry did not start"
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.02)


@dataclass
class Request:
    """What a server was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What it answers. ``cut`` bytes of the body are sent, and the connection is closed."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    endless: bool = False


class Server:
    """A server that answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.cut: tuple[int, Callable[[Request], None]] | None = None
        """Of the next PATCH so many bytes are read; what to do with them before the connection is closed."""
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def asked(self, method: str, part: str = "") -> list[Request]:
        return [one for one in self.requests if one.method == method and part in one.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    told: Server

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        headers = {name.title(): value for name, value in self.headers.items()}
        cut, self.told.cut = (self.told.cut, None) if self.command == "PATCH" else (None, self.told.cut)
        if cut is not None:
            cut[1](Request(self.command, self.path, headers, self.rfile.read(min(size, cut[0]))))
            self.close_connection = True
            return
        request = Request(self.command, self.path, headers, self.rfile.read(size))
        self.told.requests.append(request)
        reply = self.told.answer(request)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if not {"Content-Length", "Transfer-Encoding"} & set(reply.headers) and not reply.endless:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self._write(reply)

    def _write(self, reply: Answer) -> None:
        try:
            self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
            while reply.endless:
                self.wfile.write(b" " * 65536)
        except OSError:
            self.close_connection = True
        if reply.cut is not None:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        """Clients break connections, which is what the tests are about."""


@contextmanager
def serving(answer: Callable[[Request], Answer], *, certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """Runs a server in a thread."""
    server = Server(answer)
    http = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"told": server}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
