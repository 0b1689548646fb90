"""What every operation on a container shows, leaves alone and puts in a layer, case by case."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from container_samples import (
    BIG,
    CAPABILITY,
    HOLES,
    HOLES_SIZE,
    Picture,
    changed,
    check_commit,
    groups,
    is_recent,
    left_over,
    picture,
    uppers,
    zeros_and,
)
from unpacking_stacks import directory, entry, layer_of

from layerstore import Container, Image, Store
from layerstore.errors import InvalidInputError, LayerstoreError
from layerstore.tar.entries import EntryKind

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and devices are real then")
pytestmark = as_root


@pytest.fixture
def container(image: Image) -> Iterator[Container]:
    with image.container() as made:
        yield made
    made.remove()


@pytest.fixture(scope="module")
def original(image: Image) -> Picture:
    with image.view() as view:
        return picture(view)


@dataclass(frozen=True)
class Case:
    """An operation: its changes, and what it shows anew: contents, attributes, or None for what is gone."""

    name: str
    do: Callable[[Container], object]
    changes: str
    shows: dict[str, Any] = field(default_factory=dict)


def write(path: str, mode: str, data: bytes, at: int | None = None) -> Callable[[Container], None]:
    def do(container: Container) -> None:
        with container.open(path, mode) as file:
            if at is not None:
                file.seek(at)
            file.write(data)

    return do


def read_and_append(container: Container) -> None:
    with container.open("d/f", "a+b") as file:
        file.seek(0)
        assert file.read() == b"file f"
        file.write(b"!")
        file.seek(0)
        assert file.read() == b"file f!"


def truncate_what_is_open(container: Container) -> None:
    with container.open("d/f", "r+b") as file:
        file.read(2)
        file.truncate()


def both(*steps: Callable[[Container], object]) -> Callable[[Container], None]:
    def do(container: Container) -> None:
        for step in steps:
            step(container)

    return do


NOW = {"mtime": "now"}
FILES = [
    Case("new file", lambda c: c.write_bytes("new", b"1"), "A new", {"new": {"data": b"1", "mode": 0o644, "uid": 0}}),
    Case("new file in a directory", lambda c: c.write_bytes("d/new", b"1"), "M d, A d/new", {"d": NOW, "d/new": b"1"}),
    Case("empty file", lambda c: c.write_bytes("new", b""), "A new", {"new": b""}),
    Case("overwrite", lambda c: c.write_bytes("d/f", b"new"), "M d/f", {"d/f": {"data": b"new", "mode": 0o640}}),
    Case("overwrite shorter, w+b", write("big", "w+b", b"small"), "M big", {"big": b"small"}),
    Case("x", write("d/s/new", "xb", b"2"), "M d/s, A d/s/new", {"d/s": NOW, "d/s/new": b"2"}),
    Case("append", write("d/f", "ab", b"!"), "M d/f", {"d/f": {"data": b"file f!", "uid": 1000, "mtime": "now"}}),
    Case("read and append", read_and_append, "M d/f", {"d/f": b"file f!"}),
    Case("append to a new one", write("new", "ab", b"!"), "A new", {"new": b"!"}),
    Case("inside", write("d/f", "r+b", b"XY", 1), "M d/f", {"d/f": b"fXYe f"}),
    Case("behind the end", write("d/f", "r+b", b"X", 8), "M d/f", {"d/f": b"file f\0\0X"}),
    Case("in a big one", write("big", "r+b", b"X", 200_000), "M big", {"big": BIG[:200_000] + b"X" + BIG[200_001:]}),
    Case("cut", lambda c: c.truncate("d/f", 2), "M d/f", {"d/f": {"data": b"fi", "mtime": "now"}}),
    Case("fill up", lambda c: c.truncate("d/f", 8), "M d/f", {"d/f": b"file f\0\0"}),
    Case("cut at the position", truncate_what_is_open, "M d/f", {"d/f": b"fi"}),
    Case("through a link", lambda c: c.write_bytes("link", b"new"), "M d/f", {"d/f": b"new"}),
    Case("through a linked directory", lambda c: c.write_bytes("dlink/f", b"new"), "M d/f", {"d/f": b"new"}),
    Case(
        "through a link to nothing",
        lambda c: c.write_bytes("broken", b"new"),
        "M d, A d/nowhere",
        {"d": NOW, "d/nowhere": b"new"},
    ),
    Case("what is locked", lambda c: c.write_bytes("closed/in", b"1"), "M closed/in", {"closed/in": {"data": b"1"}}),
    Case("one of two names", lambda c: c.write_bytes("h1", b"one"), "M h1", {"h1": b"one"}),
    Case("where the root is left", lambda c: c.write_bytes("up/../d/f", b"new"), "M d/f", {"d/f": b"new"}),
    Case("odd name", lambda c: c.write_bytes(b"d/\xfe\n", b"1"), "M d, A d/�\n", {"d": NOW, "d/\udcfe\n": b"1"}),
    Case("longest name", lambda c: c.write_bytes("n" * 255, b"1"), "A " + "n" * 255, {"n" * 255: b"1"}),
]
MADE = [
    Case("mkdir", lambda c: c.mkdir("new"), "A new", {"new": {"kind": "DIRECTORY", "mode": 0o755, "uid": 0}}),
    Case("mkdir with a mode", lambda c: c.mkdir("new", 0o1777), "A new", {"new": {"mode": 0o1777}}),
    Case(
        "mkdir with parents",
        lambda c: c.mkdir("d/x/y", 0o700, parents=True),
        "M d, A d/x, A d/x/y",
        {"d": NOW, "d/x": {"mode": 0o755}, "d/x/y": {"mode": 0o700}},
    ),
    Case("mkdir with all parents there", lambda c: c.mkdir("d/s", parents=True, exist_ok=True), ""),
    Case("mkdir of what a link leads to", lambda c: c.mkdir("dlink", exist_ok=True), ""),
    Case("mkdir of the root", lambda c: c.mkdir("/", exist_ok=True), ""),
    Case("symlink", lambda c: c.symlink("../x", "new"), "A new", {"new": {"kind": "SYMLINK", "target": b"../x"}}),
    Case("odd symlink", lambda c: c.symlink(b"\xff", "new"), "A new", {"new": {"target": b"\xff"}}),
    Case(
        "device",
        lambda c: c.mknod("new", EntryKind.CHARACTER, 0o600, (5, 1)),
        "A new",
        {"new": {"kind": "CHARACTER", "device": (5, 1), "mode": 0o600}},
    ),
    Case(
        "block device 0:0",
        lambda c: c.mknod("new", EntryKind.BLOCK, 0o600, (0, 0)),
        "A new",
        {"new": {"kind": "BLOCK", "device": (0, 0)}},
    ),
    Case("fifo", lambda c: c.mknod("new", EntryKind.FIFO), "A new", {"new": {"kind": "FIFO", "mode": 0o644}}),
    Case("empty file by mknod", lambda c: c.mknod("new", EntryKind.FILE, 0o4711), "A new", {"new": {"mode": 0o4711}}),
    Case("hard link", lambda c: c.link("d/f", "new"), "M d/f, A new", {"new": b"file f"}),
    Case("hard link to a second name", lambda c: c.link("h1", "h3"), "M h1, A h3", {"h3": b"two names"}),
    Case("hard link to a symbolic link", lambda c: c.link("link", "new"), "M link, A new", {"new": {"target": b"d/f"}}),
    Case("hard link to a device", lambda c: c.link("null", "new"), "A new, M null", {"new": {"device": (1, 3)}}),
]
REMOVED = [
    Case("unlink", lambda c: c.unlink("d/f"), "M d, D d/f", {"d": NOW, "d/f": None}),
    Case("unlink a link", lambda c: c.unlink("link"), "D link", {"link": None}),
    Case("unlink a device", lambda c: c.unlink("disk"), "D disk", {"disk": None}),
    Case("unlink one of two names", lambda c: c.unlink("h1"), "D h1", {"h1": None}),
    Case("rmdir", lambda c: c.rmdir("empty"), "D empty", {"empty": None}),
    Case("rmdir of what was emptied", both(lambda c: c.unlink("op/own"), lambda c: c.rmdir("op")), "D op, D op/own"),
    Case("remove_tree", lambda c: c.remove_tree("d"), "D d, D d/f, D d/g, D d/s, D d/s/t"),
    Case(
        "a tree with changes",
        both(lambda c: c.write_bytes("op/x", b""), lambda c: c.remove_tree("op")),
        "D op, D op/own",
    ),
    Case("made and removed", both(lambda c: c.write_bytes("new", b"1"), lambda c: c.unlink("new")), ""),
    Case(
        "made and removed directory", both(lambda c: c.mkdir("new/x", parents=True), lambda c: c.remove_tree("new")), ""
    ),
    Case(
        "a file again",
        both(lambda c: c.unlink("d/f"), lambda c: c.write_bytes("d/f", b"again")),
        "M d, M d/f",
        {"d": NOW, "d/f": {"data": b"again", "uid": 0, "mode": 0o644}},
    ),
    Case(
        "a directory again, empty",
        both(lambda c: c.remove_tree("d"), lambda c: c.mkdir("d")),
        "M d, D d/f, D d/g, D d/s, D d/s/t",
    ),
    Case(
        "a directory again, with one of its names",
        both(
            lambda c: c.remove_tree("d"), lambda c: c.mkdir("d/s", parents=True), lambda c: c.write_bytes("d/g", b"g")
        ),
        "M d, D d/f, M d/g, M d/s, D d/s/t",
    ),
    Case(
        "a file for a directory",
        both(lambda c: c.remove_tree("d"), lambda c: c.write_bytes("d", b"file")),
        "M d, D d/f, D d/g, D d/s, D d/s/t",
    ),
    Case(
        "a directory for a file",
        both(lambda c: c.unlink("big"), lambda c: c.mkdir("big/x", parents=True)),
        "M big, A big/x",
        {"big": {"kind": "DIRECTORY", "data": b""}, "big/x": {}},
    ),
    Case(
        "a directory for a link to one",
        both(lambda c: c.unlink("dlink"), lambda c: c.mkdir("dlink"), lambda c: c.write_bytes("dlink/f", b"1")),
        "M dlink, A dlink/f",
        {"dlink": {"kind": "DIRECTORY"}, "dlink/f": b"1"},
    ),
    Case(
        "a link for a directory",
        both(lambda c: c.remove_tree("d"), lambda c: c.symlink("op", "d")),
        "M d, D d/f, D d/g, D d/s, D d/s/t",
    ),
]
RENAMED = [
    Case("file", lambda c: c.rename("d/f", "new"), "M d, D d/f, A new", {"d": NOW, "d/f": None, "new": b"file f"}),
    Case("over a file", lambda c: c.rename("big", "d/f"), "D big, M d, M d/f", {"d": NOW, "big": None, "d/f": BIG}),
    Case("over itself", lambda c: c.rename("d/f", "dlink/f"), ""),
    Case(
        "over the other name of one file",
        both(lambda c: c.write_bytes("a", b"1"), lambda c: c.link("a", "b"), lambda c: c.rename("a", "b")),
        "A a, A b",
        {"a": b"1", "b": b"1"},
    ),
    Case(
        "over the other name of one file of the image",
        both(lambda c: c.link("d/f", "b"), lambda c: c.rename("b", "d/f")),
        "A b, M d/f",
        {"b": b"file f"},
    ),
    Case("over a second name", lambda c: c.rename("h1", "h2"), "D h1", {"h1": None}),
    Case("over a whiteout", both(lambda c: c.unlink("h1"), lambda c: c.rename("h2", "h1")), "D h2", {"h2": None}),
    Case("and back", both(lambda c: c.rename("d/f", "x"), lambda c: c.rename("x", "d/f")), "M d", {"d": NOW}),
    Case("a link", lambda c: c.rename("link", "new"), "D link, A new", {"link": None, "new": {"target": b"d/f"}}),
    Case("a device", lambda c: c.rename("null", "new"), "A new, D null", {"null": None, "new": {"device": (1, 3)}}),
    Case("into a link to a directory", lambda c: c.rename("h1", "dlink/s/h"), "M d/s, A d/s/h, D h1"),
    Case("a new one", both(lambda c: c.write_bytes("a", b"1"), lambda c: c.rename("a", "b")), "A b", {"b": b"1"}),
    Case(
        "a directory",
        lambda c: c.rename("d", "e"),
        "D d, D d/f, D d/g, D d/s, D d/s/t, A e, A e/f, A e/g, A e/s, A e/s/t",
    ),
    Case(
        "a directory and back",
        both(lambda c: c.rename("d", "e"), lambda c: c.rename("e", "d")),
        "",
    ),
    Case(
        "a directory with a removed name and back",
        both(lambda c: c.unlink("d/g"), lambda c: c.rename("d", "e"), lambda c: c.rename("e", "d")),
        "M d, D d/g",
        {"d": NOW, "d/g": None},
    ),
    Case(
        "a directory over an empty one",
        lambda c: c.rename("op", "empty"),
        "M empty, A empty/own, D op, D op/own",
        {"op": None, "op/own": None, "empty": {"mtime": 123}, "empty/own": b"own"},
    ),
    Case(
        "a directory over an emptied one",
        both(lambda c: c.unlink("op/own"), lambda c: c.rename("empty", "op")),
        "D empty, M op, D op/own",
        {"empty": None, "op": {"mtime": 106}, "op/own": None},
    ),
    Case(
        "a directory over one that was removed",
        both(lambda c: c.remove_tree("op"), lambda c: c.rename("d/s", "op")),
        "M d, D d/s, D d/s/t, M op, D op/own, A op/t",
        {"d": NOW, "d/s": None, "d/s/t": None, "op": {"mtime": 104}, "op/own": None, "op/t": b"file t"},
    ),
    Case(
        "a directory where a file was",
        both(lambda c: c.unlink("big"), lambda c: c.rename("empty", "big")),
        "M big, D empty",
        {"empty": None, "big": {"kind": "DIRECTORY", "data": b""}},
    ),
    Case(
        "a directory into a new one",
        both(lambda c: c.mkdir("new"), lambda c: c.rename("d/s", "new/s"), lambda c: c.rename("new", "op/new")),
        "M d, D d/s, D d/s/t, M op, A op/new, A op/new/s, A op/new/s/t",
        {"d": NOW, "d/s": None, "d/s/t": None, "op": NOW, "op/new": {}, "op/new/s": {}, "op/new/s/t": b"file t"},
    ),
    Case(
        "two that change places",
        both(lambda c: c.rename("d", "x"), lambda c: c.rename("op", "d"), lambda c: c.rename("x", "op")),
        "M d, D d/f, D d/g, A d/own, D d/s, D d/s/t, M op, A op/f, A op/g, D op/own, A op/s, A op/s/t",
    ),
]
ATTRIBUTES = [
    Case("chmod", lambda c: c.chmod("d/f", 0o4711), "M d/f", {"d/f": {"mode": 0o4711, "mtime": 102.5}}),
    Case("chmod of a directory", lambda c: c.chmod("d", 0o2700), "M d", {"d": {"mode": 0o2700, "mtime": 101}}),
    Case("chmod through a link", lambda c: c.chmod("link", 0o600), "M d/f", {"d/f": {"mode": 0o600}}),
    Case("chmod of the root", lambda c: c.chmod("/", 0o700), "M ", {"": {"mode": 0o700}}),
    Case("chmod of a device", lambda c: c.chmod("null", 0o600), "M null", {"null": {"mode": 0o600, "device": (1, 3)}}),
    Case("chmod to what it was", lambda c: c.chmod("d/f", 0o640), ""),
    Case("chown", lambda c: c.chown("d/f", 8, 9), "M d/f", {"d/f": {"uid": 8, "gid": 9, "mtime": 102.5}}),
    Case("chown to the largest", lambda c: c.chown("d", 2**32 - 2, 2**32 - 2), "M d", {"d": {"uid": 2**32 - 2}}),
    Case("chown through a link", lambda c: c.chown("link", 8, 9), "M d/f", {"d/f": {"uid": 8}}),
    Case(
        "chown of a link",
        lambda c: c.chown("link", 8, 9, follow_symlinks=False),
        "M link",
        {"link": {"uid": 8, "gid": 9}},
    ),
    Case(
        "chown takes nothing away",
        lambda c: c.chown("able", 8, 9),
        "M able",
        {"able": {"uid": 8, "mode": 0o4755, "xattrs": {b"security.capability": CAPABILITY}}},
    ),
    Case(
        "chmod takes no capability away",
        lambda c: c.chmod("able", 0o755),
        "M able",
        {"able": {"mode": 0o755, "xattrs": {b"security.capability": CAPABILITY}}},
    ),
    Case("utime", lambda c: c.utime("d/f", 5 * 10**9 + 7), "M d/f", {"d/f": {"mtime_ns": 5 * 10**9 + 7}}),
    Case("utime before 1970", lambda c: c.utime("d/f", -5 * 10**9), "M d/f", {"d/f": {"mtime": -5}}),
    Case("utime of a directory", lambda c: c.utime("d", 5 * 10**9), "M d", {"d": {"mtime": 5}}),
    Case("utime of the root is no change", lambda c: c.utime("", 5 * 10**9), "", {"": {"mtime": 5}}),
    Case(
        "utime of a link", lambda c: c.utime("link", 5 * 10**9, follow_symlinks=False), "M link", {"link": {"mtime": 5}}
    ),
    Case(
        "xattr",
        lambda c: c.set_xattr("noted", b"user.new", b"\0\xff=\n"),
        "M noted",
        {"noted": {"xattrs": {b"user.note": b"one", b"user.other": b"two", b"user.new": b"\0\xff=\n"}}},
    ),
    Case(
        "xattr replaced and removed",
        both(
            lambda c: c.set_xattr("noted", b"user.note", b""),
            lambda c: c.remove_xattr("noted", b"user.other"),
        ),
        "M noted",
        {"noted": {"xattrs": {b"user.note": b""}}},
    ),
    Case(
        "xattrs of the system",
        both(
            lambda c: c.set_xattr("d", b"trusted.x", b"1"),
            lambda c: c.set_xattr("big", b"security.capability", CAPABILITY),
        ),
        "M big, M d",
        {"big": {"xattrs": {b"security.capability": CAPABILITY}}, "d": {"xattrs": {b"trusted.x": b"1"}}},
    ),
]
CASES = {
    f"{kind}: {case.name}": case
    for kind, cases in (
        ("files", FILES),
        ("made", MADE),
        ("removed", REMOVED),
        ("renamed", RENAMED),
        ("attributes", ATTRIBUTES),
    )
    for case in cases
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation(container: Container, image: Image, original: Picture, name: str) -> None:
    """It shows what it should and nothing else; the image shows what it did; the layer makes the same of it."""
    case = CASES[name]
    case.do(container)
    assert changed(container) == case.changes
    now = picture(container)
    check_shown(original, now, case.shows)
    assert left_over(container) == []
    container.close()
    assert picture(container) == now, "it is on the disk as it was in memory"
    with image.view() as view:
        assert picture(view) == original
    check_commit(container).close()
    assert changed(container) == case.changes, "a commit changes nothing"


def check_shown(old: Picture, new: Picture, expected: dict[str, Any]) -> None:
    if expected:
        differing = {path for path in old.keys() | new.keys() if path and old.get(path) != new.get(path)}
        assert differing - {os.fsencode(path) for path in expected} == set()
    for name, wanted in expected.items():
        seen = new.get(os.fsencode(name))
        if wanted is None:
            assert seen is None
            continue
        assert seen is not None, name
        for key, value in ({"data": wanted} if isinstance(wanted, bytes) else wanted).items():
            if key == "mtime":
                assert is_recent(seen.mtime_ns) if value == "now" else seen.mtime_ns == value * 10**9
            else:
                assert getattr(seen, key) == value


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Container], object], int]] = {
    "x of what is there": (lambda c: c.open("d/f", "xb"), errno.EEXIST),
    "x of a link to nothing": (lambda c: c.open("broken", "xb"), errno.EEXIST),
    "r+b of nothing": (lambda c: c.open("none", "r+b"), errno.ENOENT),
    "write in no directory": (lambda c: c.write_bytes("none/x", b""), errno.ENOENT),
    "write below a file": (lambda c: c.write_bytes("big/x", b""), errno.ENOTDIR),
    "write to a directory": (lambda c: c.write_bytes("d", b""), errno.EISDIR),
    "write to the root": (lambda c: c.write_bytes("/", b""), errno.EISDIR),
    "write to a device": (lambda c: c.write_bytes("null", b""), errno.EINVAL),
    "write to a fifo": (lambda c: c.write_bytes("pipe", b""), errno.EINVAL),
    "truncate a directory": (lambda c: c.truncate("d", 0), errno.EISDIR),
    "mkdir of what is there": (lambda c: c.mkdir("d"), errno.EEXIST),
    "mkdir over a file": (lambda c: c.mkdir("d/f", exist_ok=True), errno.EEXIST),
    "mkdir of a link": (lambda c: c.mkdir("dlink"), errno.EEXIST),
    "mkdir below a file": (lambda c: c.mkdir("big/x/y", parents=True), errno.ENOTDIR),
    "mkdir without parents": (lambda c: c.mkdir("x/y"), errno.ENOENT),
    "mkdir of the root": (lambda c: c.mkdir("/"), errno.EEXIST),
    "symlink over something": (lambda c: c.symlink("x", "broken"), errno.EEXIST),
    "symlink to nothing at all": (lambda c: c.symlink("", "new"), errno.EINVAL),
    "symlink with NUL": (lambda c: c.symlink(b"a\0b", "new"), errno.EINVAL),
    "symlink to too much": (lambda c: c.symlink("x" * 4096, "new"), errno.EINVAL),
    "mknod over something": (lambda c: c.mknod("d", EntryKind.FIFO), errno.EEXIST),
    "mknod of a whiteout": (lambda c: c.mknod("new", EntryKind.CHARACTER, 0o600, (0, 0)), errno.EINVAL),
    "link to nothing": (lambda c: c.link("none", "new"), errno.ENOENT),
    "link over something": (lambda c: c.link("big", "d/f"), errno.EEXIST),
    "link to a directory": (lambda c: c.link("d", "new"), errno.EINVAL),
    "unlink nothing": (lambda c: c.unlink("none"), errno.ENOENT),
    "unlink what was hidden": (lambda c: c.unlink("d/gone"), errno.ENOENT),
    "unlink a directory": (lambda c: c.unlink("d"), errno.EISDIR),
    "unlink the root": (lambda c: c.unlink("/"), errno.EINVAL),
    "rmdir of a file": (lambda c: c.rmdir("big"), errno.ENOTDIR),
    "rmdir of a link": (lambda c: c.rmdir("dlink"), errno.ENOTDIR),
    "rmdir of what is full": (lambda c: c.rmdir("d"), errno.ENOTEMPTY),
    "rmdir of the root": (lambda c: c.rmdir("/"), errno.EINVAL),
    "remove_tree of a file": (lambda c: c.remove_tree("big"), errno.ENOTDIR),
    "remove_tree of a link": (lambda c: c.remove_tree("dlink"), errno.ENOTDIR),
    "remove_tree of the root": (lambda c: c.remove_tree("."), errno.EINVAL),
    "rename nothing": (lambda c: c.rename("none", "x"), errno.ENOENT),
    "rename the root": (lambda c: c.rename("/", "x"), errno.EINVAL),
    "rename to the root": (lambda c: c.rename("d", "/"), errno.EINVAL),
    "rename into itself": (lambda c: c.rename("d", "d/s/d"), errno.EINVAL),
    "rename into itself through a link": (lambda c: c.rename("d", "dlink/d"), errno.EINVAL),
    "rename below a file": (lambda c: c.rename("big", "h1/x"), errno.ENOTDIR),
    "rename a file over a directory": (lambda c: c.rename("big", "empty"), errno.EISDIR),
    "rename a directory over a file": (lambda c: c.rename("d", "big"), errno.ENOTDIR),
    "rename a directory over a full one": (lambda c: c.rename("empty", "d"), errno.ENOTEMPTY),
    "chmod of nothing": (lambda c: c.chmod("broken", 0o600), errno.ENOENT),
    "chown of nothing": (lambda c: c.chown("none", 1, 1), errno.ENOENT),
    "utime of nothing": (lambda c: c.utime("none", 1), errno.ENOENT),
    "opaque mark": (lambda c: c.set_xattr("d", b"trusted.overlay.opaque", b"y"), errno.EINVAL),
    "opaque mark of users": (lambda c: c.set_xattr("d", b"user.overlay.opaque", b"y"), errno.EINVAL),
    "kept owner": (lambda c: c.set_xattr("d", b"user.containers.override_stat", b"0:0:0"), errno.EINVAL),
    "kept attribute": (lambda c: c.set_xattr("d", b"user.layerstore.xattr.a", b"1"), errno.EINVAL),
    "removed mark": (lambda c: c.remove_xattr("d", b"trusted.overlay.opaque"), errno.EINVAL),
    "name with NUL": (lambda c: c.write_bytes(b"a\0b", b""), errno.EINVAL),
    "name of 256 bytes": (lambda c: c.mkdir("n" * 256), errno.EINVAL),
    "rename to 256 bytes": (lambda c: c.rename("big", "n" * 256), errno.EINVAL),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(container: Container, original: Picture, name: str) -> None:
    """The error is ours and the system's, and nothing was done, not even a copy made."""
    do, number = REFUSED[name]
    before = uppers(container)
    with pytest.raises(LayerstoreError) as raised:
        do(container)
    assert isinstance(raised.value, OSError)
    assert raised.value.errno == number
    assert uppers(container) == before
    assert picture(container) == original
    assert changed(container) == ""


