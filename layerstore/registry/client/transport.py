"""One HTTP request after another, over pools of connections that threads share. No redirects, no credentials."""

import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError
from urllib3.util import Timeout, make_headers

from layerstore.errors import InvalidOptionError, OversizedError, RegistryError
from layerstore.registry.client.addresses import Origin, origin_of
from layerstore.registry.client.options import ConnectionOptions

BLOCK_SIZE = 256 << 10
_DRAINED_SIZE_MAX = 64 << 10
"""What is left of an answer that is read for the sake of its connection; more is not worth it."""


class BrokenConnectionError(RegistryError):
    """A connection was not made, or broke: it may work the next time."""


class UnreachableError(BrokenConnectionError):
    """Nobody is there who could answer: the name is not known, the connection is refused, or there is no TLS."""


class UntrustedError(RegistryError):
    """A certificate is not good."""


class Response:
    """An answer whose body is still to be read. It is to be closed."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        """What was asked, after all redirects."""
        self.status = response.status

    def header(self, name: str) -> str | None:
        """A header; None if it is not there."""
        return self._response.headers.get(name)

    def headers(self, name: str) -> list[str]:
        """All headers of a name."""
        return list(self._response.headers.getlist(name))

    def blocks(self) -> Iterator[bytes]:
        """The body. Raises `BrokenConnectionError` if it is cut short."""
        while block := self._read(BLOCK_SIZE):
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

    def _read(self, size: int) -> bytes:
        try:
            return self._response.read(size, decode_content=False)
        except (HTTPError, OSError) as error:
            raise BrokenConnectionError(f"the connection to {origin_of(self.url).host} broke: {error}") from error


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
        seconds = self._options.connect_seconds_max if connect_seconds_max is None else connect_seconds_max
        every = {"User-Agent": self._options.user_agent, "Accept-Encoding": "identity", **headers}
        try:
            response = self._pool(origin.scheme, self._proxy(origin)).urlopen(
                method,
                url,
                body=body,
                headers=every,
                retries=False,
                redirect=False,
                timeout=Timeout(connect=seconds, read=self._options.read_seconds_max),
                preload_content=False,
                decode_content=False,
            )
        except SSLError as error:
            raise _tls_error(origin, error) from error
        except NewConnectionError as error:
            reason = str(error).partition("): ")[2] or str(error)  # without the connection's own name
            raise UnreachableError(f"cannot reach {origin.host}:{origin.port}: {reason}") from error
        except (HTTPError, OSError) as error:
            through = " through the proxy" if isinstance(error, ProxyError) else ""
            raise BrokenConnectionError(f"cannot reach {origin.host}:{origin.port}{through}: {error}") from error
        return Response(response, url)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

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
                context = _tls(self._options) if scheme == "https" else None
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


def _tls(options: ConnectionOptions) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if options.ca_file is not None:
        try:
            context.load_verify_locations(options.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidOptionError(
                f"{options.ca_file} cannot be read as certificates (PEM): {error.strerror or error}"
            ) from error
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _tls_error(origin: Origin, error: SSLError) -> RegistryError:
    inner = error.args[0] if error.args else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return UntrustedError(
            f"the certificate of {origin.host}:{origin.port} is not trusted: {inner.verify_message}; "
            "give its authority with --ca-file"
        )
    return UnreachableError(
        f"{origin.host}:{origin.port} does not speak TLS as it should: {inner}; --plain-http does without"
    )
