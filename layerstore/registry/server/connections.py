"""Connections: uvicorn's, with bounds for what the HTTP parser and uvicorn leave without any.

httptools takes heads of requests, chunk extensions and trailers of any size, and uvicorn waits for a head, and for a
client that reads nothing, for ever, and lets one client take all connections. What is bounded elsewhere: bodies
(`streaming.received`), and the waiting for them (`limits`).
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from layerstore.registry.server.measures import CONNECTIONS_REFUSED, INVALID_REQUESTS
from layerstore.registry.server.uvicorn_config import ServerConfig

HEAD_SECONDS: Final = 30.0
"""How long the head of a request may take, however steadily it trickles."""


GOODBYE_SECONDS: Final = 1.0
"""How long a client gets to end TLS of a connection on which nothing is being answered."""


class BoundedConnection(HttpToolsProtocol):
    """A connection that ends when its client is too slow, or sends too much that is no body."""

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._size_max = config.settings.header_size_max
        self._idle_seconds = config.settings.idle_seconds
        self._config = config
        self._counted: str | None = None
        """Whose connections this one is counted with."""
        self._is_in_head = True
        self._size_without_body = 0
        """Bytes since the last that meant something to the application."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless the client has too many connections already."""
        super().connection_made(transport)
        self._counted = None if self.client is None else self._config.counted_client(self.client[0])
        if self._counted is not None:
            self._config.connections_of[self._counted] += 1
            maximum = self._config.settings.client_connections_max
            if maximum and self._config.connections_of[self._counted] > maximum:
                CONNECTIONS_REFUSED.inc()
                transport.abort()
                return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        if self._counted is not None:
            self._config.connections_of[self._counted] -= 1
            if not self._config.connections_of[self._counted]:
                del self._config.connections_of[self._counted]
            self._counted = None
        self._head_timer = _cancelled(self._head_timer)
        self._write_timer = _cancelled(self._write_timer)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End when nothing is being answered: asyncio would wait half a minute for a client's end of TLS."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Parse, unless it has become too much."""
        self._size_without_body += len(data)
        if self._is_in_head:
            self._await_head()
        super().data_received(data)
        if self._size_without_body > self._size_max and not self.transport.is_closing():
            self._refuse("431 Request Header Fields Too Large", "the head of the request is too large")

    def on_message_begin(self) -> None:
        """Begin a head, which may have come together with the end of the request before."""
        self._await_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are none, and would change those that were checked."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request begin."""
        self._is_in_head = False
        self._size_without_body = 0
        self._head_timer = _cancelled(self._head_timer)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._size_without_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """From now on the next head may come."""
        self._is_in_head = True
        self._size_without_body = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        INVALID_REQUESTS.inc()
        super().send_400_response(msg)

    def pause_writing(self) -> None:
        """Give a client that does not read some time."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._idle_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads."""
        self._write_timer = _cancelled(self._write_timer)
        super().resume_writing()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse("408 Request Timeout", "the head of the request did not come in time")

    def _refuse(self, status: str, message: str) -> None:
        if self.cycle is None or self.cycle.response_complete:
            body = f'{{"errors":[{{"code":"SIZE_INVALID","message":"{message}"}}]}}'
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
