"""Backups: incremental, of a store in use, and whole at every instant."""

import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import time

import pytest

from layerstore.digest import Digest
from layerstore.errors import ConflictError, ContentDamagedError, InvalidOptionError, StoreExistsError
from layerstore.operations import backup as backup_module
from layerstore.storage.leases import LiveLeases
from layerstore.storage.packs import PackScan, RecordKind
from layerstore.store import Store


def _tar(seed, files=10, size=8000):
    source = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"opt/{seed}/{number}")
            info.size = size
            tar.addfile(info, io.BytesIO(source.randbytes(size)))
    return buffer.getvalue()


def _create(path):
    return Store.create(path, frame_size=1 << 14, pack_size_max=1 << 17, trash_ttl=3600)


def _push(store, *seeds):
    layers = [store.push_layer(_tar(seed)).layer for seed in seeds]
    return store.create_image(layers, tag=f"image:{seeds[0]}")


def _assert_same(path, store):
    with Store.open(path) as copy:
        assert copy.verify().problems == ()
        assert list(copy.images) == list(store.images) and dict(copy.tags) == dict(store.tags)
        assert set(copy.layers) == set(store.layers)
        for diff_id in copy.layers:
            assert Digest.of(b"".join(copy.layers[diff_id].blocks())) == diff_id


@pytest.fixture
def store(tmp_path):
    with _create(tmp_path / "s") as store:
        _push(store, "a", "b", "c")
        _push(store, "d", "e")
        yield store


@pytest.fixture
def target(tmp_path):
    return tmp_path / "copies" / "backup"


def test_the_copy_is_a_store(store, target):
    told = []
    report = store.backup(target, on_progress=told.append)
    assert report.packs_copied > 2 and not report.packs_damaged
    assert report.bytes_copied == report.bytes_total
    assert told[-1].operation == "backup" and told[-1].done == told[-1].total
    assert target.joinpath("journal").stat().st_size
    _assert_same(target, store)


def test_the_second_copies_what_is_new(store, target):
    first = store.backup(target)
    again = store.backup(target)
    assert again.packs_copied == 0 and again.bytes_copied < first.bytes_copied / 4
    _push(store, "new")
    third = store.backup(target)
    assert 1 <= third.packs_copied <= 3
    assert third.bytes_copied < first.bytes_copied
    assert third.bytes_total == sum(p.stat().st_size for p in (target / "packs").iterdir()) + (
        (target / "index" / "data.mdb").stat().st_size
    )
    _assert_same(target, store)


def test_packs_that_are_gone_go(store, target):
    store.backup(target)
    store.delete_image("image:a")
    store.collect_garbage(store.plan_collection(empty_trash=True))
    report = store.backup(target)
    assert report.packs_removed
    _assert_same(target, store)
    assert {p.name for p in (target / "packs").iterdir()} == {p.name for p in (store.path / "packs").iterdir()}


def test_the_copy_has_what_a_rebuild_needs(store, target):
    store.delete_image("image:d")
    store.backup(target)
    shutil.rmtree(target / "index")
    assert Store.rebuild_index(target).is_clean
    with Store.open(target) as copy:
        assert dict(copy.tags) == dict(store.tags)
        copy.undelete_image("image:d")
    store.backup(target)
    _assert_same(target, store)


def test_a_copy_of_a_store_in_use(store, target):
    stop = threading.Event()
    errors = []

    def use():
        number = 0
        try:
            while not stop.is_set():
                number += 1
                image = _push(store, f"use{number}")
                store.delete_image(image.digest)
                store.collect_garbage(store.plan_collection(empty_trash=True))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for _ in range(4):
            assert not store.backup(target).packs_damaged
            with Store.open(target) as copy:
                assert copy.verify().problems == ()
                assert {"image:a", "image:d"} <= set(copy.tags)
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert not LiveLeases.look(store.path / "leases").everything


