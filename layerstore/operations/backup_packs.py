"""The packs of a backup: the new bytes of each are brought over, and what damage took from the store is kept.

A pack that the target has is the beginning of the store's, unless one of the two was damaged or changed. Which, only
the records tell that the copied index points to: what else lies in a pack is dead, and whether it is whole does not
matter. So the target's bytes stay while all of these records in them are good, whatever the store's look like, and
get what the store has beyond them. Otherwise the pack is put together anew: the store's bytes, and in the places of
records that are damaged in them the target's.

What is put together lies in a folder aside until `PackCopier.install`, so that the earlier backup can still be read
as it was.
"""

import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from layerstore.errors import ContentDamagedError
from layerstore.storage.frames import decode_frame
from layerstore.storage.index import Transaction
from layerstore.storage.layout import Layout, sync_directory, sync_file
from layerstore.storage.packs import PackReader, RecordKind, encode_pack_header
from layerstore.storage.records import Place

_COPY_SIZE = 1 << 20
_COMPARED_SIZE = 1 << 16


class _Row(NamedTuple):
    """A record that the copied index points to."""

    place: Place
    kind: RecordKind
    key: Any
    """Of its row."""

    @property
    def end(self) -> int:
        return self.place.offset + self.place.size


@dataclass(frozen=True, slots=True)
class _Pack:
    number: int
    size: int
    """As the copied index has it."""
    here: int
    """How much of that the store's file has."""
    there: int
    """Bytes of the target's file."""
    rows: list[_Row]


