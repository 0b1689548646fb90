"""Progress bars on stderr, for a terminal only."""

from collections.abc import Iterator
from contextlib import contextmanager

from layerstore.cli.loading import load
from layerstore.cli.settings import Settings
from layerstore.progress import OnProgress

_BARS = "layerstore.cli.bars"


@contextmanager
def progress_bar(settings: Settings, subject: str) -> Iterator[OnProgress | None]:
    """What to give to an operation as ``on_progress``: a bar that is gone again when the block ends, or None."""
    if not settings.shows_progress:
        yield None
        return
    with load(_BARS).one_bar(subject) as on_progress:
        yield on_progress


@contextmanager
def progress_bars(settings: Settings) -> Iterator[OnProgress | None]:
    """As `progress_bar`, for an operation that tells of several subjects: a bar for each that is under way."""
    if not settings.shows_progress:
        yield None
        return
    with load(_BARS).several_bars() as on_progress:
        yield on_progress
