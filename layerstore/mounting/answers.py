"""The answers to the kernel's requests. What has been answered once the kernel keeps: nothing ever changes."""

import errno
import os
import stat
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator

from layerstore.mounting.inodes import ROOT_NUMBER, Attributes, File, NumberedView, Numbers
from layerstore.mounting.protocol import (
    ATTRIBUTES_OUT,
    DIRENT,
    DIRENT_PLUS,
    ENTRY_OUT,
    GETXATTR,
    INIT_IN,
    INIT_OUT,
    LSEEK_IN,
    LSEEK_OUT,
    MINOR_OLDEST,
    NAME_LENGTH_MAX,
    OPEN_CACHE_DIRECTORY,
    OPEN_KEEP_CACHE,
    OPEN_OUT,
    READ_IN,
    READ_SIZE_MAX,
    STATFS_OUT,
    VERSION,
    Capability,
    Opcode,
    padding,
)

_KEPT_SECONDS = 10 * 365 * 86400
"""How long the kernel may keep names and attributes."""
_NAME_SHOWN_MAX = 255
_BACKGROUND_MAX = 64
_WRITE_SIZE_MAX = 4096
_PAGE_SIZE = 4096

Answer = bytes | memoryview
Handler = Callable[[int, memoryview], Answer]


class Answers:
    """Answers requests by their opcode. Threads may share it."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._views: dict[bytes, NumberedView] = {}
        self._of_thread = threading.local()
        self._capabilities = Capability(0)
        self.counts: Counter[str] = Counter()
        """How many requests of each kind there were."""
        self._handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.STATFS: self._statfs,
            Opcode.RELEASE: self._nothing,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.INIT: self._init,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.RELEASEDIR: self._nothing,
            Opcode.DESTROY: self._nothing,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.LSEEK: self._lseek,
        }

    def show(self, name: bytes, view: NumberedView) -> None:
        """Give a view a name in the root; a view whose root is the root needs none."""
        self._views[name] = view

    def hide(self, name: bytes) -> None:
        """Take the name of a view away."""
        self._views.pop(name, None)

    def answer(self, opcode: int, number: int, body: memoryview) -> Answer:
        """The answer to a request. Raises `OSError` with what the kernel is to be told instead."""
        handler = self._handlers.get(opcode)
        if handler is None:
            raise OSError(errno.ENOSYS, "not a request that is answered")
        self.counts[Opcode(opcode).name.lower()] += 1
        return handler(number, body)

    # --- names --------------------------------------------------------------------------------------------------------

    def _lookup(self, number: int, body: memoryview) -> Answer:
        name = _text(body)
        if self._is_list_of_views(number):
            view = self._views.get(name)
            # Nobody but our own clients looks here, and views come and go: the kernel is to ask each time.
            return _entry(None if view is None else view.root, kept_seconds=0)
        directory = self._numbers.get(number)
        if directory.view is None:
            raise OSError(errno.ENOTDIR, "not a directory")
        return _entry(directory.view.child(directory, name), kept_seconds=_KEPT_SECONDS)

    def _readdir(self, number: int, body: memoryview) -> Answer:
        parts = []
        _, offset, size, _ = READ_IN.unpack_from(body)
        for position, name, file in self._listed(number, offset):
            size -= DIRENT.size + len(name) + len(padding(len(name)))
            if size < 0:
                break
            attributes = file.attributes
            parts.append(DIRENT.pack(attributes[0], position, len(name), attributes[9] >> 12))
            parts.append(name + padding(len(name)))
        return b"".join(parts)

    def _readdirplus(self, number: int, body: memoryview) -> Answer:
        parts = []
        _, offset, size, _ = READ_IN.unpack_from(body)
        pack, kept = DIRENT_PLUS.pack, _KEPT_SECONDS
        for position, name, file in self._listed(number, offset):
            length = len(name)
            size -= DIRENT_PLUS.size + length + len(padding(length))
            if size < 0:
                break
            attributes = file.attributes
            # The kernel takes no entry from "." and "..", so they must not count as looked up.
            node = 0 if name in (b".", b"..") else file.number
            kind = attributes[9] >> 12
            parts.append(pack(node, 0, kept, kept, 0, 0, *attributes, attributes[0], position, length, kind))
            parts.append(name + padding(length))
        return b"".join(parts)

    def _listed(self, number: int, offset: int) -> Iterator[tuple[int, bytes, File]]:
        """What is in a directory from a position on, each with the position behind it."""
        if self._is_list_of_views(number):
            return  # views are found by name alone
        directory = self._numbers.get(number)
        view = directory.view
        if view is None:
            raise OSError(errno.ENOTDIR, "not a directory")
        if offset < 1:
            yield 1, b".", directory
        if offset < 2:
            yield 2, b"..", directory  # d_ino of it is of no use to anybody
        listing = view.listing(directory)
        for index in range(max(0, offset - 2), len(listing)):
            name, inode = listing[index]
            if len(name) <= NAME_LENGTH_MAX:
                yield index + 3, name, view.numbered(inode)

    def _is_list_of_views(self, number: int) -> bool:
        return number == ROOT_NUMBER and ROOT_NUMBER not in self._numbers.known

    # --- attributes ---------------------------------------------------------------------------------------------------

    def _getattr(self, number: int, body: memoryview) -> Answer:
        if self._is_list_of_views(number):
            return _attributes_answer(_LIST_ATTRIBUTES)
        return _attributes_answer(self._numbers.get(number).attributes)

    def _readlink(self, number: int, body: memoryview) -> Answer:
        return self._numbers.get(number).link_target()

    def _getxattr(self, number: int, body: memoryview) -> Answer:
        size, _ = GETXATTR.unpack_from(body)
        xattrs = {} if self._is_list_of_views(number) else self._numbers.get(number).xattrs()
        value = xattrs.get(_text(body[GETXATTR.size :]))
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return _sized(value, size)

    def _listxattr(self, number: int, body: memoryview) -> Answer:
        size, _ = GETXATTR.unpack_from(body)
        xattrs = {} if self._is_list_of_views(number) else self._numbers.get(number).xattrs()
        return _sized(b"".join(name + b"\0" for name in xattrs), size)

    def _statfs(self, number: int, body: memoryview) -> Answer:
        return STATFS_OUT.pack(0, 0, 0, 0, 0, _PAGE_SIZE, _NAME_SHOWN_MAX, _PAGE_SIZE, 0)

    # --- contents -----------------------------------------------------------------------------------------------------

    def _open(self, number: int, body: memoryview) -> Answer:
        if Capability.NO_OPEN in self._capabilities:
            raise OSError(errno.ENOSYS, "nothing needs to be opened")
        return OPEN_OUT.pack(0, OPEN_KEEP_CACHE, 0)

    def _opendir(self, number: int, body: memoryview) -> Answer:
        if Capability.NO_OPENDIR in self._capabilities:
            raise OSError(errno.ENOSYS, "nothing needs to be opened")
        return OPEN_OUT.pack(0, OPEN_KEEP_CACHE | OPEN_CACHE_DIRECTORY, 0)

    def _read(self, number: int, body: memoryview) -> Answer:
        _, offset, size, _ = READ_IN.unpack_from(body)
        contents = self._numbers.contents(self._numbers.get(number))
        data = self._buffer()[: max(0, min(size, contents.size - offset))]
        contents.read_into(data, offset)
        self.counts["bytes"] += len(data)
        return data

    def _buffer(self) -> memoryview:
        """Room for what this thread reads: its last answer has been sent."""
        try:
            buffer: memoryview = self._of_thread.buffer
        except AttributeError:
            buffer = self._of_thread.buffer = memoryview(bytearray(READ_SIZE_MAX))
        return buffer

    def _lseek(self, number: int, body: memoryview) -> Answer:
        _, offset, whence, _ = LSEEK_IN.unpack_from(body)
        contents = self._numbers.contents(self._numbers.get(number))
        if offset >= contents.size or whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.ENXIO if offset >= contents.size else errno.EINVAL, "nothing there")
        return LSEEK_OUT.pack(_seek(contents.regions, contents.size, offset, data=whence == os.SEEK_DATA))

    # --- the session --------------------------------------------------------------------------------------------------

    def _init(self, number: int, body: memoryview) -> Answer:
        major, minor, _, flags = INIT_IN.unpack_from(body)
        if major != VERSION[0] or minor < MINOR_OLDEST:
            raise OSError(errno.EPROTO, f"the kernel speaks version {major}.{minor} of FUSE")
        wanted = Capability(0)
        for one in Capability:
            wanted |= one
        self._capabilities = Capability(flags & wanted)
        return INIT_OUT.pack(
            VERSION[0],
            VERSION[1],
            READ_SIZE_MAX,
            self._capabilities,
            _BACKGROUND_MAX,
            _BACKGROUND_MAX,
            _WRITE_SIZE_MAX,
            1,  # times to the nanosecond
            READ_SIZE_MAX // _PAGE_SIZE,
            0,
            0,
        )

    def _nothing(self, number: int, body: memoryview) -> Answer:
        return b""


_LIST_ATTRIBUTES: Attributes = (ROOT_NUMBER, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 1, 0, 0, 0, _PAGE_SIZE, 0)


def _entry(file: File | None, *, kept_seconds: int) -> bytes:
    if file is None:
        if not kept_seconds:
            raise OSError(errno.ENOENT, "no such name")
        # Number 0 tells the kernel to remember that there is nothing.
        return ENTRY_OUT.pack(0, 0, kept_seconds, 0, 0, 0, *(0,) * 16)
    return ENTRY_OUT.pack(file.number, 0, kept_seconds, _KEPT_SECONDS, 0, 0, *file.attributes)


def _attributes_answer(attributes: Attributes) -> bytes:
    return ATTRIBUTES_OUT.pack(_KEPT_SECONDS, 0, 0, *attributes)


def _sized(value: bytes, size: int) -> bytes:
    """An attribute, or with size 0 only its length."""
    if not size:
        return GETXATTR.pack(len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, "longer than asked for")
    return value


def _text(body: memoryview) -> bytes:
    return bytes(body).partition(b"\0")[0]


def _seek(regions: tuple[tuple[int, int], ...], size: int, offset: int, *, data: bool) -> int:
    """The next place at or behind ``offset`` that is data, or that is a hole; the end of a file counts as a hole."""
    index = bisect_right(regions, (offset, size + 1)) - 1
    if index >= 0 and offset < sum(regions[index]):
        if data:
            return offset
        while index + 1 < len(regions) and sum(regions[index]) == regions[index + 1][0]:
            index += 1
        return sum(regions[index])
    if not data:
        return offset
    if index + 1 == len(regions):
        raise OSError(errno.ENXIO, "no data behind")
    return regions[index + 1][0]