class PackCopier:
    """Brings packs to the target one by one, as ``transaction``, one of the copied index, has them."""

    def __init__(
        self, transaction: Transaction, source: Layout, target: Layout, staging: Layout, store_id: str
    ) -> None:
        self._transaction = transaction
        self._source, self._target, self._staging = source, target, staging
        self._store_id = store_id
        self._read_source, self._read_target = PackReader(source), PackReader(target)
        self._rows: dict[int, list[_Row]] = {}
        for row in _rows(transaction):
            self._rows.setdefault(row.place.pack, []).append(row)
        self._staged: list[int] = []
        self.packs_copied = 0
        self.bytes_copied = 0
        self.damaged: list[int] = []
        """Packs in which the store has damaged records that are needed."""
        self.frames_damaged: set[int] = set()
        """Frames that are good neither in the store nor in the target."""

    def bring(self, number: int, size: int) -> None:
        """Let the target have the first ``size`` bytes of a pack, as far as the store or the target has them whole."""
        source, target = self._source.pack(number), self._target.pack(number)
        pack = _Pack(number, size, min(_size(source), size), _size(target), self._rows.get(number, []))
        if not pack.there:
            self._copy(pack)
        elif pack.here == size and _end_alike(source, target, min(pack.there, size)):
            self._extend(pack)
        else:
            self._keep_what_is_good(pack)

    def install(self) -> None:
        """Put what was put together in the target's place, durably."""
        for number in self._staged:
            self._staging.pack(number).replace(self._target.pack(number))
        sync_directory(self._target.packs)

    def cut_tails(self, packs: dict[int, int]) -> None:
        """Cut off what packs have beyond their sizes. Only once no index points there any more."""
        for number, size in packs.items():
            path = self._target.pack(number)
            if _size(path) > size:
                os.truncate(path, size)

    def close(self) -> None:
        """Close all files."""
        self._read_source.close()
        self._read_target.close()

    def _copy(self, pack: _Pack) -> None:
        if pack.rows and not pack.here:
            self._note(pack, pack.rows)
            return
        damaged = self._put_together(pack)
        self._staging.pack(pack.number).replace(self._target.pack(pack.number))  # no index points to it yet
        self._note_if_any(pack, damaged)

    def _extend(self, pack: _Pack) -> None:
        if pack.there < pack.here:
            self._append(pack)
            new = [row for row in pack.rows if row.end > pack.there]
            self._note_if_any(pack, [row for row in new if not self._is_good(self._read_target, row)])

    def _keep_what_is_good(self, pack: _Pack) -> None:
        before = [row for row in pack.rows if row.end <= pack.there]
        behind = [row for row in pack.rows if row.place.offset >= pack.there]
        is_prefix = len(before) + len(behind) == len(pack.rows)  # no record lies across the target's end
        if not (is_prefix and self._has_header(pack) and all(self._is_good(self._read_target, row) for row in before)):
            self._note_if_any(pack, self._put_together(pack))
            self._staged.append(pack.number)
            return
        if any(not self._is_good(self._read_source, row) for row in before):
            self._note(pack, [])
        if pack.there < pack.here:
            self._append(pack)
        damaged = [row for row in behind if not self._is_good(self._read_target, row)]
        self._note_if_any(pack, damaged)
        if not damaged and max(pack.there, pack.here) < pack.size:
            os.truncate(self._target.pack(pack.number), pack.size)  # what is missing is dead

    def _put_together(self, pack: _Pack) -> list[_Row]:
        """Make the pack in the folder aside; its records that are good nowhere."""
        damaged = []
        path = self._staging.pack(pack.number)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._write(descriptor, self._source.pack(pack.number), 0, pack.here)
            os.pwrite(descriptor, encode_pack_header(pack.number, self._store_id), 0)
            for row in pack.rows:
                if self._is_good(self._read_source, row):
                    continue
                if self._is_good(self._read_target, row):
                    self._write(descriptor, self._target.pack(pack.number), row.place.offset, row.end)
                    self._note(pack, [])
                else:
                    damaged.append(row)
            if not damaged:
                os.ftruncate(descriptor, pack.size)  # what is missing is dead
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        self.packs_copied += 1
        return damaged

    def _append(self, pack: _Pack) -> None:
        """Let the target's file go on with the store's bytes behind its own, durably."""
        descriptor = os.open(self._target.pack(pack.number), os.O_RDWR | os.O_CLOEXEC)
        try:
            self._write(descriptor, self._source.pack(pack.number), pack.there, pack.here)
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        self.packs_copied += 1

    def _write(self, descriptor: int, source: Path, start: int, end: int) -> None:
        if start >= end:
            return
        with source.open("rb", buffering=0) as file:
            offset = start
            while offset < end:
                data = os.pread(file.fileno(), min(_COPY_SIZE, end - offset), offset)
                if not data:
                    break
                view = memoryview(data)
                while view:
                    written = os.pwrite(descriptor, view, offset)
                    offset += written
                    view = view[written:]
        self.bytes_copied += offset - start

    def _note(self, pack: _Pack, lacking: list[_Row]) -> None:
        """The store's pack is damaged; ``lacking`` are the records of it that the target does not have whole either."""
        if pack.number not in self.damaged:
            self.damaged.append(pack.number)
        self.frames_damaged.update(row.key for row in lacking if row.kind is RecordKind.FRAME)

    def _note_if_any(self, pack: _Pack, lacking: list[_Row]) -> None:
        if lacking:
            self._note(pack, lacking)

    def _has_header(self, pack: _Pack) -> bool:
        try:
            self._read_target.check_header(pack.number, self._store_id)
        except ContentDamagedError:
            return False
        return True

    def _is_good(self, reader: PackReader, row: _Row) -> bool:
        """Whether the record in a row's place is the one that the row means, and undamaged."""
        try:
            head = reader.read_head(row.place)
            body = reader.read(row.place.pack, head.body_offset, head.body_size)
            if head.kind is not row.kind or zlib.crc32(body) != head.body_crc:
                return False
            if row.kind is RecordKind.FRAME:
                decode_frame(self._transaction.frames[row.key], body)
                return bool(head.number == row.key)
        except ContentDamagedError:
            return False
        if row.kind is RecordKind.SEGMENT:
            return head.number == row.key[0] and body == self._transaction.recipes[row.key].data
        if row.kind in (RecordKind.LAYER, RecordKind.ENCODING):
            return bool(head.meta == row.key.pack())
        return body == self._transaction.blobs[row.key].data


def _rows(transaction: Transaction) -> Iterator[_Row]:
    for number, frame in transaction.frames.items():
        yield _Row(frame.place, RecordKind.FRAME, number)
    for key, segment in transaction.recipes.items():
        yield _Row(segment.place, RecordKind.SEGMENT, key)
    for diff_id, layer in transaction.layers.items():
        yield _Row(layer.place, RecordKind.LAYER, diff_id)
    for digest, encoding in transaction.encodings.items():
        yield _Row(encoding.place, RecordKind.ENCODING, digest)
    for digest, blob in transaction.blobs.items():
        yield _Row(blob.place, RecordKind.BLOB, digest)


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _end_alike(source: Path, target: Path, size: int) -> bool:
    """Whether two packs are the same up to ``size``, judged by the last bytes before it, which hold compressed data."""
    start = max(0, size - _COMPARED_SIZE)
    with source.open("rb") as one, target.open("rb") as other:
        return os.pread(one.fileno(), size - start, start) == os.pread(other.fileno(), size - start, start)
