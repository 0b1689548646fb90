"""Operations that are the same on a container and, by system calls, on a directory; drawn at random for both."""

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from container_samples import groups
from hypothesis import strategies as st

from layerstore import Container
from layerstore.errors import LayerstoreError
from layerstore.tar.entries import EntryKind

NAMES = (b"a", b"b", b"c", b"n\xff")
TIMES = (0, 5 * 10**9 + 7, 10**18, -(10**9))
OWNERS = (0, 1, 1000, 2**32 - 2)
MODES = (0o644, 0o755, 0o4755, 0o000, 0o1777, 0o2711)
DATA = (b"", b"x", b"data" * 999)


@dataclass(frozen=True)
class Draw:
    """Numbers that choose an operation, its paths and its values among what there is then."""

    kind: str
    one: int
    two: int
    value: int


KINDS = (
    *("write", "write", "append", "patch", "cut", "mkdir", "mkdir", "symlink", "mknod", "link", "unlink", "unlink"),
    *("rmdir", "remove_tree", "rename", "rename", "rename", "chmod", "chown", "utime", "xattr", "no_xattr", "reopen"),
)
numbers = st.integers(0, 10**4)
draws = st.lists(st.builds(Draw, st.sampled_from(KINDS), numbers, numbers, numbers), min_size=1, max_size=14)


