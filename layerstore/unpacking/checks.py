"""What is refused before anything is written: names and numbers that no file of a Linux system can have.

A view has resolved ``..``, links and whiteouts already, so a name that fails here is an attack or a mistake of ours.
It is checked again all the same: whatever a layer says, a name is one step down in a directory that we made.
"""

from collections.abc import Iterable

from layerstore.directories import NAME_LENGTH_MAX, PATH_LENGTH_MAX
from layerstore.errors import InvalidInputError
from layerstore.tar.entries import EntryKind
from layerstore.union.node import Node

_SIZE_MAX = 2**63 - 1
_ID_MAX = 2**32 - 2
"""The greatest user or group; the number after it means "leave it as it is" in chown(2)."""
_MAJOR_MAX = 2**12 - 1
_MINOR_MAX = 2**20 - 1


def check_nodes(nodes: Iterable[Node]) -> None:
    """Raise `InvalidInputError` for the first node that cannot be written. Directories come before what is in them."""
    seen: set[bytes] = set()
    directories = {b""}
    for node in nodes:
        parent, _, name = node.path.rpartition(b"/")
        if parent not in directories:
            raise _refused(node, "lies in no directory of the image")
        _check_name(node, name)
        if node.path in seen:
            raise _refused(node, "is there twice")
        seen.add(node.path)
        if node.is_dir:
            directories.add(node.path)
        check_attributes(node)


def check_attributes(node: Node) -> None:
    """Raise `InvalidInputError` if a node's numbers, link target or attributes cannot be those of a file."""
    if not (0 <= node.uid <= _ID_MAX and 0 <= node.gid <= _ID_MAX):
        raise _refused(node, f"belongs to {node.uid}:{node.gid}, which is no owner")
    if not 0 <= node.size <= _SIZE_MAX:
        raise _refused(node, f"has {node.size} bytes, more than a file can have")
    if node.kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
        major, minor = node.device
        if not (0 <= major <= _MAJOR_MAX and 0 <= minor <= _MINOR_MAX):
            raise _refused(node, f"is device {major}:{minor}, which there is not")
    if node.is_symlink and (
        not node.link_target or b"\0" in node.link_target or len(node.link_target) > PATH_LENGTH_MAX
    ):
        raise _refused(node, "is a symbolic link to what is no path")
    if any(not name or b"\0" in name for name in node.xattrs):
        raise _refused(node, "has an extended attribute without a proper name")


def shown(path: bytes) -> str:
    """A path for a message: bytes that are not UTF-8 are escaped."""
    return path.decode("utf-8", "backslashreplace")


def _check_name(node: Node, name: bytes) -> None:
    if name in (b"", b".", b"..") or b"\0" in name or node.path.startswith(b"/"):
        raise _refused(node, "has no name that a file can have")
    if len(name) > NAME_LENGTH_MAX or len(node.path) > PATH_LENGTH_MAX:
        raise _refused(
            node, f"has a name of more than {NAME_LENGTH_MAX} bytes, or a path of more than {PATH_LENGTH_MAX}"
        )


def _refused(node: Node, why: str) -> InvalidInputError:
    path = shown(node.path[:200]) + ("…" if len(node.path) > 200 else "")
    return InvalidInputError(f"/{path} {why}")
