"""What is printed: JSON documents, tables, times, and names that cannot harm a terminal."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from pathlib import PurePath
from typing import Any

import click

from layerstore.wording import escaped, path_text

_COLUMN_GAP = "   "


def safe(text: str) -> str:
    """``text`` with everything escaped that could move the cursor, change colours or reorder a line.

    Names come out of archives that others made.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else escaped(character) for character in text)


def moment_text(moment: datetime) -> str:
    """A time for humans, in their time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Columns as wide as their contents, never wrapped or cut, so that other tools can read them."""
    lines = [tuple(header), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    right = frozenset(right)
    return "\n".join(
        _COLUMN_GAP.join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def jsonable(value: Any) -> Any:
    """``value`` made of what JSON has. Dataclasses become objects, with their public properties among the fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _fields(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    names += [name for name, member in vars(type(value)).items() if isinstance(member, property)]
    return {name: jsonable(getattr(value, name)) for name in names if not name.startswith("_")}


def _object(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {path_text(key) if isinstance(key, bytes) else str(key): jsonable(item) for key, item in value.items()}


# The first that fits counts: a bool is an int, and an IntEnum is both.
_CONVERSIONS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((bool, type(None)), lambda value: value),
    (IntEnum, lambda value: value.name.lower()),
    (Enum, lambda value: jsonable(value.value)),
    (int, int),
    (float, lambda value: value if math.isfinite(value) else None),  # JSON has no infinity
    ((str, PurePath), str),  # a Digest becomes a plain text
    (bytes, path_text),
    (datetime, datetime.isoformat),
    (timedelta, timedelta.total_seconds),
    (Mapping, _object),
    ((set, frozenset), lambda value: [jsonable(item) for item in sorted(value)]),
    (Iterable, lambda value: [jsonable(item) for item in value]),
)


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """A JSON document. It is as readable as the output's encoding allows, and as safe for a terminal as `safe`."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    text = json.dumps(jsonable(value), indent=indent, ensure_ascii=encoding != "utf8", allow_nan=False)
    return "\n".join(line if line.isprintable() else _escaped_json(line) for line in text.split("\n"))


def _escaped_json(line: str) -> str:
    # What is not printable can only stand inside of texts. DEL is the one control character that `json` never escapes.
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" if c == "\x7f" else json.dumps(c)[1:-1] for c in line)


def print_json(value: Any, *, indent: int | None = 2, err: bool = False) -> None:
    """Print a JSON document."""
    click.echo(json_text(value, indent=indent), err=err)
