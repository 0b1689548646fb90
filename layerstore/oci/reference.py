"""References: ``registry/name:tag@digest`` as typed.

The grammar is that of github.com/distribution/reference, which Docker, containerd and Podman use::

    reference       = name [ ":" tag ] [ "@" digest ]
    name            = [ domain "/" ] path
    domain          = host [ ":" port ]              host: a DNS name, IPv4 address, or IPv6 address in brackets
    path            = component *( "/" component )
    component       = alphanumeric *( separator alphanumeric )
    alphanumeric    = 1*( a-z | 0-9 )
    separator       = "." | "_" | "__" | 1*"-"
    tag             = ( A-Z | a-z | 0-9 | "_" ) up to 127 of the same or "." or "-"

It differs in two points: the limit of 255 characters is for the whole name, and ``Team/app`` is refused (the original
takes ``Team`` for a domain, which it marks as a fault).
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from layerstore.digest import Digest
from layerstore.errors import InvalidDigestError, InvalidReferenceError

DEFAULT_TAG = "latest"
"""The tag of a reference that has neither tag nor digest."""

NAME_LENGTH_MAX = 255
"""Characters of a name, domain included."""

_TEXT_LENGTH_MAX = 1024  # what name, tag and the longest digest can be together, rounded up
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_HOST_COMPONENT = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_HOST_COMPONENT}(?:\.{_HOST_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")

_HUB_DOMAIN = "docker.io"
_HUB_LEGACY_DOMAIN = "index.docker.io"
_HUB_OFFICIAL = "library/"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository name with a tag, a digest or both. Raises `InvalidReferenceError` for parts that are not valid."""

    name: str
    """The domain, if there is one, and the path."""
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.tag is None and self.digest is None:
            raise InvalidReferenceError(f"{self.name!r} has neither a tag nor a digest")
        if self.tag is not None:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name[:tag][@digest]``; a mere name has the tag ``latest``. Raises `InvalidReferenceError`."""
        if not text:
            raise InvalidReferenceError("a reference cannot be empty")
        if len(text) > _TEXT_LENGTH_MAX:
            raise InvalidReferenceError(f"{text[:60]!r}… is too long for a reference: {len(text)} characters")
        if "://" in text:
            raise InvalidReferenceError(f"{text!r} is a URL: a reference has no {text.partition('://')[0]}://")
        rest, at, digest_text = text.partition("@")
        # A colon before the last slash is that of a port.
        head, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        if not slash and rest.startswith("["):
            raise InvalidReferenceError(f"{text!r} has no repository name after the address")
        digest = _digest(text, digest_text) if at else None
        default = None if at else DEFAULT_TAG
        return cls(head + slash + last, tag if colon else default, digest)

    @property
    def domain(self) -> str:
        """The registry's host and port, or an empty text.

        As for Docker, the first component is a domain if it has a dot or a colon or is ``localhost``.
        """
        return _split(self.name)[0]

    @property
    def path(self) -> str:
        """The name without its domain."""
        return _split(self.name)[1]

    def normalized(self) -> Self:
        """The same with Docker's defaults filled in: ``shop:1.0`` becomes ``docker.io/library/shop:1.0``."""
        domain, path = _split(self.name)
        if domain in ("", _HUB_LEGACY_DOMAIN):
            domain = _HUB_DOMAIN
        if domain == _HUB_DOMAIN and "/" not in path:
            path = _HUB_OFFICIAL + path
        return replace(self, name=f"{domain}/{path}")

    def familiar(self) -> Self:
        """The shortest one with the same `normalized` form: ``docker.io/library/shop:1.0`` becomes ``shop:1.0``."""
        normalized = self.normalized()
        domain, path = _split(normalized.name)
        official = path.removeprefix(_HUB_OFFICIAL)
        shorter = path if "/" in official else official
        if domain != _HUB_DOMAIN or _split(shorter)[0]:  # "docker.io/a.b/c" cannot do without its domain
            return normalized
        return replace(self, name=shorter)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.name}{tag}{digest}"


def check_tag(tag: str) -> None:
    """Raise `InvalidReferenceError` if ``tag`` is no tag (the part after the colon)."""
    if not tag:
        raise InvalidReferenceError("the tag after the colon is empty")
    if len(tag) > 128:
        raise InvalidReferenceError(f"the tag {tag[:60]!r}… has {len(tag)} characters: at most 128 are allowed")
    if not _TAG.fullmatch(tag):
        raise InvalidReferenceError(
            f"{tag!r} is no tag: it has letters, digits, '_', '.' and '-', and does not begin with '.' or '-'"
        )


def _check_name(name: str) -> None:
    if not name:
        raise InvalidReferenceError("the repository name is empty")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidReferenceError(
            f"the repository name {name[:60]!r}… has {len(name)} characters: at most {NAME_LENGTH_MAX} are allowed"
        )
    if _IDENTIFIER.fullmatch(name):
        raise InvalidReferenceError(f"{name!r} cannot be a repository name: it reads as a digest without its sha256:")
    domain, path = _split(name)
    first = path.partition("/")[0]
    if not domain and first != path and _reads_as_domain(first) and not _COMPONENT.fullmatch(first):
        raise InvalidReferenceError(f"{first!r} in {name!r} is no registry: it must be host, or host:port")
    for component in path.split("/"):
        _check_component(component, name)


def _check_component(component: str, name: str) -> None:
    if _COMPONENT.fullmatch(component):
        return
    if not component:
        raise InvalidReferenceError(f"the repository name {name!r} has an empty component")
    if _COMPONENT.fullmatch(component.lower()):
        raise InvalidReferenceError(f"the repository name {name!r} must be in lower case: {component!r} is not")
    raise InvalidReferenceError(
        f"{component!r} in the repository name {name!r} is not valid: a component has lower-case letters and digits, "
        "with single '.', '_', '__' or any number of '-' between them"
    )


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and _reads_as_domain(first) and _DOMAIN.fullmatch(first):
        return first, rest
    return "", name


def _reads_as_domain(component: str) -> bool:
    return component == "localhost" or "." in component or ":" in component


def _digest(text: str, digest_text: str) -> Digest:
    try:
        return Digest(digest_text)
    except InvalidDigestError as error:
        raise InvalidReferenceError(f"the reference {text[:200]!r} has a bad digest: {error}") from None
