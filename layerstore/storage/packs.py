"""Packs: append-only files of records that describe themselves (FORMAT.md, "Packs").

A writer holds the lock of the pack it appends to. What the index calls the pack's size is committed; anything beyond
it in the file is the rest of a push that never finished, and the next writer cuts it off.
"""

import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from layerstore.errors import ContentDamagedError, LayerstoreError
from layerstore.storage.index import Index, Transaction
from layerstore.storage.layout import Layout, StoreConfig, os_error, sync_directory, sync_file, translate_os_errors
from layerstore.storage.locks import FileLock
from layerstore.storage.records import PackRecord, Place

PACK_MAGIC = b"LYRPACK\n"
PACK_VERSION = 1
PACK_HEADER = struct.Struct(">8sHHIQ16sI4s")
RECORD_MAGIC = b"LREC"
RECORD_HEAD = struct.Struct(">4sBBHQIIII")
META_SIZE_MAX = 1 << 26
_OPEN_PACKS_MAX = 128
_SCAN_STEP = 1 << 22


class RecordKind(IntEnum):
    """What a record of a pack holds."""

    FRAME = 1
    SEGMENT = 2
    LAYER = 3
    BLOB = 4
    ENCODING = 5


@dataclass(frozen=True, slots=True)
class PackRecordHead:
    """Head and meta of one record, with its place."""

    kind: RecordKind
    codec: int
    number: int
    """Of the frame, the layer or the encoding; 0 for a blob."""
    meta: bytes
    place: Place
    body_size: int
    body_crc: int

    @property
    def body_offset(self) -> int:
        """Where the body begins in the pack."""
        return self.place.offset + RECORD_HEAD.size + len(self.meta)


def encode_record(kind: RecordKind, codec: int, number: int, meta: bytes, body: bytes) -> bytes:
    """The bytes of a record without its body, which follows them."""
    head = RECORD_HEAD.pack(RECORD_MAGIC, kind, codec, 0, number, len(meta), len(body), zlib.crc32(body), 0)[:-4]
    return head + struct.pack(">I", zlib.crc32(meta, zlib.crc32(head))) + meta


def encode_pack_header(number: int, store_id: str) -> bytes:
    """The first bytes of a pack."""
    packed = PACK_HEADER.pack(PACK_MAGIC, PACK_VERSION, 0, 0, number, bytes.fromhex(store_id), 0, b"")[:-8]
    return packed + struct.pack(">I", zlib.crc32(packed)) + bytes(4)


