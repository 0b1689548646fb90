"""Progress of long operations, told to a callback of the caller's."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation has come. ``done`` and ``total`` count ``unit``; ``total`` is None where it is unknown."""

    operation: str
    """What runs: ``push``, ``pull``, ``copy``, ``recompress``, ``unpack``, ``prove``, ``verify``, ``collect``,
    ``repair``, ``rebuild-index`` or ``backup``."""
    subject: str
    """What it runs on, for example a path or a DiffID."""
    done: int
    total: int | None
    unit: str = "bytes"
    note: str = ""
    """The state in one word, for example ``already present``."""


OnProgress = Callable[[Progress], None]
"""Called from the thread that called the operation, at most about ten times a second and once at the end."""

PROGRESS_SECONDS = 0.1
"""How long it is between two reports of the same operation."""


class Throttle:
    """Says when progress is to be told again."""

    def __init__(self, *, at_once: bool = True) -> None:
        """``at_once``: the first time it is asked; else not before some time has gone by."""
        self._next = 0.0 if at_once else time.monotonic() + PROGRESS_SECONDS

    def is_due(self) -> bool:
        """Whether it is time; if so, the next time is `PROGRESS_SECONDS` later."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + PROGRESS_SECONDS
        return True
