import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.cli.output import json_text, jsonable, safe, table
from layerstore.cli.parameters import duration, pair, size, words
from layerstore.digest import Digest


@given(st.text(st.characters()))
def test_safe_text_is_printable(text: str) -> None:
    assert safe(text).isprintable()
    if text.isprintable():
        assert safe(text) == text


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_json_is_printable_and_means_the_same(value: Any) -> None:
    text = json_text(value)
    assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(text) == value


class Colour(Enum):
    RED = "red"


class Number(IntEnum):
    ONE_TWO = 12


@dataclass(frozen=True, slots=True)
class Inner:
    path: bytes
    _hidden: int = 0


@dataclass(frozen=True, slots=True)
class Outer:
    inner: tuple[Inner, ...]
    when: datetime
    where: Path

    @property
    def total(self) -> int:
        return len(self.inner)


def test_jsonable() -> None:
    value = Outer((Inner(b"a\xff"),), datetime(2024, 1, 2, tzinfo=UTC), Path("/x"))
    assert jsonable(value) == {
        "inner": [{"path": "a\\xff"}],
        "when": "2024-01-02T00:00:00+00:00",
        "where": "/x",
        "total": 1,
    }
    assert jsonable([Colour.RED, Number.ONE_TWO, True, None, math.inf, 1.5, timedelta(minutes=1)]) == [
        *("red", "one_two", True, None, None, 1.5, 60.0)
    ]
    assert jsonable({b"k": {3, 1}}) == {"k": [1, 3]}
    assert type(jsonable(Digest.of(b""))) is str
    with pytest.raises(TypeError):
        jsonable(object())


def test_table() -> None:
    text = table(("NAME", "SIZE"), [("a", "10"), ("long name\x1b", "9"), ("", "")], right=(1,))
    assert text.split("\n") == ["NAME            SIZE", "a                 10", "long name\\x1b      9", ""]
    assert table(("A", "B"), []) == "A   B"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1000000", 1_000_000),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("64M", 64 << 20),
        ("64Mi", 64 << 20),
        ("64 MB", 64_000_000),
        ("1.5G", 3 << 29),
        ("12B", 12),
        ("0.1KiB", 102),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90", timedelta(seconds=90)),
        ("90s", timedelta(seconds=90)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("1d12h30m", timedelta(days=1, hours=12, minutes=30)),
        ("0.5h", timedelta(minutes=30)),
    ],
)
def test_durations(text: str, span: timedelta) -> None:
    assert duration(text) == span


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((size, text) for text in ("", "x", "-1", "1X", "1e3", "9" * 30, "9" * 5000, "9999P", "１MiB", "1.M")),
        *((duration, text) for text in ("", "d", "-1d", "1y", "1d 1h", "9" * 30, "1e3", "101" + "0" * 9 + "d")),
        *((pair, text) for text in ("", "a", "=b", "a=\udcff")),
        *((words, text) for text in ("[", "[1]", '["a"', "'", "[" * 100_000)),
    ],
)
def test_what_is_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse(text)


def test_words() -> None:
    assert words('a "b c"') == ["a", "b c"]
    assert words(' ["a", "b c"]') == ["a", "b c"]
    assert words("") == words("[]") == []
    assert pair("a=b=c") == ("a", "b=c") and pair("a=") == ("a", "")
