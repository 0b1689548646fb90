"""A container's files: those of its image, with a layer on top that takes every change.

What a change does to the upper directory is made ready beside it, and then put in place by one rename: whoever is
killed in between leaves the old state or the new one. A file of the image is copied up before it is changed, and the
directories on the way to it; a copy shows nothing new.
"""

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial

from layerstore.containers.disk import UpperDisk, attributes_of, inherited, new_attributes
from layerstore.containers.errors import DirectoryNotEmptyError, PathExistsError, UnchangeableError
from layerstore.containers.spots import Spot, find_spot
from layerstore.containers.tree import UPPER, MergedInode, merged_tree, upper_inode
from layerstore.containers.upper import (
    Attributes,
    UpperDirectory,
    entry_path,
    is_reserved,
    open_file,
    set_time,
    write_at,
)
from layerstore.containers.writing import LazyFile
from layerstore.directories import PATH_LENGTH_MAX
from layerstore.errors import InvalidInputError, InvalidOptionError
from layerstore.os_errors import translate_os_errors
from layerstore.storage.containers import ContainerDescription, ContainerFolder
from layerstore.storage.locks import FileLock
from layerstore.tar.entries import EntryKind
from layerstore.union.changes import Change, attributes, find_changes, same_bytes
from layerstore.union.errors import (
    IsADirectoryInViewError,
    NotADirectoryInViewError,
    NotReadableError,
    PathNotFoundError,
)
from layerstore.union.file_system import FilePath, FileSystem, path_bytes
from layerstore.union.inode import Inode
from layerstore.union.layer_index import join_path
from layerstore.union.node import Node
from layerstore.union.view import View

_BLOCK_SIZE = 1 << 20
_MODES = frozenset(("rb", "wb", "xb", "ab", "r+b", "rb+", "w+b", "wb+", "x+b", "xb+", "a+b", "ab+"))


