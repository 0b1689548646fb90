"""The changes of a container as a layer (OCI image specification, layer.md, "Representing Changes")."""

import os
from collections.abc import Iterable, Iterator

from layerstore.containers.files import ContainerFiles
from layerstore.errors import InvalidInputError
from layerstore.tar.entries import EntryKind
from layerstore.tar.writer import END_MARK, EntryHead, file_blocks, reblock
from layerstore.union.changes import Change
from layerstore.union.layer_index import join_path
from layerstore.union.node import Node

_WHITEOUT = b".wh."
_BLOCK_SIZE = 1 << 20
_NANOSECONDS = 10**9


def change_blocks(container: ContainerFiles, changes: Iterable[Change]) -> Iterator[bytes]:
    """The tar of the changes of a container, in blocks; the same changes give the same bytes.

    Everything that is hidden has a whiteout of its own, as the specification recommends: no directory is opaque. Times
    are cut to seconds. Raises `InvalidInputError` if a name begins like a whiteout's, or a file changes meanwhile.
    """
    return reblock(_entries(container, changes), _BLOCK_SIZE)


def _entries(container: ContainerFiles, changes: Iterable[Change]) -> Iterator[bytes]:
    first_names: dict[tuple[int, int], bytes] = {}
    hidden = b""
    for change in changes:
        folder, _, name = change.path.rpartition(b"/")
        if name.startswith(_WHITEOUT):
            raise InvalidInputError(f"/{os.fsdecode(change.path)} cannot be part of a layer: its name is a whiteout's")
        node = change.new
        if node is None and hidden and change.path.startswith(hidden + b"/"):
            continue  # its directory's whiteout hides it, too
        if node is None:
            hidden = change.path
            yield EntryHead(join_path(folder, _WHITEOUT + name), EntryKind.FILE, 0o600, 0, 0, 0).blocks()
            continue
        if change.old is not None and change.old.is_dir and not node.is_dir:
            hidden = change.path
        first = first_names.setdefault(node.inode, node.path) if node.links > 1 else node.path
        if first != node.path:
            yield _head(node, EntryKind.HARDLINK, first).blocks()
        elif node.is_file:
            yield from _file(container, node)
        else:
            yield _head(node, node.kind, node.link_target).blocks()
    yield END_MARK


def _file(container: ContainerFiles, node: Node) -> Iterator[bytes]:
    with container.open_node(node) as file:
        status = os.fstat(file.fileno())
        if status.st_size != node.size:
            raise _changed(node)
        yield from file_blocks(_head(node, node.kind), file.fileno(), node.size, status.st_blocks * 512)
        after = os.fstat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
        raise _changed(node)


def _head(node: Node, kind: EntryKind, target: bytes = b"") -> EntryHead:
    return EntryHead(
        node.path,
        kind,
        node.mode,
        node.uid,
        node.gid,
        node.mtime_ns // _NANOSECONDS,
        target,
        node.device,
        {} if kind is EntryKind.HARDLINK else node.xattrs,
    )


def _changed(node: Node) -> InvalidInputError:
    return InvalidInputError(f"/{os.fsdecode(node.path)} changed while it was read; stop what runs in the container")
