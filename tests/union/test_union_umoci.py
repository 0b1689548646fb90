"""The union view equals what umoci unpacks, for stacks of small layers that umoci takes."""

import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, event, given, settings
from test_union_laws import modelled, stacks
from union_model import Model, Refused, clean
from union_samples import Member, file, folder, hardlink, layer, opaque, shown, symlink, whiteout

from layerstore import OCILayout, Store, View, copy
from layerstore.errors import InvalidInputError

pytestmark = pytest.mark.skipif(
    shutil.which("umoci") is None or os.geteuid() != 0, reason="needs umoci, and root for owners and devices"
)

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def on_disk(root: Path) -> dict[bytes, object]:
    """A directory as `shown` has a view."""
    found: dict[bytes, object] = {}
    for path in entries(root):
        name = os.fsencode(path.relative_to(root))
        if path.is_symlink():
            found[name] = [os.readlink(os.fsencode(path))]  # noqa: PTH115 - pathlib would clean it
        elif path.is_dir():
            found[name] = None
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = {stat.S_IFIFO: "FIFO", stat.S_IFCHR: "CHARACTER", stat.S_IFBLK: "BLOCK"}[
                stat.S_IFMT(path.lstat().st_mode)
            ]
    return found


def entries(root: Path) -> list[Path]:
    return [Path(place) / name for place, folders, files in os.walk(root) for name in (*folders, *files)]


def groups_on_disk(root: Path) -> set[frozenset[bytes]]:
    names: dict[int, set[bytes]] = {}
    for path in entries(root):
        names.setdefault(path.lstat().st_ino, set()).add(os.fsencode(path.relative_to(root)))
    return {frozenset(group) for group in names.values() if len(group) > 1}


def groups_of(view: View) -> set[frozenset[bytes]]:
    names: dict[tuple[int, int], set[bytes]] = {}
    for node in view.nodes():
        names.setdefault(node.inode, set()).add(node.path)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def umoci(store: Store, place: Path) -> Path | None:
    """What umoci unpacks of the image ``shop:1.0``; None if it does not take it."""
    copy(store, OCILayout(place / "layout"), ["shop:1.0"], name="1.0")
    root = place / "root"
    command = ["umoci", "raw", "unpack", "--image", f"{place / 'layout'}:1.0", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        assert "unpack entry" in done.stderr, done.stderr  # it got as far as that
        return None
    return root


def unpacked(store: Store, place: Path, layers: list[bytes]) -> tuple[View, Path] | None:
    """The view, and what umoci makes of the same image; None if it does not take it."""
    image = store.create_image([store.push_layer(data).layer for data in layers], tag="shop:1.0")
    root = umoci(store, place)
    return None if root is None else (image.view(), root)


def compare(view: View, root: Path) -> None:
    with view:
        assert shown(view) == on_disk(root)
        assert groups_of(view) == groups_on_disk(root)
        for node in view.nodes():
            if node.entry is None:
                continue
            there = (root / os.fsdecode(node.path)).lstat()
            if not node.is_symlink:
                assert stat.S_IMODE(there.st_mode) == node.mode, node
            assert (there.st_uid, there.st_gid) == (node.uid, node.gid), node
            if not node.is_dir:
                assert there.st_mtime_ns == node.mtime_ns, node
                assert there.st_nlink == node.links, node


def tame(stack: list[list[Member]]) -> list[list[Member]]:
    """A stack without what umoci takes differently, as it extracts strictly in the order of the tar.

    Whiteouts stand last. None is in a folder that is a link in some layer, and none hides a link in whose place its own
    layer brings a directory with something in it: umoci has followed the link by then.
    """
    links = {clean(member.name) for members in stack for member in members if member.kind == tarfile.SYMTYPE}
    tamed = []
    for members in stack:
        own = [member for member in members if b".wh." not in member.name]
        brought = {clean(member.name)[:length] for member in own for length in range(1, 4)}
        marks = [
            member
            for member in members
            if b".wh." in member.name
            and not any(clean(member.name)[:length] in links for length in range(1, len(clean(member.name))))
            and not any(link[: len(hidden(member))] == hidden(member) for link in links & brought)
        ]
        tamed.append(own + marks)
    return tamed


def hidden(mark: Member) -> tuple[bytes, ...]:
    """What a whiteout or an opaque mark hides, with all below it."""
    *place, name = clean(mark.name)
    return (*place, name.removeprefix(b".wh.")) if name != b".wh..wh..opq" else tuple(place)


@settings(max_examples=settings().max_examples * 2)
@given(stacks)
def test_a_view_shows_what_umoci_unpacks(stack: list[list[Member]]) -> None:
    try:
        _, stack = modelled(tame(stack))
    except Refused:
        assume(False)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, Store.create(Path(name) / "store") as store:
        both = unpacked(store, Path(name), [layer(*members) for members in stack])
        if both is None:
            event("umoci does not take it")
            return
        event("compared")
        compare(*both)


@given(stacks)
def test_umoci_takes_nothing_that_a_view_refuses(stack: list[list[Member]]) -> None:
    stack = tame(stack)
    model = Model()
    try:
        for members in stack:
            model.apply(members)
    except Refused:
        pass
    else:
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, Store.create(Path(name) / "store") as store:
        layers = [store.push_layer(layer(*members)).layer for members in stack]
        with pytest.raises(InvalidInputError):
            store.view(layers)
        store.create_image(layers, tag="shop:1.0")
        assert umoci(store, Path(name)) is None


def test_a_stack_of_everything(tmp_path: Path) -> None:
    base = layer(
        folder(b"./", 0o755),
        folder(b"etc", 0o711, uid=3),
        file(b"etc/passwd", b"root", 0o640, uid=1, mtime=1_500_000_000),
        file(b"usr/bin/tool", b"tool", 0o4755),
        hardlink(b"usr/bin/same", b"usr/bin/tool"),
        symlink(b"bin", b"usr/bin"),
        symlink(b"outside", b"../../.."),
        file(b"opt/old/x/y", b"y"),
        file(b"opt/gone", b"gone"),
        Member(b"dev/null", tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        Member(b"run/pipe", tarfile.FIFOTYPE),
        file(b"\xff/" + b"n" * 255, b"long"),
    )
    middle = layer(
        folder(b"etc", 0o700, mtime=1_600_000_000),
        file(b"bin/more", b"more"),
        hardlink(b"bin/again", b"usr/bin/same"),
        whiteout(b"usr/bin/tool"),
        whiteout(b"opt/gone"),
        file(b"outside/tmp/here", b"inside"),
        folder(b"opt/old"),
        opaque(b"opt/old"),
        file(b"opt/old/x/z", b"z"),
    )
    top = layer(file(b"opt/old", b"a file"), folder(b"bin"), symlink(b"etc", b"usr"), file(b"bin/own", b"own"))
    with Store.create(tmp_path / "store") as store:
        both = unpacked(store, tmp_path, [base, middle, top])
        assert both is not None
        compare(*both)
