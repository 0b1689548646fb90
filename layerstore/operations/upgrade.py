"""Upgrade: bring a store of an older format up to the one that this version writes."""

from dataclasses import dataclass
from pathlib import Path

from layerstore.errors import ConflictError
from layerstore.progress import OnProgress
from layerstore.storage.index import Index, index_in_use
from layerstore.storage.layout import FORMAT_VERSION, open_layout, sync_layout, translate_os_errors, write_config
from layerstore.storage.leases import LiveLeases


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
    """Upgrade the store at ``path``. It has the old or the new format, whenever this ends.

    Format 2 adds folders, tables and a kind of record, and changes nothing of what format 1 has. Raises
    `UnsupportedFormatError` for a store of a newer format, `StoreNotFoundError`, and `ConflictError` for one in use.
    """
    layout, config = open_layout(path, oldest=1)
    before = config.format_version
    if before < FORMAT_VERSION:
        live = LiveLeases.look(layout.leases)
        if live.sessions or live.layers or live.everything or index_in_use(layout.index):
            raise ConflictError(f"the store at {path} is open; close it in every process before an upgrade")
        with translate_os_errors(f"cannot upgrade {path}"):
            for folder in layout.folders:
                folder.mkdir(exist_ok=True)
        Index(layout.index, create=True).close()
        sync_layout(layout)
        # The configuration last: until then, it is a store of the old format with some tables that nobody reads.
        write_config(layout, config.model_copy(update={"format_version": FORMAT_VERSION}))
    return UpgradeReport(before, FORMAT_VERSION)
