"""Images for tests of containers, and all that a file system shows as plain data."""

import io
import tarfile
import time
from dataclasses import dataclass, replace

from samples import END, noise, pax_sparse
from unpacking_stacks import directory, entry, hard, layer_of, link

from layerstore import Container, View

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
BIG = noise(300_000, 1)
HOLES_SIZE = 8 << 20
HOLES = [(1 << 20, b"begin" * 900), (HOLES_SIZE - 512, b"e" * 512)]


def everything() -> list[bytes]:
    """Two layers with something of every kind."""
    lower = layer_of(
        directory("./", mode=0o751, mtime=100),
        directory("d", mode=0o750, uid=1, gid=2, mtime=101),
        entry("d/f", data=b"file f", mode=0o640, uid=1000, gid=5, mtime_text="102.5"),
        entry("d/g", data=b"old g", mtime=103),
        directory("d/s", mtime=104),
        entry("d/s/t", data=b"file t", mtime=105),
        entry("d/gone", data=b"hidden by the upper layer"),
        directory("empty", mtime=106),
        entry("h1", data=b"two names", mtime=107),
        hard("h2", "h1"),
        link("link", "d/f", uid=3, mtime=108),
        link("dlink", "d", mtime=109),
        link("broken", "d/nowhere", mtime=110),
        link("out", "/etc", mtime=111),
        link("up", "../../../..", mtime=112),
        entry("able", data=b"set-uid", mode=0o4755, uid=7, xattrs={"security.capability": CAPABILITY.decode()}),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, mtime=113),
        entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660, uid=4, mtime=114),
        entry("pipe", tarfile.FIFOTYPE, mode=0o622, mtime=115),
        directory("closed", mode=0o000, uid=9, mtime=116),
        entry("closed/in", data=b"locked", mode=0o000, mtime=117),
        entry("noted", data=b"n", mtime=118, xattrs={"user.note": "one", "user.other": "two"}),
        entry("big", data=BIG, mtime=119),
        directory("op", mtime=120),
        entry("op/below", data=b"hidden by the opaque directory"),
        entry("n\udcff\n", data=b"odd name", mtime=121),
    )
    upper = layer_of(
        entry("d/g", data=b"file g", mtime=122),
        entry("d/.wh.gone"),
        directory("op", mtime=123),
        entry("op/.wh..wh..opq"),
        entry("op/own", data=b"own", mtime=124),
    )
    return [lower, upper, pax_sparse(b"holes", HOLES_SIZE, HOLES) + END]


@dataclass(frozen=True)
class Seen:
    """What stands at a path."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    data: bytes


Picture = dict[bytes, Seen]


def picture(files: View | Container) -> Picture:
    """All that a file system shows, its root under an empty name."""
    found = {}
    for node in (files.lstat("/"), *files.nodes()):
        data = b""
        if node.is_file:
            with files.open_node(node) as opened:
                data = opened.read()
            assert len(data) == node.size
        found[node.path] = Seen(
            node.kind.name,
            0o777 if node.is_symlink else node.mode,  # it means nothing
            node.uid,
            node.gid,
            node.size,
            node.mtime_ns,
            node.link_target,
            node.device,
            dict(node.xattrs),
            data,
        )
    return found


def at_whole_seconds(shown: Picture, *, changed: set[bytes] | None = None) -> Picture:
    """A picture as a layer keeps it: what is ``changed`` has no fractions of seconds."""
    return {
        path: replace(seen, mtime_ns=seen.mtime_ns // 10**9 * 10**9) if changed is None or path in changed else seen
        for path, seen in shown.items()
    }


def groups(files: View | Container) -> set[frozenset[bytes]]:
    """The names of each file that has several."""
    names: dict[tuple[int, int], set[bytes]] = {}
    for node in files.nodes():
        if not node.is_dir:
            names.setdefault(node.inode, set()).add(node.path)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def changed(container: Container) -> str:
    """The changes, as ``A d/new, M d, D old``."""
    return ", ".join(
        f"{change.kind[0].upper()} {change.path.decode(errors='replace')}" for change in container.changes()
    )


def check_commit(container: Container) -> View:
    """The image that a container makes shows what the container shows."""
    view = container.commit().view()
    committed = picture(view)
    now = picture(container)
    # The root's time alone is no change, so the child image has that of the image below.
    root = replace(now[b""], mtime_ns=committed[b""].mtime_ns)
    assert at_whole_seconds(committed) == at_whole_seconds({**now, b"": root})
    # A name that was copied up and not changed is one with its others again: that copy is no part of the layer.
    new = {change.path for change in container.changes()}
    assert {group for group in groups(view) if group & new} == {group for group in groups(container) if group & new}
    return view


def uppers(container: Container) -> list[str]:
    """All paths in the upper directory."""
    upper = container._folder.upper
    return sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))


def left_over(container: Container) -> list[str]:
    """What is in the place where changes are made ready."""
    return [path.name for path in container._folder.temporary.iterdir()]


def is_recent(mtime_ns: int) -> bool:
    """Whether a time is of this test, not of the image."""
    return abs(time.time_ns() - mtime_ns) < 3600 * 10**9


def zeros_and(size: int, regions: list[tuple[int, bytes]]) -> bytes:
    """The contents of a sparse file."""
    buffer = io.BytesIO(bytes(size))
    for offset, data in regions:
        buffer.seek(offset)
        buffer.write(data)
    return buffer.getvalue()
