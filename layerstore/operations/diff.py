"""Differences between two stacks of layers, at the level of files. No payload is read.

Whiteouts and opaque directories are those of the OCI image specification, layer.md, "Whiteouts".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerstore.digest import Digest
from layerstore.errors import InvalidInputError
from layerstore.operations.listing import layer_contents
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import Ref
from layerstore.tar.entries import EntryKind, TarEntry, normalise_path

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class FileState:
    """What stands at a path: the entry, and which chunks are its contents."""

    entry: TarEntry
    contents: tuple[Ref, ...]

    def same_as(self, other: "FileState") -> bool:
        """Whether a user would see the same file."""
        return self._visible() == other._visible() and self.contents == other.contents

    def _visible(self) -> tuple[object, ...]:
        one = self.entry
        target = normalise_path(one.link_target) if one.kind is EntryKind.HARDLINK else one.link_target
        attributes = tuple(sorted(one.xattrs.items()))
        return (one.kind, one.mode, one.uid, one.gid, one.size, one.mtime_ns, target, one.device, attributes)


@dataclass(frozen=True, slots=True)
class Change:
    """A path that differs."""

    kind: str
    """``added``, ``modified`` or ``deleted``."""
    path: bytes
    old: TarEntry | None
    new: TarEntry | None


def diff_layers(store: OpenedStore, old: Sequence[Digest], new: Sequence[Digest]) -> list[Change]:
    """The paths that differ between two stacks, sorted. Layers are given from the lowest up.

    Raises `InvalidInputError` for a whiteout that hides nothing that has a name.
    """
    # What both have at the bottom shows the same through whatever lies above only if all of it is merged, so no
    # common layer is left out; the skeletons are small.
    before, after = _merge(store, old), _merge(store, new)
    changes = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        if was is None and now is not None:
            changes.append(Change("added", path, None, now.entry))
        elif now is None and was is not None:
            changes.append(Change("deleted", path, was.entry, None))
        elif was is not None and now is not None and not was.same_as(now):
            changes.append(Change("modified", path, was.entry, now.entry))
    return changes


def _merge(store: OpenedStore, stack: Sequence[Digest]) -> dict[bytes, FileState]:
    merged: dict[bytes, FileState] = {}
    for diff_id in stack:
        layer: dict[bytes, FileState] = {}
        hidden: list[bytes] = []
        opaque: list[bytes] = []
        for state in _states(store, diff_id):
            path = state.entry.path
            folder, _, name = path.rpartition(b"/")
            if name == _OPAQUE:
                opaque.append(folder)
            elif name == _WHITEOUT:
                raise InvalidInputError(f"layer {diff_id} has a whiteout without a name")
            elif name.startswith(_WHITEOUT):
                hidden.append((folder + b"/" if folder else b"") + name[len(_WHITEOUT) :])
            else:
                layer[path] = state
        _hide(merged, hidden, opaque, layer)
        merged |= layer
    return merged


def _hide(
    merged: dict[bytes, FileState], hidden: list[bytes], opaque: list[bytes], layer: dict[bytes, FileState]
) -> None:
    """Remove what a layer's whiteouts hide, and what lies under a path that is no directory any more."""
    gone = set(hidden)
    covered = set(opaque)
    replaced = {path for path, state in layer.items() if state.entry.kind is not EntryKind.DIRECTORY}
    for path in list(merged):
        above = list(_ancestors(path))
        if path in gone or any(one in gone or one in replaced or one in covered for one in above):
            del merged[path]


def _ancestors(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path
    yield b""


def _states(store: OpenedStore, diff_id: Digest) -> Iterator[FileState]:
    for entry, contents in layer_contents(store, diff_id):
        if not entry.after_end:
            yield FileState(entry, contents)