def test_links_that_lead_in_circles(container: Container) -> None:
    container.symlink("b", "a")
    container.symlink("a", "b")
    with pytest.raises(OSError, match="links") as raised:
        container.write_bytes("a/x", b"")
    assert raised.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="links"):
        container.write_bytes("a", b"")


def test_text_modes_and_owners_that_are_none(container: Container) -> None:
    for mode in ("r", "w", "rt", "wb+x", ""):
        with pytest.raises(InvalidInputError):
            container.open("d/f", mode)
    for owner in (-1, 2**32 - 1):
        with pytest.raises(InvalidInputError):
            container.chown("d/f", owner, 0)
    with pytest.raises(InvalidInputError):
        container.mknod("new", EntryKind.SYMLINK)
    assert uppers(container) == []


def test_a_name_like_a_whiteouts_can_be_made_but_not_committed(container: Container) -> None:
    container.write_bytes("d/.wh.x", b"1")
    assert container.read_bytes("d/.wh.x") == b"1"
    with pytest.raises(InvalidInputError, match=r"\.wh\.x"):
        container.commit()
    container.unlink("d/.wh.x")
    check_commit(container).close()


# --- copying up -------------------------------------------------------------------------------------------------------


def test_reading_copies_nothing_up(container: Container, original: Picture) -> None:
    assert picture(container) == original
    for node in container.nodes():
        if node.is_file:
            container.read_bytes(node.path)
            assert container.regions(node) is not None
    container.glob("**")
    assert uppers(container) == []


