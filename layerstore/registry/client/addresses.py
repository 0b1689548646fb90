"""URLs that a registry gives: where it redirects to, where an upload goes on, where tokens are had. All are hostile."""

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from layerstore.errors import RegistryError
from layerstore.registry.client.problems import UnencryptedError

_URL_LENGTH_MAX = 16 << 10
_URL = re.compile(r"[!-~]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who answers: what credentials are for is for one of them alone."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

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


def leads_inward(host: str) -> bool:
    """Whether an address, however it is written, is this machine, or one that only its own network reaches."""
    text = host.strip("[]").partition("%")[0].rstrip(".")
    if text == "localhost" or text.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(text))  # "127.1", "0x7f000001": as the resolver reads them
        except OSError:
            return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    found = mapped or address
    return found.is_loopback or found.is_unspecified or found.is_link_local


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
    machine or its own network (link-local), where the registry could reach what is not meant for it.
    """
    if len(location) > _URL_LENGTH_MAX or not _URL.fullmatch(location):
        raise _no_address(location)  # urljoin would drop what is not allowed
    try:
        url = urljoin(base, location).partition("#")[0]
    except ValueError:
        raise _no_address(location) from None
    target, before = origin_of(url), origin_of(base)
    if not (target.is_private or plain_http):
        raise UnencryptedError(f"{before} leads to {url[:200]!r}, which is not encrypted; that has to be allowed")
    if leads_inward(target.host) and not leads_inward(before.host):
        raise RegistryError(f"{before} leads to {url[:200]!r}, which is this machine, or its own network")
    return url


def with_query(url: str, query: str) -> str:
    """A URL with more in its query."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"


def _no_address(url: str) -> RegistryError:
    return RegistryError(f"{url[:200]!r} is no address that a registry can be reached at")
