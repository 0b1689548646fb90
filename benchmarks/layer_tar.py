"""Writing layer tars as image builders do: sorted, owned by root, directories before what lies in them."""

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Node:
    """What stands under a name in a layer: a file, whose bytes are read when they are written, or a symbolic link."""

    mode: int
    read: Callable[[], bytes]
    target: str = ""
    """Where a symbolic link points; empty for a file."""


Tree = Mapping[str, Node]
"""Names relative to the root, with slashes, and what stands there. Directories follow from the names."""


def link(target: str) -> Node:
    """Return a symbolic link."""
    return Node(0o777, bytes, target)


def write_layer(path: Path, tree: Tree, mtime: int) -> None:
    """Write the tree as an uncompressed tar in which everything has the same ``mtime``.

    The file appears under its name only when it is complete.
    """
    partial = path.with_name(path.name + ".partial")
    with tarfile.open(partial, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(tree.keys() | _folders(tree)):
            _add(tar, name, tree.get(name), mtime)
    partial.replace(path)


def _folders(tree: Tree) -> set[str]:
    """Return the names of all directories above the tree's entries."""
    folders: set[str] = set()
    for name in tree:
        for parent in PurePosixPath(name).parents:
            if str(parent) == "." or str(parent) in folders:
                break
            folders.add(str(parent))
    return folders


def _add(tar: tarfile.TarFile, name: str, node: Node | None, mtime: int) -> None:
    """Append one entry; no node means a directory."""
    info = tarfile.TarInfo(name)
    info.mtime = mtime
    info.uname = info.gname = "root"
    if node is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    elif node.target:
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, node.mode, node.target
        tar.addfile(info)
    else:
        content = node.read()
        info.mode, info.size = node.mode, len(content)
        tar.addfile(info, io.BytesIO(content))