class Both:
    """A container and a directory that the same is done to."""

    def __init__(self, container: Container, root: Path) -> None:
        self.container = container
        self.root = os.fsencode(root)

    def do(self, draw: Draw) -> None:
        """The same, with the same outcome."""
        getattr(self, f"_{draw.kind}")(draw)

    # --- what is chosen -----------------------------------------------------------------------------------------------

    def _some(self, draw: Draw, kinds: tuple[str, ...] = (), *, number: int | None = None) -> bytes | None:
        paths = [node.path for node in self.container.nodes() if not kinds or node.kind.name in kinds]
        return paths[(draw.one if number is None else number) % len(paths)] if paths else None

    def _target(self, number: int) -> bytes:
        """A name in some directory, taken or not."""
        folders = [b"", *(node.path for node in self.container.nodes() if node.is_dir)]
        return (folders[number % len(folders)] + b"/" + NAMES[number // 7 % len(NAMES)]).lstrip(b"/")

    def _file_or_target(self, draw: Draw) -> bytes:
        some = self._some(draw, ("FILE",)) if draw.two % 3 else None
        path = self._target(draw.two) if some is None else some
        # Links would lead the system out of the directory.
        there = self.container.lstat(path) if path in {node.path for node in self.container.nodes()} else None
        return path if there is None or not there.is_symlink else b"only-a-file"

    def _same(self, ours: Callable[[], object], theirs: Callable[[], object]) -> int:
        """Do both; the error's number, which is the same, or 0."""
        expected = number_of(theirs)
        assert number_of(ours) == expected
        return expected

    def _at(self, path: bytes) -> bytes:
        return self.root + b"/" + path

    # --- operations ---------------------------------------------------------------------------------------------------

    def _write(self, draw: Draw) -> None:
        path, data = self._file_or_target(draw), DATA[draw.value % len(DATA)]
        if self._is_special(path):
            return
        self._same(lambda: self.container.write_bytes(path, data), lambda: self._write_theirs(path, "wb", data))

    def _append(self, draw: Draw) -> None:
        path = self._file_or_target(draw)
        if self._is_special(path):
            return
        self._same(lambda: self._write_ours(path, "ab", b"+", None), lambda: self._write_theirs(path, "ab", b"+"))

    def _patch(self, draw: Draw) -> None:
        path = self._some(draw, ("FILE",))
        if path is not None:
            at = draw.value % 9000
            self._same(
                lambda: self._write_ours(path, "r+b", b"patch", at),
                lambda: self._write_theirs(path, "r+b", b"patch", at),
            )

    def _cut(self, draw: Draw) -> None:
        path = self._some(draw, ("FILE",))
        if path is not None:
            size = draw.value % 9000
            self._same(lambda: self.container.truncate(path, size), lambda: os.truncate(self._at(path), size))

    def _mkdir(self, draw: Draw) -> None:
        path, mode = self._target(draw.one), MODES[draw.value % len(MODES)]

        def theirs() -> None:
            os.mkdir(self._at(path))  # noqa: PTH102 - a name of bytes
            inherited = os.lstat(self._at(path)).st_mode & stat.S_ISGID
            os.chmod(self._at(path), mode | inherited)  # noqa: PTH101

        self._same(lambda: self.container.mkdir(path, mode), theirs)

    def _symlink(self, draw: Draw) -> None:
        path, target = self._target(draw.one), NAMES[draw.value % len(NAMES)]
        theirs = lambda: os.symlink(target, self._at(path))  # noqa: E731, PTH211 - names of bytes
        self._same(lambda: self.container.symlink(target, path), theirs)

    def _mknod(self, draw: Draw) -> None:
        path = self._target(draw.one)
        kind, bits, device = (
            (EntryKind.FIFO, stat.S_IFIFO, (0, 0)),
            (EntryKind.CHARACTER, stat.S_IFCHR, (1, 3)),
            (EntryKind.FILE, stat.S_IFREG, (0, 0)),
        )[draw.value % 3]
        self._same(
            lambda: self.container.mknod(path, kind, 0o640, device),
            lambda: os.mknod(self._at(path), bits | 0o640, os.makedev(*device)),
        )

    def _link(self, draw: Draw) -> None:
        path, new = self._some(draw, ("FILE", "SYMLINK", "FIFO", "CHARACTER")), self._target(draw.two)
        if path is not None:
            self._same(
                lambda: self.container.link(path, new),
                lambda: os.link(self._at(path), self._at(new), follow_symlinks=False),
            )

    def _unlink(self, draw: Draw) -> None:
        path = self._some(draw)
        if path is not None:
            self._same(lambda: self.container.unlink(path), lambda: os.unlink(self._at(path)))  # noqa: PTH108

    def _rmdir(self, draw: Draw) -> None:
        path = self._some(draw)
        if path is not None:
            self._same(lambda: self.container.rmdir(path), lambda: os.rmdir(self._at(path)))  # noqa: PTH106

    def _remove_tree(self, draw: Draw) -> None:
        path = self._some(draw, ("DIRECTORY",))
        if path is not None and draw.value % 2:
            self._same(lambda: self.container.remove_tree(path), lambda: shutil.rmtree(self._at(path)))

    def _rename(self, draw: Draw) -> None:
        path = self._some(draw)
        new = self._target(draw.two) if draw.value % 2 else self._some(draw, number=draw.two)
        if path is None or new is None:
            return
        expected = number_of(lambda: os.rename(self._at(path), self._at(new)))  # noqa: PTH104
        if expected == errno.EXDEV:  # the kernel leaves it to the caller to copy a directory of a lower layer
            if any(name.startswith(path + b"/") for group in groups(self.container) for name in group):
                return  # copying would part the names of one file
            if self.container.lstat(new.rpartition(b"/")[0]).mode & stat.S_ISGID:
                return  # and give a copy the set-gid bit
            if number_of(lambda: self.container.rename(path, new)) == 0:
                self._move_by_copying(path, new)
            return
        found = number_of(lambda: self.container.rename(path, new))
        assert found == expected, (path, new)

    def _move_by_copying(self, path: bytes, new: bytes) -> None:
        if os.path.lexists(self._at(new)):
            os.rmdir(self._at(new))  # noqa: PTH106 - a name of bytes
        command = [b"cp", b"-a", b"--no-preserve=links", b"-T", self._at(path), self._at(new)]
        subprocess.run(command, check=True)
        shutil.rmtree(self._at(path))

    def _chmod(self, draw: Draw) -> None:
        path, mode = self._some(draw, ("FILE", "DIRECTORY", "FIFO", "CHARACTER")), MODES[draw.value % len(MODES)]
        if path is not None:
            self._same(lambda: self.container.chmod(path, mode), lambda: os.chmod(self._at(path), mode))  # noqa: PTH101

    def _chown(self, draw: Draw) -> None:
        path = self._some(draw)
        uid, gid = OWNERS[draw.value % len(OWNERS)], OWNERS[draw.two % len(OWNERS)]
        if path is None:
            return
        node = self.container.lstat(path)
        if (node.mode & 0o6000 and not node.is_dir) or b"security.capability" in node.xattrs:
            return  # the kernel takes both away, a container keeps them
        self._same(
            lambda: self.container.chown(path, uid, gid, follow_symlinks=False),
            lambda: os.chown(self._at(path), uid, gid, follow_symlinks=False),
        )

    def _utime(self, draw: Draw) -> None:
        path, time = self._some(draw), TIMES[draw.value % len(TIMES)]
        if path is not None:
            self._same(
                lambda: self.container.utime(path, time, follow_symlinks=False),
                lambda: os.utime(self._at(path), ns=(time, time), follow_symlinks=False),
            )

    def _xattr(self, draw: Draw) -> None:
        path = self._some(draw, ("FILE", "DIRECTORY"))
        name = (b"user.x", b"trusted.y", b"security.capability")[draw.value % 3]
        if path is None:
            return
        value = b"\1\0\0\2" + bytes((draw.value % 200,)) + bytes(15)
        if name == b"security.capability" and not self.container.lstat(path).is_file:
            return
        self._same(
            lambda: self.container.set_xattr(path, name, value), lambda: os.setxattr(self._at(path), name, value)
        )

    def _no_xattr(self, draw: Draw) -> None:
        having = [(node.path, name) for node in self.container.nodes() for name in sorted(node.xattrs)]
        if having:
            path, name = having[draw.one % len(having)]
            self._same(lambda: self.container.remove_xattr(path, name), lambda: os.removexattr(self._at(path), name))

    def _reopen(self, draw: Draw) -> None:
        self.container.close()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _is_special(self, path: bytes) -> bool:
        """A device or a fifo: to open it would open something else than a file."""
        node = {node.path: node for node in self.container.nodes()}.get(path)
        return node is not None and not (node.is_file or node.is_dir)

    def _write_ours(self, path: bytes, mode: str, data: bytes, at: int | None) -> None:
        with self.container.open(path, mode) as file:
            if at is not None:
                file.seek(at)
            file.write(data)

    def _write_theirs(self, path: bytes, mode: str, data: bytes, at: int | None = None) -> None:
        with open(self._at(path), mode) as file:  # noqa: PTH123 - a name of bytes
            if at is not None:
                file.seek(at)
            file.write(data)


def number_of(do: Callable[[], object]) -> int:
    """The number of the error that something raises, 0 for none."""
    try:
        do()
    except OSError as error:
        return error.errno or -1
    except LayerstoreError as error:
        raise AssertionError("an error that is none of a system call") from error
    return 0
