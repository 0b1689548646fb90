"""Rebuilds what a disk may hold after a power cut, from a recording of `record_io.c`.

The rules are the strict ones of POSIX. A file's bytes are safe once that file was synced (or written through a
descriptor opened with O_DSYNC); a directory's entries once that directory was. Of all that came later, anything may be
there: each write wholly, in part, or not at all, in sectors of 512 bytes; each entry or its absence. Where two unsynced
writes overlap, any sector may have either. A rename is there or not.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("<BBHHiQI")
_TRUNCATED, _DIRECT = 1, 4


@dataclass(frozen=True, slots=True)
class Operation:
    """One record."""

    kind: str
    flag: int
    path: str
    second: str
    descriptor: int
    offset: int
    data: bytes


def read_recording(path: Path) -> list[Operation]:
    """All records."""
    data = path.read_bytes()
    operations = []
    at = 0
    while at < len(data):
        kind, flag, path_length, second_length, descriptor, offset, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + path_length].decode()
        at += path_length
        second = data[at : at + second_length].decode()
        at += second_length
        operations.append(Operation(chr(kind), flag, name, second, descriptor, offset, data[at : at + length]))
        at += length
    return operations


@dataclass(slots=True)
class _File:
    """Changes of a file's bytes; those before ``synced`` are safe."""

    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and bytes of a write; size and None of a truncation."""
    synced: int = 0
    direct: set[int] = field(default_factory=set)
    """Changes that are safe though the file was not synced since."""


@dataclass(slots=True)
class _Directory:
    """Changes of a directory's entries: names that were set to something, or to nothing, together."""

    changes: list[dict[str, "_File | _Directory | None"]] = field(default_factory=list)
    synced: int = 0

    def now(self) -> "dict[str, _File | _Directory]":
        """The entries as running processes see them."""
        entries: dict[str, _File | _Directory | None] = {}
        for change in self.changes:
            entries |= change
        return {name: entry for name, entry in entries.items() if entry is not None}


class Disk:
    """Follows a recording; `after_cut` and `after_kill` make what is left of it at this instant."""

    def __init__(self, root: Path, marks: str) -> None:
        self._root = _Directory()
        self._prefix = str(root)
        self._marks_path = str(root / marks)
        self._open: dict[int, _File | _Directory] = {}
        self._direct: set[int] = set()
        self._marks_descriptor = -1
        self.marks = b""
        """What was written to the file of marks so far: it is not part of the disk."""

    def follow(self, operation: Operation) -> None:  # noqa: C901 - a case for each kind
        """Take in the next operation."""
        match operation.kind:
            case "O":
                self._follow_open(operation)
            case "C":
                self._open.pop(operation.descriptor, None)
            case "W" if operation.descriptor == self._marks_descriptor:
                self.marks += operation.data
            case "W":
                file = self._file(operation)
                if operation.descriptor in self._direct:
                    file.direct.add(len(file.changes))
                file.changes.append((operation.offset, operation.data))
            case "T":
                self._file(operation).changes.append((operation.offset, None))
            case "S":
                target = self._open[operation.descriptor]
                target.synced = len(target.changes)
            case "M":
                self._set(operation.path, _Directory())
            case "U" | "D":
                self._set(operation.path, None)
            case "R":
                self._rename(operation.path, operation.second)

    def _follow_open(self, operation: Operation) -> None:
        if operation.path == self._marks_path:
            self._marks_descriptor = operation.descriptor
            self._open[operation.descriptor] = _File()
            return
        target = self._find(operation.path)
        if target is None:
            target = _File()
            self._set(operation.path, target)
        elif isinstance(target, _File) and operation.flag & _TRUNCATED:
            target.changes.append((0, None))
        self._open[operation.descriptor] = target
        self._direct.discard(operation.descriptor)
        if operation.flag & _DIRECT:
            self._direct.add(operation.descriptor)

    def _file(self, operation: Operation) -> _File:
        file = self._open[operation.descriptor]
        assert isinstance(file, _File)
        return file

    def _parts(self, path: str) -> list[str]:
        return [part for part in path.removeprefix(self._prefix).split("/") if part]

    def _find(self, path: str) -> "_File | _Directory | None":
        target: _File | _Directory | None = self._root
        for part in self._parts(path):
            assert isinstance(target, _Directory)
            target = target.now().get(part)
        return target

    def _parent(self, path: str) -> tuple[_Directory, str]:
        *folders, name = self._parts(path)
        parent = self._find("/".join(folders))
        assert isinstance(parent, _Directory)
        return parent, name

    def _set(self, path: str, entry: "_File | _Directory | None") -> None:
        parent, name = self._parent(path)
        parent.changes.append({name: entry})

    def _rename(self, before: str, after: str) -> None:
        moved = self._find(before)
        old_parent, old_name = self._parent(before)
        new_parent, new_name = self._parent(after)
        assert old_parent is new_parent, "a rename between directories needs a model of its own"
        old_parent.changes.append({old_name: None, new_name: moved})

    def after_kill(self, target: Path) -> None:
        """Everything that was done: what the next process finds when this one dies."""
        self._write(self._root, target, None)

    def after_cut(self, target: Path, chooser: random.Random) -> None:
        """What was synced, and a random part of the rest."""
        self._write(self._root, target, chooser)

    def _write(self, directory: _Directory, target: Path, chooser: random.Random | None) -> None:
        target.mkdir()
        # A disk that is unlucky in everything, or in nothing, is worth a look, too.
        luck = chooser.choice((0.0, 0.2, 0.5, 0.8, 1.0)) if chooser else 1.0
        entries: dict[str, _File | _Directory | None] = {}
        for index, change in enumerate(directory.changes):
            if index < directory.synced or not chooser or chooser.random() < luck:
                entries |= change
        for name, entry in entries.items():
            if isinstance(entry, _Directory):
                self._write(entry, target / name, chooser)
            elif entry is not None:
                (target / name).write_bytes(_contents(entry, chooser))


def _contents(file: _File, chooser: random.Random | None) -> bytes:
    content = bytearray()
    luck = chooser.choice((0.0, 0.2, 0.5, 0.8, 1.0)) if chooser else 1.0
    for index, (offset, data) in enumerate(file.changes):
        is_safe = index < file.synced or index in file.direct or not chooser
        if data is None:
            if is_safe or chooser.random() < luck:
                _truncate(content, offset)
        elif is_safe or chooser.random() < luck * 0.7:
            _put(content, offset, data)
        elif chooser.random() < 0.5:
            for start, sector in _sectors(offset, data):
                if chooser.random() < luck:
                    _put(content, start, sector)
    return bytes(content)


def _truncate(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        size = SECTOR - (offset + at) % SECTOR
        yield offset + at, data[at : at + size]
        at += size
