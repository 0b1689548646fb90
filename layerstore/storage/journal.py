"""The journal: names and decisions that packs do not hold, so that the index can be made anew (FORMAT.md, "Journal").

Events are appended inside the write transaction that they belong to, at the offset that the index remembers, so the
journal has the index's order and its aborted attempts are overwritten. `sync` makes them durable after the commit and
before the operation returns. What a power cut takes between the two, `check` finds and a new checkpoint replaces.
"""

import json
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.storage.index import Index, Transaction
from layerstore.storage.layout import sync_directory, sync_file, translate_os_errors
from layerstore.storage.records import ImageRecord, TrashRecord

Event = dict[str, Any]
R = TypeVar("R")

_SIZE = "journal_size"
_TAIL = 1 << 16
_LOOKS = 5
_CHECKPOINT_GROWTH = 1 << 20


class Journal:
    """The store's journal file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, index: Index, change: Callable[[Transaction], R]) -> R:
        """`Index.write` for a change that appends events: if it fails, they are cut off again. Call `sync` after it."""
        try:
            return index.write(change)
        except BaseException:
            with suppress(LayerstoreError):
                index.write(self._cut)
            raise

    def _cut(self, transaction: Transaction) -> None:
        # Under the writer lock: nobody else appends between the look at the size and the cut.
        if self.path.exists():
            with translate_os_errors(f"cannot write {self.path}"):
                os.truncate(self.path, transaction.meta.get(_SIZE) or 0)

    def append(self, transaction: Transaction, events: Iterable[Event]) -> None:
        """Add events as part of the ``transaction`` of a `write`."""
        data = b"".join(encode_event(event) for event in events)
        offset = transaction.meta.get(_SIZE) or 0
        with translate_os_errors(f"cannot write {self.path}"):
            descriptor = self._open()
            try:
                written = os.pwrite(descriptor, data, offset)
                if written < len(data):
                    os.pwrite(descriptor, data[written:], offset + written)
                os.ftruncate(descriptor, offset + len(data))
            finally:
                os.close(descriptor)
        transaction.meta.put(_SIZE, offset + len(data))

    def sync(self) -> None:
        """Make all events of committed transactions durable."""
        with translate_os_errors(f"cannot write {self.path}"):
            descriptor = self._open()
            try:
                sync_file(descriptor)
            finally:
                os.close(descriptor)

    def check(self, index: Index) -> None:
        """Write a checkpoint if the file does not hold what the index remembers of it.

        Only the length and the last 64 KiB are looked at, as this runs whenever a store is opened: what a power cut
        takes is at the end. Damage further in front is found by `is_sound`, which `verify` calls.
        """
        with index.read() as transaction:
            size = transaction.meta.get(_SIZE) or 0
        if not self._is_whole(size, _TAIL):
            self.checkpoint(index)

    def is_sound(self, index: Index) -> bool:
        """Whether the file holds all that the index remembers of it, each event undamaged."""
        for _ in range(_LOOKS):
            with index.read() as transaction:
                size = transaction.meta.get(_SIZE) or 0
            if self._is_whole(size, size):
                return True
            time.sleep(0.05)  # perhaps another process switches to a new file just now
        return False

    def checkpoint_if_grown(self, index: Index) -> None:
        """Write a checkpoint if most of the file is history."""
        with index.read() as transaction:
            size = transaction.meta.get(_SIZE) or 0
            base = transaction.meta.get("journal_checkpoint_size") or 0
        if size > 2 * base + _CHECKPOINT_GROWTH:
            self.checkpoint(index)

    def checkpoint(self, index: Index) -> None:
        """Replace the file by the index's present state. Others may go on meanwhile; only the switch locks them out."""
        with index.read() as transaction:
            state = b"".join(encode_event(event) for event in _state_events(transaction))
            old_size = transaction.meta.get(_SIZE) or 0
        temporary = self.path.with_name(f".journal.{uuid.uuid4().hex}")
        with translate_os_errors(f"cannot write {self.path}"):
            try:
                with temporary.open("xb") as file:
                    file.write(state)
                    file.flush()
                    sync_file(file.fileno())
                index.write(_Switch(self.path, temporary, len(state), old_size))
            finally:
                temporary.unlink(missing_ok=True)
            self.sync()
            sync_directory(self.path.parent)

    def events(self) -> Iterator[Event]:
        """All whole events of the file, in order. What follows the first broken one is left out."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                event = _decode_event(line)
                if event is None:
                    return
                yield event

    def _is_whole(self, size: int, tail_size: int) -> bool:
        if not size:
            return True
        try:
            with self.path.open("rb") as file:
                start = max(0, size - tail_size)
                file.seek(start)
                tail = file.read(size - start)
        except FileNotFoundError:
            return False
        lines = tail.splitlines(keepends=True)
        if start:
            lines = lines[1:]
        return len(tail) == size - start and all(_decode_event(line) is not None for line in lines)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


class _Switch:
    """The change that puts a checkpoint in the journal's place. It may run again when its transaction came to nothing.

    The first time, only what was appended since the checkpoint was made is copied behind it: the lock is held for
    long enough. Once the file is in place, that can not be told any more. What another process appends to it before
    the next attempt lies at an offset of the old one. So then the state is written from the index as a whole.
    """

    def __init__(self, path: Path, temporary: Path, state_size: int, old_size: int) -> None:
        self._path = path
        self._temporary = temporary
        self._state_size = state_size
        self._old_size = old_size
        self._is_in_place = False

    def __call__(self, transaction: Transaction) -> None:
        with translate_os_errors(f"cannot write {self._path}"):
            size = self._write_whole(transaction) if self._is_in_place else self._add_newer(transaction)
            transaction.meta.put(_SIZE, size)
            transaction.meta.put("journal_checkpoint_size", self._state_size)
            # Last: of all that follows, only the commit can fail.
            self._is_in_place = True
            self._temporary.replace(self._path)

    def _add_newer(self, transaction: Transaction) -> int:
        now_size = transaction.meta.get(_SIZE) or 0
        newer = b""
        if now_size > self._old_size:
            with self._path.open("rb") as file:
                file.seek(self._old_size)
                newer = file.read(now_size - self._old_size)
        with self._temporary.open("r+b") as file:
            file.seek(self._state_size)
            file.write(newer)
            file.truncate()
        return self._state_size + len(newer)

    def _write_whole(self, transaction: Transaction) -> int:
        state = b"".join(encode_event(event) for event in _state_events(transaction))
        self._temporary.write_bytes(state)  # `checkpoint` makes it durable
        self._state_size = len(state)
        return len(state)


def encode_event(event: Event) -> bytes:
    """One line: CRC-32 in hex, a space, the event as JSON."""
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode_event(line: bytes) -> Event | None:
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    text = line[9:-1]
    try:
        if int(line[:8], 16) != zlib.crc32(text):
            return None
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def image_event(digest: Digest, record: ImageRecord) -> Event:
    """An image came into the store, or out of the trash."""
    return {"op": "image", "digest": digest, "number": record.number, "created": record.created}


def trash_event(digest: Digest, record: TrashRecord) -> Event:
    """An image went into the trash with its tags."""
    event = image_event(digest, record.image)
    return event | {"op": "trash", "deleted": record.deleted, "expires": record.expires, "tags": list(record.tags)}


def tag_event(tag: str, digest: Digest) -> Event:
    """A tag was set."""
    return {"op": "tag", "tag": tag, "digest": digest}


def untag_event(tag: str) -> Event:
    """A tag was removed."""
    return {"op": "untag", "tag": tag}


def drop_image_event(digest: Digest) -> Event:
    """An image left the trash for good."""
    return {"op": "drop-image", "digest": digest}


def drop_layer_event(number: int) -> Event:
    """A layer is no more; records of its recipe that are still in packs mean nothing."""
    return {"op": "drop-layer", "number": number}


def _state_events(transaction: Transaction) -> Iterator[Event]:
    for _, number in transaction.graves:
        yield drop_layer_event(number)
    for digest, image in transaction.images.items():
        yield image_event(digest, image)
    for tag, digest in transaction.tags.items():
        yield tag_event(tag, digest)
    for digest, trash in transaction.trash.items():
        yield trash_event(digest, trash)
