"""Servers begin and end with what is mounted, whoever unmounts it and however they die."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mounting_servers import Mounter, kill_server, mounted, servers, statistics, wait_until
from union_samples import file, folder, layer

from layerstore import Store
from layerstore.errors import (
    AlreadyMountedError,
    ConflictError,
    InvalidInputError,
    MountBusyError,
    MountTargetError,
    MountUnavailableError,
    NotFoundError,
    NotMountedError,
    UnavailableError,
)
from layerstore.mounting import attaching, client
from layerstore.mounting.client import MountInfo, mount_view, unmount
from layerstore.mounting.mount_table import mount_at, read_mounts

_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_LARGE = bytes(range(251)) * 20_000
_FILES = layer(folder(b"etc"), file(b"etc/name", b"one\n"))


def test_one_server_serves_all_images_and_ends_with_the_last(mounter: Mounter, runtime: Path) -> None:
    one, two = mounter.push(_FILES, layer(file(b"more", b"2")))
    with mounter.view([one], "one") as first:
        (process,) = servers(runtime)
        with mounter.view([one, two], "two"), mounter.view([one], "three"):
            assert servers(runtime) == [process]
            assert statistics()["views"] == 2  # the same stack is one view
        assert (first.target / "etc/name").read_text() == "one\n"
        assert statistics()["views"] == 1
    wait_until(lambda: not servers(runtime), "the server has not ended")
    assert not list((first.target).iterdir())


def test_plain_umount_ends_the_server(mounter: Mounter, runtime: Path) -> None:
    mount = mounter.view(mounter.push(_FILES))
    assert servers(runtime)
    subprocess.run(["umount", mount.target], check=True)
    wait_until(lambda: not servers(runtime), "the server has not ended")
    with mounter.view(mounter.push(_FILES)) as again:
        assert (again.target / "etc/name").read_text() == "one\n"


def test_the_server_is_nobodys_child_and_keeps_no_directory_busy(mounter: Mounter, runtime: Path) -> None:
    with mounter.view(mounter.push(_FILES)):
        (process,) = servers(runtime)
        assert os.getsid(process) != os.getsid(0)
        assert Path(f"/proc/{process}/cwd").readlink() == Path("/")
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def test_a_dead_server_is_cleaned_up_by_umount(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(_FILES)
    mount = mounter.view(diff_ids)
    kill_server(runtime)
    with pytest.raises(OSError, match="not connected") as refused:
        os.listdir(mount.target)  # noqa: PTH208  # iterdir is lazy
    assert refused.value.errno == errno.ENOTCONN
    assert mounted(mounter.place) == [MountInfo(mount.target, False, None, ())]
    mount.unmount()
    assert mounted(mounter.place) == []
    assert not [one for one in read_mounts() if one.target.is_relative_to(runtime)]
    with mounter.view(diff_ids) as again:
        assert (again.target / "etc/name").read_text() == "one\n"


def test_a_dead_server_is_cleaned_up_by_the_next_mount(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(_FILES)
    mounter.view(diff_ids, "one")
    other = mounter.view(diff_ids, "two")
    kill_server(runtime)
    with mounter.view(diff_ids, "one") as again:
        assert (again.target / "etc/name").read_text() == "one\n"
        # The new server has also taken away what was left at other places.
        assert mount_at(other.target) is None
        assert len(servers(runtime)) == 1


_RACER = """
import sys
from pathlib import Path
from layerstore import Digest
from layerstore.mounting.client import mount_view
store, store_id, diff_id, folder, rounds = sys.argv[1:]
for _ in range(int(rounds)):
    with mount_view(Path(store), store_id, [Digest(diff_id)], Path(folder)) as mount:
        assert (mount.target / "etc/name").read_text() == "one\\n"
