"""Long lists, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Page(Generic[V]):
    """A part of a list, and where it stands."""

    items: Sequence[V]
    number: int
    """From 1."""
    last: int
    total: int
    """How many items all pages have."""
    first_item: int
    """The place of the first item in the whole list, from 1."""


def page_of(items: Sequence[V], number: int, size: int) -> Page[V]:
    """The page of that number; the last one if there are not as many."""
    last = max(1, -(-len(items) // size))
    number = min(number, last)
    first = (number - 1) * size
    return Page(items[first : first + size], number, last, len(items), first + 1)
