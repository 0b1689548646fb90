"""Backup: copy a store that is in use to another folder, incrementally. The copy is a store like any other.

Packs only grow until they are unlinked, so a pack that the target has needs nothing but its new bytes. The order: all
packs that the new index names are there and durable, then the index takes the place of the old one in a single
rename, then packs that it does not name are removed. So whenever a backup dies, the target is the earlier backup, the
new one, or (before the first is complete) no store yet, and the next run finishes what was begun. The journal is
taken away before the switch and put back after it, as a store without one writes it anew from its index when it is
opened, and an index and a journal that disagree must never meet.
"""

import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from layerstore.errors import ConflictError, InvalidOptionError, StoreExistsError
from layerstore.operations.survey import pack_files
from layerstore.progress import OnProgress, Progress
from layerstore.storage.index import Index, index_in_use
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
from layerstore.storage.packs import PACK_HEADER, PackScan

_MARK = ".backup.lock"
"""Locked while a backup writes; it holds the store's id, so that an unfinished first backup is known as one."""
_NEW = "index.new-"
_COPY_SIZE = 1 << 20
_COMPARED_SIZE = 1 << 16


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
    """Packs that are damaged, cut or missing in the store. What an earlier backup has of them was kept."""


def backup(store: OpenedStore, target: Path, on_progress: OnProgress | None) -> BackupReport:
    """Bring ``target``, a new or empty folder or an earlier backup of the same store, to the store's present state.

    What was changed in an earlier backup by opening it as a store is undone. Uploads that run are abandoned ones there.
    Raises `InvalidOptionError` for a target inside the store, `StoreExistsError` for one with other contents, and
    `ConflictError` for one that is open or written by another backup.
    """
    store.check_usable()
    _refuse_place(store.layout.root, target)
    problem = translate_os_errors(f"cannot write a backup to {target}")
    with problem, _locked(store, target) as layout, _nothing_goes(store):
        return _Backup(store, layout, on_progress).run()


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
        for folder in (layout.packs, layout.leases, layout.temporary, layout.index):
            folder.mkdir(exist_ok=True)
        live = LiveLeases.look(layout.leases)
        if live.sessions or live.layers or live.everything or index_in_use(layout.index):
            raise ConflictError(f"the backup at {target} is open as a store; close it first")
        yield layout
    finally:
        lock.release()


@contextmanager
def _nothing_goes(store: OpenedStore) -> Iterator[None]:
    """No pack that is there now goes away. A store that can only be read has no collection."""
    if store.read_only and not os.access(store.layout.leases, os.W_OK):
        yield
        return
    # A collection that runs has looked for leases already: wait until it is over.
    with store.lock("collect"):
        lease = lease_everything(store.layout.leases)
        lease.__enter__()
    try:
        yield
    finally:
        lease.__exit__(None, None, None)


class _Backup:
    def __init__(self, store: OpenedStore, target: Layout, on_progress: OnProgress | None) -> None:
        self._store = store
        self._target = target
        self._on_progress = on_progress
        self._packs_copied = 0
        self._bytes_copied = 0
        self._damaged: list[int] = []

    def run(self) -> BackupReport:
        root = self._target.root
        for leftover in root.glob(f"{_NEW}*"):
            shutil.rmtree(leftover)
        for leftover in self._target.temporary.glob("*.pack"):
            leftover.unlink()
        new = root / f"{_NEW}{uuid4().hex}"
        new.mkdir()
        try:
            packs = self._copy_index(new)
            done, total = 0, sum(packs.values())
            for number, size in packs.items():
                self._copy_pack(number, size)
                done += size
                self._tell(done, total)
            sync_directory(self._target.packs)
            index_size = (new / "data.mdb").stat().st_size
            self._switch(new)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        removed = self._remove_others(set(packs))
        return BackupReport(
            self._packs_copied, removed, self._bytes_copied + index_size, total + index_size, tuple(self._damaged)
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

    def _copy_pack(self, number: int, size: int) -> None:
        source, target = self._store.layout.pack(number), self._target.pack(number)
        there = target.stat().st_size if target.exists() else 0
        if _size(source) < size:
            self._damaged.append(number)
            if there >= _size(source):
                return
            size = _size(source)
        with source.open("rb") as file:
            common = min(there, size)
            if common and _ends_alike(file.fileno(), target, common):
                if there != size:
                    self._extend(file.fileno(), target, common, size)
                return
            # Not there, or another pack by this number: the target was changed, or the store's index was rebuilt.
            temporary = self._target.temporary / f"{uuid4().hex}.pack"
            try:
                self._extend(file.fileno(), temporary, 0, size)
                if common and not _is_sound(temporary, number) and _is_sound(target, number):
                    self._damaged.append(number)
                    return
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def _extend(self, source: int, target: Path, start: int, end: int) -> None:
        """Let ``target`` have the bytes from ``start`` to ``end`` of the source, and none beyond, durably."""
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(descriptor, start)
            offset = start
            while offset < end:
                data = os.pread(source, min(_COPY_SIZE, end - offset), offset)
                if not data:
                    break
                view = memoryview(data)
                while view:
                    written = os.pwrite(descriptor, view, offset)
                    offset += written
                    view = view[written:]
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        self._packs_copied += 1
        self._bytes_copied += offset - start

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


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _ends_alike(source: int, target: Path, size: int) -> bool:
    """Whether two packs are the same up to ``size``, judged by the last bytes before it, which hold compressed data."""
    start = max(0, size - _COMPARED_SIZE)
    with target.open("rb") as file:
        file.seek(start)
        return file.read(size - start) == os.pread(source, size - start, start)


def _is_sound(path: Path, number: int) -> bool:
    """Whether every byte of a pack belongs to a record that matches its checksums."""
    with path.open("rb") as file:
        scan = PackScan.of(file.fileno(), number)
        bodies_match = all(
            zlib.crc32(os.pread(file.fileno(), head.body_size, head.body_offset)) == head.body_crc
            for head in scan.records()
        )
        return bodies_match and not scan.damaged_bytes and scan.end >= PACK_HEADER.size
