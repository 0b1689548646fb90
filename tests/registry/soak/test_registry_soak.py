"""Clients at work, a server that is killed again and again: nothing acknowledged is lost, nothing is left behind."""

from dataclasses import asdict
from pathlib import Path

from registry_soak import Soak


def test_soak(memory_path: Path, crash_thorough: bool) -> None:
    """About half a minute; 20,000 operations with ``--crash-thorough``."""
    operations, seconds = (20_000, 3000) if crash_thorough else (2_000, 15)
    figures = Soak(memory_path, operations, seconds).run()
    print(asdict(figures))
    assert not figures.faults, "\n".join(figures.faults)
    assert figures.kills
    assert figures.collections
