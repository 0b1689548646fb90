"""Progress of long operations, told to a callback of the caller's."""

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