def test_an_upload_on_its_way_is_an_abandoned_one_there(store, target):
    def blocks():
        data = random.Random(9).randbytes(1 << 20)
        for number in range(80):
            yield number.to_bytes(4, "big") + data
        store.backup(target)
        yield b"end"

    store.push_layer(blocks())
    with Store.open(target) as copy:
        assert copy.verify().problems == ()
        assert len(copy.layers) == 5
        assert copy.plan_collection().uploads == 1
        copy.collect_garbage()
        assert copy.verify().problems == ()


@pytest.mark.parametrize("name", ["_copy_packs", "_switch", "_remove_others", "journal", "config"])
def test_a_crash_leaves_the_earlier_backup_or_the_new_one(store, target, monkeypatch, name):
    class Crash(BaseException):
        pass

    def crash(*_):
        raise Crash

    def crashing():
        with monkeypatch.context() as patched:
            if name == "journal":
                patched.setattr(backup_module.Path, "replace", _second_time(backup_module.Path.replace, crash))
            elif name == "config":
                patched.setattr(backup_module, "write_file", crash)
            else:
                patched.setattr(backup_module._Backup, name, crash)
            with pytest.raises(Crash):
                store.backup(target)

    crashing()
    if name not in ("_remove_others",):
        assert not (target / "layerstore.json").exists()
    store.backup(target)
    _assert_same(target, store)
    if name == "config":
        return
    _push(store, "later")
    store.delete_image("image:a")
    store.collect_garbage(store.plan_collection(empty_trash=True))
    crashing()
    with Store.open(target) as copy:
        assert copy.verify().problems == ()
        assert ("image:later" in copy.tags) == (name in ("_remove_others", "journal"))
    store.backup(target)
    _assert_same(target, store)
    assert not list(target.glob("index.new-*"))


def _second_time(function, instead):
    """``function`` for the rename of the index, ``instead`` for the journal behind it."""

    def call(self, other):
        if other.name == "journal" and other.parent.name == "backup":
            return instead()
        return function(self, other)

    return call


def test_a_backup_that_is_killed_is_finished_by_the_next(store, target):
    script = "import sys; from layerstore.store import Store\nwith Store.open(sys.argv[1]) as s: s.backup(sys.argv[2])"
    command = [sys.executable, "-c", script, str(store.path), str(target)]
    for seed, delay in enumerate((0.0, 0.02, 0.04, 0.08)):
        _push(store, f"kill{seed}")
        with subprocess.Popen(command) as child:
            while child.poll() is None and not (target / ".backup.lock").exists():
                time.sleep(0.005)
            time.sleep(delay)
            child.kill()
        if (target / "layerstore.json").exists():
            with Store.open(target) as copy:
                assert copy.verify().problems == ()
        if seed % 2:
            store.backup(target)
            _assert_same(target, store)
            (target / ".backup.lock").unlink()


def test_places_that_are_refused(store, target, tmp_path):
    for place in (store.path, store.path / "inside", store.path / "packs"):
        with pytest.raises(InvalidOptionError):
            store.backup(place)
    link = tmp_path / "link"
    link.symlink_to(store.path)
    with pytest.raises(InvalidOptionError):
        store.backup(link / "deeper")
    with pytest.raises(StoreExistsError, match="not empty"):
        store.backup(tmp_path)
    with _create(tmp_path / "other"):
        pass
    with pytest.raises(StoreExistsError, match="another store"):
        store.backup(tmp_path / "other")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreExistsError, match="no folder"):
        store.backup(tmp_path / "file")


def test_a_target_that_is_open_is_refused(store, target):
    store.backup(target)
    with Store.open(target), pytest.raises(ConflictError, match="open"):
        store.backup(target)
    store.backup(target)


def test_a_target_that_another_backup_writes_is_refused(store, target):
    store.backup(target)
    refused = []

    def nested(_):
        with pytest.raises(ConflictError, match="another backup"):
            store.backup(target)
        refused.append(True)

    store.backup(target, on_progress=nested)
    assert refused
    _assert_same(target, store)


def test_what_was_changed_in_the_backup_is_undone(store, target):
    store.backup(target)
    with Store.open(target) as copy:
        _push(copy, "there", "and there")
    _push(store, "here", "and here")
    store.backup(target)
    _assert_same(target, store)