def test_a_file_that_is_open_and_not_written_is_not_copied_up(container: Container, original: Picture) -> None:
    for mode in ("r+b", "ab", "a+b"):
        with container.open("d/f", mode) as file:
            assert file.seek(0, os.SEEK_END) == 6
            if "+" in mode:
                file.seek(0)
                assert file.read() == b"file f"
        assert uppers(container) == []
        assert picture(container) == original


def test_the_first_write_copies_up_what_was_read_before(container: Container) -> None:
    with container.open("big", "r+b") as file:
        assert file.read(1000) == BIG[:1000]
        file.seek(100)
        file.write(b"here")
        file.flush()
        assert uppers(container) == ["big"]
        assert file.tell() == 104
        file.seek(0)
        assert file.read() == BIG[:100] + b"here" + BIG[104:]
    assert container.read_bytes("big") == BIG[:100] + b"here" + BIG[104:]


def test_a_file_that_was_removed_while_it_was_open_is_not_made_again(container: Container) -> None:
    with pytest.raises(FileNotFoundError), container.open("big", "r+b") as file:
        container.unlink("big")
        file.write(b"x")
    assert not container.exists("big")


def test_copying_up_shows_nothing_and_leaves_the_times_of_directories(container: Container, original: Picture) -> None:
    for path in ("d/s/t", "closed/in", "able", "null", "pipe", "disk", "holes", b"n\xff\n", "h1"):
        attributes = container.lstat(path)
        container.utime(path, attributes.mtime_ns, follow_symlinks=False)
    for path in ("link", "out"):
        container.chown(path, container.lstat(path).uid, 0, follow_symlinks=False)
    assert len(uppers(container)) == 14
    now = picture(container)
    assert now == original
    assert changed(container) == ""
    container.close()
    assert picture(container) == original


