"""The upper directory of a container, changed by steps of which each is made ready and then done at once."""

import os
import secrets
import stat
import time
from contextlib import suppress
from dataclasses import replace

from layerstore.containers.linux import exchange, rename_leaving_whiteout, sync_file_system
from layerstore.containers.spots import Spot
from layerstore.containers.upper import Attributes, State, UpperDirectory, is_reserved, is_whiteout, make_whiteout
from layerstore.directories import OPEN_DIRECTORY, Directories, remove_tree
from layerstore.errors import UnsupportedPlaceError
from layerstore.storage.containers import ContainerFolder
from layerstore.tar.entries import EntryKind
from layerstore.union.node import Node


class UpperDisk:
    """The upper directory, and the place beside it where what goes in is made ready."""

    def __init__(self, folder: ContainerFolder, upper: UpperDirectory) -> None:
        self._upper = upper
        self.root = os.open(folder.upper, OPEN_DIRECTORY)
        try:
            self.temporary = os.open(folder.temporary, OPEN_DIRECTORY)
        except BaseException:
            os.close(self.root)
            raise
        self._folder = folder
        self._directories = Directories(self.root)
        self._others = Directories(self.root)

    def open(self, folder: bytes) -> int:
        """A descriptor of a directory of the upper directory, valid until the next call."""
        return self._directories.open(folder)

    def state(self, folder: bytes, name: bytes) -> State:
        """What stands under a name."""
        state = self._upper.state(self.open(folder), name)
        return state if state.links == 1 else replace(state, links=state.links - self._unfinished(state.number))

    def _unfinished(self, number: int) -> int:
        """How many names a file has in `temporary`: they are of who was killed there, or is at work now."""
        with os.scandir(self.temporary) as found:
            return sum(one.inode() == number for one in found)

    def new_name(self) -> bytes:
        """A name for something in `temporary`."""
        return secrets.token_hex(8).encode()

    def make(self, attributes: Attributes) -> bytes:
        """Make something in `temporary`; its name there."""
        name = self.new_name()
        self._upper.make(self.temporary, name, attributes)
        return name

    def install(self, made: bytes, folder: bytes, name: bytes, *, keep_time: bool = False) -> None:
        """Put what was made in its place, over a whiteout if one is there. ``keep_time``: of the directory."""
        directory = self.open(folder)
        before = os.fstat(directory)
        there = _status(directory, name)
        is_directory = stat.S_ISDIR(os.stat(made, dir_fd=self.temporary, follow_symlinks=False).st_mode)
        if there is not None and is_directory:
            exchange(self.temporary, made, directory, name)
            os.unlink(made, dir_fd=self.temporary)
        else:
            os.rename(made, name, src_dir_fd=self.temporary, dst_dir_fd=directory)
        if keep_time:
            os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))

    def remove(self, folder: bytes, name: bytes, *, is_covering: bool, is_own: bool) -> None:
        """Take a name away: what the image has under it is hidden from then on, in one step."""
        directory = self.open(folder)
        there = _status(directory, name)
        is_directory = there is not None and stat.S_ISDIR(there.st_mode)
        made = self.new_name()
        if is_covering:
            make_whiteout(self.temporary, made)
            if is_directory:
                exchange(self.temporary, made, directory, name)
            else:
                os.rename(made, name, src_dir_fd=self.temporary, dst_dir_fd=directory)
        elif is_own:
            os.rename(name, made, src_dir_fd=directory, dst_dir_fd=self.temporary)
        if is_directory:
            self.forget()
        self.remove_temporary(made)

    def move(self, source: Spot, target: Spot) -> None:
        """Rename what is all in the upper directory; where the image shows a whiteout stays in its place."""
        from_directory, to_directory = self.open(source.folder), self._others.open(target.folder)
        assert source.child is not None, "it is there"
        there = _status(to_directory, target.name)
        is_directory = source.child.children is not None
        if is_directory:
            if target.is_covering:
                self._upper.mark_opaque(from_directory, source.name)
            if there is not None and stat.S_ISDIR(there.st_mode):
                self._empty(target)
        if is_directory and there is not None and is_whiteout(there):
            exchange(from_directory, source.name, to_directory, target.name)
            if not source.is_covering:
                os.unlink(source.name, dir_fd=from_directory)
        elif source.is_covering:
            rename_leaving_whiteout(from_directory, source.name, to_directory, target.name)
        else:
            os.rename(source.name, target.name, src_dir_fd=from_directory, dst_dir_fd=to_directory)
        self.forget()

    def _empty(self, target: Spot) -> None:
        """Remove the whiteouts of a directory that shows nothing, so that it can be replaced."""
        self._upper.mark_opaque(self._others.open(target.folder), target.name)
        directory = os.open(target.name, OPEN_DIRECTORY, dir_fd=self._others.open(target.folder))
        try:
            for name in os.listdir(directory):  # noqa: PTH208
                os.unlink(name, dir_fd=directory)
        finally:
            os.close(directory)

    def remove_whiteouts(self, folder: bytes) -> None:
        """Remove the whiteouts of a directory in which they hide nothing."""
        directory = self.open(folder)
        with os.scandir(directory) as found:
            names = [os.fsencode(one.name) for one in found if is_whiteout(one.stat(follow_symlinks=False))]
        for name in names:
            os.unlink(name, dir_fd=directory)

    def forget(self) -> None:
        """Directories were moved or removed: open them anew."""
        self._directories.close()
        self._others.close()

    def remove_leftovers(self) -> None:
        """Remove what a process left that was killed."""
        for name in os.listdir(self.temporary):  # noqa: PTH208
            self.remove_temporary(os.fsencode(name))

    def remove_temporary(self, name: bytes) -> None:
        """Remove something in `temporary`, if it is there, with all that is in it."""
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=self.temporary, follow_symlinks=False).st_mode):
                remove_tree(self.temporary, name)
            else:
                os.unlink(name, dir_fd=self.temporary)

    def sync(self) -> None:
        """Make all of it durable."""
        sync_file_system(self.root)

    def close(self) -> None:
        """Close the directories."""
        self.forget()
        os.close(self.root)
        os.close(self.temporary)


