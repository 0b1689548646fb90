"""A mounted stack shows what its view shows."""

import errno
import os
import random
import stat
import subprocess
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
from mounting_servers import Mounter, is_answered_by_the_kernel, statistics
from union_samples import Member, file, folder, hardlink, layer, opaque, symlink, whiteout

from layerstore import Digest, EntryKind, Node, View
from layerstore.mounting.client import mount_view

_FORMATS = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_LARGE = random.Random(7).randbytes(3_000_000)
_BASE = layer(
    folder(b"", mode=0o750, uid=7),
    folder(b"etc", mode=0o1777, uid=12, mtime=1_600_000_000),
    file(b"etc/passwd", b"root\n", mtime=-5, uid=1000),
    file(b"etc/empty"),
    hardlink(b"etc/shadow", b"etc/passwd"),
    hardlink(b"passwd", b"etc/passwd"),
    symlink(b"link", b"etc/passwd"),
    symlink(b"nowhere", b"x" * 300),
    file(b"bin/su", b"#!", mode=0o4755),
    file(b"bin/wall", b"#!", mode=0o2755, uid=3_000_000_000),
    file(b"deep/er/and/deeper", b"implied folders"),
    file(b"large", _LARGE),
    file(b"\xff\xfename", b"not UTF-8"),
    file(b"n" * 255, b"long"),
    Member(b"null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
    Member(b"disk", tarfile.BLKTYPE, mode=0o660, device=(259, 70_000)),
    Member(b"pipe", tarfile.FIFOTYPE, mode=0o600),
    file(b"attributes", b"x", xattrs={"user.colour": "blue", "trusted.k": "v", "user.empty": ""}),
    folder(b"attributes.d", xattrs={"user.of": "folder"}),
    *[file(b"many/%04d" % count, b"%d" % count) for count in range(1500)],
)
_OVER = layer(
    whiteout(b"etc/shadow"),
    whiteout(b"link"),
    opaque(b"deep"),
    file(b"deep/new", b"new"),
    folder(b"many", mode=0o700),
    hardlink(b"second", b"large"),
    file(b"etc/empty", b"no more"),
    folder(b"link"),
    file(b"link/inside", b"a folder now"),
)
_STACKS = {
    "nothing": [layer(folder(b""))],
    "base": [_BASE],
    "over": [_BASE, _OVER],
    "twice": [_BASE, _OVER, _BASE],
    "implied": [layer(file(b"a/b", b"c"))],
}


@pytest.mark.parametrize("name", _STACKS)
def test_everything_is_as_in_the_view(mounter: Mounter, name: str) -> None:
    diff_ids = mounter.push(*_STACKS[name])
    with mounter.view(diff_ids) as mount, mounter.store.view(diff_ids) as view:
        _check_directory(mount.target, view.stat(""), view)
        inodes: dict[int, set[tuple[int, int]]] = defaultdict(set)
        names = 0
        for node in view.nodes():
            names += 1
            path = mount.target / os.fsdecode(node.path)
            _check_node(path, node, view)
            inodes[path.lstat().st_ino].add(node.inode)
        assert all(len(nodes) == 1 for nodes in inodes.values())
        assert len(inodes) == len({node.inode for node in view.nodes()})
        assert names == sum(1 for _ in mount.target.rglob("*"))


def _check_node(path: Path, node: Node, view: View) -> None:
    status = path.lstat()
    assert status.st_mode == _FORMATS[node.kind] | node.mode
    assert (status.st_uid, status.st_gid) == (node.uid, node.gid)
    assert status.st_mtime_ns == node.mtime_ns
    assert status.st_nlink == node.links
    assert status.st_size == (len(node.link_target) if node.is_symlink else node.size)
    expected = dict(node.xattrs)
    assert {
        name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
    } == {name.decode(): value for name, value in expected.items()}
    if node.is_dir:
        _check_directory(path, node, view)
    elif node.is_file:
        assert path.read_bytes() == view.read_bytes(node.path)
    elif node.is_symlink:
        assert os.fsencode(path.readlink()) == node.link_target
    elif node.kind is not EntryKind.FIFO:
        assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == node.device


def _check_directory(path: Path, node: Node, view: View) -> None:
    assert sorted(os.fsencode(one.name) for one in path.iterdir()) == view.listdir(node.path)


def test_nothing_can_be_written(mounter: Mounter) -> None:
    with mounter.view(mounter.push(_BASE)) as mount:
        for attempt in (
            lambda: (mount.target / "new").write_bytes(b""),
            lambda: (mount.target / "etc/passwd").unlink(),
            lambda: (mount.target / "etc/passwd").chmod(0o600),
        ):
            with pytest.raises(OSError, match="Read-only") as refused:
                attempt()
            assert refused.value.errno == errno.EROFS


def test_what_is_not_there_is_asked_for_once(mounter: Mounter) -> None:
    with mounter.view(mounter.push(_BASE)) as mount:
        missing = mount.target / "etc" / "missing"
        assert not missing.exists()
        assert is_answered_by_the_kernel(missing.exists, "lookup")


def test_orders_to_an_overlay_above_are_not_shown(mounter: Mounter) -> None:
    xattrs = {"trusted.overlay.opaque": "y", "user.overlay.redirect": "/etc", "user.kept": "1"}
    with mounter.view(mounter.push(layer(folder(b"d", xattrs=xattrs), file(b"f", xattrs=xattrs)))) as mount:
        for path in (mount.target / "d", mount.target / "f"):
            assert os.listxattr(path) == ["user.kept"]
            with pytest.raises(OSError, match="No data"):
                os.getxattr(path, "trusted.overlay.opaque")


def test_images_share_inodes_and_the_page_cache(mounter: Mounter) -> None:
    base, over, other = mounter.push(_BASE, _OVER, layer(file(b"other", b"1")))
    with mounter.view([base, over], "one") as one, mounter.view([base, other], "two") as two:
        assert (one.target / "etc/passwd").stat().st_dev == (two.target / "etc/passwd").stat().st_dev
        # Of what has as many names in both.
        shared = ("bin/su", "null", "attributes", "many/0007")
        assert all((one.target / name).lstat().st_ino == (two.target / name).lstat().st_ino for name in shared)
        # "large" has a second name in the first image, so it is another file there.
        assert (one.target / "large").stat().st_nlink == 2
        assert (two.target / "large").stat().st_nlink == 1
        assert (one.target / "large").stat().st_ino != (two.target / "large").stat().st_ino
        for name in ("bin/su", "attributes", "many/0007", "bin/wall"):
            assert (one.target / name).read_bytes()
            before = statistics()["requests"]["read"]
            assert (two.target / name).read_bytes()
            if statistics()["requests"]["read"] == before:
                break
        else:
            pytest.fail("what was read in one image is read again in the other")


def test_what_was_read_is_kept_while_another_image_is_mounted(mounter: Mounter) -> None:
    base, over = mounter.push(_BASE, _OVER)
    with mounter.view([base, over], "one"):
        with mounter.view([base], "two") as two:
            assert (two.target / "large").read_bytes() == _LARGE

        def mount_again() -> None:
            with mounter.view([base], "two") as two:
                assert (two.target / "large").read_bytes() == _LARGE

        assert is_answered_by_the_kernel(mount_again, "read")


def test_nothing_is_opened(mounter: Mounter) -> None:
    with mounter.view(mounter.push(_BASE)) as mount:
        for _ in range(3):
            for path in sorted(mount.target.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    path.read_bytes()
        requests = statistics()["requests"]
        assert requests["open"] == requests["opendir"] == 1
        assert is_answered_by_the_kernel(lambda: (mount.target / "large").read_bytes(), "read", "open")
        assert is_answered_by_the_kernel(lambda: list(mount.target.rglob("*")), "readdirplus", "opendir", "lookup")


def _sparse_tar(tmp_path: Path, *options: str) -> bytes:
    source = tmp_path / "sparse"
    with source.open("wb") as opened:
        opened.truncate(1 << 20)
        opened.seek(1 << 18)
        opened.write(b"d" * 4096)
    done = subprocess.run(
        ["tar", "-C", str(tmp_path), "--sparse", *options, "-cf", "-", "sparse"], capture_output=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("form", [("--format=gnu",), ("--format=pax",), ("--format=pax", "--sparse-version=0.1")])
def test_holes_are_holes(mounter: Mounter, tmp_path: Path, form: tuple[str, ...]) -> None:
    with mounter.view(mounter.push(_sparse_tar(tmp_path, *form))) as mount:
        path = mount.target / "sparse"
        assert path.stat().st_size == 1 << 20
        assert path.stat().st_blocks * 512 < 1 << 18
        assert path.read_bytes() == (tmp_path / "sparse").read_bytes()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            data = os.lseek(descriptor, 0, os.SEEK_DATA)
            assert data == 1 << 18
            hole = os.lseek(descriptor, data, os.SEEK_HOLE)
            assert data < hole <= data + (1 << 16)
            with pytest.raises(OSError, match="No such device"):
                os.lseek(descriptor, hole, os.SEEK_DATA)
            assert os.lseek(descriptor, 100, os.SEEK_HOLE) == 100
        finally:
            os.close(descriptor)


def test_damage_is_an_error_of_input_and_in_the_log(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(layer(file(b"whole", b"1"), file(b"large", _LARGE)))
    with mounter.view(diff_ids) as mount:
        for pack in (mounter.store.path / "packs").iterdir():
            pack.write_bytes(bytes(pack.stat().st_size))
        with pytest.raises(OSError, match="Input/output") as refused:
            (mount.target / "large").read_bytes()
        assert refused.value.errno == errno.EIO
        (log,) = runtime.glob("*/log")
        assert "damaged" in log.read_text()


def test_a_layer_stays_as_long_as_it_is_mounted(mounter: Mounter) -> None:
    (diff_id,) = mounter.push(layer(file(b"large", _LARGE)))
    with mounter.view([diff_id]) as mount:
        mounter.store.release_layer(diff_id)
        mounter.store.collect_garbage()
        assert (mount.target / "large").read_bytes() == _LARGE


def test_a_stack_that_nobody_could_unpack_is_told(mounter: Mounter) -> None:
    diff_ids = mounter.push(layer(hardlink(b"a", b"nothing")))
    with pytest.raises(Exception, match="hard link") as refused:
        mounter.view(diff_ids)
    assert type(refused.value).__name__ == "InvalidInputError"


def test_a_layer_that_is_not_there_is_told(mounter: Mounter) -> None:
    target = mounter.folder("view")
    missing = Digest.of(b"missing")
    with pytest.raises(LookupError, match="no layer"):
        mount_view(mounter.store.path, mounter.store.config.store_id, [missing], target)


def test_set_uid_bits_and_devices_of_an_image_do_nothing(mounter: Mounter) -> None:
    """An image is from anybody, and the directory may be open to every user."""
    with mounter.view(mounter.push(_BASE)) as mount:
        flags = os.statvfs(mount.target).f_flag
    assert flags & os.ST_NOSUID and flags & os.ST_NODEV and flags & os.ST_RDONLY
