"""Options that several commands have in common, given to their functions as one object."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

Command = Callable[..., int | None]
Decorator = Callable[[Command], Command]


def with_options(function: Command, kind: Any, name: str, options: Sequence[Decorator]) -> Command:
    """Add options to a command, whose function gets them as one object of a dataclass, called ``name``.

    Each field of ``kind`` is an option of that name.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **values: Any) -> int | None:
        gathered = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return function(*args, **{name: gathered}, **values)

    decorated: Command = wrapper
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
