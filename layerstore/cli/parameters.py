"""Types of options and arguments: sizes, durations, NAME=VALUE, and names in the store that a shell can complete."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from datetime import timedelta
from fractions import Fraction
from itertools import chain
from typing import Any

import click
from click.shell_completion import CompletionItem

from layerstore.cli.settings import settings_of
from layerstore.errors import LayerstoreError
from layerstore.store import Store

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(i?b?)", re.IGNORECASE)
_SIZE_MAX = 2**63 - 1
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION_MAX = timedelta(days=36500)


class SizeType(click.ParamType):
    """Bytes: ``64MiB`` and ``64M`` are 1024-based, ``64MB`` is 1000-based, as in GNU tools."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is no size; write for example 64MiB, 1.5G or 1000000", param, ctx)
        number, prefix, suffix = match.groups()
        base = 1000 if prefix and suffix.lower() == "b" else 1024
        size = int(Fraction(number) * base ** (" kmgtp".index(prefix.lower()) if prefix else 0))
        if size > _SIZE_MAX:
            self.fail(f"{value!r} is too large", param, ctx)
        return size


class DurationType(click.ParamType):
    """A time span such as ``90s``, ``24h``, ``7d`` or ``1d12h``; a mere number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The time span."""
        if isinstance(value, timedelta):
            return value
        text = value.strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            text += "s"
        if not _DURATION.fullmatch(text):
            self.fail(f"{value!r} is no duration; write for example 90s, 24h, 7d or 1d12h", param, ctx)
        seconds = sum(Fraction(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        if seconds > _DURATION_MAX.total_seconds():
            self.fail(f"{value!r} is more than 100 years", param, ctx)
        return timedelta(seconds=float(seconds))


class PairType(click.ParamType):
    """``NAME=VALUE``."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Name and value."""
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


class WordsType(click.ParamType):
    """A command: a JSON array of texts, or words as a shell splits them."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """The words."""
        if isinstance(value, list):
            return value
        try:
            words = json.loads(value) if value.lstrip().startswith("[") else shlex.split(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"{value!r} is neither a JSON array nor a command line: {error}", param, ctx)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            self.fail(f"{value!r} is not an array of texts", param, ctx)
        return words


class NameType(click.ParamType):
    """A tag or digest; the shell's Tab key offers those of the store."""

    def __init__(self, name: str, candidates: Callable[[Store], Iterable[str]]) -> None:
        self.name = name
        self._candidates = candidates

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is: the store judges it."""
        if not value:
            self.fail("it is empty", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What the store has that begins so."""
        path = settings_of(ctx).store
        if path is None:
            return []
        try:
            with Store.open(path, read_only=True) as store:
                return [CompletionItem(name) for name in self._candidates(store) if name.startswith(incomplete)]
        except (LayerstoreError, OSError):
            return []  # an error message in the middle of a line helps nobody


SIZE = SizeType()
DURATION = DurationType()
PAIR = PairType()
WORDS = WordsType()
TAG = NameType("tag", lambda store: sorted(store.tags))
IMAGE = NameType("image", lambda store: chain(sorted(store.tags), store.images))
LAYER = NameType("layer", lambda store: store.layers)
ANY = NameType("name", lambda store: chain(sorted(store.tags), store.images, store.layers))