def test_a_pack_that_the_store_has_lost_is_kept(store, target):
    store.backup(target)
    packs = sorted((store.path / "packs").iterdir())
    packs[0].unlink()
    os.truncate(packs[1], 100)
    data = bytearray(packs[2].read_bytes())
    data[-50] ^= 1
    packs[2].write_bytes(data)
    report = store.backup(target)
    assert report.packs_damaged == tuple(int(path.stem) for path in packs[:3])
    _assert_same(target, store)


def test_a_damaged_store_is_copied_as_far_as_it_goes(store, target):
    os.truncate(min((store.path / "packs").iterdir()), 5000)
    report = store.backup(target)
    assert len(report.packs_damaged) == 1
    with Store.open(target) as copy:
        assert dict(copy.tags) == dict(store.tags)
        assert not copy.verify().is_clean


def test_a_store_that_was_rebuilt_goes_on_with_its_backup(tmp_path, target):
    with _create(tmp_path / "s") as store:
        _push(store, "a", "b", "c")
        store.backup(target)
        store.delete_image("image:a")
        store.collect_garbage(store.plan_collection(empty_trash=True))
    Store.rebuild_index(tmp_path / "s")
    with Store.open(tmp_path / "s") as store:
        _push(store, "d", "e")  # numbers of packs may come again
        store.backup(target)
        _assert_same(target, store)


@pytest.fixture
def one_pack(tmp_path):
    """A store with all of its records in one pack."""
    with Store.create(tmp_path / "one", frame_size=1 << 14) as store:
        _push(store, "a", "b", "c")
        yield store


