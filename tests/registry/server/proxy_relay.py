"""A relay before a registry: it counts what is asked, and holds back, cuts, spoils or refuses answers as it is told."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from layerstore.registry.protocol import DIFFERENCE_TYPE

_WAIT_SECONDS_MAX = 30.0


@dataclass
class Relay:
    """What the relay does, and what it was asked."""

    target: str
    """The registry; its host and port."""
    port: int = 0
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    status: int | None = None
    """What every request is answered with, instead of being passed on."""
    spoil: Callable[[str, bytes], bytes] = lambda path, body: body
    """What becomes of bodies."""
    difference: bytes | None = None
    """What every question for a difference is answered with, instead of being passed on."""
    drop: frozenset[str] = frozenset()
    """Headers, in small letters, that are not passed on."""
    cut: int | None = None
    """After so many bytes the next body of a blob breaks off, once."""
    gate: threading.Event | None = None
    """Half of each blob is held back until this is set."""
    pause_seconds: float | None = None
    """How long it is from each byte of a blob to the next."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where the relay is."""
        return f"http://127.0.0.1:{self.port}"

    def ranges(self) -> list[str | None]:
        """The ranges of blobs that were asked for, None for a whole one."""
        return [
            headers.get("Range") for method, path, headers in self.requests if method == "GET" and "/blobs/" in path
        ]

    def count(self, method: str, part: str) -> int:
        """How many requests there were whose path has a part."""
        with self.lock:
            return sum(one == method and part in path for one, path, _ in self.requests)

    def forget(self) -> None:
        """Count from nothing."""
        with self.lock:
            self.requests.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    relay: Relay

    def do_GET(self) -> None:
        headers = {name.title(): value for name, value in self.headers.items()}
        relay = self.relay
        with relay.lock:
            relay.requests.append((self.command, self.path, headers))
        if relay.status is not None:
            self._answer(relay.status, {}, b"")
            return
        connection = http.client.HTTPConnection(relay.target, timeout=_WAIT_SECONDS_MAX)
        try:
            connection.request(self.command, self.path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        dropped = relay.drop | {"date", "connection"}
        told = {name.title(): value for name, value in answer.getheaders() if name.lower() not in dropped}
        if self.command == "GET":
            body = relay.spoil(self.path, body)
            told["Content-Length"] = str(len(body))
        self._answer(answer.status, told, body)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers["Content-Length"]))
        relay = self.relay
        with relay.lock:
            relay.requests.append((self.command, self.path, {}))
        if relay.difference is not None:
            self._answer(200, {"Content-Type": DIFFERENCE_TYPE}, relay.difference)
            return
        connection = http.client.HTTPConnection(relay.target, timeout=_WAIT_SECONDS_MAX)
        try:
            connection.request("POST", self.path, question, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        self._answer(answer.status, {"Content-Type": answer.getheader("Content-Type", "")}, body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with suppress(OSError):
            self._send(body)

    def _send(self, body: bytes) -> None:
        relay = self.relay
        is_blob = "/blobs/" in self.path
        with relay.lock:
            cut = relay.cut if is_blob else None
            relay.cut = None if is_blob else relay.cut
        if cut is not None:
            self.wfile.write(body[:cut])
            self.close_connection = True
            return
        gate = relay.gate if is_blob else None
        half = len(body) // 2 if gate is not None else len(body)
        if is_blob and relay.pause_seconds is not None:
            for number in range(len(body)):
                self.wfile.write(body[number : number + 1])
                time.sleep(relay.pause_seconds)
            return
        self.wfile.write(body[:half])
        if gate is not None:
            gate.wait(_WAIT_SECONDS_MAX)
            self.wfile.write(body[half:])

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        """Clients break connections, which is what the tests are about."""


@contextmanager
def relaying(target: str, port: int = 0) -> Iterator[Relay]:
    """Runs a relay in threads."""
    relay = Relay(target)
    server = _Quiet(("127.0.0.1", port), type("Handler", (_Handler,), {"relay": relay}))
    relay.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        if relay.gate is not None:
            relay.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
