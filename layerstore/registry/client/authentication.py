"""Who we are: ``Basic``, or tokens of the server that a ``Bearer`` challenge names (Docker, "Token Authentication")."""

import base64
import json
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from layerstore.errors import AuthenticationError, RegistryError
from layerstore.registry.client.addresses import Origin, followed, origin_of, with_query
from layerstore.registry.client.challenges import Challenge, parse_challenges
from layerstore.registry.client.credentials import Credentials
from layerstore.registry.client.options import ConnectionOptions
from layerstore.registry.client.problems import BrokenConnectionError, CredentialsError, UnencryptedLoginError
from layerstore.registry.client.retrying import PASSING_STATUSES, Patience, asked_seconds
from layerstore.registry.client.scopes import wanted_access
from layerstore.registry.client.transport import Response, Transport

_CLIENT = "layerstore"
_ANSWER_SIZE_MAX = 1 << 20
_TOKEN = re.compile(r"[!-~]{1,65536}")
_LIFETIME_SECONDS = 60
"""How long a token lasts whose server does not say it ("expires_in")."""
_LIFETIME_SECONDS_MAX = 24 * 3600
_MARGIN_SECONDS = 10
"""A token is not used that ends so soon."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    ends: float


class Authenticator:
    """Knows what to put into the ``Authorization`` header of requests to one registry."""

    def __init__(self, domain: str, transport: Transport, options: ConnectionOptions) -> None:
        self._domain = domain
        self._transport = transport
        self._options = options
        # Held while a token is fetched: the threads that need the same one wait for it.
        self._lock = threading.RLock()
        self._challenge: Challenge | None = None
        self._origin: Origin | None = None
        self._asked = False
        self._credentials: Credentials | None = None
        self._tokens: dict[tuple[str, ...], _Token] = {}

    @property
    def is_asked(self) -> bool:
        """Whether the registry wants to be told who asks."""
        with self._lock:
            return self._challenge is not None

    def learn(self, response: Response) -> None:
        """Take note of how the registry wants to be told, from an answer with 401."""
        challenges = {one.scheme: one for one in reversed(parse_challenges(response.headers("WWW-Authenticate")))}
        with self._lock:
            self._challenge = challenges.get("bearer") or challenges.get("basic") or self._challenge
            self._origin = origin_of(response.url)

    def header(self, scopes: tuple[str, ...]) -> str | None:
        """The header for requests that need these scopes; None as long as the registry asks for nothing."""
        with self._lock:
            challenge = self._challenge
            if challenge is None:
                return None
            if challenge.scheme == "bearer":
                return f"Bearer {self._token(challenge, scopes)}"
            credentials = self._known_credentials()
            if credentials is None or not credentials.username:
                return None
            self._check_private(self._origin)
            return _basic(credentials)

    def forget(self, scopes: tuple[str, ...], header: str | None) -> None:
        """Drop a token that was refused, unless another thread has a new one already."""
        with self._lock:
            token = self._tokens.get(scopes)
            if token is not None and header == f"Bearer {token.text}":
                del self._tokens[scopes]

    def refusal(self, what: str) -> AuthenticationError:
        """The error for what was refused although all was tried."""
        with self._lock:
            known = self._known_credentials()
        if known is None:
            return CredentialsError(
                f"{self._domain} wants to know who asks for {what}, or it is not there; give credentials",
                self._domain,
            )
        who = f" of {known.username!r}" if known.username else ""
        return CredentialsError(f"{self._domain} refuses the credentials{who} for {what}; give others", self._domain)

    def _known_credentials(self) -> Credentials | None:
        if not self._asked:
            if self._options.credentials is not None:
                self._credentials = self._options.credentials(self._domain)
            self._asked = True
        return self._credentials

    def _check_private(self, origin: Origin | None) -> None:
        if origin is not None and not origin.is_private and not self._options.insecure:
            raise UnencryptedLoginError(
                f"credentials are not sent to {origin} without encryption; that has to be allowed"
            )

    def _token(self, challenge: Challenge, scopes: tuple[str, ...]) -> str:
        credentials = self._known_credentials()
        if credentials is not None:
            self._check_private(self._origin)  # a token is as good as they are, for a while
        if credentials is not None and credentials.registry_token:
            return _checked(credentials.registry_token, self._domain)
        known = self._tokens.get(scopes)
        if known is None or known.ends - _MARGIN_SECONDS < time.monotonic():
            known = self._tokens[scopes] = self._fetch(challenge, scopes, credentials)
        return known.text

    def _fetch(self, challenge: Challenge, scopes: tuple[str, ...], credentials: Credentials | None) -> _Token:
        realm = self._realm(challenge)
        wanted = [("service", challenge.parameters.get("service", ""))]
        wanted += [("scope", scope) for scope in _all_scopes(scopes, challenge)]
        wanted = [(name, value) for name, value in wanted if value]
        if credentials is not None:
            self._check_private(origin_of(realm))
        patience = Patience(self._options)
        while True:
            try:
                response = self._ask(realm, wanted, credentials)
            except BrokenConnectionError as error:
                patience.wait(error)
                continue
            with response:
                if response.status == 200:
                    return _parsed(response.read(_ANSWER_SIZE_MAX), self._domain)
                if response.status in (400, 401, 403):
                    raise self.refusal(wanted_access(scopes))
                failure = RegistryError(f"{origin_of(realm)} answers {response.status} when asked for a token")
                if response.status not in PASSING_STATUSES:
                    raise failure
            patience.wait(failure, asked_seconds=asked_seconds(response))

    def _ask(self, realm: str, wanted: list[tuple[str, str]], credentials: Credentials | None) -> Response:
        if credentials is None:
            return self._transport.send("GET", with_query(realm, urlencode(wanted)), {})
        if not credentials.identity_token:
            query = urlencode([("client_id", _CLIENT), ("account", credentials.username), *wanted])
            return self._transport.send("GET", with_query(realm, query), {"Authorization": _basic(credentials)})
        form = {name: " ".join(value for other, value in wanted if other == name) for name, _ in wanted}
        form |= {"grant_type": "refresh_token", "client_id": _CLIENT, "refresh_token": credentials.identity_token}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._transport.send("POST", realm, headers, urlencode(form).encode())

    def _realm(self, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        if self._origin is None or "://" not in realm:
            raise RegistryError(f"{self._domain} does not say where tokens are had: its realm is {realm[:200]!r}")
        base = f"{self._origin.scheme}://{_bracketed(self._origin.host)}:{self._origin.port}/"
        return followed(base, realm, plain_http=self._options.plain_http)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _all_scopes(scopes: Iterable[str], challenge: Challenge) -> list[str]:
    """What is needed, and what the registry says that is needed if nothing is known of it."""
    return list(scopes) or challenge.parameters.get("scope", "").split()


def _basic(credentials: Credentials) -> str:
    return f"Basic {base64.b64encode(f'{credentials.username}:{credentials.password}'.encode()).decode()}"


def _checked(token: object, domain: str) -> str:
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise RegistryError(f"{domain}: what should be a token cannot be one")
    return token


def _parsed(data: bytes, domain: str) -> _Token:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise RegistryError(f"{domain}: the answer with a token is no JSON object")
    text = _checked(answer.get("token") or answer.get("access_token"), domain)
    return _Token(text, time.monotonic() + _lifetime(answer))


def _lifetime(answer: Mapping[str, Any]) -> float:
    seconds = answer.get("expires_in")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return _LIFETIME_SECONDS
    # Clients are told to take no less than the default (Docker, "Token Authentication").
    return min(max(seconds, _LIFETIME_SECONDS), _LIFETIME_SECONDS_MAX)