def test_hard_links_of_the_image_are_broken_by_copying_up(container: Container) -> None:
    assert groups(container) == {frozenset((b"h1", b"h2"))}
    container.chmod("h1", 0o600)
    assert groups(container) == set()
    assert (container.stat("h1").mode, container.stat("h2").mode) == (0o600, 0o644)
    with check_commit(container) as view:
        assert groups(view) == set()


def test_hard_links_that_were_made_stay_together(container: Container) -> None:
    container.link("d/f", "one")
    container.link("one", "d/s/two")
    together = frozenset((b"d/f", b"one", b"d/s/two"))
    container.write_bytes("one", b"for all")
    assert groups(container) == {frozenset((b"h1", b"h2")), together}
    assert {container.stat(name).links for name in together} == {3}
    with check_commit(container) as view:
        assert together in groups(view)
        assert view.read_bytes("d/f") == b"for all"


def test_sparse_files_stay_sparse(container: Container) -> None:
    contents = zeros_and(HOLES_SIZE, HOLES)
    container.chmod("holes", 0o600)
    copied = container._folder.upper / "holes"
    assert copied.stat().st_blocks * 512 < 1 << 20
    with container.open("new", "wb") as file:
        file.seek(HOLES_SIZE - 5)
        file.write(b"end")
    container.truncate("new", HOLES_SIZE)
    assert container.read_bytes("holes") == contents
    assert sum(length for _, length in container.regions(container.stat("holes"))) < 1 << 20
    with check_commit(container) as view:
        assert view.read_bytes("holes") == contents
        for name in ("holes", "new"):
            assert sum(length for _, length in view.regions(view.stat(name))) < 1 << 20
    assert container.commit().layers[-1].size < 1 << 20


