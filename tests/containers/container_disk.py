"""Directories and mounts of overlayfs: what is in one, and layers as overlayfs has them."""

import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from io import BytesIO
from pathlib import Path

from container_samples import Picture, Seen

from layerstore import View

_OPTIONS = "redirect_dir=off,metacopy=off,index=off,xino=off"
_KINDS = {
    stat.S_IFREG: "FILE",
    stat.S_IFDIR: "DIRECTORY",
    stat.S_IFLNK: "SYMLINK",
    stat.S_IFCHR: "CHARACTER",
    stat.S_IFBLK: "BLOCK",
    stat.S_IFIFO: "FIFO",
}


@contextmanager
def overlay(target: Path, *lowers: Path, upper: Path | None = None, work: Path | None = None) -> Iterator[Path]:
    """An overlay at ``target``, the lowest directory first; unmounted whatever happens."""
    options = [f"lowerdir={':'.join(str(lower) for lower in reversed(lowers))}", _OPTIONS]
    if upper is not None:
        options += [f"upperdir={upper}", f"workdir={work}"]
    target.mkdir(exist_ok=True)
    command = ["mount", "-t", "overlay", "overlay", "-o", ",".join(options), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def missing_for_overlays() -> str | None:
    """Why no overlay can be mounted here."""
    if os.geteuid() != 0:
        return "mounting needs root"
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        place = Path(name)
        for folder in ("lower", "upper", "work"):
            (place / folder).mkdir()
        try:
            with overlay(place / "merged", place / "lower", upper=place / "upper", work=place / "work"):
                return None
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            return f"no overlay can be mounted here: {error}"


def picture_of_disk(root: Path) -> Picture:
    """A directory as `container_samples.picture` has a file system."""
    base = os.fsencode(root)
    found = {b"": _seen(base)}
    for folder, directories, files in os.walk(base):
        for name in directories + files:
            path = folder + b"/" + name
            found[os.path.relpath(path, base)] = _seen(path)
    return found


def _seen(path: bytes) -> Seen:
    status = os.lstat(path)
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    is_device = kind in ("CHARACTER", "BLOCK")
    text = os.fsdecode(path)
    return Seen(
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_size if kind == "FILE" else 0,
        status.st_mtime_ns,
        os.fsencode(Path(text).readlink()) if kind == "SYMLINK" else b"",
        (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        {
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        },
        Path(text).read_bytes() if kind == "FILE" else b"",
    )


def groups_on_disk(root: Path) -> set[frozenset[bytes]]:
    """The names of each file that has several; whiteouts are no files."""
    base = os.fsencode(root)
    names: dict[int, set[bytes]] = {}
    for folder, _, files in os.walk(base):
        for name in files:
            status = os.lstat(folder + b"/" + name)
            if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
                names.setdefault(status.st_ino, set()).add(os.path.relpath(folder + b"/" + name, base))
    return {frozenset(group) for group in names.values() if len(group) > 1}


def lower_directory(layer: bytes, place: Path, below: View) -> None:
    """Write a layer as overlayfs has one: whiteouts are devices 0:0, opaque directories have an attribute.

    Directories that the layer only implies look as they do ``below``, as overlayfs shows the uppermost one.
    """
    place.mkdir()
    with tarfile.open(fileobj=BytesIO(layer)) as tar:
        members = [(member, os.fsencode(member.name)) for member in tar]
        marks = {path for _, path in members if b".wh." in path}
        hidden = {mark.replace(b".wh.", b"") for mark in marks if not mark.endswith(b".wh..wh..opq")}
        opaque = {mark.rpartition(b"/")[0] for mark in marks if mark.endswith(b".wh..wh..opq")}
        maker = _LowerMaker(os.fsencode(place), below, hidden | opaque)
        for member, path in members:
            if path not in marks:
                maker.make(member, path, tar)
    for path in hidden:
        if maker.is_hidden_below(path):
            maker.make_parents(path)
            os.mknod(maker.root + b"/" + path, stat.S_IFCHR, 0)
    for path in opaque:
        if maker.is_open(path + b"/"):
            maker.make_parents(path + b"/")
    maker.finish_directories()


class _LowerMaker:
    def __init__(self, root: bytes, below: View, opaque: set[bytes]) -> None:
        self.root = root
        self._below = below
        self._opaque = opaque
        self._directories: dict[bytes, tuple[int, int, int, int]] = {}

    def make(self, member: tarfile.TarInfo, path: bytes, tar: tarfile.TarFile) -> None:
        self.make_parents(path)
        place = self.root + b"/" + path
        mtime = int(Decimal(member.pax_headers.get("mtime", str(member.mtime))) * 10**9)
        if os.path.lexists(place) and not (member.isdir() and Path(os.fsdecode(place)).is_dir()):
            self._remove(path)  # a later entry of a layer counts
        if member.isdir():
            self._make_directory(path)
            self._directories[path] = (member.mode, member.uid, member.gid, mtime)
            return
        if member.islnk():
            self._link(os.fsencode(member.linkname), place)
            return
        if member.issym():
            os.symlink(os.fsencode(member.linkname), place)  # noqa: PTH211 - names of bytes
        elif member.isreg():
            content = tar.extractfile(member)
            assert content is not None
            Path(os.fsdecode(place)).write_bytes(content.read())
        else:
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFIFO
            os.mknod(place, kind | 0o600, os.makedev(member.devmajor, member.devminor) if member.ischr() else 0)
        for key, value in member.pax_headers.items():
            if key.startswith("SCHILY.xattr."):
                os.setxattr(place, key.removeprefix("SCHILY.xattr."), value.encode())
        _give(place, member.mode, member.uid, member.gid, mtime)

    def _link(self, target: bytes, place: bytes) -> None:
        """A link to a file below is a copy of it: layers of overlayfs share no files."""
        there = self.root + b"/" + target
        if os.path.lexists(there):
            os.link(there, place, follow_symlinks=False)
            return
        node = self._below.lstat(target)
        Path(os.fsdecode(place)).write_bytes(self._below.read_bytes(target))
        for key, value in node.xattrs.items():
            os.setxattr(place, key, value)
        _give(place, node.mode, node.uid, node.gid, node.mtime_ns)

    def is_hidden_below(self, path: bytes) -> bool:
        """Whether a whiteout is needed: nothing of this layer has its name, or hides what is below it."""
        is_there = os.path.lexists(self.root + b"/" + path)
        return self.is_open(path) and not is_there and path in {node.path for node in self._below.nodes()}

    def is_open(self, path: bytes) -> bool:
        """Whether layers below show in the folder of a path.

        In an opaque directory of a lower layer the kernel would list a whiteout as a name that leads to nothing.
        """
        steps = path.split(b"/")[:-1]
        for count in range(1, len(steps) + 1):
            above = b"/".join(steps[:count])
            place = self.root + b"/" + above
            if os.path.lexists(place) and not stat.S_ISDIR(os.lstat(place).st_mode):
                return False
            if above in self._opaque and above + b"/" != path:
                return False
        return True

    def make_parents(self, path: bytes) -> None:
        steps = path.split(b"/")[:-1]
        for count in range(1, len(steps) + 1):
            above = b"/".join(steps[:count])
            if not os.path.lexists(self.root + b"/" + above):
                self._make_directory(above)
                node = self._below.lstat(above)
                self._directories[above] = (node.mode, node.uid, node.gid, node.mtime_ns)

    def _make_directory(self, path: bytes) -> None:
        place = self.root + b"/" + path
        if not os.path.lexists(place):
            os.mkdir(place)  # noqa: PTH102 - a name of bytes
        if path in self._opaque:
            os.setxattr(place, "trusted.overlay.opaque", b"y")

    def _remove(self, path: bytes) -> None:
        place = Path(os.fsdecode(self.root + b"/" + path))
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
            for below in [one for one in self._directories if (one + b"/").startswith(path + b"/")]:
                del self._directories[below]
        else:
            place.unlink()

    def finish_directories(self) -> None:
        """Times last: whatever is made in a directory changes its own."""
        for path, attributes in self._directories.items():
            _give(self.root + b"/" + path, *attributes)


def _give(place: bytes, mode: int, uid: int, gid: int, mtime_ns: int) -> None:
    os.chown(place, uid, gid, follow_symlinks=False)
    if not stat.S_ISLNK(os.lstat(place).st_mode):
        os.chmod(place, mode)  # noqa: PTH101 - a name of bytes
    os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
