"""Differences between two file systems of a store. Of layers no contents are read: equal ones are the same chunks."""

from layerstore.digest import Digest
from layerstore.operations.listing import layer_contents
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import Ref
from layerstore.union.changes import Change, attributes, find_changes, same_bytes
from layerstore.union.file_system import FileSystem
from layerstore.union.node import Node


def diff_file_systems(store: OpenedStore, old: FileSystem, new: FileSystem) -> list[Change]:
    """The paths that differ; a directory before what is in it, sorted by name."""
    chunks = _Chunks(store)

    def same(was: Node, now: Node) -> bool:
        if attributes(was) != attributes(now):
            return False
        if was.layer is None or now.layer is None:
            return same_bytes(old, was, new, now)
        return chunks.are_same(was, now)

    return list(find_changes(old, new, same=same))


class _Chunks:
    """Which chunks the files of layers are made of, read layer by layer as they are asked for."""

    def __init__(self, store: OpenedStore) -> None:
        self._store = store
        self._layers: dict[Digest, dict[int, tuple[Ref, ...]]] = {}

    def are_same(self, was: Node, now: Node) -> bool:
        """Whether two nodes of equal size have the same contents."""
        if not was.size or (was.layer, was.entry) == (now.layer, now.entry):
            return True
        return self._of(was) == self._of(now)

    def _of(self, node: Node) -> tuple[Ref, ...]:
        assert node.layer is not None, "a file comes from a layer"
        assert node.entry is not None, "it has an entry there"
        if node.layer not in self._layers:
            contents = layer_contents(self._store, node.layer)
            self._layers[node.layer] = {entry.header_offset: refs for entry, refs in contents if refs}
        return self._layers[node.layer].get(node.entry.header_offset, ())
