"""A registry that is spoken to: where it is, who we are there, and each request until it has an answer."""

import threading
from collections.abc import Collection, Iterable, Mapping

from layerstore.errors import RegistryError
from layerstore.registry.client.addresses import followed, is_loopback, origin_of
from layerstore.registry.client.answers import failure
from layerstore.registry.client.authentication import Authenticator
from layerstore.registry.client.credentials import HUB_DOMAIN
from layerstore.registry.client.options import ConnectionOptions
from layerstore.registry.client.problems import (
    BrokenConnectionError,
    ClientCertificateError,
    UnreachableError,
    UntrustedError,
)
from layerstore.registry.client.requests import purpose
from layerstore.registry.client.retrying import PASSING_STATUSES, Patience, asked_seconds
from layerstore.registry.client.traffic import Traffic
from layerstore.registry.client.transport import Response, Transport
from layerstore.registry.protocol import EXCHANGE_HEADER, EXCHANGE_VERSION

_HUB_HOST = "registry-1.docker.io"
_REDIRECTS_MAX = 8
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PING = "/v2/"
_PING_SECONDS_MAX = 3.0
"""How long to wait for TLS from a loopback address that may not speak it."""


class Connection:
    """The connection to one registry. Its methods may be called from several threads at once."""

    def __init__(self, domain: str, options: ConnectionOptions) -> None:
        """``domain`` as it stands in references."""
        self.domain = domain
        self.options = options
        self._host = _HUB_HOST if domain == HUB_DOMAIN else domain
        self._transport = Transport(options)
        self._authenticator = Authenticator(domain, self._transport, options)
        self._lock = threading.Lock()
        self._found: str | None = None
        self._exchanges = False

    @property
    def traffic(self) -> Traffic:
        """What has gone over the wire so far."""
        return self._transport.traffic

    @property
    def asks_for_credentials(self) -> bool:
        """Whether the registry has asked who we are."""
        return self._authenticator.is_asked

    @property
    def exchanges_differences(self) -> bool:
        """Whether the registry is a layerstore that gives and takes differences of blobs. It may have to be asked."""
        self._base()
        return self._exchanges

    def request(
        self,
        method: str,
        target: str,
        scopes: tuple[str, ...] = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        accepts: Collection[int] = (200,),
    ) -> Response:
        """Make a request, and see to it that it is answered with a status that is accepted. The answer is to be closed.

        Waits and tries again after what may pass, follows redirects of reads, and logs in if that is asked for. What is
        neither bytes nor None can be sent but once: if that fails it is for the caller to begin again.

        Args:
            method: As in HTTP.
            target: A path, or a URL that the registry gave (see `locate`). Only the registry itself gets credentials.
            scopes: What is to be allowed: ``repository:NAME:pull,push``.
            headers: Beside those that every request has.
            body: What to send.
            accepts: The statuses that the caller can do something with.

        Raises:
            BrokenConnectionError: It did not come through, however often it was tried.
            AuthenticationError: The registry wants credentials, or other ones.
            DeniedError: The registry does not allow it.
            RegistryError: Any other status, or an answer that makes no sense.
        """
        url = self._base() + target if target.startswith("/") else target
        is_once = not (body is None or isinstance(body, bytes))
        patience = Patience(self.options)
        while True:
            try:
                response = self._authorized(method, url, scopes, dict(headers or {}), body, is_once)
            except BrokenConnectionError as error:
                if is_once:
                    raise
                patience.wait(error)
                continue
            if response.status in accepts:
                return response
            with response:
                if response.status == 401:
                    raise self._authenticator.refusal(purpose(method, target))
                refused = failure(response, purpose(method, target))
                if response.status not in PASSING_STATUSES:
                    raise refused
                if is_once:
                    raise BrokenConnectionError(str(refused))
            patience.wait(refused, asked_seconds=asked_seconds(response))

    def fetch(
        self,
        target: str,
        scopes: tuple[str, ...],
        *,
        headers: Mapping[str, str] | None = None,
        accepts: Collection[int],
        size_max: int,
    ) -> tuple[Response, bytes]:
        """Get something small: the answer, which is closed, and its whole body.

        Raises as `request` does, and `OversizedError` for a body of more bytes.
        """
        patience = Patience(self.options)
        while True:
            with self.request("GET", target, scopes, headers=headers, accepts=accepts) as response:
                try:
                    return response, response.read(size_max)
                except BrokenConnectionError as error:
                    broken = error
            patience.wait(broken)

    def locate(self, response: Response, location: str) -> str:
        """The URL that an answer leads to. Raises `RegistryError` for one that must not be followed."""
        return followed(response.url, location, plain_http=self.options.plain_http)

    def close(self) -> None:
        """Close what is open and not in use."""
        self._transport.close()

    def _authorized(
        self,
        method: str,
        url: str,
        scopes: tuple[str, ...],
        headers: dict[str, str],
        body: bytes | Iterable[bytes] | None,
        is_once: bool,
    ) -> Response:
        """A request with redirects, made again with credentials if they are asked for."""
        authorization = self._authenticator.header(scopes)
        response = self._redirected(method, url, headers, body, authorization)
        is_own = origin_of(response.url) == origin_of(self._base())
        if response.status != 401 or not is_own:
            return response
        self._authenticator.learn(response)
        self._authenticator.forget(scopes, authorization)
        renewed = self._authenticator.header(scopes)
        if renewed is None or renewed == authorization:
            return response
        response.close()
        if is_once:
            raise BrokenConnectionError(f"{self.domain} asked for credentials in the middle of an upload")
        return self._redirected(method, url, headers, body, renewed)

    def _redirected(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | Iterable[bytes] | None,
        authorization: str | None,
    ) -> Response:
        registry = origin_of(self._base())
        for _ in range(_REDIRECTS_MAX):
            # Blobs often lie at another host, whose URL has all that it asks for.
            is_own = authorization is not None and origin_of(url) == registry
            every = {**headers, "Authorization": authorization} if is_own and authorization else headers
            response = self._transport.send(method, url, every, body)
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            with response:
                location = response.header("Location")
                if location is None:
                    raise RegistryError(f"{origin_of(url)} redirects to nowhere")
                url = self.locate(response, location)
        raise RegistryError(f"{self.domain} redirects more than {_REDIRECTS_MAX} times")

    def _base(self) -> str:
        """Where the registry is. It is asked once whether it is there, and how it wants to be told who asks."""
        with self._lock:
            if self._found is None:
                self._found = self._find()
            return self._found

    def _find(self) -> str:
        secure, plain = f"https://{self._host}", f"http://{self._host}"
        if self.options.plain_http:
            return self._ping(plain)
        if is_loopback(origin_of(secure).host) and self.options.client_certificate is None:
            try:
                return self._ping(secure, once=True)
            except (UntrustedError, ClientCertificateError):
                raise
            except RegistryError:
                return self._ping(plain)
        return self._ping(secure)

    def _ping(self, base: str, *, once: bool = False) -> str:
        patience = Patience(self.options)
        seconds = _PING_SECONDS_MAX if once else None
        while True:
            try:
                response = self._transport.send("GET", base + _PING, {}, connect_seconds_max=seconds)
            except BrokenConnectionError as error:
                # Where nobody has answered yet, more likely the name is wrong than that it will be better soon.
                if once or isinstance(error, UnreachableError):
                    raise
                patience.wait(error)
                continue
            with response:
                if response.status == 401:
                    self._authenticator.learn(response)
                if response.status not in PASSING_STATUSES:
                    self._exchanges = response.header(EXCHANGE_HEADER) == EXCHANGE_VERSION
                    return base
                refused = failure(response, purpose("GET", _PING))
            patience.wait(refused, asked_seconds=asked_seconds(response))