def prepare_container(folder: ContainerFolder, owners_kept: bool, root: Node) -> None:
    """Give the upper directory of a new container the attributes of its image's root.

    Raises `UnsupportedPlaceError` where the disk has no whiteouts, or no extended attributes.
    """
    upper = UpperDirectory(owners_kept=owners_kept)
    disk = UpperDisk(folder, upper)
    try:
        probe = disk.new_name()
        make_whiteout(disk.temporary, probe)
        os.unlink(probe, dir_fd=disk.temporary)
        upper.make(disk.temporary, probe, new_attributes(EntryKind.DIRECTORY, 0o755))
        upper.mark_opaque(disk.temporary, probe)
        os.rmdir(probe, dir_fd=disk.temporary)
        upper.set_attributes(disk.root, b"", attributes_of(root))
    except OSError as error:
        raise UnsupportedPlaceError(
            f"{folder.path.parent} cannot hold a container: {error.strerror}. It takes Linux, and a disk with extended "
            "attributes, such as ext4 or xfs"
        ) from error
    finally:
        disk.close()


def attributes_of(node: Node) -> Attributes:
    """What a copy of an image's file gets; without what would mean something else in an upper directory."""
    # Linux keeps a user's attributes of files and directories alone.
    has_user_xattrs = node.is_file or node.is_dir
    xattrs = {
        name: value
        for name, value in node.xattrs.items()
        if not is_reserved(name) and (has_user_xattrs or not name.startswith(b"user."))
    }
    return Attributes(node.kind, node.mode, node.uid, node.gid, node.mtime_ns, node.device, node.link_target, xattrs)


def new_attributes(kind: EntryKind, mode: int) -> Attributes:
    """What something new gets: it is root's, and of this moment."""
    return Attributes(kind, mode & 0o7777, 0, 0, time.time_ns())


def inherited(new: Attributes, directory: Attributes) -> Attributes:
    """What something new gets in a directory: one with set-gid gives its group on, and the bit to directories."""
    if not directory.mode & stat.S_ISGID:
        return new
    bit = stat.S_ISGID if new.kind is EntryKind.DIRECTORY else 0
    return replace(new, gid=directory.gid, mode=new.mode | bit)


def _status(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
