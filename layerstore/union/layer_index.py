"""What a layer does to the layers below it, read once from its skeleton and kept for the views of this process."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from layerstore.digest import Digest
from layerstore.errors import InvalidInputError
from layerstore.operations.layer_reader import LayerReader
from layerstore.operations.listing import layer_entries
from layerstore.storage.opened import OpenedStore
from layerstore.tar.entries import EntryKind, TarEntry

ENTRIES_KEPT_MAX = 300_000
"""How many entries of layers this process remembers, some 700 bytes each. A larger layer is read for each view."""

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
"""What AUFS keeps its own books in: ``.wh..wh.plnk``, ``.wh..wh.aufs``, ``.wh..wh.orph``."""


@dataclass(frozen=True)
class LayerIndex:
    """A layer's entries, by what they do. Folders are clean paths: no dots, no slashes but between names.

    OCI image specification, layer.md, "Applying Changesets" and "Whiteouts".
    """

    entries: list[tuple[bytes, bytes, TarEntry]]
    """Folder, name and entry in the order of the tar; the name is empty for the root."""
    whiteouts: list[tuple[bytes, bytes]]
    """Folder and name of what is hidden in the layers below."""
    opaque: list[bytes]
    """Folders that show nothing of the layers below."""
    aufs: dict[bytes, TarEntry]
    """Files of AUFS's own by their clean paths: hard links may lead to them, nothing else does."""

    @cached_property
    def names(self) -> frozenset[bytes]:
        """The clean paths that mean something of this layer's own, or nothing: its entries and what it hides."""
        paths = [(folder, name) for folder, name, _ in self.entries]
        return frozenset(join_path(folder, name) for folder, name in paths + self.whiteouts)


def read_layer_index(store: OpenedStore, diff_id: Digest) -> LayerIndex:
    """The index of a layer, from memory if it was read before. Raises `InvalidInputError` for what is no layer."""
    known = _known.get(diff_id)
    if known is None:
        known = _read(store, diff_id)
        _known.keep(diff_id, known)
    return known


def clean_path(path: bytes) -> bytes:
    """``path`` from the root, as Go's ``path.Clean("/" + path)`` has it; empty for the root.

    Container engines clean the names in a tar by their text, before links are followed; so ``..`` leads nowhere else.
    """
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


def join_path(folder: bytes, name: bytes) -> bytes:
    """The clean path of a name in a folder."""
    return folder + b"/" + name if folder else name


def _read(store: OpenedStore, diff_id: Digest) -> LayerIndex:
    index = LayerIndex([], [], [], {})
    for entry in layer_entries(store, diff_id):
        # Engines stop at the end mark. Kinds that are no files (a volume's label) are no part of a file system.
        if not entry.after_end and entry.kind is not EntryKind.OTHER:
            _sort_in(index, entry, diff_id)
    if not (index.entries or index.whiteouts or index.opaque):
        _refuse_what_is_no_tar(store, diff_id)
    return index


def _sort_in(index: LayerIndex, entry: TarEntry, diff_id: Digest) -> None:
    path = entry.path
    if b"//" in path or b"/." in path or path[:1] in (b"/", b"."):
        path = clean_path(path)
    folder, _, name = path.rpartition(b"/")
    if _WHITEOUT not in path:
        index.entries.append((folder, name, entry))
    elif name == _OPAQUE:
        index.opaque.append(folder)
    elif name == _WHITEOUT:
        raise InvalidInputError(f"layer {diff_id} has a whiteout without a name in {folder!r}")
    elif any(part.startswith(_AUFS) for part in path.split(b"/")):
        index.aufs[path] = entry
    elif name.startswith(_WHITEOUT):
        index.whiteouts.append((folder, name[len(_WHITEOUT) :]))
    else:
        index.entries.append((folder, name, entry))


def _refuse_what_is_no_tar(store: OpenedStore, diff_id: Digest) -> None:
    with LayerReader(store, diff_id) as reader:
        if any(reader.read(512)):
            raise InvalidInputError(f"layer {diff_id} is no tar")


class _Known:
    """The indexes that were used last. A DiffID says what is in a layer, so all stores share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: OrderedDict[Digest, LayerIndex] = OrderedDict()
        self._entries = 0

    def get(self, diff_id: Digest) -> LayerIndex | None:
        with self._lock:
            found = self._indexes.get(diff_id)
            if found is not None:
                self._indexes.move_to_end(diff_id)
            return found

    def keep(self, diff_id: Digest, index: LayerIndex) -> None:
        with self._lock:
            if _weight(index) > ENTRIES_KEPT_MAX or diff_id in self._indexes:
                return
            self._indexes[diff_id] = index
            self._entries += _weight(index)
            while self._entries > ENTRIES_KEPT_MAX:
                _, forgotten = self._indexes.popitem(last=False)
                self._entries -= _weight(forgotten)


def _weight(index: LayerIndex) -> int:
    return 1 + len(index.entries) + len(index.whiteouts) + len(index.opaque) + len(index.aufs)


_known = _Known()
