"""The steps of an unpacking, in the order that keeps it safe and right.

First come the directories, writable and closed to everybody else. Then files, while there is no link yet that one could
be led astray by; then symbolic links and devices; hard links, when what they name is there. At last directories get
their owners, modes and times, the deepest first, as nothing is made in them any more.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

from layerstore.directories import OPEN_DIRECTORY, Directories
from layerstore.progress import OnProgress, Progress, Throttle
from layerstore.union.file_system import FileSystem
from layerstore.union.node import Node
from layerstore.unpacking.attributes import DEVICES, Attributes
from layerstore.unpacking.contents import NEW_FILE, ContentWriter, batches
from layerstore.unpacking.failures import translated
from layerstore.unpacking.report import Tally
from layerstore.unpacking.reuse import Reuse

_LARGE_SIZE_MIN = 128 << 10
_LARGE_THREADS_MAX = 3


class Unpacking:
    """One unpacking. Its methods are to be called in their order; each raises errors of `layerstore.errors`."""

    def __init__(
        self,
        view: FileSystem,
        root: int,
        nodes: Sequence[Node],
        *,
        rootless: bool,
        owner: tuple[int, int] | None,
        reuse: Reuse | None,
    ) -> None:
        self._view = view
        self._root = root
        self._nodes = nodes
        self._rootless = rootless
        self._owner = owner
        self._reuse = reuse
        self.tally = Tally()
        self._attributes = Attributes(rootless, owner, self.tally)
        self._first_names: dict[tuple[int, int], bytes] = {}
        for node in nodes:
            if not node.is_dir:
                self._first_names.setdefault(node.inode, node.path)

    def make_directories(self) -> None:
        """Make all directories, for their owner alone."""
        self._each((node for node in self._nodes if node.is_dir), self._make_directory)

    def write_files(self, on_progress: OnProgress | None, subject: str) -> None:
        """Write contents and attributes of all files, each under its first name."""
        files = [node for node in self._nodes if node.is_file and self._is_first(node)]
        total = sum(node.size for node in files)
        writer = ContentWriter(self._view, self._root, rootless=self._rootless, owner=self._owner, reuse=self._reuse)
        throttle = Throttle(at_once=False)
        # A small file is a dozen system calls and some Python: two threads at them take turns at the interpreter, and
        # are half as fast as one. What takes time with large files needs no interpreter.
        large = [node for node in files if node.size >= _LARGE_SIZE_MIN]
        small = [node for node in files if node.size < _LARGE_SIZE_MIN]
        with ThreadPoolExecutor(1) as for_small, ThreadPoolExecutor(_large_threads()) as for_large:
            try:
                running = [for_large.submit(writer.write, batch) for batch in batches(large)]
                running += [for_small.submit(writer.write, batch) for batch in batches(small)]
                for tally in (future.result() for future in as_completed(running)):
                    self.tally.add(tally)
                    if on_progress is not None and throttle.is_due():
                        on_progress(Progress("unpack", subject, self.tally.size, total))
            except BaseException:
                writer.stop()
                raise
        if on_progress is not None:
            on_progress(Progress("unpack", subject, total, total))

    def make_others(self) -> None:
        """Make symbolic links, devices and FIFOs, each under its first name."""
        others = (node for node in self._nodes if not (node.is_dir or node.is_file) and self._is_first(node))
        self._each(others, self._make_other)

    def make_links(self) -> None:
        """Make the further names of what has several."""
        further = (node for node in self._nodes if not (node.is_dir or self._is_first(node)))
        with Directories(self._root) as first_folders:
            self._each(further, partial(self._make_link, first_folders))

    def finish_directories(self, root: Node) -> None:
        """Give all directories their attributes, the deepest first and the target itself last, if a layer has it."""
        self._each((node for node in reversed(self._nodes) if node.is_dir), self._finish_directory)
        if root.layer is not None:
            try:
                self._attributes.set_open(self._root, root)
            except OSError as error:
                raise translated(error, b"") from error

    def _make_directory(self, node: Node, folder: int, name: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=folder)
        self.tally.directories += 1

    def _make_other(self, node: Node, folder: int, name: bytes) -> None:
        if node.is_symlink:
            os.symlink(node.link_target, name, dir_fd=folder)
            self._attributes.set_named(folder, name, node)
            self.tally.symlinks += 1
            return
        if node.kind in DEVICES and (self._rootless or self._owner is not None):
            self._make_placeholder(node, folder, name)
        else:
            os.mknod(name, node.kind.file_type | 0o600, os.makedev(*node.device), dir_fd=folder)
            self._attributes.set_named(folder, name, node)
        self.tally.devices += 1

    def _make_placeholder(self, node: Node, folder: int, name: bytes) -> None:
        """An empty file, where nobody but root could make a device, or should have one."""
        descriptor = os.open(name, NEW_FILE, 0o600, dir_fd=folder)
        try:
            self._attributes.set_open(descriptor, node)
        finally:
            os.close(descriptor)
        self.tally.devices_replaced += 1
        self.tally.note(node.path, "device")

    def _make_link(self, first_folders: Directories, node: Node, folder: int, name: bytes) -> None:
        first_folder, _, first_name = self._first_names[node.inode].rpartition(b"/")
        source = first_folders.open(first_folder)
        os.link(first_name, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        self.tally.links += 1

    def _finish_directory(self, node: Node, folder: int, name: bytes) -> None:
        descriptor = os.open(name, OPEN_DIRECTORY, dir_fd=folder)
        try:
            self._attributes.set_open(descriptor, node)
        finally:
            os.close(descriptor)

    def _is_first(self, node: Node) -> bool:
        return self._first_names[node.inode] == node.path

    def _each(self, nodes: Iterable[Node], act: Callable[[Node, int, bytes], None]) -> None:
        """Let ``act`` have each node with a descriptor of the directory it belongs in, and its name there."""
        with Directories(self._root) as directories:
            for node in nodes:
                folder, _, name = node.path.rpartition(b"/")
                try:
                    act(node, directories.open(folder), name)
                except OSError as error:
                    raise translated(error, node.path) from error


def _large_threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable - 1, _LARGE_THREADS_MAX))
