"""Unpack: the file system that a view shows, written to a directory."""

import os
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from layerstore.errors import InvalidOptionError
from layerstore.os_errors import translate_os_errors
from layerstore.places.files import opened_directory
from layerstore.progress import OnProgress
from layerstore.union.file_system import FileSystem
from layerstore.union.node import Node
from layerstore.unpacking.checks import check_attributes, check_nodes
from layerstore.unpacking.report import UnpackReport
from layerstore.unpacking.reuse import Reuse
from layerstore.unpacking.steps import Unpacking
from layerstore.unpacking.target import opened_target, remove_all


def unpack(
    view: FileSystem,
    target: str | os.PathLike[str],
    *,
    owner: tuple[int, int] | None = None,
    rootless: bool | None = None,
    reuse: str | os.PathLike[str] | None = None,
    hard_links: bool = False,
    on_progress: OnProgress | None = None,
) -> UnpackReport:
    """Write all that a view shows into a new or an empty directory.

    Nothing is written outside of it, whatever the layers say. Names, kinds, modes, owners, times, attributes, hard
    links and holes are the image's; long runs of zeros become holes, too. ``owner`` is a user and a group that
    everything is to belong to instead; it gets no rights by that: set-uid and set-gid bits and capabilities are left
    out, and devices become empty files. ``rootless`` is by default whether this process lacks root's rights: then
    owners are kept in the attribute ``user.rootlesscontainers``, devices become empty files, and what else is not
    permitted is left out and reported.

    ``reuse`` is an earlier unpacking: a file that has the same path, size and time there shares its blocks where the
    file system can do that, or with ``hard_links`` is the same file, if owner, mode and attributes agree as well. What
    is then changed in one is changed in the other.

    If it fails or is interrupted, what was written is removed. A process that is killed leaves a directory that is not
    empty and that only its owner can enter, and a second attempt refuses it. Nothing is flushed to the disk.

    Raises `InvalidInputError` for what no file system can hold, before anything is written; `ConflictError` if there is
    something at ``target``; `StorageError` or `NoSpaceError` for what the system refuses.
    """
    is_rootless = os.geteuid() != 0 if rootless is None else rootless
    if owner is not None and is_rootless:
        raise InvalidOptionError("an owner can be given by root only, and not to a rootless unpacking")
    path = Path(target)
    root = view.lstat("/")
    nodes = list(view.nodes())
    if owner is not None:
        root, nodes = _without_rights(root), [_without_rights(node) for node in nodes]
    check_attributes(root)
    check_nodes(nodes)
    with ExitStack() as stack:
        earlier = None
        if reuse is not None:
            with translate_os_errors(f"cannot read {reuse}"):
                earlier = Reuse(stack.enter_context(opened_directory(Path(reuse))), hard_links)
        descriptor = stack.enter_context(opened_target(path))
        unpacking = Unpacking(view, descriptor, nodes, rootless=is_rootless, owner=owner, reuse=earlier)
        try:
            unpacking.make_directories()
            unpacking.write_files(on_progress, str(path))
            unpacking.make_others()
            unpacking.make_links()
            unpacking.finish_directories(root)
        except BaseException:
            remove_all(descriptor, nodes)
            raise
    return unpacking.tally.report(rootless=is_rootless)


def _without_rights(node: Node) -> Node:
    """A node without what lets others act as its owner, or with more rights: they were those of another owner."""
    xattrs = {name: value for name, value in node.xattrs.items() if not name.startswith(b"security.")}
    return replace(node, mode=node.mode & ~(stat.S_ISUID | stat.S_ISGID), xattrs=xattrs)
