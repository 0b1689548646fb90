"""A container is an overlay over a view. Its lock lives as long as it is mounted."""

import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest
from mounting_servers import Mounter, is_answered_by_the_kernel, kill_server, lock_file, mounted, servers, wait_until
from union_samples import file, folder, layer, symlink

from layerstore.errors import ContainerInUseError, MountUnavailableError
from layerstore.mounting.client import MountInfo, mount_container

_FILES = layer(
    folder(b"etc"),
    file(b"etc/name", b"one\n", uid=5),
    file(b"gone", b"1"),
    folder(b"dir"),
    file(b"dir/a", b"a"),
    symlink(b"link", b"etc/name"),
    file(b"bin/su", b"#!", mode=0o4755),
)


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_changes_go_to_the_upper_folder(mounter: Mounter) -> None:
    diff_ids = mounter.push(_FILES)
    upper = mounter.upper()
    with mounter.container(diff_ids) as mount:
        assert (mount.target / "etc/name").read_text() == "one\n"
        with (mount.target / "etc/name").open("a") as opened:
            opened.write("two\n")
        (mount.target / "gone").unlink()
        (mount.target / "new").write_text("new")
        for path in (mount.target / "dir").iterdir():
            path.unlink()
        (mount.target / "dir").rmdir()
        (mount.target / "dir").mkdir()
        assert (mount.target / "link").read_text() == "one\ntwo\n"
        with pytest.raises(OSError, match="cross-device"):
            (mount.target / "etc").rename(mount.target / "other")  # it would need a redirect
    assert (upper / "etc/name").read_text() == "one\ntwo\n"
    assert (upper / "etc/name").stat().st_uid == 5
    gone = (upper / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(upper / "dir", "trusted.overlay.opaque") == b"y"
    with mounter.container(diff_ids) as mount:
        assert sorted(path.name for path in mount.target.iterdir()) == ["bin", "dir", "etc", "link", "new"]
        assert not list((mount.target / "dir").iterdir())


def test_a_user_may_own_the_attributes(mounter: Mounter) -> None:
    with mounter.container(mounter.push(_FILES), user_xattrs=True) as mount:
        (mount.target / "dir/a").unlink()
        (mount.target / "dir").rmdir()
        (mount.target / "dir").mkdir()
    assert os.getxattr(mounter.upper() / "dir", "user.overlay.opaque") == b"y"


def test_programs_may_change_their_user(mounter: Mounter) -> None:
    with mounter.container(mounter.push(_FILES)) as mount:
        flags = os.statvfs(mount.target).f_flag
        assert flags & os.ST_NOSUID and flags & os.ST_NODEV
        assert (mount.target / "bin/su").stat().st_mode & stat.S_ISUID


def test_the_lock_lives_as_long_as_the_mount(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(_FILES)
    lock = mounter.place / "container.d" / "lock"
    with mounter.container(diff_ids) as mount:
        assert _is_locked(lock)
        folder = mounter.place / "container.d"
        other = mounter.folder("other")
        for work in ("work", "work2"):
            (folder / work).mkdir(exist_ok=True)
            with pytest.raises(ContainerInUseError, match="is mounted"):
                mount_container(
                    mounter.store.path,
                    mounter.store.config.store_id,
                    diff_ids,
                    other,
                    upper=folder / "upper",
                    work=folder / work,
                    lock=lock,
                    user_xattrs=False,
                )
        mount.unmount()
        assert not _is_locked(lock)  # at once, so that a commit may follow
        mount = mounter.container(diff_ids)
        assert _is_locked(lock)
        subprocess.run(["umount", mount.target], check=True)
        wait_until(lambda: not _is_locked(lock), "the lock is still held")
        mounter.container(diff_ids)
    wait_until(lambda: not servers(runtime), "the server has not ended")


def test_a_container_that_someone_else_has_is_refused(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(_FILES)
    with mounter.container(diff_ids):
        pass
    with (mounter.place / "container.d" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ContainerInUseError):
            mounter.container(diff_ids)
        wait_until(lambda: not servers(runtime), "the server has not ended")
    with mounter.container(diff_ids):
        pass


def test_a_container_whose_server_died_is_mounted_anew(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(_FILES)
    mount = mounter.container(diff_ids)
    (mount.target / "new").write_text("kept")
    kill_server(runtime)
    assert not _is_locked(mounter.place / "container.d" / "lock")
    assert [(one.target, one.is_container, one.is_alive) for one in mounted(mounter.place)] == [
        (mount.target, True, False)
    ]
    with mounter.container(diff_ids) as again:
        assert (again.target / "new").read_text() == "kept"
        assert (again.target / "etc/name").read_text() == "one\n"
        kill_server(runtime)
        again.unmount()
        assert mounted(mounter.place) == []
        mounter.container(diff_ids)


def test_containers_and_images_share_what_was_read(mounter: Mounter) -> None:
    diff_ids = mounter.push(_FILES)
    with mounter.view(diff_ids) as view, mounter.container(diff_ids, "one") as one:
        assert (view.target / "etc/name").read_text() == "one\n"

        def read_in_containers() -> None:
            with mounter.container(diff_ids, "two") as two:
                assert (one.target / "etc/name").read_text() == (two.target / "etc/name").read_text() == "one\n"

        assert is_answered_by_the_kernel(read_in_containers, "read")
        assert mounted(mounter.place) == [
            MountInfo(one.target, True, mounter.store.path, tuple(diff_ids)),
            MountInfo(view.target, False, mounter.store.path, tuple(diff_ids)),
        ]


@pytest.mark.parametrize("name", ["a,b", "a:b", "a\\b", "a b\tc\n", "\\,:\\:", "ü"])
def test_paths_may_have_any_name(mounter: Mounter, runtime: Path, name: str) -> None:
    diff_ids = mounter.push(_FILES)
    with mounter.container(diff_ids, name) as mount:
        (mount.target / "new").write_text("new")
        assert _is_locked(mounter.place / f"{name}.d" / "lock")
        assert [one.target for one in mounted(mounter.place)] == [mount.target]
        with mounter.view(diff_ids):
            pass
        assert (mount.target / "new").read_text() == "new"
    assert (mounter.upper(name) / "new").read_text() == "new"
    wait_until(lambda: not servers(runtime), "the server has not ended")


def test_a_runtime_folder_may_have_any_name(mounter: Mounter, monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    monkeypatch.setenv("LAYERSTORE_RUNTIME_DIR", str(runtime / "a,b:c d\\e"))
    diff_ids = mounter.push(_FILES)
    with mounter.container(diff_ids) as mount:
        with mounter.view(diff_ids):
            pass
        assert [(one.target, one.is_alive) for one in mounted(mounter.place)] == [(mount.target, True)]


def test_a_work_folder_on_another_file_system_is_told(mounter: Mounter) -> None:
    target, upper = mounter.folder("target"), mounter.folder("upper")
    with pytest.raises(MountUnavailableError, match="cannot mount at"):
        mount_container(
            mounter.store.path,
            mounter.store.config.store_id,
            mounter.push(_FILES),
            target,
            upper=upper,
            work=Path("/dev/shm"),
            lock=lock_file(mounter.place),
            user_xattrs=False,
        )
    assert not _is_locked(mounter.place / "lock")
