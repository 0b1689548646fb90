"""Two or more processes in a particular order, one of them dead in some tests."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from concurrency_children import big_layer
from crash_model import assert_clean, assert_disk_is_index, assert_nothing_left_behind, assert_stored_once, pull
from crash_scenarios import LAYERS, NAMES
from samples import noise, packs_on_disk

from layerstore import Store
from layerstore.errors import LayerNotFoundError, StoreClosedError
from layerstore.storage.gate import Gate

CHILDREN = Path(__file__).with_name("concurrency_children.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with small frames and packs, closed."""
    Store.create(tmp_path / "store", frame_size=1 << 14, pack_size_max=1 << 17, trash_ttl=0).close()
    return tmp_path / "store"


class Child:
    """A process that runs a function of `concurrency_children`."""

    def __init__(self, name: str, *arguments: object) -> None:
        command = [sys.executable, str(CHILDREN), name, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def finish(self, status: int = 0) -> str:
        """Let it go on to its end; what it printed."""
        output, _ = self.process.communicate("go\n", timeout=120)
        assert self.process.returncode == status
        return output.strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def in_time(seconds: float) -> Iterator[None]:
    """Nothing was waited for."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def test_distribution_2077_two_pushes_at_once(path: Path) -> None:
    """distribution#2077: pushes of the same content at once all succeed, and it is stored once. Here, of eight."""
    children = [Child("push_big", path) for _ in range(8)]
    for child in children:
        child.wait_ready()
    for child in children:
        assert child.process.stdin is not None
        child.process.stdin.write("go\n")
        child.process.stdin.flush()
    digests = {child.finish() for child in children}
    assert len(digests) == 1
    with Store.open(path) as store:
        assert pull(store, digests.pop()) == big_layer()
        assert_clean(store)
        assert_stored_once(store)
        store.collect_garbage()
        together = packs_on_disk(store)
        assert_disk_is_index(store)
        assert_nothing_left_behind(store)
    with Store.create(path.with_name("alone"), frame_size=1 << 14, pack_size_max=1 << 17) as store:
        store.push_layer(big_layer())
        alone = packs_on_disk(store)
    # Below the share of dead bytes from which a pack is rewritten.
    assert together < 1.34 * alone


def test_quay_6318_collection_between_push_and_image(path: Path) -> None:
    """quay#6318: a layer that another process pushed survives collections until that process makes its image."""
    child = Child("push_and_stay", path)
    child.wait_ready()
    with Store.open(path) as store:
        for _ in range(3):
            assert store.collect_garbage().layers == 0
        image = child.finish()
        store.collect_garbage()
        assert [str(layer.diff_id) for layer in store.images[image].layers] == [NAMES["base"]]
        assert pull(store, NAMES["base"]) == LAYERS["base"]


def test_quay_6318_another_image_comes_and_goes_meanwhile(path: Path) -> None:
    """quay#6318: nor does it help to take the layer into another image, and to delete that one."""
    child = Child("push_and_stay", path)
    child.wait_ready()
    with Store.open(path) as store:
        other = store.create_image([NAMES["base"]], author="another")
        store.delete_image(other, ttl=0)
        store.collect_garbage()
        image = child.finish()
        assert pull(store, store.images[image].layers[0].diff_id) == LAYERS["base"]


def test_a_new_session_pushes_while_an_image_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold that is younger than the look at the living sessions is not taken for one of a dead session."""
    from layerstore.operations import images  # noqa: PLC0415 - patched below

    real = images._append_missing
    children: list[Child] = []

    def push_meanwhile(*arguments):
        child = Child("push_and_stay", path)
        child.wait_ready()
        children.append(child)
        return real(*arguments)

    with Store.open(path) as store:
        store.push_layer(LAYERS["base"])
        monkeypatch.setattr(images, "_append_missing", push_meanwhile)
        image = store.create_image([NAMES["base"]], author="another")
        monkeypatch.undo()
        store.delete_image(image, ttl=0)
        store.collect_garbage()
        assert pull(store, NAMES["base"]) == LAYERS["base"]
        children[0].finish()


def test_a_lease_outlives_its_process(path: Path) -> None:
    """What was pushed under a dated lease stays, though its process is dead."""
    Child("push_under_lease_and_die", path).finish(-9)
    with Store.open(path) as store:
        store.collect_garbage()
        assert pull(store, NAMES["base"]) == LAYERS["base"]
        assert_nothing_left_behind(store)


def test_zot_2598_abandoned_upload_is_collected(path: Path) -> None:
    """zot#2598: what a push left that died half way is collected, to the last byte."""
    Child("die_in_the_middle_of_a_push", path).finish(-9)
    with Store.open(path) as store:
        assert packs_on_disk(store) > 100_000
        plan = store.plan_collection()
        before = packs_on_disk(store)
        report = store.collect_garbage(plan)
        assert report.bytes_freed == plan.bytes_freed
        assert packs_on_disk(store) == 0 and before > 100_000
        assert_clean(store)
        assert_nothing_left_behind(store)


def test_pull_during_deletion_and_collection(path: Path) -> None:
    """A pull that has begun comes to its end, whatever is deleted and collected meanwhile."""
    with Store.open(path) as store, Store.open(path) as other:
        pushed = store.push_layer(big_layer())
        image = store.create_image([pushed.layer], tag="a:1")
        blocks = pushed.layer.blocks()
        got = [next(blocks)]
        with store.open_layer(pushed.layer) as file:
            other.delete_image(image.digest, ttl=0)
            report = other.collect_garbage()
            assert (report.layers, report.postponed) == (1, 1)
            with pytest.raises(LayerNotFoundError):
                other.open_layer(pushed.layer.diff_id)
            store._opened.frames.clear()
            got += blocks
            assert b"".join(got) == big_layer()
            assert file.read() + b"".join(iter(lambda: file.read(1 << 20), b"")) == big_layer()
        other.collect_garbage()
        assert packs_on_disk(other) == 0
        assert_clean(other)


def test_pull_during_rewriting(path: Path) -> None:
    """Frames that collection moves under a reader are found again."""
    with Store.open(path) as store, Store.open(path) as other:
        keep = store.push_layer(LAYERS["app"])
        drop = store.push_layer(LAYERS["wide"])
        store.create_image([keep.layer], tag="a:1")
        with store.open_layer(keep.layer) as file:
            first = file.read(10)
            store.release_layer(drop.layer)
            assert other.collect_garbage().packs_rewritten
            store._opened.frames.clear()
            rest = b"".join(iter(lambda: file.read(1 << 20), b""))
        assert first + rest == LAYERS["app"]


def test_collected_bytes_are_given_back_though_packs_were_open(path: Path) -> None:
    """distribution#2212: a process that has read from a pack does not keep its bytes on the disk once it is gone."""
    with Store.open(path) as store:
        pushed = store.push_layer(LAYERS["wide"])
        pull(store, NAMES["wide"])
        store.release_layer(pushed.layer)
        store.collect_garbage()
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert not [link for link in links if str(path) in str(link) and str(link).endswith("(deleted)")]


def test_killed_reader_blocks_nothing(path: Path) -> None:
    """A process that dies with a read transaction, a lease and open packs leaves nothing that blocks, or that grows."""
    with Store.open(path) as store:
        store.push_layer(LAYERS["base"])
        child = Child("read_until_killed", path)
        child.wait_ready()
        store.release_layer(NAMES["base"])
        assert store.collect_garbage().postponed == 1
        child.kill()
        store.collect_garbage()
        assert packs_on_disk(store) == 0
        assert_nothing_left_behind(store)
        # Pages that only the dead one could see are used again: the index does not grow without end.
        index = path / "index" / "data.mdb"
        sizes = []
        for _ in range(30):
            for number in range(3):
                store.lease(100 + number).end()
            sizes.append(index.stat().st_size)
        assert sizes[-1] == sizes[10]


def test_dead_holder_of_the_writer_lock_blocks_nobody(path: Path) -> None:
    """LMDB's lock comes free with the process, and what it had changed is undone."""
    with Store.open(path) as store:
        store.push_layer(LAYERS["base"])
        Child("die_holding_the_writer_lock", path).finish(-9)
        with in_time(5):
            store.push_layer(LAYERS["app"])
        with store._opened.index.read() as transaction:
            assert transaction.meta.get("never") is None
        assert_clean(store)


def test_dead_collector_blocks_nobody(path: Path) -> None:
    """Collection's lock comes free with its process."""
    child = Child("collect_until_told", path)
    child.wait_ready()
    with Store.open(path) as store:
        waiting = threading.Thread(target=store.collect_garbage)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        with in_time(5):
            store.push_layer(LAYERS["base"])  # others are not held up
        child.kill()
        waiting.join(10)
        assert not waiting.is_alive()


def test_opened_twice_in_one_process(path: Path) -> None:
    """Two stores on one folder work side by side, and the first to close does not close the other."""
    with Store.open(path) as one:
        two = Store.open(path)
        pushed = one.push_layer(LAYERS["base"])
        assert pull(two, pushed.layer.diff_id) == LAYERS["base"]
        assert two.push_layer(LAYERS["base"]).already_present
        reader = Store.open(path, read_only=True)
        assert pull(reader, pushed.layer.diff_id) == LAYERS["base"]
        reader.close()
        two.close()
        with pytest.raises(StoreClosedError):
            list(two.layers)
        with pytest.raises(StoreClosedError):
            two.push_layer(b"x")
        one.push_layer(LAYERS["app"])
        assert_clean(one)


def test_threads_share_a_store(path: Path) -> None:
    """Pushes, pulls and a collection in threads of one store."""
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(4):
                data = noise(50_000, seed * turn % 5)
                layer = store.push_layer(data).layer
                buffer = io.BytesIO()
                store.pull_layer(layer, buffer)
                assert buffer.getvalue() == data
                store.collect_garbage()
        except BaseException as error:
            errors.append(error)

    with Store.open(path) as store:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors
        assert_clean(store)
        assert_stored_once(store)


@pytest.mark.parametrize("name", ["use_after_fork", "fork_during_a_push"])
def test_fork(name: str, path: Path) -> None:
    """A store is refused after a fork, with a clear error, and nothing hangs; the parent's goes on."""
    Child(name, path).finish()
    with Store.open(path) as store:
        store.collect_garbage()
        assert_clean(store)
        assert_nothing_left_behind(store)


def test_threads_that_all_find_the_map_grown() -> None:
    """Each must wait for the transactions of the others, but not for others that wait like itself."""
    gate = Gate()
    all_inside = threading.Barrier(4)
    done: list[int] = []

    def begin() -> None:
        with gate.shared():
            all_inside.wait(5)
            with gate.upgraded():
                done.append(1)

    threads = [threading.Thread(target=begin, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(done) == 4