class ContainerFiles(FileSystem):
    """An image's files that can be changed. Nothing of the image changes; it takes what `FileSystem` says of paths.

    The first change makes it the only one that may change the container, until it is closed: another process that tries
    gets `ContainerInUseError`. What was changed is durable after `sync` or `close`. Hard links are as in overlayfs: a
    file of the image that is copied up is no longer one with its other names.
    """

    def __init__(
        self,
        folder: ContainerFolder,
        description: ContainerDescription,
        open_view: Callable[[], View],
        check_writable: Callable[[], None],
    ) -> None:
        self._folder = folder
        self.description = description
        self._open_view = open_view
        self._check_writable = check_writable
        self._upper = UpperDirectory(owners_kept=description.owners_kept)
        self._mutex = threading.RLock()
        self._view: View | None = None
        self._tree: MergedInode | None = None
        self._disk: UpperDisk | None = None
        self._lock: FileLock | None = None

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def root(self) -> Inode:
        """The root of the merged tree, as it was when it was first looked at, and with all changes made here."""
        return self._merged()

    def node(self, path: bytes, inode: Inode) -> Node:
        """What a caller is told of an inode that stands at ``path``."""
        if inode.layer != UPPER:
            return self._lower().node(path, inode)
        with self._mutex, _translated(path):
            folder, _, name = path.rpartition(b"/")
            state = self._opened().state(folder, name)
        known = state.attributes
        return Node(
            path,
            known.kind,
            known.mode,
            known.uid,
            known.gid,
            state.size,
            known.mtime_ns,
            known.link_target,
            known.device if known.kind in (EntryKind.CHARACTER, EntryKind.BLOCK) else (0, 0),
            known.xattrs,
            state.links,
            (UPPER, state.number),
            None,
            None,
            None,
        )

    def open_node(self, node: Node) -> io.BufferedReader:
        """The contents of a regular file of this container, for reading."""
        if node.inode[0] != UPPER:
            return self._lower().open_node(node)
        if node.is_dir:
            raise IsADirectoryInViewError(node.path)
        if not node.is_file:
            raise NotReadableError(node.path)
        return io.BufferedReader(self._open_own(node.path, "rb"))

    def regions(self, node: Node) -> tuple[tuple[int, int], ...]:
        """The regions (offset, length) of a regular file that are no holes, in order."""
        if node.inode[0] != UPPER:
            return self._lower().regions(node)
        with self.open_node(node) as file:
            return tuple(_regions(file.fileno(), node.size))

    def changes(self) -> list[Change]:
        """What is added, modified and deleted against the image, sorted by path.

        A file counts as modified if a user would see a difference: contents, owner, mode, time, attributes, names.
        """
        return list(self.changed())

    def changed(self) -> Iterator[Change]:
        """As `changes`, one after the other."""
        with self._mutex:
            if self._lock is None:
                self._tree = None  # another process may have changed something since it was looked at
        return find_changes(self._lower(), self, same=self._is_same, untouched=lambda inode: inode.layer != UPPER)

    def _is_same(self, old: Node, new: Node) -> bool:
        # A file that was copied up has one name; several were made here, and all of them belong to the change.
        return (
            attributes(_as_copied(old)) == attributes(new)
            and (new.is_dir or new.links == 1)
            and same_bytes(self._lower(), old, self, new)
        )

    # --- changing -----------------------------------------------------------------------------------------------------

    def open(self, path: FilePath, mode: str = "rb") -> io.BufferedReader:
        """A file as a binary file object; ``mode`` is as for the built-in `open`, with ``b``.

        A file of the image is copied up by the first write. Raises `InvalidOptionError` for a text mode.
        """
        if mode not in _MODES:
            raise InvalidOptionError(f"a file of a container is opened with one of {', '.join(sorted(_MODES))}")
        if mode == "rb":
            return super().open(path)
        raw, updating = self._open_raw(path_bytes(path), mode), "+" in mode
        if updating:
            return io.BufferedRandom(raw)  # type: ignore[return-value]
        return io.BufferedWriter(raw)  # type: ignore[return-value]

    def write_bytes(self, path: FilePath, data: bytes) -> None:
        """Let a file have these contents, and make it if it is not there."""
        with self.open(path, "wb") as file:
            file.write(data)

    @contextmanager
    def replacing(self, path: FilePath) -> Iterator[int]:
        """A descriptor of a new file, to be written to; at the end of the block it takes the place of what is there.

        If the block fails, nothing has changed. A link is replaced, not followed. Raises `IsADirectoryInViewError`.
        """
        with self._changing(path) as spot:
            if not spot.name or (spot.child is not None and spot.child.children is not None):
                raise IsADirectoryInViewError(spot.path)
            self._copy_up_folder(spot)
            disk = self._opened()
            folder = self._upper.state(disk.open(spot.folder), b"").attributes
            made = disk.make(inherited(new_attributes(EntryKind.FILE, 0o644), folder))
            try:
                descriptor = open_file(disk.temporary, made, os.O_WRONLY)
                try:
                    yield descriptor
                finally:
                    os.close(descriptor)
                disk.install(made, spot.folder, spot.name)
            except BaseException:
                disk.remove_temporary(made)
                raise
            self._put(spot, upper_inode(EntryKind.FILE))

    def truncate(self, path: FilePath, size: int) -> None:
        """Cut a file, or fill it up with zeros, to ``size`` bytes."""
        with self.open(path, "r+b") as file:
            file.truncate(size)

    def mkdir(self, path: FilePath, mode: int = 0o755, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory; with ``parents`` those on the way, too. Raises `PathExistsError`."""
        given = path_bytes(path)
        if parents:
            self._make_parents(given)
        with self._changing(given, follow=exist_ok) as spot:
            if exist_ok and spot.child is not None and spot.child.children is not None:
                return
            self._put_new(spot, new_attributes(EntryKind.DIRECTORY, mode))

    def _make_parents(self, path: bytes) -> None:
        steps = path.rstrip(b"/").split(b"/")
        with self._changing(b""):  # nobody else makes them meanwhile
            for count in range(1, len(steps)):
                above = b"/".join(steps[:count])
                if not self.exists(above):
                    self.mkdir(above)

    def symlink(self, target: FilePath, path: FilePath) -> None:
        """Make a symbolic link at ``path`` to ``target``, which is kept as written."""
        target = path_bytes(target)
        if not target or b"\0" in target or len(target) > PATH_LENGTH_MAX:
            raise UnchangeableError(target[:200], "no link can have such a target")
        with self._changing(path) as spot:
            self._put_new(spot, replace(new_attributes(EntryKind.SYMLINK, 0o777), link_target=target))

    def mknod(self, path: FilePath, kind: EntryKind, mode: int = 0o644, device: tuple[int, int] = (0, 0)) -> None:
        """Make a device with its major and minor number, a FIFO, or an empty file."""
        if kind not in (EntryKind.FILE, EntryKind.CHARACTER, EntryKind.BLOCK, EntryKind.FIFO):
            raise InvalidOptionError(f"mknod makes devices, FIFOs and files, not a {kind.name.lower()}")
        if kind is EntryKind.CHARACTER and device == (0, 0):
            raise UnchangeableError(path_bytes(path), "the character device 0:0 stands for a whiteout")
        with self._changing(path) as spot:
            self._put_new(spot, replace(new_attributes(kind, mode), device=device))

    def link(self, path: FilePath, new: FilePath) -> None:
        """Give a file a second name ``new``."""
        with self._changing(path) as source:
            if source.child is None:
                raise PathNotFoundError(source.path)
            if source.child.children is not None:
                raise UnchangeableError(source.path, "a directory has one name")
            spot = find_spot(self._merged(), path_bytes(new), follow=False)
            self._refuse_taken(spot)
            self._copy_up(source)
            self._copy_up_folder(spot)
            disk = self._opened()
            made = disk.new_name()
            folder = disk.open(source.folder)
            os.link(source.name, made, src_dir_fd=folder, dst_dir_fd=disk.temporary, follow_symlinks=False)
            disk.install(made, spot.folder, spot.name)
            target = b"" if source.child.entry is None else source.child.entry.link_target
            self._put(spot, upper_inode(source.child.kind, target))

    def unlink(self, path: FilePath) -> None:
        """Remove anything but a directory."""
        with self._changing(path) as spot:
            if self._present(spot).children is not None:
                raise IsADirectoryInViewError(spot.path)
            self._remove(spot)

    def rmdir(self, path: FilePath) -> None:
        """Remove an empty directory. Raises `DirectoryNotEmptyError`."""
        with self._changing(path) as spot:
            children = self._present(spot).children
            if children is None:
                raise NotADirectoryInViewError(spot.path)
            if children:
                raise DirectoryNotEmptyError(spot.path)
            self._remove(spot)

    def remove_tree(self, path: FilePath) -> None:
        """Remove a directory with all that is in it, in one step."""
        with self._changing(path) as spot:
            if self._present(spot).children is None:
                raise NotADirectoryInViewError(spot.path)
            self._remove(spot)

    def rename(self, path: FilePath, new: FilePath) -> None:
        """Give something another name; what has that name is replaced, be it a file or an empty directory.

        A directory of the image is copied up whole for it.
        """
        with self._changing(path) as source:
            moved = self._present(source)
            spot = find_spot(self._merged(), path_bytes(new), follow=False)
            if spot.child is not None and self._is_one_file(source, spot):
                return
            self._refuse_replacing(source, spot)
            self._copy_up_tree(source)
            self._copy_up_folder(spot)
            self._close_off(source, moved)
            self._opened().move(source, spot)
            assert source.parent.children is not None, "it has a child"
            del source.parent.children[source.name]
            self._put(spot, moved)

    def chmod(self, path: FilePath, mode: int) -> None:
        """Set the permissions; links are followed."""
        self._set_owner_and_mode(path, lambda attributes: replace(attributes, mode=mode & 0o7777))

    def chown(self, path: FilePath, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """Set user and group. Mode and capabilities stay: the kernel would take them away.

        Of a container that was made without root's rights no user can own a symbolic link but its root.
        """
        if not (0 <= uid < 2**32 - 1 and 0 <= gid < 2**32 - 1):
            raise InvalidOptionError(f"{uid}:{gid} is no owner")
        self._set_owner_and_mode(
            path, lambda attributes: replace(attributes, uid=uid, gid=gid), follow_symlinks=follow_symlinks
        )

    def utime(self, path: FilePath, mtime_ns: int, *, follow_symlinks: bool = True) -> None:
        """Set the time of modification, in nanoseconds since 1970."""
        with self._changing_own(path, follow_symlinks) as (directory, name):
            set_time(directory, name, mtime_ns)

    def set_xattr(self, path: FilePath, name: bytes, value: bytes) -> None:
        """Set an extended attribute; links are followed."""
        self._refuse_reserved(path, name)
        with self._changing_own(path, True) as (directory, file):
            self._upper.set_xattr(entry_path(directory, file), name, value)

    def remove_xattr(self, path: FilePath, name: bytes) -> None:
        """Remove an extended attribute; links are followed."""
        self._refuse_reserved(path, name)
        with self._changing_own(path, True) as (directory, file):
            self._upper.remove_xattr(entry_path(directory, file), name)

    def sync(self) -> None:
        """Make every change durable that has returned."""
        with self._mutex:
            if self._lock is not None and self._disk is not None:
                self._disk.sync()

    def close(self) -> None:
        """Make every change durable, and let others change the container. It can be used again."""
        with self._mutex:
            try:
                self.sync()
            finally:
                if self._disk is not None:
                    self._disk.close()
                if self._lock is not None:
                    self._lock.release()
                if self._view is not None:
                    self._view.close()
                self._disk = self._lock = self._view = self._tree = None

    def running(self) -> AbstractContextManager[int]:
        """Let it be in use while a program runs in it that was started with the descriptor of this block, a lock.

        It is in use then as long as the program's runtime lives, mounted or not, whatever becomes of this process.
        """
        return self._folder.running()

    # --- the two trees ------------------------------------------------------------------------------------------------

    def _lower(self) -> View:
        with self._mutex:
            if self._view is None:
                self._view = self._open_view()
            return self._view

    def _merged(self) -> MergedInode:
        with self._mutex, _translated(b""):
            if self._tree is None:
                self._tree = merged_tree(self._lower().root, self._upper, self._opened().root)
            return self._tree

    def _opened(self) -> UpperDisk:
        if self._disk is None:
            self._disk = UpperDisk(self._folder, self._upper)
        return self._disk

    @contextmanager
    def _changing(self, path: FilePath, *, follow: bool = False) -> Iterator[Spot]:
        """Be the only one who changes the container, and find a path in it. A failed look-up is left to the block."""
        given = path_bytes(path)
        with self._mutex, _translated(given):
            self._be_the_only_one()
            yield find_spot(self._merged(), given, follow=follow)

    @contextmanager
    def _changing_own(self, path: FilePath, follow: bool) -> Iterator[tuple[int, bytes]]:
        """The open directory and name of something that was copied up if it was not the container's own."""
        with self._changing(path, follow=follow) as spot:
            self._present(spot, root=True)
            self._copy_up(spot)
            yield self._opened().open(spot.folder), spot.name

    def _be_the_only_one(self) -> None:
        if self._lock is None:
            self._check_writable()
            self._lock = self._folder.lock()
            self._tree = None  # what was seen before may have changed
            self._opened().remove_leftovers()

    def _present(self, spot: Spot, *, root: bool = False) -> MergedInode:
        if not spot.name and not root:
            raise UnchangeableError(spot.path, "the root stays where it is")
        if spot.child is None:
            raise PathNotFoundError(spot.path)
        return spot.child

    def _refuse_taken(self, spot: Spot) -> None:
        if spot.child is not None:
            raise PathExistsError(spot.path)

    def _refuse_reserved(self, path: FilePath, xattr: bytes) -> None:
        if is_reserved(xattr):
            reason = f"the attribute {os.fsdecode(xattr)} belongs to the container layer"
            raise UnchangeableError(path_bytes(path), reason)

    def _is_one_file(self, one: Spot, other: Spot) -> bool:
        """Whether two names are of one file: to rename one to the other does nothing (POSIX, rename)."""
        if one.child is other.child:
            return True
        if one.child is None or other.child is None or one.child.layer != UPPER or other.child.layer != UPPER:
            return False
        disk = self._opened()
        return disk.state(one.folder, one.name).number == disk.state(other.folder, other.name).number

    def _put(self, spot: Spot, inode: MergedInode) -> None:
        assert spot.parent.children is not None, "it is a directory"
        spot.parent.children[spot.name] = inode

    # --- steps of changes ---------------------------------------------------------------------------------------------

    def _put_new(self, spot: Spot, attributes: Attributes) -> None:
        self._refuse_taken(spot)
        self._copy_up_folder(spot)
        disk = self._opened()
        attributes = inherited(attributes, self._upper.state(disk.open(spot.folder), b"").attributes)
        made = disk.make(attributes)
        if attributes.kind is EntryKind.DIRECTORY and spot.is_covering:
            self._upper.mark_opaque(disk.temporary, made)
        disk.install(made, spot.folder, spot.name)
        self._put(spot, upper_inode(attributes.kind, attributes.link_target))

    def _remove(self, spot: Spot) -> None:
        self._copy_up_folder(spot)
        assert spot.child is not None, "it is there"
        self._opened().remove(spot.folder, spot.name, is_covering=spot.is_covering, is_own=spot.child.layer == UPPER)
        assert spot.parent.children is not None, "it has a child"
        del spot.parent.children[spot.name]

    def _set_owner_and_mode(
        self, path: FilePath, change: Callable[[Attributes], Attributes], *, follow_symlinks: bool = True
    ) -> None:
        with self._changing_own(path, follow_symlinks) as (directory, name):
            before = self._upper.state(directory, name).attributes
            self._upper.set_owner_and_mode(directory, name, change(before))

    def _refuse_replacing(self, source: Spot, spot: Spot) -> None:
        """Raise for what rename(2) refuses."""
        moved, old = source.child, spot.child
        assert moved is not None, "it is there"
        if not spot.name or moved is spot.parent or any(inode is moved for _, inode in spot.trail):
            raise UnchangeableError(spot.path, "a directory cannot be put into itself")
        if old is None:
            return
        if any(inode is old for _, inode in source.trail):
            raise DirectoryNotEmptyError(spot.path)
        if moved.children is not None and old.children is None:
            raise NotADirectoryInViewError(spot.path)
        if moved.children is None and old.children is not None:
            raise IsADirectoryInViewError(spot.path)
        if old.children:
            raise DirectoryNotEmptyError(spot.path)

    # --- copying up ---------------------------------------------------------------------------------------------------

    def _copy_up_folder(self, spot: Spot) -> None:
        """Let the directory that a spot is in be the container's own, with all directories on the way."""
        path = b""
        for name, inode in spot.trail:
            assert isinstance(inode, MergedInode), "the tree is of such"
            self._copy_up_one(path, name, inode)
            path = join_path(path, name)

    def _copy_up(self, spot: Spot, *, with_contents: bool = True) -> None:
        """Let what is at a spot be the container's own: a file with its contents, a directory without."""
        self._copy_up_folder(spot)
        assert spot.child is not None, "it is there"
        self._copy_up_one(spot.folder, spot.name, spot.child, with_contents=with_contents)

    def _copy_up_one(self, folder: bytes, name: bytes, inode: MergedInode, *, with_contents: bool = True) -> None:
        if inode.layer == UPPER:
            return
        path = join_path(folder, name)
        node = self._lower().node(path, inode)
        disk = self._opened()
        copied = attributes_of(node)
        made = disk.make(copied)
        if node.is_file and node.size and with_contents:
            self._copy_contents(node, made)
            # Once more: to write takes capabilities away, and changes the time.
            self._upper.set_attributes(disk.temporary, made, copied)
        disk.install(made, folder, name, keep_time=True)
        inode.layer, inode.number = UPPER, 0
        if inode.kind is not EntryKind.SYMLINK:
            inode.entry = None

    def _copy_up_tree(self, spot: Spot) -> None:
        self._copy_up(spot)
        assert spot.child is not None, "it is there"
        stack = [(spot.path, spot.child)]
        while stack:
            path, here = stack.pop()
            for name, child in (here.children or {}).items():
                self._copy_up_one(path, name, child)
                stack.append((join_path(path, name), child))

    def _close_off(self, spot: Spot, inode: MergedInode) -> None:
        """Let nothing of the image show through a directory whose files were all copied up.

        Its whiteouts hide nothing then, and go: overlayfs would list those that come to a place of no layer below.
        """
        if inode.lower is None:
            return
        disk = self._opened()
        self._upper.mark_opaque(disk.open(spot.folder), spot.name)
        stack = [(spot.path, inode)]
        while stack:
            path, here = stack.pop()
            if here.lower is not None:
                disk.remove_whiteouts(path)
            here.lower = None
            below = (here.children or {}).items()
            stack += [(join_path(path, name), child) for name, child in below if child.children is not None]

    def _copy_contents(self, node: Node, made: bytes) -> None:
        disk = self._opened()
        descriptor = open_file(disk.temporary, made, os.O_WRONLY)
        try:
            with self._lower().open_node(node) as source:
                for offset, length in self._lower().regions(node):
                    source.seek(offset)
                    while length:
                        block = source.read(min(length, _BLOCK_SIZE))
                        if not block:
                            raise InvalidInputError(f"/{os.fsdecode(node.path)} is cut short in its layer")
                        offset = write_at(descriptor, block, offset)
                        length -= len(block)
            os.ftruncate(descriptor, node.size)
        finally:
            os.close(descriptor)

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open_raw(self, path: bytes, mode: str) -> io.RawIOBase:
        with self._changing(path, follow=mode[0] != "x") as spot:
            if spot.child is not None and mode[0] == "x":
                raise PathExistsError(spot.path)
            if spot.child is None and mode[0] == "r":
                raise PathNotFoundError(spot.path)
            if spot.child is None:
                self._put_new(spot, new_attributes(EntryKind.FILE, 0o644))
            elif spot.child.children is not None:
                raise IsADirectoryInViewError(spot.path)
            elif spot.child.kind is not EntryKind.FILE:
                raise NotReadableError(spot.path)
            elif mode[0] == "w":
                self._copy_up(spot, with_contents=False)
            elif spot.child.layer != UPPER:
                return self._open_lazily(spot, mode)
            return self._open_own(spot.path, mode)

    def _open_lazily(self, spot: Spot, mode: str) -> LazyFile:
        assert spot.child is not None, "it is there"
        original = self._lower().open_node(self._lower().node(spot.path, spot.child))
        if mode[0] == "a":
            original.seek(0, io.SEEK_END)
        copy_up = partial(self._open_copied_up, spot.path, spot.child, (spot.child.layer, spot.child.number))
        return LazyFile(original, copy_up, readable="+" in mode, append=mode[0] == "a")

    def _open_copied_up(self, path: bytes, opened: MergedInode, number: tuple[int, int]) -> io.FileIO:
        with self._changing(path) as spot:
            found = spot.child
            if found is None:
                raise PathNotFoundError(path)  # it was removed while it was open
            # The tree may have been made anew since: then it is the image's file that tells.
            if found is not opened and (found.layer, found.number) != number:
                raise UnchangeableError(path, "the file that was opened here was moved or replaced since")
            self._copy_up(spot)
            return self._open_own(path, "r+b")

    def _open_own(self, path: bytes, mode: str) -> io.FileIO:
        """A file of the upper directory, opened as it is there."""
        folder, _, name = path.rpartition(b"/")
        with self._mutex, _translated(path):
            flags = os.O_RDONLY if mode == "rb" else os.O_RDWR
            flags |= (os.O_APPEND if mode[0] == "a" else 0) | (os.O_TRUNC if mode[0] == "w" else 0)
            directory = self._opened().open(folder)
            descriptor = open_file(directory, name, flags)
            if mode != "rb":
                self._upper.give_up_capability(directory, name)
            return io.FileIO(descriptor, mode.replace("x", "w") if mode[0] == "x" else mode)


def _as_copied(node: Node) -> Node:
    """What a copy shows of an image's file: links have no mode of their own, and some attributes are not copied."""
    return replace(node, mode=0o777 if node.is_symlink else node.mode, xattrs=attributes_of(node).xattrs)


def _regions(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    position = 0
    with suppress(OSError):  # ENXIO: only a hole is left
        while position < size:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            yield start, position - start


def _translated(path: bytes) -> AbstractContextManager[None]:
    """Raise our errors for the system's."""
    return translate_os_errors(f"/{path.decode(errors='backslashreplace').lstrip('/')} of the container")