def test_attributes_that_belong_to_upper_directories_are_not_copied_up(kept_store: Store) -> None:
    """They would hide the image's files; that they are missing is no change."""
    layer = layer_of(directory("o", mtime=5, xattrs={"trusted.overlay.opaque": "y"}), entry("o/kept"))
    marked = kept_store.create_image([kept_store.push_layer(layer).layer])
    with marked.container() as container:
        container.write_bytes("o/new", b"1")
        container.utime("o", 5 * 10**9)
        assert container.listdir("o") == ["kept", "new"]
        assert changed(container) == "A o/new"
        container.close()
        assert container.listdir("o") == ["kept", "new"]
    container.remove()


def test_trees_deeper_than_a_stack(container: Container) -> None:
    """Two thousand levels are made, moved, committed and removed."""
    deep = "/".join(["x"] * 1900)
    container.mkdir(deep, parents=True)
    container.write_bytes(f"{deep}/f", b"deep")
    container.rename("x", "d/x")
    with check_commit(container) as view:
        assert view.read_bytes(f"d/{deep}/f") == b"deep"
    container.remove_tree("d/x")
    assert left_over(container) == []
    container.mkdir(deep, parents=True)
    container.close()


# --- nothing leads out ------------------------------------------------------------------------------------------------


def test_symbolic_links_never_lead_out_of_the_root(container: Container) -> None:
    container.mkdir("etc")
    container.symlink("/etc", "mine")
    container.symlink("../../../../../../../../etc/passwd", "passwd")
    before = os.stat("/etc/passwd")  # noqa: PTH116 - what is outside
    container.write_bytes("mine/passwd", b"inside")
    container.chmod("passwd", 0o600)
    container.chown("out/passwd", 5, 5)
    container.set_xattr("passwd", b"user.x", b"1")
    container.utime("passwd", 0)
    with container.open("passwd", "ab") as file:
        file.write(b"!")
    assert container.read_bytes("etc/passwd") == b"inside!"
    container.rename("passwd", "etc/link")
    container.unlink("out/link")
    container.write_bytes("up/up/outside", b"1")
    assert container.read_bytes("outside") == b"1"
    after = os.stat("/etc/passwd")  # noqa: PTH116
    assert (before.st_mtime_ns, before.st_ctime_ns, before.st_mode) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_mode,
    )
    check_commit(container).close()


