"""Limits of requests: how often, how many at once, how large their heads, and how long for a body to come."""

import asyncio
import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.buckets import Buckets, client_of
from layerstore.registry.server.configuration import is_loopback
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.settings import ServerSettings

_HEADERS_MAX = 200
_BODY_BYTES_PER_SECOND = 1000.0
"""Slower than any network, and faster than who only wants to hold a connection."""


class Limits:
    """The middleware. Clients on the same machine are not counted: a proxy there would be one client."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._running: Counter[str] = Counter()
        self._buckets: Buckets | None = None
        if settings.requests_per_second:
            self._buckets = Buckets(
                settings.folder / "requests",
                per_second=settings.requests_per_second,
                burst=settings.requests_burst,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        client = "" if is_loopback(address) else client_of(address)
        problem = self._problem(scope, client)
        if problem is not None:
            await problem.response()(scope, receive, send)
            return
        self._running[client] += 1
        try:
            await self._app(scope, _Body(receive, self._settings.idle_seconds).receive, send)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    def _problem(self, scope: Scope, client: str) -> ProblemError | None:
        headers = scope["headers"]
        size = sum(len(name) + len(value) + 4 for name, value in headers)
        size += len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size > self._settings.header_size_max or len(headers) > _HEADERS_MAX:
            return ProblemError(431, ErrorCode.SIZE_INVALID, "the request has too many headers, or too long ones")
        if not client:
            return None
        if self._settings.requests_at_once and self._running[client] >= self._settings.requests_at_once:
            return _too_many("too many requests at the same time", 1.0)
        wait = self._buckets.take(client) if self._buckets is not None else 0.0
        return _too_many("too many requests", wait) if wait else None


class _Body:
    """The body of a request, which must not stand still, nor come too slowly altogether."""

    def __init__(self, receive: Receive, idle_seconds: float) -> None:
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._waited = 0.0
        self._size = 0
        self._is_whole = False

    async def receive(self) -> Message:
        """The next part. Raises `ProblemError` if it does not come in time."""
        if self._is_whole:
            return await self._receive()  # it waits for the client to go away
        allowance = self._idle_seconds + self._size / _BODY_BYTES_PER_SECOND - self._waited
        begun = time.monotonic()
        try:
            async with asyncio.timeout(min(self._idle_seconds, allowance)):
                message = await self._receive()
        except TimeoutError:
            raise ProblemError(
                408, ErrorCode.UNKNOWN, "the body did not come in time", headers={"Connection": "close"}
            ) from None
        self._waited += time.monotonic() - begun
        self._size += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        return message


def _too_many(message: str, wait: float) -> ProblemError:
    headers = {"Retry-After": str(int(wait) + 1)}
    return ProblemError(429, ErrorCode.TOOMANYREQUESTS, f"{message}; try again later", headers=headers)
