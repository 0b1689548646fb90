"""Views as numbered inodes. What is known here of `layerstore.union` is known nowhere else in this package.

A file that is no directory has one number for all views of a server, made of its layer and its place in that layer:
views with a layer in common share its inodes, and so the kernel's page cache. As the numbers are arithmetic, a file
has the same one again after the kernel has forgotten it, or after its view was dropped and another one came. Only how
many names a file has depends on the stack, so the number of names is part of its identity.
"""

import errno
import stat
import threading
from collections import OrderedDict
from itertools import count

from layerstore.digest import Digest
from layerstore.tar.entries import EntryKind, TarEntry
from layerstore.tar.header import BLOCK_SIZE
from layerstore.union.inode import Inode
from layerstore.union.reading import Contents
from layerstore.union.view import View

ROOT_NUMBER = 1
_PLACE_BITS = 38
"""Blocks of 512 bytes that a layer can have: 128 TiB."""
_IMPLIED_MODE = 0o755
_ID_MAX = (1 << 32) - 2
_NOBODY = 65534
_SECONDS_MAX = 1 << 62
_CONTENTS_KEPT = 512
_LISTINGS_KEPT = 8
_IO_SIZE = 1 << 17
_HIDDEN_XATTRS = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")
"""Orders to an overlayfs above, such as to look elsewhere for a file: no image is to give any."""

Attributes = tuple[int, ...]
"""As in ``struct fuse_attr``: number, size, blocks, three times in seconds, their nanoseconds, mode, links, …"""


class File:
    """An inode of any kind, with its number."""

    __slots__ = ("attributes", "directory", "entry", "kind", "layer", "number", "view")

    def __init__(self, number: int, inode: Inode, layer: Digest | None, view: "NumberedView | None") -> None:
        self.number = number
        self.kind = inode.kind
        self.entry: TarEntry | None = inode.entry
        self.layer = layer
        self.directory = inode if inode.children is not None else None
        self.view = view
        """Whose directory it is; None for everything else, which belongs to a layer."""
        self.attributes = _attributes(number, inode)

    def xattrs(self) -> dict[bytes, bytes]:
        """The extended attributes that are shown."""
        if self.entry is None:
            return {}
        return {name: value for name, value in self.entry.xattrs.items() if not name.startswith(_HIDDEN_XATTRS)}

    def link_target(self) -> bytes:
        """Where a symbolic link leads to. Raises `OSError` for everything else."""
        if self.kind is not EntryKind.SYMLINK or self.entry is None:
            raise OSError(errno.EINVAL, "not a symbolic link")
        return self.entry.link_target


class NumberedView:
    """A view whose inodes have numbers. Threads may share it."""

    def __init__(self, numbers: "Numbers", view: View, root_number: int | None = None) -> None:
        self._numbers = numbers
        self.view = view
        self.layers = view.layers
        self._occurrences = [view.layers[:position].count(layer) for position, layer in enumerate(view.layers)]
        """Of each layer, how often it is in the stack below: a layer that comes again brings other inodes."""
        self._slot = numbers.take_slot()
        self._places = count(1)
        self._directories: dict[Inode, int] = {}
        self._listings: OrderedDict[int, list[tuple[bytes, Inode]]] = OrderedDict()
        self._listings_lock = threading.Lock()
        number = root_number or self._directory_number(view.root)
        self._directories[view.root] = number
        self.root = numbers.remember(File(number, view.root, None, self))

    @property
    def numbers_of_directories(self) -> list[int]:
        """The numbers that go with this view."""
        return list(self._directories.values())

    def child(self, directory: File, name: bytes) -> File | None:
        """What has a name in a directory."""
        inode = _children(directory).get(name)
        return None if inode is None else self.numbered(inode)

    def listing(self, directory: File) -> list[tuple[bytes, Inode]]:
        """The names in a directory and what they stand for, always in the same order."""
        number = directory.number
        with self._listings_lock:
            known = self._listings.get(number)
        if known is None:
            known = list(_children(directory).items())
            with self._listings_lock:
                self._listings[number] = known
                while len(self._listings) > _LISTINGS_KEPT:
                    self._listings.popitem(last=False)
        return known

    def numbered(self, inode: Inode) -> File:
        """An inode of this view with its number."""
        if inode.children is not None:
            number = self._directories.get(inode) or self._directory_number(inode)
            layer = None
        else:
            assert inode.entry is not None, "only directories are implied"
            layer = self.layers[inode.layer]
            number = self._numbers.of_file(layer, self._occurrences[inode.layer], inode)
        known = self._numbers.known.get(number)
        if known is not None:
            return known
        return self._numbers.remember(File(number, inode, layer, self if layer is None else None))

    def _directory_number(self, inode: Inode) -> int:
        with self._listings_lock:
            known = self._directories.get(inode)
            if known is None:
                known = self._directories[inode] = self._slot << _PLACE_BITS | next(self._places)
        return known


