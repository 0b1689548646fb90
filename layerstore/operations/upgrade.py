"""Upgrade: bring a store of an older format up to the one that this version writes."""

from dataclasses import dataclass
from pathlib import Path

from layerstore.progress import OnProgress
from layerstore.storage.layout import FORMAT_VERSION, open_layout


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """From which format to which a store was brought."""

    from_version: int
    to_version: int

    @property
    def already_current(self) -> bool:
        """Whether there was nothing to do."""
        return self.from_version == self.to_version


def upgrade(path: Path, on_progress: OnProgress | None = None) -> UpgradeReport:
    """Upgrade the store at ``path``. Format 1 is the first, so that there is nothing to do yet.

    Raises `UnsupportedFormatError` for a store of a newer format, and `StoreNotFoundError`.
    """
    _, config = open_layout(path)
    return UpgradeReport(config.format_version, FORMAT_VERSION)
