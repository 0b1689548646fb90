"""Backup: copy a store that is in use to another folder, incrementally. The copy is a store like any other.

Packs only grow until they are unlinked, so a pack that the target has needs nothing but its new bytes. The order: all
packs that the new index names are there and durable, then the index takes the place of the old one in a single
rename, then packs that it does not name are removed. So whenever a backup dies, the target is the earlier backup, the
new one, or (before the first is complete) no store yet, and the next run finishes what was begun. The journal is
taken away before the switch and put back after it, as a store without one writes it anew from its index when it is
opened, and an index and a journal that disagree must never meet. Packs that had to be put together from both (the
target was damaged, or used as a store) are put in place right before the switch; a death in between leaves them with
the earlier index until the next run. So are the databases of a registry (`backup_databases`).

A store may be damaged. A record that is damaged in the store and good in the target stays as it is there. What is
damaged in both, or what the store has already marked as lost, cannot be mended here: if the earlier backup can still
give a layer that the new one could not, there is no switch and the earlier backup stays what it is, since then it may
be the only place that has the layer. `repair` from it makes the next backup possible. Damage that costs the earlier
backup nothing is reported, and the copy is as good as the store. What the target has already, and
seems to agree with the store, is not read again: to look after a backup, `verify` it as the store that it is.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from layerstore.digest import Digest
from layerstore.errors import ConflictError, ContentDamagedError, InvalidOptionError, StoreExistsError
from layerstore.operations.backup_databases import DatabaseCopier
from layerstore.operations.backup_losses import damaged_layers, missing_blobs, still_whole
from layerstore.operations.backup_packs import PackCopier
from layerstore.operations.backup_raw import RawCopier
from layerstore.operations.survey import pack_files
from layerstore.progress import OnProgress, Progress
from layerstore.storage.index import Index, Transaction, index_in_use
from layerstore.storage.journal import Journal
from layerstore.storage.layout import (
    Layout,
    open_layout,
    refuse_network_file_system,
    sync_directory,
    sync_file,
    translate_os_errors,
    write_file,
)
from layerstore.storage.leases import LiveLeases, lease_everything
from layerstore.storage.locks import FileLock
from layerstore.storage.opened import OpenedStore

_MARK = ".backup.lock"
"""Locked while a backup writes; it holds the store's id, so that an unfinished first backup is known as one."""
_NEW = "index.new-"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup copied."""

    packs_copied: int
    """Packs that were copied or got new bytes."""
    packs_removed: int
    """Packs of an earlier backup that the store does not have any more."""
    bytes_copied: int
    """Bytes of packs and index that were written."""
    bytes_total: int
    """Bytes of packs and index of the whole backup."""
    packs_damaged: tuple[int, ...]
    """Packs in which the store has damaged records that it needs, as far as this backup read them. The copy has those
    that an earlier backup had."""
    layers_damaged: tuple[Digest, ...] = ()
    """Layers that cannot be pulled from the copy: neither the store nor an earlier backup has them whole."""
    encodings_damaged: tuple[Digest, ...] = ()
    """Encodings that cannot be read from the copy, in the same way."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing of the store was found to be damaged."""
        return not (self.packs_damaged or self.layers_damaged or self.encodings_damaged)


def backup(store: OpenedStore, target: Path, on_progress: OnProgress | None) -> BackupReport:
    """Bring ``target``, a new or empty folder or an earlier backup of the same store, to the store's present state.

    What was changed in an earlier backup by opening it as a store is undone. Uploads that run are abandoned ones there.
    Raises `InvalidOptionError` for a target inside the store, `StoreExistsError` for one with other contents,
    `ConflictError` for one that is open or written by another backup, and `ContentDamagedError` if the store has lost
    layers that the earlier backup still has: it is left as it was.
    """
    store.check_usable()
    _refuse_place(store.layout.root, target)
    problem = translate_os_errors(f"cannot write a backup to {target}")
    with problem, _locked(store, target) as layout, _nothing_goes(store) as is_covered:
        return _Backup(store, layout, on_progress, is_covered=is_covered).run()


def _refuse_place(source: Path, target: Path) -> None:
    refuse_network_file_system(target)
    resolved = target.resolve()
    for folder in (resolved, *resolved.parents):
        if folder.exists() and folder.samefile(source):
            raise InvalidOptionError(f"{target} is, or lies in, the store at {source}; choose another place")
    if target.exists() and not target.is_dir():
        raise StoreExistsError(f"{target} is no folder; choose another place for the backup")


@contextmanager
def _locked(store: OpenedStore, target: Path) -> Iterator[Layout]:
    """The target's layout, checked, with its folders, and ours alone."""
    layout = Layout(target)
    mark = target / _MARK
    store_id = store.config.store_id
    if target.exists() and any(target.iterdir()):
        found = open_layout(target)[1].store_id if layout.config.exists() else None
        if found is None and mark.exists():
            found = mark.read_text() or store_id  # empty: that backup died before it did anything
        if found is None:
            raise StoreExistsError(f"{target} is not empty, and no backup; choose a new or empty folder")
        if found != store_id:
            raise StoreExistsError(f"{target} is a backup of another store; choose another folder")
    target.mkdir(parents=True, exist_ok=True)
    lock = FileLock.acquire(mark, blocking=False, create=True)
    if lock is None:
        raise ConflictError(f"another backup writes to {target}; wait for it to end")
    try:
        os.pwrite(lock.descriptor, store_id.encode(), 0)
        for folder in layout.folders:
            folder.mkdir(exist_ok=True)
        live = LiveLeases.look(layout.leases)
        if live.sessions or live.layers or live.everything or index_in_use(layout.index):
            raise ConflictError(f"the backup at {target} is open as a store; close it first")
        yield layout
    finally:
        lock.release()


