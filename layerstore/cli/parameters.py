"""Types of options and arguments: sizes, durations, NAME=VALUE, and names in the store that a shell can complete."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from datetime import timedelta
from fractions import Fraction
from itertools import chain

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
# A text that would only make a number too long to work with.
_TEXT_LENGTH_MAX = 40

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
"""What click asks for the words that a shell offers."""


def size(text: str) -> int:
    """Bytes: ``64MiB`` and ``64M`` are 1024-based, ``64MB`` is 1000-based, as in GNU tools."""
    match = _SIZE.fullmatch(text.strip()) if len(text) <= _TEXT_LENGTH_MAX else None
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; write for example 64MiB, 1.5G or 1000000")
    number, prefix, suffix = match.groups()
    base = 1000 if prefix and suffix.lower() == "b" else 1024
    result = int(Fraction(number) * base ** (" kmgtp".index(prefix.lower()) if prefix else 0))
    if result > _SIZE_MAX:
        raise click.BadParameter(f"{text!r} is too large")
    return result


def duration(text: str) -> timedelta:
    """A time span such as ``90s``, ``24h``, ``7d`` or ``1d12h``; a mere number is seconds."""
    stripped = text.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", stripped):
        stripped += "s"
    if len(text) > _TEXT_LENGTH_MAX or not _DURATION.fullmatch(stripped):
        raise click.BadParameter(f"{text!r} is no duration; write for example 90s, 24h, 7d or 1d12h")
    seconds = sum(Fraction(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(stripped))
    if seconds > _DURATION_MAX.total_seconds():
        raise click.BadParameter(f"{text!r} is more than 100 years")
    return timedelta(seconds=float(seconds))


def utf8(text: str) -> str:
    """A text for a document. Python keeps bytes that the locale's encoding lacks as surrogates; JSON has none."""
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise click.BadParameter(f"{text!r} is not UTF-8") from None


def pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE``."""
    name, equals, value = utf8(text).partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


def words(text: str) -> list[str]:
    """A command: a JSON array of texts, or words as a shell splits them."""
    text = utf8(text)
    try:
        result = json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{text!r} is neither a JSON array nor a command line: {error}") from None
    if not isinstance(result, list) or not all(isinstance(word, str) for word in result):
        raise click.BadParameter(f"{text!r} is not an array of texts")
    return result


def platform_option(
    text: str = "Of an index, take the image for this platform; this machine's by default.",
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """The option ``--platform``."""
    return click.option("--platform", metavar="OS/ARCH[/VARIANT]", help=text)


def _from_store(candidates: Callable[[Store], Iterable[str]]) -> Complete:
    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        path = settings_of(context).store
        if path is None:
            return []
        try:
            with Store.open(path, read_only=True) as store:
                return [CompletionItem(name) for name in candidates(store) if name.startswith(incomplete)]
        except (LayerstoreError, OSError):
            return []  # an error message in the middle of a line helps nobody

    return complete


complete_trash = _from_store(lambda store: sorted({tag for one in store.trash.values() for tag in one.tags}))
"""Offers the tags that deleted images had."""

complete_tag = _from_store(lambda store: sorted(store.tags))
"""Offers the store's tags."""
complete_image = _from_store(lambda store: chain(sorted(store.tags), store.images))
"""Offers tags and digests of images."""
complete_layer = _from_store(lambda store: store.layers)
"""Offers DiffIDs."""
complete_encoding = _from_store(lambda store: store.encodings)
"""Offers digests of encodings."""
complete_container = _from_store(lambda store: store.containers)
"""Offers names of containers."""
complete_files = _from_store(
    lambda store: chain(sorted(store.tags), (f"container:{name}" for name in store.containers), store.images)
)
"""Offers tags, containers and digests of images."""
complete_any = _from_store(lambda store: chain(sorted(store.tags), store.images, store.layers, store.encodings))
"""Offers all of these."""


def complete_image_or_file(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offers tags and digests of images, and files."""
    return [*complete_image(context, parameter, incomplete), CompletionItem(incomplete, type="file")]