class Numbers:
    """The inodes that the kernel was told of, by number, and the views that have them."""

    def __init__(self) -> None:
        self.known: dict[int, File] = {}
        self._lock = threading.Lock()
        self._slots: dict[tuple[Digest, int, int], int] = {}
        self._next_slot = count(1)
        self._views: dict[Digest, list[View]] = {}
        self._contents: OrderedDict[int, Contents] = OrderedDict()

    def take_slot(self) -> int:
        """The upper part of numbers that nothing else has."""
        return next(self._next_slot)

    def add(self, view: View, root_number: int | None = None) -> NumberedView:
        """Give numbers to a view, and read the files of its layers through it."""
        numbered = NumberedView(self, view, root_number)
        with self._lock:
            for layer in set(view.layers):
                self._views.setdefault(layer, []).append(view)
        return numbered

    def drop(self, numbered: NumberedView) -> None:
        """Forget a view and close it."""
        with self._lock:
            for layer in set(numbered.layers):
                self._views[layer].remove(numbered.view)
            gone = {layer for layer in set(numbered.layers) if not self._views[layer]}
            # Readers of what stays may hold the layer of this very view.
            self._contents.clear()
            for number in numbered.numbers_of_directories:
                self.known.pop(number, None)
            for number in [number for number, file in list(self.known.items()) if file.layer in gone]:
                del self.known[number]
        numbered.view.close()

    def of_file(self, layer: Digest, occurrence: int, inode: Inode) -> int:
        """The number of what is no directory."""
        assert inode.entry is not None, "only directories are implied"
        key = (layer, occurrence, inode.links)
        slot = self._slots.get(key)
        if slot is None:
            with self._lock:
                slot = self._slots.get(key)
                if slot is None:
                    slot = self._slots[key] = self.take_slot()
        return slot << _PLACE_BITS | inode.entry.header_offset // BLOCK_SIZE

    def remember(self, file: File) -> File:
        """Keep an inode for the requests about its number."""
        return self.known.setdefault(file.number, file)

    def get(self, number: int) -> File:
        """The inode of a number. Raises `OSError` (ESTALE) if its view was dropped."""
        file = self.known.get(number)
        if file is None:
            raise OSError(errno.ESTALE, "of a view that was dropped")
        return file

    def contents(self, file: File) -> Contents:
        """Where the contents of a regular file are. Raises `OSError` for everything else."""
        if file.kind is not EntryKind.FILE or file.entry is None or file.layer is None:
            raise OSError(errno.EINVAL, "not a regular file")
        with self._lock:
            found = self._contents.get(file.number)
            if found is not None:
                return found
            views = self._views.get(file.layer)
            if not views:
                raise OSError(errno.ESTALE, "of a view that was dropped")
            view = views[0]
        found = _contents(view, file.layer, file.entry)
        with self._lock:
            if view in self._views.get(file.layer, ()):
                self._contents[file.number] = found
                while len(self._contents) > _CONTENTS_KEPT:
                    self._contents.popitem(last=False)
        return found


def _contents(view: View, layer: Digest, entry: TarEntry) -> Contents:
    inode = Inode(EntryKind.FILE, entry, view.layers.index(layer), 0)
    return view.contents(view.node(entry.path, inode))


def _children(directory: File) -> dict[bytes, Inode]:
    if directory.directory is None or directory.directory.children is None:
        raise OSError(errno.ENOTDIR, "not a directory")
    return directory.directory.children


def _attributes(number: int, inode: Inode) -> Attributes:
    entry, kind = inode.entry, inode.kind
    if entry is None:
        return (number, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | _IMPLIED_MODE, 1, 0, 0, 0, _IO_SIZE, 0)
    seconds, nanoseconds = divmod(entry.mtime_ns, 10**9)
    if not -_SECONDS_MAX < seconds < _SECONDS_MAX:
        seconds = nanoseconds = 0
    size = blocks = device = 0
    links = inode.links
    if kind is EntryKind.FILE:
        # Of a sparse file the payload is what is no hole.
        size, blocks = min(entry.size, (1 << 63) - 1), -(-min(entry.payload_size, entry.size) // 512)
    elif kind is EntryKind.SYMLINK:
        size = len(entry.link_target)
    elif kind is EntryKind.DIRECTORY:
        links = 1  # "not counted", as on btrfs: `find` then takes no hint from it
    elif kind is not EntryKind.FIFO:
        device = _device_number(*entry.device)
    return (
        number,
        size,
        blocks,
        seconds,
        seconds,
        seconds,
        nanoseconds,
        nanoseconds,
        nanoseconds,
        kind.file_type | entry.mode & 0o7777,
        links,
        entry.uid if 0 <= entry.uid <= _ID_MAX else _NOBODY,
        entry.gid if 0 <= entry.gid <= _ID_MAX else _NOBODY,
        device,
        _IO_SIZE,
        0,
    )


def _device_number(major: int, minor: int) -> int:
    """As the kernel has it in 32 bits: 12 of the major number, 20 of the minor."""
    return minor & 0xFF | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12