# --- layers -----------------------------------------------------------------------------------------------------------


def much(container: Container) -> None:
    """A change of every kind, with times that do not depend on the moment."""
    container.write_bytes("d/new", b"1")
    container.write_bytes("big", b"2")
    container.link("d/new", "again")
    container.mkdir("x/y", parents=True)
    container.symlink("z", "x/link")
    container.mknod("x/null", EntryKind.CHARACTER, 0o666, (1, 3))
    container.rename("op", "x/op")
    container.unlink("h1")
    container.set_xattr("x", b"user.b", b"1")
    container.set_xattr("x", b"user.a", b"2")
    for node in list(container.nodes()):
        container.utime(node.path, 10**18, follow_symlinks=False)


def test_the_same_changes_give_the_same_layer(image: Image) -> None:
    layers = set()
    for backwards in (False, True):
        with image.container() as container:
            if backwards:  # another way to the same
                container.set_xattr("d", b"user.x", b"1")
                container.remove_xattr("d", b"user.x")
                container.mkdir("x")
                container.rmdir("x")
            much(container)
            layers.add(container.commit().layers[-1].diff_id)
        container.remove()
    assert len(layers) == 1


def test_nothing_changed_makes_no_layer(container: Container, image: Image) -> None:
    container.utime("d/f", container.stat("d/f").mtime_ns)
    container.write_bytes("new", b"")
    container.unlink("new")
    container.utime("", 0)
    child = container.commit()
    assert [layer.diff_id for layer in child.layers] == [layer.diff_id for layer in image.layers]


def test_a_file_that_changes_while_it_is_committed_is_refused(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.write_bytes("new", BIG)
    real = os.pread
    path = container._folder.upper / "new"
    for size in (len(BIG) * 2, len(BIG), 100):

        def pread(descriptor: int, count: int, offset: int, size: int = size) -> bytes:
            os.truncate(path, size)
            os.utime(path)
            return real(descriptor, count, offset)

        monkeypatch.setattr(os, "pread", pread)
        with pytest.raises(InvalidInputError, match="new"):
            container.commit()
        monkeypatch.setattr(os, "pread", real)
        container.write_bytes("new", BIG)
    check_commit(container).close()
