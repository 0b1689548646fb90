"""URLs that a registry gives: where it redirects to, where an upload goes on, where tokens are had. All are hostile."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from layerstore.errors import RegistryError

_URL_LENGTH_MAX = 16 << 10
_URL = re.compile(r"[!-~]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who answers: what credentials are for is for one of them alone."""

    scheme: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, by its name or address alone."""
        return is_loopback(self.host)

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.scheme == "https" or self.is_loopback


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> Origin:
    """The origin of a URL. Raises `RegistryError` for what is none, or none of HTTP."""
    try:
        if len(url) > _URL_LENGTH_MAX or not _URL.fullmatch(url):
            raise ValueError
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise _no_address(url) from None
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise _no_address(url)
    return Origin(parts.scheme, parts.hostname, port)


def followed(base: str, location: str, *, plain_http: bool) -> str:
    """The URL that a registry sends us on to, from ``base``.

    Raises `RegistryError` for one that leaves TLS, unless that is wanted, and for one from elsewhere that leads to this
    machine, where the registry could reach what is not meant for it.
    """
    if len(location) > _URL_LENGTH_MAX or not _URL.fullmatch(location):
        raise _no_address(location)  # urljoin would drop what is not allowed
    try:
        url = urljoin(base, location).partition("#")[0]
    except ValueError:
        raise _no_address(location) from None
    target, before = origin_of(url), origin_of(base)
    if not (target.is_private or plain_http):
        raise RegistryError(f"{before.host} leads to {url[:200]!r}, which is not encrypted; --plain-http allows it")
    if target.is_loopback and not before.is_loopback:
        raise RegistryError(f"{before.host} leads to {url[:200]!r}, which is this machine")
    return url


def with_query(url: str, query: str) -> str:
    """A URL with more in its query."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"


def _no_address(url: str) -> RegistryError:
    return RegistryError(f"{url[:200]!r} is no address that a registry can be reached at")