"""


def test_processes_that_mount_at_the_same_time_share_a_server(mounter: Mounter, runtime: Path) -> None:
    (diff_id,) = mounter.push(_FILES)
    command = [sys.executable, "-c", _RACER, mounter.store.path, mounter.store.config.store_id, diff_id]
    running = [
        subprocess.Popen([*command, mounter.folder(str(count)), "5"], stderr=subprocess.PIPE, text=True)
        for count in range(4)
    ]
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    wait_until(lambda: not servers(runtime), "a server has not ended")
    assert mounted(mounter.place) == []


def test_processes_that_mount_at_the_same_place_exclude_each_other(mounter: Mounter) -> None:
    (diff_id,) = mounter.push(_FILES)
    target = mounter.folder("place")
    command = [sys.executable, "-c", _RACER.replace("with mount_view", "if mount_view").replace(" as mount", "")]
    command[2] = command[2].replace("        assert (mount.target", "        assert (Path(folder)")
    arguments = [str(mounter.store.path), mounter.store.config.store_id, diff_id, str(target), "1"]
    running = [
        subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(4)
    ]
    told = [process.communicate(timeout=120)[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 1, 1, 1], told
    assert sum("AlreadyMountedError" in one for one in told) == 3
    assert [one.target for one in mounted(mounter.place)] == [target]


def test_a_client_that_dies_before_it_mounts_leaves_no_server(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(_FILES)
    folder = client.RuntimeFolder.of_store(mounter.store.path, mounter.store.config.store_id)
    message = {"do": "show", "layers": [str(one) for one in diff_ids]}
    connection, answer = client.connect(folder, mounter.store.path, message)
    assert (Path(answer["path"]) / "etc/name").read_text() == "one\n"
    assert servers(runtime)
    connection.close()
    wait_until(lambda: not servers(runtime), "the server has not ended")


def test_two_stores_have_two_servers(mounter: Mounter, runtime: Path, tmp_path: Path) -> None:
    with Store.create(tmp_path / "other") as store:
        other = store.push_layer(_FILES).layer.diff_id
        with (
            mounter.view(mounter.push(_FILES), "one"),
            mount_view(store.path, store.config.store_id, [other], mounter.folder("two")) as two,
        ):
            assert len(servers(runtime)) == 2
            assert {one.store for one in mounted(mounter.place)} == {mounter.store.path, store.path}
            assert (two.target / "etc/name").read_text() == "one\n"


def test_what_is_mounted_is_listed(mounter: Mounter) -> None:
    one, two = mounter.push(_FILES, layer(file(b"more", b"2")))
    assert mounted(mounter.place) == []
    with mounter.view([one, two], "a b") as first, mounter.view([one], "ü") as second:
        assert mounted(mounter.place) == [
            MountInfo(first.target, False, mounter.store.path, (one, two)),
            MountInfo(second.target, False, mounter.store.path, (one,)),
        ]
        assert mounted(mounter.place)[0].is_alive


def test_a_target_must_be_a_free_directory(mounter: Mounter, runtime: Path) -> None:
    diff_ids = mounter.push(_FILES)
    (mounter.place / "file").touch()
    for name, reason in (("file", "no directory"), ("missing/deeper", "No such file")):
        with pytest.raises(MountTargetError, match=reason) as wrong:
            mount_view(mounter.store.path, mounter.store.config.store_id, diff_ids, mounter.place / name)
        assert isinstance(wrong.value, InvalidInputError)
    with mounter.view(diff_ids):
        with pytest.raises(AlreadyMountedError, match="already") as taken:
            mounter.view(diff_ids)
        assert isinstance(taken.value, ConflictError)
    wait_until(lambda: not servers(runtime), "a server has not ended")


def test_a_target_may_be_relative_and_behind_a_link(mounter: Mounter, monkeypatch: pytest.MonkeyPatch) -> None:
    diff_ids = mounter.push(_FILES)
    mounter.folder("real")
    (mounter.place / "real" / "deeper").mkdir()
    (mounter.place / "link").symlink_to("real")
    monkeypatch.chdir(mounter.place)
    store = mounter.store
    with mount_view(store.path, store.config.store_id, diff_ids, Path("link/deeper")) as mount:
        assert mount.target == mounter.place / "real/deeper"
        assert Path("real/deeper/etc/name").read_text() == "one\n"
        unmount(Path("link/../link/deeper"))
        mount_view(store.path, store.config.store_id, diff_ids, Path("link/deeper"))


@pytest.mark.parametrize("is_last", [True, False])
def test_what_is_in_use_is_unmounted_only_lazily(mounter: Mounter, runtime: Path, is_last: bool) -> None:
    other, *diff_ids = mounter.push(layer(file(b"other")), layer(file(b"large", _LARGE), file(b"more", _LARGE)))
    mount = mounter.view(diff_ids)
    if not is_last:
        mounter.view([other], "other")
    with (mount.target / "large").open("rb") as opened:
        with pytest.raises(MountBusyError, match="in use") as busy:
            mount.unmount()
        assert isinstance(busy.value, ConflictError)
        mount.unmount(lazy=True)
        assert mount_at(mount.target) is None
        with mounter.view(diff_ids) as again:
            assert (again.target / "more").read_bytes() == _LARGE
        assert opened.read() == _LARGE  # whoever uses it goes on to do so
    if is_last:
        wait_until(lambda: not servers(runtime), "the server has not ended")


def test_an_open_file_outlives_a_plain_lazy_umount(mounter: Mounter, runtime: Path) -> None:
    mount = mounter.view(mounter.push(layer(file(b"large", _LARGE))))
    with (mount.target / "large").open("rb") as opened:
        subprocess.run(["umount", "-l", mount.target], check=True)
        assert opened.read() == _LARGE
    wait_until(lambda: not servers(runtime), "the server has not ended")


def test_nothing_but_ours_is_unmounted(mounter: Mounter) -> None:
    target = mounter.folder("target")
    for path in (target, Path("/proc"), mounter.place / "missing"):
        with pytest.raises(NotMountedError, match="nothing") as refused:
            unmount(path)
        assert isinstance(refused.value, NotFoundError)
    assert Path("/proc/self").exists()


def test_another_user_is_not_answered(mounter: Mounter, runtime: Path) -> None:
    with mounter.view(mounter.push(_FILES)):
        (folder,) = (path for path in runtime.iterdir() if (path / "socket").exists())
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "socket").stat().st_mode & 0o777 == 0o600
        folder.chmod(0o777)
        (folder / "socket").chmod(0o777)
        ask = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'{}\\n')\n"
        ask += "try: print(s.recv(100))\nexcept ConnectionError: print(b'')"
        done = subprocess.run(
            [*_AS_NOBODY, "/usr/bin/python3", "-c", ask, str(folder / "socket")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout in ("b''\n", ""), done.stderr
        assert done.stdout or "BrokenPipe" in done.stderr


def test_a_system_without_fuse_is_told_what_to_do(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    diff_id = store.push_layer(_FILES).layer.diff_id
    monkeypatch.setattr(attaching, "_DEVICE", tmp_path / "fuse")
    with pytest.raises(MountUnavailableError, match="modprobe fuse") as refused:
        mount_view(store.path, store.config.store_id, [diff_id], place)
    assert isinstance(refused.value, UnavailableError)


def test_a_user_without_fusermount_is_told_what_to_do(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no /dev/fuse")
    diff_id = store.push_layer(_FILES).layer.diff_id
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MountUnavailableError, match="apt install fuse3"):
        mount_view(store.path, store.config.store_id, [diff_id], place)


def test_a_server_that_cannot_start_tells_why(mounter: Mounter) -> None:
    diff_ids = mounter.push(_FILES)
    store = mounter.store
    config = store.path / "layerstore.json"
    config.write_bytes(config.read_bytes().replace(b'"format_version": 2', b'"format_version": 99'))
    with pytest.raises(UnavailableError, match="format 99"):
        mount_view(store.path, store.config.store_id, diff_ids, mounter.folder("target"))


def test_a_path_too_long_for_a_socket_is_told(
    mounter: Mounter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAYERSTORE_RUNTIME_DIR", str(tmp_path / ("x" * 90)))
    with pytest.raises(MountUnavailableError, match="too long"):
        mounter.view(mounter.push(_FILES))