@contextmanager
def _nothing_goes(store: OpenedStore) -> Iterator[bool]:
    """No pack that is there now goes away. False where that cannot be had: the store's folder cannot be written."""
    lock = store.layout.root / ".collect.lock"
    may_write = os.access(store.layout.leases, os.W_OK) and os.access(lock if lock.exists() else lock.parent, os.W_OK)
    if store.read_only and not may_write:
        yield False
        return
    # A collection that runs has looked for leases already: wait until it is over.
    with store.lock("collect"):
        lease = lease_everything(store.layout.leases)
        lease.__enter__()
    try:
        yield True
    finally:
        lease.__exit__(None, None, None)


class _Backup:
    def __init__(self, store: OpenedStore, target: Layout, on_progress: OnProgress | None, *, is_covered: bool) -> None:
        self._store = store
        self._target = target
        self._on_progress = on_progress
        self._is_covered = is_covered

    def run(self) -> BackupReport:
        root = self._target.root
        for leftover in root.glob(f"{_NEW}*"):
            shutil.rmtree(leftover)
        new = Layout(root / f"{_NEW}{uuid4().hex}")
        new.root.mkdir()
        new.packs.mkdir()
        try:
            packs = self._copy_index(new.root)
            databases = DatabaseCopier(self._store.layout.root, root, new.root)
            databases.bring()
            index = Index(new.root, read_only=True)
            try:
                with index.read() as transaction:
                    raw = RawCopier(transaction, self._store.layout, self._target)
                    raw.bring()
                    copier, damaged = self._copy_packs(transaction, packs, new, raw)
            finally:
                index.close()
            index_size = (new.root / "data.mdb").stat().st_size
            copier.install()
            databases.install()
            self._switch(new.root)
        finally:
            shutil.rmtree(new.root, ignore_errors=True)
        removed = self._remove_others(set(packs))
        raw.remove_others()
        copier.cut_tails(packs)
        return BackupReport(
            packs_copied=copier.packs_copied,
            packs_removed=removed,
            bytes_copied=copier.bytes_copied + raw.bytes_copied + index_size,
            bytes_total=sum(packs.values()) + raw.bytes_total + index_size,
            packs_damaged=tuple(copier.damaged),
            layers_damaged=tuple(damaged),
            encodings_damaged=tuple(raw.damaged),
        )

    def _copy_index(self, new: Path) -> dict[int, int]:
        """A copy of the index with a journal that agrees with it; the committed sizes of its packs."""
        self._store.index.copy_to(new)
        index = Index(new)
        try:
            # Not a copy of the store's journal: that may have been replaced since the index was copied.
            Journal(new / "journal").checkpoint(index)
            with index.read() as transaction:
                packs = {number: record.size for number, record in transaction.packs.items()}
        finally:
            index.close()
        with (new / "data.mdb").open("rb+") as file:
            sync_file(file.fileno())
        sync_directory(new)
        return packs

    def _copy_packs(
        self, transaction: Transaction, packs: dict[int, int], new: Layout, raw: RawCopier
    ) -> tuple[PackCopier, list[Digest]]:
        """Bring all packs; the layers that are damaged in the copy. Raises if the earlier backup has one of them."""
        copier = PackCopier(transaction, self._store.layout, self._target, new, self._store.config.store_id)
        try:
            done, total = 0, sum(packs.values())
            for number, size in packs.items():
                copier.bring(number, size)
                done += size
                self._tell(done, total)
        finally:
            copier.close()
        sync_directory(self._target.packs)
        if copier.damaged and not self._is_covered:
            self._refuse_if_collected(packs)
        damaged = damaged_layers(transaction, copier.frames_damaged)
        missing = missing_blobs(transaction)
        self._refuse_losses(still_whole(self._target, [*damaged, *raw.damaged, *missing]))
        return copier, damaged

    def _refuse_if_collected(self, packs: dict[int, int]) -> None:
        with self._store.index.read() as transaction:
            if any(number not in transaction.packs for number in packs):
                raise ConflictError(
                    f"a collection removed packs of {self._store.layout.root} during the backup, which cannot hold it "
                    "up without permission to write there; try again"
                )

    def _refuse_losses(self, layers: list[Digest]) -> None:
        if layers:
            store, target = self._store.layout.root, self._target.root
            more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
            raise ContentDamagedError(
                f"the store has lost layers or blobs that the earlier backup at {target} still has: {layers[0]}{more}. "
                f"The backup was left as it was. Run `layerstore --store {store} repair --from {target}` (a layer that "
                "is missing altogether must be pushed again) and then back up again, or back up to another folder"
            )

    def _switch(self, new: Path) -> None:
        target = self._target
        target.journal.unlink(missing_ok=True)
        sync_directory(target.root)
        (new / "data.mdb").replace(target.index / "data.mdb")
        sync_directory(target.index)
        (new / "journal").replace(target.journal)
        sync_directory(target.root)
        # Last, as it is what makes the folder a store.
        config = self._store.layout.config.read_bytes()
        if not target.config.exists() or target.config.read_bytes() != config:
            write_file(target.config, config)
            sync_directory(target.root.parent)

    def _remove_others(self, packs: set[int]) -> int:
        others = [path for number, path in pack_files(self._target).items() if number not in packs]
        for path in others:
            path.unlink()
        return len(others)

    def _tell(self, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress("backup", str(self._target.root), done, total))
