"""A scenario whose file operations are recorded: ``python crash_recorded.py SCENARIO STORE SAID [BUG]``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import crash_scenarios

from layerstore.operations import raw_files
from layerstore.storage import layout, packs


def without_pack_sync() -> None:
    """A bug, to see that the tests find it: packs are not synced before the index vouches for them."""
    packs.sync_file = lambda _: None


def without_directory_sync() -> None:
    """A bug: names are not made durable."""
    packs.sync_directory = lambda _: None
    layout.sync_directory = lambda _: None


def without_raw_sync() -> None:
    """A bug: raw files are not durable before the index vouches for them."""
    raw_files.sync_file = lambda _: None


def main(scenario: str, store: str, said: str, bug: str = "") -> None:
    """Run it."""
    if bug:
        globals()[bug]()
    getattr(crash_scenarios, scenario)(Path(store), Path(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
