"""``WWW-Authenticate``: how a registry wants to be told who asks (RFC 9110, section 11)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_LENGTH_MAX = 8 << 10
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=\s|,|$)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in."""

    scheme: str
    """In lower case: ``basic``, ``bearer``."""
    parameters: Mapping[str, str]
    """By names in lower case."""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of all headers. What cannot be read is left out, with all that stands behind it."""
    return [challenge for header in headers for challenge in _parse(header[:_LENGTH_MAX])]


def _parse(text: str) -> Iterator[Challenge]:
    position = 0
    while (scheme := _SCHEME.match(text, position)) is not None:
        position = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(text, position)) is not None:
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), plain if quoted is None else _ESCAPE.sub(r"\1", quoted))
            position = parameter.end()
        yield Challenge(scheme[1].lower(), parameters)
