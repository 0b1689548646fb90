"""A full disk, a disk that can only be read, a full index: a clear error of ours, and the store stays usable."""

import gzip
import io
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filled_store import CONTENTS, DIFF_IDS, fill
from samples import Pipe, assert_clean, make_tar, noise, packs_on_disk, pulled, sha256

from layerstore import Store
from layerstore.errors import (
    IndexFullError,
    LayerstoreError,
    NoSpaceError,
    ReadOnlyError,
    StorageError,
    UnavailableError,
)
from layerstore.storage import index as index_module

MOUNT_SIZE = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={MOUNT_SIZE}", "tmpfs", str(path)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root, and only where mounting is allowed, can have a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill_up(disk: Path) -> Path:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return filler


def assert_all_there(store: Store) -> None:
    for name, data in CONTENTS.items():
        assert pulled(store.layers[DIFF_IDS[name]]) == data
    assert sorted(store.tags) == ["shop:1.0", "shop:1.1", "shop:latest"]


def test_a_push_that_fills_the_disk(disk: Path) -> None:
    fill(disk / "store")
    with Store.open(disk / "store") as store:
        before = packs_on_disk(store)
        with pytest.raises(NoSpaceError, match="disk"):
            store.push_layer(noise(2 * MOUNT_SIZE))
        assert_all_there(store)
        assert_clean(store)
        store.collect_garbage()
        assert packs_on_disk(store) == store.stats().stored_bytes <= before + 4096
        assert pulled(store.push_layer(noise(100_000, 5)).layer) == noise(100_000, 5)
        assert_clean(store)


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "push": lambda store: store.push_layer(noise(50_000, 4)),
    "push of what is there": lambda store: store.push_layer(CONTENTS["base"]),
    "push from a compressed pipe": lambda store: store.push_layer(Pipe(gzip.compress(noise(50_000, 4)))),
    "image": lambda store: store.create_image([DIFF_IDS["base"]], tag="new:1"),
    "tag": lambda store: store.tags.__setitem__("new:2", store.tags["shop:1.0"]),
    "untag": lambda store: store.tags.__delitem__("shop:latest"),
    "delete": lambda store: store.delete_image("shop:1.1", ttl=0),
    "lease": lambda store: store.lease(60),
    "collect": lambda store: store.collect_garbage(),
    "repair": lambda store: store.repair(),
    "verify": lambda store: store.verify(),
    "stats": lambda store: store.stats(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_on_a_full_disk(disk: Path, operation: str) -> None:
    fill(disk / "store")
    with Store.open(disk / "store") as store:
        filler = fill_up(disk)
        tags = sorted(store.tags)
        for _ in range(3):
            try:
                OPERATIONS[operation](store)
            except NoSpaceError:
                assert sorted(store.tags) == tags
            except LayerstoreError as error:
                # Done a second time, what went well at first may be a conflict.
                assert not isinstance(error, UnavailableError), error
        for name, data in CONTENTS.items():
            if DIFF_IDS[name] in store.layers:
                assert pulled(store.layers[DIFF_IDS[name]]) == data
        filler.unlink()
        assert_clean(store)
        store.push_layer(b"after")
        store.create_image([sha256(b"after")], tag="after:1")
        store.collect_garbage()
        assert_clean(store)
    with Store.open(disk / "store") as store:
        assert_clean(store)
        assert pulled(store.images["after:1"].layers[0]) == b"after"


def test_a_store_cannot_be_made_on_a_full_disk_but_later(disk: Path) -> None:
    filler = fill_up(disk)
    with pytest.raises(NoSpaceError):
        Store.create(disk / "store")
    filler.unlink()
    with Store.create(disk / "store") as store:
        store.push_layer(b"x")


def test_a_pull_to_a_full_disk(store: Store, disk: Path) -> None:
    layer = store.push_layer(noise(2 * MOUNT_SIZE)).layer
    with pytest.raises(NoSpaceError, match="out"):
        layer.pull(disk / "out")
    assert list(disk.iterdir()) == []
    (disk / "out").write_bytes(b"as it was")
    with pytest.raises(NoSpaceError):
        layer.pull(disk / "out")
    assert [(path.name, path.read_bytes()) for path in disk.iterdir()] == [("out", b"as it was")]
    assert_clean(store)


CHANGES: dict[str, Callable[[Store], object]] = {
    **{name: change for name, change in OPERATIONS.items() if name not in ("verify", "stats")},
    "release": lambda store: store.release_layer(sha256(b"loose")),
    "undelete": lambda store: store.undelete_image("gone:1"),
    "prune": lambda store: store.prune(keep_last=1),
    "push of a tree": lambda store: store.push_tree(Path(__file__).parent),
}


def assert_only_read(path: Path, open_store: Callable[[], Store]) -> None:
    with open_store() as store:
        assert_all_there(store)
        assert_clean(store)
        before = store.stats()
        for name, change in CHANGES.items():
            with pytest.raises(ReadOnlyError):
                change(store)
                pytest.fail(f"{name} changed a store that can only be read")
        after = store.stats()
        assert (after.chunks, after.stored_bytes, after.images) == (before.chunks, before.stored_bytes, before.images)
        assert_all_there(store)


def fill_more(path: Path) -> None:
    fill(path)
    with Store.open(path) as store:
        store.push_layer(b"loose")
        store.create_image([store.push_layer(b"gone").layer], tag="gone:1")
        store.delete_image("gone:1")
        for number in range(2):
            store.create_image([store.push_layer(b"%d" % number).layer])


def test_a_store_that_is_opened_read_only(tmp_path: Path) -> None:
    fill_more(tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        for tag in list(store.tags):
            if tag == "gone:1":
                del store.tags[tag]
    assert_only_read(tmp_path / "store", lambda: Store.open(tmp_path / "store", read_only=True))


def test_a_disk_that_can_only_be_read(disk: Path) -> None:
    fill_more(disk / "store")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(ReadOnlyError):
        Store.open(disk / "store")
    assert_only_read(disk / "store", lambda: Store.open(disk / "store", read_only=True))
    with pytest.raises(ReadOnlyError):
        Store.create(disk / "other")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    with Store.open(disk / "store") as store:
        assert_all_there(store)
        assert_clean(store)
        store.push_layer(b"again")


def test_a_backup_from_a_disk_that_can_only_be_read(disk: Path, tmp_path: Path) -> None:
    fill(disk / "store")
    (disk / "store" / "registry").mkdir()
    with closing(sqlite3.connect(disk / "store" / "registry" / "links.sqlite")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE manifests (digest TEXT)")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    command = [sys.executable, "-m", "layerstore", "--store", str(disk / "store"), "backup", str(tmp_path / "copy")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with Store.open(tmp_path / "copy") as copy:
        assert_all_there(copy)
        assert_clean(copy)
    with closing(sqlite3.connect(tmp_path / "copy" / "registry" / "links.sqlite")) as database:
        assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("manifests",)]


UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable]
"""Python as root without root's power over other users' files: what may run Python here may stay what it is."""


@pytest.fixture
def of_another_user(tmp_path: Path) -> Path:
    """A store that belongs to somebody else and may be read, but not written."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("only root can make files of somebody else, and setpriv give up its power over them")
    path = tmp_path / "store"
    fill(path)
    for one in (path, *path.rglob("*")):
        os.chown(one, 65534, 65534)
        one.chmod(0o755 if one.is_dir() else 0o644)
    return path


def unprivileged(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [*UNPRIVILEGED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["images", "stats", "verify", "gc --dry-run", "tag new:1 shop:1.0"])
def test_a_store_that_this_user_may_only_read(of_another_user: Path, command: str) -> None:
    done = unprivileged("-m", "layerstore", "--store", of_another_user, *command.split())
    if command.startswith("tag"):
        assert done.returncode == 5 and "ermission" in done.stderr, done.stderr
    else:
        assert done.returncode == 0, done.stderr
    assert {one.stat().st_uid for one in of_another_user.rglob("*")} == {65534}


def test_a_backup_of_a_store_that_this_user_may_only_read(of_another_user: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for _ in range(2):
        done = unprivileged("-m", "layerstore", "--store", of_another_user, "backup", copy)
        assert done.returncode == 0, done.stderr
    with Store.open(copy) as store:
        assert_all_there(store)
        assert_clean(store)


READ_WITHOUT_LOCK = """
import sys
from pathlib import Path
from layerstore.errors import UnavailableError
from layerstore.storage.index import Index
index = Index(Path(sys.argv[1]), read_only=True)
def look():
    with index.read() as transaction:
        print(len(transaction.tags), flush=True)
        input()
        return len(transaction.tags)
for _ in range(3):
    try:
        print(look(), flush=True)
    except UnavailableError as error:
        print(error, flush=True)
"""


def test_a_read_without_lock_tells_when_it_may_be_a_mixture(of_another_user: Path) -> None:
    command = [*UNPRIVILEGED, "-c", READ_WITHOUT_LOCK, str(of_another_user / "index")]
    with (
        Store.open(of_another_user) as store,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        tags = 3
        for commits in (0, 1, 2):
            assert child.stdout.readline() == f"{tags}\n"
            for number in range(commits):
                store.tags[f"more:{commits}.{number}"] = store.tags["shop:1.0"]
            child.stdin.write("\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            assert answer == f"{tags}\n" if commits < 2 else "try again" in answer, answer
            tags += commits


LIMITED = """
import resource, sys
from layerstore import Store, LayerstoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
with Store.open(sys.argv[1]) as store:
    try:
        store.push_layer(bytes(range(256)) * 64 + __import__("random").Random(1).randbytes(3_000_000))
    except LayerstoreError as error:
        print(error.code)
    print(store.verify().is_clean)
"""


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    fill(tmp_path / "store")
    limit = 1 << 20
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            LIMITED.replace("store.push", "store.config; store.push"),
            str(tmp_path / "store"),
            str(limit),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["storage", "True"], ["True"])
    with Store.open(tmp_path / "store") as store:
        assert_all_there(store)
        assert_clean(store)


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited so on Linux alone")
def test_a_small_address_space(tmp_path: Path) -> None:
    """Under `ulimit -v` the index gets a smaller map, which is enough for small stores."""
    fill(tmp_path / "store")
    code = """
import sys
from layerstore import Store
with Store.open(sys.argv[1]) as store:
    store.push_layer(b"x")
    print(len(store.layers))
"""
    limit = 3 << 30
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.stdout.strip() == "4", done.stderr


@pytest.fixture
def small_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are opened with a map that is soon full."""
    real = index_module._open_environment
    monkeypatch.setattr(index_module, "_open_environment", lambda path, ro, _, **more: real(path, ro, 1 << 20, **more))


def test_a_full_index(tmp_path: Path, small_map: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.create(tmp_path / "store", frame_size=1 << 13) as store:
        first = store.push_layer(make_tar({"a": noise(100_000)})).layer
        store.create_image([first], tag="a:1")
        with monkeypatch.context() as patch:
            patch.setattr(index_module.Index, "_grow", lambda _: False)
            with pytest.raises(IndexFullError, match="largest map"):
                for number in range(200):
                    store.push_layer(make_tar({f"{i}": noise(100, 1000 * number + i) for i in range(400)}))
            assert pulled(first) == make_tar({"a": noise(100_000)})
            assert store.images["a:1"].layers == [first]
            assert_clean(store)
        # With a larger map, everything goes on.
        layer = store.push_layer(make_tar({f"{i}": noise(100, i) for i in range(3000)})).layer
        assert pulled(layer) == make_tar({f"{i}": noise(100, i) for i in range(3000)})
        for diff_id in store.layers:
            if diff_id != first.diff_id:
                store.release_layer(diff_id)
        store.collect_garbage()
        assert list(store.layers) == [first.diff_id]
        assert_clean(store)


def test_an_index_grows_while_it_is_read(tmp_path: Path, small_map: None) -> None:
    with Store.create(tmp_path / "store", frame_size=1 << 13) as store:
        layer = store.push_layer(noise(300_000)).layer
        with layer.open() as reader:
            for number in range(12):
                store.push_layer(make_tar({f"{i}": noise(90, 1000 * number + i) for i in range(500)}))
                reader.seek(1000 * number)
                assert reader.read(100) == noise(300_000)[1000 * number : 1000 * number + 100]
        assert (tmp_path / "store" / "index" / "data.mdb").stat().st_size > 1 << 20
        assert_clean(store)


def test_a_target_that_fails_keeps_its_own_error(store: Store) -> None:
    class Broken(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(5, "it broke")

    layer = store.push_layer(noise(5000)).layer
    with pytest.raises(OSError, match="it broke"):
        layer.pull(Broken())


def test_a_source_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield noise(3 << 20)
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        store.push_layer(blocks())
    assert len(store.layers) == 0
    store.collect_garbage()
    assert (store.stats().chunks, packs_on_disk(store)) == (0, store.stats().stored_bytes)
    assert_clean(store)
    with pytest.raises(StorageError):
        store.push_layer(tmp_path / "missing")
