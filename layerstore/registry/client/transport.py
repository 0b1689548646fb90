"""One HTTP request after another, over pools of connections that threads share. No redirects, no credentials."""

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout, make_headers

from layerstore.errors import InvalidOptionError, OversizedError
from layerstore.registry.client.addresses import Origin, origin_of
from layerstore.registry.client.options import ConnectionOptions
from layerstore.registry.client.tls import tls_context
from layerstore.registry.client.traffic import Traffic
from layerstore.registry.client.transport_errors import answer_error, request_error

BLOCK_SIZE = 256 << 10
_DRAINED_SIZE_MAX = 64 << 10
"""What is left of an answer that is read for the sake of its connection; more is not worth it."""


class Response:
    """An answer whose body is still to be read. It is to be closed."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, url: str, options: ConnectionOptions, traffic: Traffic
    ) -> None:
        self._response = response
        self._options = options
        self._traffic = traffic
        self.url = url
        """What was asked, after all redirects."""
        self.status = response.status

    def header(self, name: str) -> str | None:
        """A header; None if it is not there."""
        return self._response.headers.get(name)

    def headers(self, name: str) -> list[str]:
        """All headers of a name."""
        return list(self._response.headers.getlist(name))

    def blocks(self, *, as_they_come: bool = False) -> Iterator[bytes]:
        """The body. Raises `BrokenConnectionError` if it is cut short.

        ``as_they_come``: what is there, however little, so that it is seen how fast it comes.
        """
        read = self._response.read1 if as_they_come else self._response.read
        while block := self._read(BLOCK_SIZE, read):
            yield block

    def read(self, size_max: int) -> bytes:
        """The whole body. Raises `OversizedError` if it has more bytes, of which no more are read."""
        parts: list[bytes] = []
        size = 0
        for block in self.blocks():
            size += len(block)
            if size > size_max:
                raise OversizedError(f"{self.url[:200]} answers with more than {size_max} bytes, which is refused")
            parts.append(block)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection, which others use again if little is left to be read."""
        try:
            if self._response.length_remaining is not None and self._response.length_remaining <= _DRAINED_SIZE_MAX:
                self._response.drain_conn()
        finally:
            self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, size: int, read: Callable[..., bytes]) -> bytes:
        try:
            block = read(size, decode_content=False)
        except (HTTPError, OSError) as error:
            raise answer_error(error, origin_of(self.url), self._options) from error
        self._traffic.count_received(len(block))
        return block


class _UncheckedConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.is_verified = True  # else each connection warns of what the caller has asked for


class _UncheckedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _UncheckedConnection


class Transport:
    """Makes requests, each once. Its methods may be called from several threads at once."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self.traffic = Traffic()
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, str | None], urllib3.PoolManager] = {}

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        *,
        connect_seconds_max: float | None = None,
    ) -> Response:
        """Make a request. Raises `BrokenConnectionError`, and `UntrustedError` for a certificate that is not good."""
        origin = origin_of(url)
        proxy = self._proxy(origin)
        seconds = self._options.connect_seconds_max if connect_seconds_max is None else connect_seconds_max
        every = {"User-Agent": self._options.user_agent, "Accept-Encoding": "identity", **headers}
        try:
            response = self._pool(origin.scheme, proxy).urlopen(
                method,
                url,
                body=None if body is None else self._counted(body),
                headers=every,
                retries=False,
                redirect=False,
                timeout=Timeout(connect=seconds, read=self._options.read_seconds_max),
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise request_error(error, origin, self._options, proxy) from error
        return Response(response, url, self._options, self.traffic)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _counted(self, body: bytes | Iterable[bytes]) -> bytes | Iterable[bytes]:
        if isinstance(body, bytes):
            self.traffic.count_sent(len(body))
            return body
        return self._counted_blocks(body)

    def _counted_blocks(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.traffic.count_sent(len(block))
            yield block

    def _proxy(self, origin: Origin) -> str | None:
        proxies = self._options.proxies
        proxy = proxies.https if origin.scheme == "https" else proxies.http
        if proxy is None or origin.is_loopback:
            return None
        if proxies.bypass is not None and proxies.bypass(f"{origin.host}:{origin.port}"):
            return None
        return proxy

    def _pool(self, scheme: str, proxy: str | None) -> urllib3.PoolManager:
        with self._lock:
            pool = self._pools.get((scheme, proxy))
            if pool is None:
                # To read the system's certificates takes a while: it is not done for what has none.
                context = tls_context(self._options) if scheme == "https" else None
                size = self._options.jobs + 2
                if proxy is None:
                    pool = urllib3.PoolManager(maxsize=size, ssl_context=context)
                else:
                    pool = _proxy_manager(proxy, size, context)
                if self._options.insecure:
                    pool.pool_classes_by_scheme = {"http": urllib3.HTTPConnectionPool, "https": _UncheckedPool}
                self._pools[scheme, proxy] = pool
            return pool


def _proxy_manager(proxy: str, size: int, context: ssl.SSLContext | None) -> urllib3.ProxyManager:
    try:
        parsed = urllib3.util.parse_url(proxy)
        headers = make_headers(proxy_basic_auth=parsed.auth) if parsed.auth else None
        return urllib3.ProxyManager(proxy, maxsize=size, ssl_context=context, proxy_headers=headers)
    except (HTTPError, ValueError) as error:
        raise InvalidOptionError(f"the proxy is no address: {error}") from None
