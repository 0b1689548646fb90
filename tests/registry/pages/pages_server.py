"""The real server application on a free port, and what it answers."""

import base64
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from layerstore.registry.server.application import create_application
from layerstore.registry.server.settings import ServerSettings

_START_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class RunningServer:
    """A server that answers."""

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(
        self, path: str, *, account: str | None = None, password: str = "secret", host: str | None = None
    ) -> Answer:
        """A page, to whoever has that account."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest("GET", path, skip_host=host is not None)
            if host is not None:
                connection.putheader("Host", host)
            if account is not None:
                credentials = base64.b64encode(f"{account}:{password}".encode()).decode()
                connection.putheader("Authorization", f"Basic {credentials}")
            connection.endheaders()
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def page(self, path: str, **more: str) -> str:
        """The text of a page that is there."""
        answer = self.get(path, **more)
        assert answer.status == 200, (path, answer.status, answer.body[:2000])
        return answer.text


@contextmanager
def serving(settings: ServerSettings) -> Iterator[RunningServer]:
    """The server, until the block is left."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_application(settings), log_level="warning", ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        yield RunningServer(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
