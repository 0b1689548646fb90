"""What a benchmark tells while it runs (standard error), and the errors that end it."""

import sys


class BenchmarkError(Exception):
    """The benchmark can't go on; the message says why and what would help."""


def tell(message: str) -> None:
    """Print one line of progress to standard error."""
    print(message, file=sys.stderr, flush=True)


def megabytes(count: float) -> str:
    """Return ``count`` bytes as megabytes (10^6) with one decimal and thousands separators."""
    return f"{count / 1e6:,.1f}"