class PackWriter:
    """Appends records to packs, one after the other as they fill. Nobody else writes the pack that it holds."""

    def __init__(self, layout: Layout, index: Index, config: StoreConfig) -> None:
        self._layout = layout
        self._index = index
        self._config = config
        self._lock: FileLock | None = None
        self._is_full = False
        self._appended_before = 0
        self.number = 0
        """The pack that is appended to now."""
        self.committed = 0
        """Bytes of it that the index vouches for."""
        self.size = 0
        """Bytes of it with what is not committed yet."""

    @property
    def appended(self) -> int:
        """Bytes appended and committed by this writer, over all its packs, with the headers of new ones."""
        return self._appended_before

    def append(self, kind: RecordKind, codec: int, number: int, meta: bytes, body: bytes) -> Place:
        """Write a record behind the last one; not durable before `sync`, not there before `commit`."""
        lock = self._writable()
        head = encode_record(kind, codec, number, meta, body)
        place = Place(self.number, self.size, len(head) + len(body))
        with translate_os_errors(f"cannot write pack {self.number}"):
            for part in (head, body):
                view = memoryview(part)
                while view:
                    written = os.pwrite(lock.descriptor, view, self.size)
                    self.size += written
                    view = view[written:]
        return place

    def sync(self) -> None:
        """Make everything appended durable."""
        if self._lock is not None:
            with translate_os_errors(f"cannot write pack {self.number}"):
                sync_file(self._lock.descriptor)

    def commit(self, transaction: Transaction) -> None:
        """Let the index vouch for what was appended and synced. Call `committed_now` once the transaction stands."""
        if self._lock is None:
            return
        record = transaction.packs[self.number]
        transaction.packs.put(self.number, PackRecord(self.size, record.dead_bytes))
        if self.size >= self._config.pack_size_max:
            transaction.open_packs.delete(self.number)

    def committed_now(self) -> None:
        """The transaction of `commit` is durable."""
        self._appended_before += self.size - self.committed
        self.committed = self.size
        self._is_full = self.size >= self._config.pack_size_max

    def rewind(self) -> None:
        """Take back what was appended since the last commit.

        What is committed, the index says: a signal may have come between a commit and `committed_now`.
        """
        if self._lock is None or self.size == self.committed:
            return
        with self._index.read() as transaction:
            record = transaction.packs.get(self.number)
        if record is not None:
            with translate_os_errors(f"cannot cut pack {self.number}"):
                os.ftruncate(self._lock.descriptor, record.size)
            self._appended_before += record.size - self.committed
            self.size = self.committed = record.size
            self._is_full = self.size >= self._config.pack_size_max

    def cut_tails(self) -> None:
        """Cut off, in packs that have room and that nobody writes now, what a dead writer left."""
        with self._index.read() as transaction:
            records = [(number, transaction.packs.get(number)) for number in transaction.open_packs]
        candidates = [(number, record.size) for number, record in records if record is not None]
        for number, size in candidates:
            with translate_os_errors(f"cannot cut pack {number}"):
                try:
                    has_tail = self._layout.pack(number).stat().st_size > size
                except FileNotFoundError:
                    continue
                if has_tail and (lock := self._adopt_one(number)):
                    lock[1].release()

    def close(self) -> None:
        """Give the pack free for other writers, without uncommitted bytes."""
        try:
            self.rewind()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _writable(self) -> FileLock:
        if self._lock is not None and self._is_full:
            self._lock.release()
            self._lock = None
        if self._lock is None:
            self.number, self._lock, self.committed = self._adopt() or self._create()
            self.size = self.committed
            self._is_full = False
        return self._lock

    def _adopt(self) -> tuple[int, FileLock, int] | None:
        """An open pack that nobody else writes."""
        with self._index.read() as transaction:
            candidates = list(transaction.open_packs)
        for number in candidates:
            adopted = self._adopt_one(number)
            if adopted is not None:
                return adopted
        return None

    def _adopt_one(self, number: int) -> tuple[int, FileLock, int] | None:
        """An open pack without what a dead writer left at its end; None if someone writes it, or it is damaged."""
        lock = FileLock.acquire(self._layout.pack(number), blocking=False, create=False)
        if lock is None:
            return None
        with self._index.read() as transaction:
            record = transaction.packs.get(number) if number in transaction.open_packs else None
        # A pack shorter than the index says is damaged: leave it alone, so that `verify` finds it as it is.
        with translate_os_errors(f"cannot write pack {number}"):
            if record and os.fstat(lock.descriptor).st_size >= record.size:
                os.ftruncate(lock.descriptor, record.size)
                return number, lock, record.size
        lock.release()
        return None

    def _create(self) -> tuple[int, FileLock, int]:
        number = self._index.write(lambda transaction: transaction.next_number("next_pack"))
        path = self._layout.pack(number)
        with translate_os_errors(f"cannot create {path}"):
            # Collection may look at the file before we have its lock, and take it for an orphan: then it is made again.
            lock = FileLock.acquire(path, blocking=True, create=True)
            assert lock is not None
            header = encode_pack_header(number, self._config.store_id)
            os.ftruncate(lock.descriptor, 0)
            os.pwrite(lock.descriptor, header, 0)
            sync_file(lock.descriptor)
            sync_directory(self._layout.packs)

        # The row comes after the file, and while its lock is held: a pack file without row and lock is an orphan.
        def register(transaction: Transaction) -> None:
            transaction.packs.put(number, PackRecord(len(header), 0))
            transaction.open_packs.put(number, None)

        try:
            self._index.write(register)
        except BaseException:
            # A signal may have come when the row was there already; otherwise the file would be an orphan.
            with suppress(LayerstoreError), self._index.read() as transaction:
                if number not in transaction.packs:
                    path.unlink(missing_ok=True)
            lock.release()
            raise
        self._appended_before += len(header)
        return number, lock, len(header)


class PackReader:
    """Reads parts of packs through a bounded number of open files. Threads may share it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files: OrderedDict[int, _OpenPack] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, pack: int, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises `ContentDamagedError` if the pack is missing or ends before."""
        file = self._file(pack)
        with translate_os_errors(f"cannot read pack {pack}"):
            data = os.pread(file.descriptor, size, offset)
            while len(data) < size:
                more = os.pread(file.descriptor, size - len(data), offset + len(data))
                if not more:
                    raise ContentDamagedError(f"pack {pack} ends at {offset + len(data)}, before {offset + size}")
                data += more
        return data

    def read_head(self, place: Place) -> PackRecordHead:
        """Head and meta of the record at ``place``."""
        head = decode_head(self.read(place.pack, place.offset, RECORD_HEAD.size), place.pack, place.offset)
        if head is None:
            raise ContentDamagedError(f"pack {place.pack} has no record at {place.offset}")
        meta_size = place.size - RECORD_HEAD.size - head.body_size
        if meta_size < 0:
            raise ContentDamagedError(f"the record at {place.offset} of pack {place.pack} has another size")
        return _with_meta(head, self.read(place.pack, place.offset + RECORD_HEAD.size, meta_size))

    def check_header(self, pack: int, store_id: str) -> None:
        """Compare a pack's first bytes with what they must be. Raises `ContentDamagedError`."""
        if self.read(pack, 0, PACK_HEADER.size) != encode_pack_header(pack, store_id):
            raise ContentDamagedError(f"the header of pack {pack} is damaged")

    def check_record(self, place: Place) -> None:
        """Read a whole record and compare its checksums. Raises `ContentDamagedError`."""
        head = self.read_head(place)
        if zlib.crc32(self.read(place.pack, head.body_offset, head.body_size)) != head.body_crc:
            raise ContentDamagedError(f"the record at {place.offset} of pack {place.pack} has a damaged body")

    def forget(self, pack: int) -> None:
        """Close a pack that was unlinked: until then the file system keeps its bytes."""
        with self._lock:
            self._files.pop(pack, None)

    def close(self) -> None:
        """Close all files. What is read later is opened anew."""
        with self._lock:
            self._files.clear()

    def _file(self, pack: int) -> "_OpenPack":
        with self._lock:
            file = self._files.get(pack)
            if file is None:
                file = self._files[pack] = _OpenPack(self._layout, pack)
                for other in [number for number, one in self._files.items() if one.is_unlinked]:
                    del self._files[other]
                if len(self._files) > _OPEN_PACKS_MAX:
                    # A thread that reads this one still has its reference; the file closes after it.
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(pack)
            return file