def _frames(path):
    """Offsets in the middle of the bodies of the frames of a store's first pack."""
    with (path / "packs" / "00000001.pack").open("rb") as file:
        heads = list(PackScan.of(file.fileno(), 1).records())
    return [head.body_offset + head.body_size // 2 for head in heads if head.kind is RecordKind.FRAME]


def _flip(path, *offsets):
    pack = path / "packs" / "00000001.pack"
    data = bytearray(pack.read_bytes())
    for offset in offsets:
        data[offset] ^= 0x55
    pack.write_bytes(data)


def _pack_sizes(path):
    return [one.stat().st_size for one in sorted((path / "packs").iterdir())]


def test_after_damage_and_repair_the_backup_goes_on(one_pack, target):
    one_pack.backup(target)
    _flip(one_pack.path, _frames(one_pack.path)[-1])
    with Store.open(target, read_only=True) as copy:
        report = one_pack.repair(copy)
    assert report.healed and not report.lost
    assert one_pack.verify().is_clean
    before = _pack_sizes(target)
    report = one_pack.backup(target)
    assert not report.packs_damaged and not report.layers_damaged
    # The damaged record is dead: that of the target stays, and only what is behind it comes over.
    assert _pack_sizes(target) == _pack_sizes(one_pack.path)
    index_size = (target / "index" / "data.mdb").stat().st_size
    assert report.bytes_copied == _pack_sizes(target)[0] - before[0] + index_size
    _assert_same(target, one_pack)
    assert Store.rebuild_index(target).bytes_damaged == 0


def test_what_is_pushed_after_damage_is_in_the_backup(one_pack, target):
    one_pack.backup(target)
    _flip(one_pack.path, _frames(one_pack.path)[-1])
    _push(one_pack, "new")
    report = one_pack.backup(target)
    assert report.packs_damaged == (1,) and not report.layers_damaged
    with Store.open(target) as copy:
        assert copy.verify().is_clean and "image:new" in copy.tags
        for diff_id in one_pack.layers:
            assert Digest.of(b"".join(copy.layers[diff_id].blocks())) == diff_id
        assert one_pack.repair(copy).lost == 0
    assert one_pack.verify().is_clean
    assert not one_pack.backup(target).packs_damaged
    _assert_same(target, one_pack)


def test_bytes_that_are_not_taken_over_are_not_counted(one_pack, target):
    one_pack.backup(target)
    _flip(one_pack.path, _frames(one_pack.path)[-1])
    report = one_pack.backup(target)
    assert report.packs_damaged == (1,) and report.packs_copied == 0
    assert report.bytes_copied == (target / "index" / "data.mdb").stat().st_size
    _assert_same(target, one_pack)


def test_each_record_comes_from_where_it_is_good(one_pack, target):
    one_pack.backup(target)
    frames = _frames(one_pack.path)
    _flip(target, frames[0], frames[3])
    _flip(one_pack.path, frames[-1], frames[-3])
    _push(one_pack, "new")
    report = one_pack.backup(target)
    assert report.packs_damaged == (1,) and not report.layers_damaged
    with Store.open(target) as copy:
        assert copy.verify().is_clean and set(copy.layers) == set(one_pack.layers)


def test_a_cut_pack_is_completed_by_what_the_backup_has(one_pack, target):
    one_pack.backup(target)
    frames = _frames(one_pack.path)
    pack = one_pack.path / "packs" / "00000001.pack"
    os.truncate(pack, frames[5])
    _flip(target, frames[0])
    assert one_pack.backup(target).packs_damaged == (1,)
    _assert_same(target, one_pack)


def test_layers_that_only_the_earlier_backup_has_are_not_given_up(one_pack, target):
    one_pack.backup(target)
    _flip(one_pack.path, _frames(one_pack.path)[0])
    assert one_pack.repair().lost
    _push(one_pack, "new")
    with pytest.raises(ContentDamagedError, match="repair --from") as caught:
        one_pack.backup(target)
    assert str(target) in str(caught.value)
    with Store.open(target) as copy:
        assert copy.verify().is_clean and "image:new" not in copy.tags
        for diff_id in copy.layers:
            assert Digest.of(b"".join(copy.layers[diff_id].blocks())) == diff_id
        assert one_pack.repair(copy).lost == 0
    assert not one_pack.backup(target).packs_damaged
    _assert_same(target, one_pack)


def test_a_layer_that_a_rebuild_did_not_bring_back_is_not_given_up(tmp_path, target):
    with Store.create(tmp_path / "one", frame_size=1 << 14) as store:
        _push(store, "a", "b")
        store.backup(target)
    with (tmp_path / "one" / "packs" / "00000001.pack").open("rb") as file:
        heads = list(PackScan.of(file.fileno(), 1).records())
    segment = next(head for head in heads if head.kind is RecordKind.SEGMENT)
    _flip(tmp_path / "one", segment.body_offset + 5)
    assert Store.rebuild_index(tmp_path / "one").layers_damaged
    with Store.open(tmp_path / "one") as store:
        with pytest.raises(ContentDamagedError, match="pushed again"):
            store.backup(target)
        for seed in "ab":
            store.push_layer(_tar(seed))
        store.repair()
        store.backup(target)
        _assert_same(target, store)


def test_layers_that_nobody_has_are_named(one_pack, target):
    offset = _frames(one_pack.path)[0]
    _flip(one_pack.path, offset)
    report = one_pack.backup(target)
    assert report.packs_damaged == (1,)
    assert report.layers_damaged == (Digest.of(_tar("a")),)
    assert one_pack.repair().lost
    # Nor is that a reason to stop: what is lost already, no backup can lose.
    _push(one_pack, "new")
    report = one_pack.backup(target)
    assert report.layers_damaged == (Digest.of(_tar("a")),)
    with Store.open(target) as copy:
        assert "image:new" in copy.tags


def test_the_command_says_what_is_damaged_and_what_to_do(one_pack, target):
    def run():
        command = [sys.executable, "-m", "layerstore", "--store", str(one_pack.path), "backup", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert run()[0] == 0
    _flip(one_pack.path, _frames(one_pack.path)[-1])
    code, text = run()
    assert code == 6 and "damaged in the store: pack 1" in text and f"repair --from {target}" in text
    one_pack.repair()
    code, text = run()
    assert code == 6 and "left as it was" in text and f"repair --from {target}" in text