class _OpenPack:
    __slots__ = ("descriptor",)

    def __init__(self, layout: Layout, pack: int) -> None:
        self.descriptor = -1
        try:
            self.descriptor = os.open(layout.pack(pack), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ContentDamagedError(f"pack {pack} is missing") from None
        except OSError as error:
            raise os_error(error, f"cannot open pack {pack}") from error

    @property
    def is_unlinked(self) -> bool:
        """Whether collection has removed the pack since; its bytes are given back when it is closed."""
        return os.fstat(self.descriptor).st_nlink == 0

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def decode_head(data: bytes, pack: int, offset: int) -> PackRecordHead | None:
    """The head at the beginning of ``data``, still without its meta; None if there is none."""
    if len(data) < RECORD_HEAD.size:
        return None
    magic, kind, codec, _, number, meta_size, body_size, body_crc, head_crc = RECORD_HEAD.unpack_from(data)
    if magic != RECORD_MAGIC or kind not in _KINDS or meta_size > META_SIZE_MAX:
        return None
    place = Place(pack, offset, RECORD_HEAD.size + meta_size + body_size)
    seed = zlib.crc32(data[: RECORD_HEAD.size - 4])
    return _HeadWithoutMeta(_KINDS[kind], codec, number, b"", place, body_size, body_crc, seed, head_crc)


_KINDS = {int(kind): kind for kind in RecordKind}


@dataclass(frozen=True, slots=True)
class _HeadWithoutMeta(PackRecordHead):
    crc_seed: int
    head_crc: int


def _with_meta(head: PackRecordHead, meta: bytes) -> PackRecordHead:
    assert isinstance(head, _HeadWithoutMeta)
    if zlib.crc32(meta, head.crc_seed) != head.head_crc:
        raise ContentDamagedError(
            f"the head of the record at {head.place.offset} of pack {head.place.pack} does not match its checksum"
        )
    return PackRecordHead(head.kind, head.codec, head.number, meta, head.place, head.body_size, head.body_crc)


@dataclass(slots=True)
class PackScan:
    """Walks all records of a pack file in order; what lies between readable records is counted as damaged."""

    descriptor: int
    pack: int
    end: int
    damaged_bytes: int = 0

    @classmethod
    def of(cls, descriptor: int, pack: int, end: int | None = None) -> Self:
        """Scan an open file up to ``end``, or its whole length."""
        return cls(descriptor, pack, os.fstat(descriptor).st_size if end is None else end)

    def records(self) -> Iterator[PackRecordHead]:
        """Every record whose head is sound and whose body lies within the pack. Bodies are not checked."""
        offset = PACK_HEADER.size
        while offset < self.end:
            head = self._head_at(offset)
            if head is None:
                following = self._next_magic(offset + 1)
                self.damaged_bytes += following - offset
                offset = following
                continue
            yield head
            offset += head.place.size

    def _head_at(self, offset: int) -> PackRecordHead | None:
        raw = os.pread(self.descriptor, RECORD_HEAD.size, offset)
        head = decode_head(raw, self.pack, offset)
        if head is None or offset + head.place.size > self.end:
            return None
        meta_size = head.place.size - RECORD_HEAD.size - head.body_size
        try:
            return _with_meta(head, os.pread(self.descriptor, meta_size, offset + RECORD_HEAD.size))
        except ContentDamagedError:
            return None

    def _next_magic(self, offset: int) -> int:
        while offset < self.end:
            block = os.pread(self.descriptor, min(_SCAN_STEP, self.end - offset), offset)
            if not block:
                break
            found = block.find(RECORD_MAGIC)
            if found >= 0:
                return offset + found
            offset += max(1, len(block) - len(RECORD_MAGIC) + 1)
        return self.end
