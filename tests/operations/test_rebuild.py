"""Rebuilding the index: nothing is lost, and what is damaged in packs is reported and heals."""

import gzip
import hashlib
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import time

import pytest

from layerstore.digest import Digest
from layerstore.errors import ConflictError, LayerstoreError
from layerstore.operations import rebuild
from layerstore.operations.images import release_layer
from layerstore.operations.rebuild import UNKNOWN_HOLDER
from layerstore.operations.rebuild_recipes import choose_copy
from layerstore.operations.survey import FrameCopy
from layerstore.storage.index import Index, index_in_use
from layerstore.storage.journal import Journal
from layerstore.storage.layout import open_layout
from layerstore.storage.packs import PACK_HEADER, PackScan, RecordKind
from layerstore.storage.records import UNTIL_RELEASED, FrameState, Place
from layerstore.storage.tables import TABLES
from layerstore.store import Store


def _tar(seed, files=12, size=9000):
    source = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"usr/lib/file-{seed}-{number}")
            # Half noise, half text, so that frames are both stored and compressed.
            data = source.randbytes(size) if number % 2 else (f"{seed} {number} ".encode() * size)[:size]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


BASE = _tar("base", 40)
LAYERS = {
    "base": BASE,
    "shares": BASE[: len(BASE) // 2 // 512 * 512] + _tar("more"),
    "app": _tar("app"),
    "not tar": random.Random(1).randbytes(100_000),
    "empty": b"",
    "repeats": b"x" * 300_000,
    "loose": _tar("loose"),
}


def _create(path):
    return Store.create(path, frame_size=1 << 14, pack_size_max=1 << 17, trash_ttl=3600)


def _filled(path):
    """A store with a past: images, tags, trash, deleted layers, rewritten packs."""
    store = _create(path)
    layers = {}
    for name, content in LAYERS.items():
        pushed = store.push_layer(gzip.compress(content) if name == "app" else content)
        layers[name] = pushed.layer
        doomed = store.push_layer(_tar(f"doomed {name}", 8))
        image = store.create_image([doomed.layer, pushed.layer], tag=f"doomed:{len(layers)}")
        if name != "base":
            store.delete_image(image.digest)
    base = store.create_image([layers["base"]], tag="base:1")
    store.create_image([layers["app"], layers["empty"]], base="base:1", tag="shop:1")
    store.create_image([layers["shares"], layers["not tar"], layers["repeats"]], tag="shop:2")
    store.tags["shop:latest"] = base.digest
    store.tags["gone:1"] = base.digest
    del store.tags["gone:1"]
    store.push_layer(LAYERS["loose"])
    store.collect_garbage(store.plan_collection(empty_trash=True))
    store.create_image([layers["base"], layers["not tar"]], tag="trashed:1")
    store.delete_image("trashed:1")
    store.push_layer(LAYERS["loose"])
    return store


def _tables(path):
    index = Index(path / "index", read_only=True)
    try:
        with index.read() as transaction:
            return {spec.name: dict(transaction.table(spec.name).items()) for spec in TABLES}
    finally:
        index.close()


def _assert_pulls(store, contents):
    for content in contents:
        diff_id = Digest.of(content)
        assert b"".join(store.layers[diff_id].blocks()) == content


def _names(store):
    with store._opened.index.read() as transaction:
        trash = dict(transaction.trash.items())
    images = {digest: (store.images[digest].tags, store.images[digest].manifest_bytes) for digest in store.images}
    return dict(store.tags), images, trash, [store.images[digest].created for digest in store.images]


def _rebuilt(path):
    report = Store.rebuild_index(path)
    return report, Store.open(path)


def test_everything_comes_back(tmp_path):
    path = tmp_path / "s"
    with _filled(path) as store:
        names = _names(store)
        assert store.verify().is_clean
    old = _tables(path)
    shutil.rmtree(path / "index")
    told = []
    report = Store.rebuild_index(path, on_progress=told.append)
    assert report.is_clean and report.old_index is None
    assert told[-1].operation == "rebuild-index" and told[-1].done == told[-1].total
    new = _tables(path)
    with Store.open(path) as store:
        _assert_pulls(store, LAYERS.values())
        assert _names(store) == names
        assert store.verify().problems == ()
        assert (report.layers, report.images, report.tags) == (len(store.layers), len(store.images), len(store.tags))
    assert report.images_in_trash == 1
    for name in ("layers", "recipes", "images", "trash", "tags", "image_tags", "layer_images", "blobs", "lost"):
        assert new[name] == old[name], name
    for name in ("uploads", "dropped", "leases", "loose_layers", "dead_packs", "open_packs"):
        assert not new[name], name
    # Who pushed a layer is not known any more; that somebody keeps it is.
    in_images = {number for number, _ in new["layer_images"]}
    loose = {record.number for record in new["layers"].values()} - in_images
    assert loose and new["holds"] == {(number, UNKNOWN_HOLDER): UNTIL_RELEASED for number in loose}
    # Frames that collection has forgotten may come back as its work; all others are the same.
    spare = set(new["touched_frames"])
    assert {n: r for n, r in new["frames"].items() if n not in spare} == old["frames"]
    assert {n: r for n, r in new["counts"].items() if n not in spare} == old["counts"]
    assert {i: w for i, w in new["chunks"].items() if w[0] not in spare} == old["chunks"]
    assert set(new["packs"]) == set(old["packs"])
    for number, pack in old["packs"].items():
        assert new["packs"][number].size == pack.size
    for counter in ("next_frame", "next_pack", "next_layer", "next_image"):
        assert new["meta"][counter] <= old["meta"][counter]
    journal = Journal(path / "journal")
    assert new["meta"]["journal_size"] == journal.path.stat().st_size


def test_dead_bytes_are_those_of_a_collected_store(tmp_path):
    path = tmp_path / "s"
    with _filled(path) as store:
        store.collect_garbage()
    old = _tables(path)
    _, store = _rebuilt(path)
    with store:
        store.collect_garbage()
        assert store.verify().problems == ()
    new = _tables(path)
    for name in ("frames", "counts", "chunks", "packs"):
        assert new[name].keys() == old[name].keys(), name
    assert new["packs"] == old["packs"] and new["counts"] == old["counts"]


def test_the_store_goes_on_after_it(tmp_path):
    path = tmp_path / "s"
    _filled(path).close()
    _, store = _rebuilt(path)
    with store:
        again = store.push_layer(LAYERS["base"])
        assert again.already_present
        new = store.push_layer(_tar("after"))
        store.create_image([new.layer], base="shop:1", tag="shop:3")
        store.undelete_image("trashed:1")
        for tag in list(store.tags):
            if tag in store.tags:
                store.delete_image(store.tags[tag])
        store.collect_garbage(store.plan_collection(empty_trash=True))
        assert store.verify().problems == ()
        assert set(store.layers) == {Digest.of(LAYERS["loose"])}
        release_layer(store._opened, Digest.of(LAYERS["loose"]))
        store.collect_garbage()
        assert not store.layers and not list((path / "packs").glob("*.pack"))


def test_twice_is_once(tmp_path):
    path = tmp_path / "s"
    _filled(path).close()
    Store.rebuild_index(path)
    first = _tables(path)
    report = Store.rebuild_index(path)
    assert report.old_index == path / "index.damaged" and report.old_index.is_dir()
    second = _tables(path)
    # The journal of the first run has forgotten layers of which nothing is left.
    assert second["meta"].pop("next_layer") <= first["meta"].pop("next_layer")
    assert second == first


def test_a_damaged_or_empty_index_is_never_read(tmp_path):
    path = tmp_path / "s"
    _filled(path).close()
    data = path / "index" / "data.mdb"
    data.write_bytes(os.urandom(data.stat().st_size))
    report, store = _rebuilt(path)
    with store:
        assert report.is_clean and store.verify().is_clean
    shutil.rmtree(path / "index")
    (path / "index").mkdir()
    report, store = _rebuilt(path)
    with store:
        assert report.is_clean and store.verify().is_clean


def test_an_empty_store(tmp_path):
    Store.create(tmp_path / "s").close()
    report, store = _rebuilt(tmp_path / "s")
    with store:
        assert report.is_clean and not store.layers
        store.push_layer(BASE)


def test_it_is_refused_while_the_store_is_open_here(tmp_path):
    with _create(tmp_path / "s") as store:
        with pytest.raises(ConflictError, match="open"):
            Store.rebuild_index(tmp_path / "s")
        store.push_layer(BASE)
        assert store.verify().is_clean


def test_it_is_refused_while_the_store_is_open_elsewhere(tmp_path):
    path = tmp_path / "s"
    _create(path).close()
    script = "import sys; from layerstore.store import Store; s = Store.open(sys.argv[1]); print('open', flush=True)"
    script += "; input()"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "open\n"
        assert index_in_use(path / "index")
        with pytest.raises(ConflictError, match="open"):
            Store.rebuild_index(path)
        child.communicate("\n")
    assert not index_in_use(path / "index")
    Store.rebuild_index(path)


def test_use_in_the_middle_is_noticed(tmp_path):
    path = tmp_path / "s"
    _filled(path).close()

    def push(progress):
        if progress.note == "index":
            with Store.open(path) as store:
                store.push_layer(_tar("meanwhile"))

    with pytest.raises(ConflictError, match="used"):
        Store.rebuild_index(path, on_progress=push)
    with Store.open(path) as store:
        _assert_pulls(store, [_tar("meanwhile")])
    Store.rebuild_index(path)
    with Store.open(path) as store:
        _assert_pulls(store, [_tar("meanwhile"), *LAYERS.values()])


@pytest.mark.parametrize("step", ["fill", "moved", "checkpoint"])
def test_after_a_crash_the_next_run_finishes(tmp_path, monkeypatch, step):
    path = tmp_path / "s"
    with _filled(path) as store:
        names = _names(store)

    class Crash(BaseException):
        pass

    def crash(*_, **__):
        raise Crash

    with monkeypatch.context() as patched:
        if step == "fill":
            patched.setattr(rebuild._Rebuild, "_put_images", crash)
        elif step == "moved":
            patched.setattr(rebuild.Journal, "checkpoint", crash)
        else:
            patched.setattr(rebuild._Rebuild, "_report", crash)
        with pytest.raises(Crash):
            Store.rebuild_index(path)
    report, store = _rebuilt(path)
    with store:
        assert report.is_clean and _names(store) == names and store.verify().is_clean
    assert not list(path.glob("index.new-*"))


def test_a_rebuild_that_is_killed_is_finished_by_the_next(tmp_path):
    path = tmp_path / "s"
    with _filled(path) as store:
        names = _names(store)
    script = "import sys; from layerstore.store import Store\nprint(1, flush=True)\nStore.rebuild_index(sys.argv[1])"
    for delay in (0.0, 0.03, 0.06, 0.1, 0.15):
        with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(delay)
            child.kill()
    report, store = _rebuilt(path)
    with store:
        assert report.is_clean and _names(store) == names and store.verify().is_clean
        _assert_pulls(store, LAYERS.values())


def test_without_a_journal_images_come_back_untagged(tmp_path):
    path = tmp_path / "s"
    with _filled(path) as store:
        images = set(store.images)
    (path / "journal").unlink()
    report, store = _rebuilt(path)
    with store:
        assert not report.journal_is_whole and not report.is_clean
        assert images <= set(store.images) and set(report.images_recovered) == set(store.images)
        assert not store.tags
        _assert_pulls(store, LAYERS.values())
        assert store.verify().problems == ()


def test_a_journal_that_is_cut_counts_as_damaged(tmp_path):
    path = tmp_path / "s"
    with _filled(path) as store:
        images = set(store.images)
    journal = path / "journal"
    journal.write_bytes(journal.read_bytes()[:-5])
    report, store = _rebuilt(path)
    with store:
        assert not report.journal_is_whole
        assert images <= set(store.images)
        assert store.tags["shop:1"] in store.images


def _records(path, kind):
    layout, _ = open_layout(path)
    for pack in sorted(layout.packs.iterdir()):
        with pack.open("rb") as file:
            for head in PackScan.of(file.fileno(), layout.pack_number(pack)).records():
                if head.kind is kind:
                    yield pack, head


def _flip(pack, offset):
    data = bytearray(pack.read_bytes())
    data[offset] ^= 0x55
    pack.write_bytes(data)


def _simple(path):
    with _create(path) as store:
        layers = [store.push_layer(LAYERS[name]).layer for name in ("base", "app", "not tar")]
        store.create_image(layers[:2], tag="shop:1")
        store.create_image([layers[2]], tag="other:1")


def _heal_and_check(path, store):
    """Push everything again; all of it must be there and well then."""
    with store:
        for name in ("base", "app", "not tar"):
            store.push_layer(LAYERS[name])
        _assert_pulls(store, [LAYERS[name] for name in ("base", "app", "not tar")])
        return store.verify()


def test_a_flipped_byte_in_a_frame_is_lost_and_heals(tmp_path):
    path = tmp_path / "s"
    _simple(path)
    for pack, head in list(_records(path, RecordKind.FRAME))[1::3]:
        _flip(pack, head.body_offset + head.body_size // 2)
    report, store = _rebuilt(path)
    assert report.chunks_lost and report.layers == 3 and report.images == 2
    assert all(problem.kind == "content" for problem in store.verify().problems)
    assert _heal_and_check(path, store).problems == ()
    assert Store.rebuild_index(path).chunks_lost == 0


def test_a_flipped_byte_in_a_frames_head_is_reported_and_heals(tmp_path):
    path = tmp_path / "s"
    _simple(path)
    pack, head = list(_records(path, RecordKind.FRAME))[-1]
    _flip(pack, head.place.offset + 40)
    report, store = _rebuilt(path)
    assert [damage.diff_id for damage in report.layers_damaged] == [Digest.of(LAYERS["not tar"])]
    assert [damage.tags for damage in report.images_damaged] == [("other:1",)]
    _assert_pulls(store, [LAYERS["base"], LAYERS["app"]])
    assert "other:1" in store.tags
    verified = _heal_and_check(path, store)
    assert all("list of the images" in problem.text for problem in verified.problems)
    with Store.open(path) as store:
        other = store.images["other:1"]
        assert store.create_image([other.config.diff_ids[0]], tag="other:1").digest == other.digest
        assert store.verify().is_clean


@pytest.mark.parametrize("part", ["head", "body"])
@pytest.mark.parametrize("name", ["base", "not tar"])
def test_a_layer_whose_record_is_damaged_is_told_by_its_content(tmp_path, part, name):
    path = tmp_path / "s"
    _simple(path)
    with Store.open(path) as store:
        store.push_layer(LAYERS["loose"])
    diff_id = Digest.of(LAYERS[name])
    (pack, head) = next((p, h) for p, h in _records(path, RecordKind.LAYER) if h.meta == diff_id.pack())
    _flip(pack, head.place.offset + 10 if part == "head" else head.body_offset + 3)
    report, store = _rebuilt(path)
    with store:
        assert report.layers_recovered == (diff_id,) and not report.layers_damaged and not report.images_damaged
        _assert_pulls(store, [LAYERS[one] for one in ("base", "app", "not tar", "loose")])
        assert store.layers[diff_id].size == len(LAYERS[name])
        assert store.verify().problems == ()
    again, store = _rebuilt(path)
    with store:
        assert not again.layers_recovered and diff_id in store.layers and store.verify().is_clean


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_layer_in_no_image_whose_record_is_damaged_comes_back(tmp_path, part):
    path = tmp_path / "s"
    with _create(path) as store:
        store.push_layer(LAYERS["loose"])
        store.push_layer(b"")
    for pack, head in list(_records(path, RecordKind.LAYER)):
        if part == "body":
            _flip(pack, head.body_offset)
        elif head.meta != Digest.of(b"").pack():  # of an empty layer, its record's head is all there is
            _flip(pack, head.place.offset)
    report, store = _rebuilt(path)
    with store:
        assert Digest.of(LAYERS["loose"]) in report.layers_recovered
        assert len(report.layers_recovered) == (1 if part == "head" else 2)
        _assert_pulls(store, [LAYERS["loose"], b""])
        assert store.verify().problems == ()


def test_a_damaged_segment_is_reported_and_heals(tmp_path):
    path = tmp_path / "s"
    _simple(path)
    pack, head = next(_records(path, RecordKind.SEGMENT))
    _flip(pack, head.body_offset + 5)
    report, store = _rebuilt(path)
    assert [damage.diff_id for damage in report.layers_damaged] == [Digest.of(LAYERS["base"])]
    assert "0 of" in report.layers_damaged[0].reason
    _heal_and_check(path, store)


@pytest.mark.parametrize("how", ["missing", "cut", "header", "empty"])
def test_a_damaged_pack_leaves_the_others_alone(tmp_path, how):
    path = tmp_path / "s"
    _simple(path)
    packs = sorted((path / "packs").iterdir())
    assert len(packs) > 2
    if how == "missing":
        packs[1].unlink()
    elif how == "cut":
        os.truncate(packs[1], packs[1].stat().st_size // 2 + 7)
    elif how == "empty":
        os.truncate(packs[1], 0)
    else:
        _flip(packs[1], 12)
    report, store = _rebuilt(path)
    if how == "header":
        assert report.is_clean
    else:
        assert report.layers_damaged and report.layers_damaged[0].diff_id in map(Digest.of, LAYERS.values())
    survivors = set(store.layers)
    for diff_id in survivors:
        assert Digest.of(b"".join(store.layers[diff_id].blocks())) == diff_id
    assert survivors | {damage.diff_id for damage in report.layers_damaged} >= {
        Digest.of(LAYERS[name]) for name in ("base", "app", "not tar")
    }
    _heal_and_check(path, store)


def test_random_damage_never_gives_wrong_bytes(tmp_path):
    _simple(tmp_path / "s")
    for seed in range(6):
        path = tmp_path / f"copy{seed}"
        shutil.copytree(tmp_path / "s", path)
        source = random.Random(seed)
        for _ in range(source.randrange(1, 5)):
            pack = source.choice(sorted((path / "packs").iterdir()))
            _flip(pack, source.randrange(pack.stat().st_size))
        _, store = _rebuilt(path)
        for diff_id in store.layers:
            state = hashlib.sha256()
            try:
                for block in store.layers[diff_id].blocks():
                    state.update(block)
            except LayerstoreError:
                continue
            assert state.hexdigest() == diff_id.encoded
        _heal_and_check(path, store)
        shutil.rmtree(path)


def test_the_rest_of_a_push_that_was_killed_is_dead(tmp_path):
    path = tmp_path / "s"
    _simple(path)
    pack = max((path / "packs").iterdir())
    with pack.open("ab") as file:
        file.write(b"LREC" + os.urandom(5000))
    report, store = _rebuilt(path)
    with store:
        assert report.bytes_damaged == 5004 and report.is_clean
        assert store.verify().problems == ()
        store.collect_garbage()
        assert store.verify().problems == ()
        _assert_pulls(store, [LAYERS["base"]])


def test_a_push_that_died_in_the_middle_leaves_no_layer(tmp_path):
    path = tmp_path / "s"
    with _create(path) as store:
        store.push_layer(LAYERS["base"])
    pack, head = list(_records(path, RecordKind.LAYER))[-1]
    os.truncate(pack, head.place.offset)
    with pack.open("ab") as file:
        file.write(b"LREC" + os.urandom(500))
    report, store = _rebuilt(path)
    with store:
        assert not store.layers and not report.layers_recovered
        assert store.verify().problems == ()
        pushed = store.push_layer(LAYERS["base"])
        assert pushed.chunks_new == 0  # its chunks are still there
        assert store.verify().problems == ()


def test_two_recipes_of_one_layer_become_one_for_good(tmp_path):
    path, other = tmp_path / "s", tmp_path / "other"
    _simple(path)
    # Another push of the same content that died right before its commit leaves a whole second recipe behind.
    shutil.copytree(path, other)
    with Store.open(other) as store:
        store._opened.take_numbers("next_layer", 1)
        store._opened.index.write(lambda transaction: transaction.layers.delete(Digest.of(LAYERS["app"])))
        store.push_layer(LAYERS["app"])
    for pack in (other / "packs").iterdir():
        shutil.copy(pack, path / "packs" / pack.name)
    report, store = _rebuilt(path)
    with store:
        assert report.is_clean
        _assert_pulls(store, [LAYERS["app"]])
        store.delete_image("shop:1")
        store.collect_garbage(store.plan_collection(empty_trash=True))
        assert Digest.of(LAYERS["app"]) not in store.layers
    _, store = _rebuilt(path)
    with store:
        assert Digest.of(LAYERS["app"]) not in store.layers


def test_a_copy_with_a_hole_that_is_needed_is_not_chosen():
    whole = FrameCopy(Place(1, 40, 900), True, 3, b"")
    holed = FrameCopy(Place(2, 40, 600), True, 3, bytes([0, FrameState.HOLE, 0]))
    broken = FrameCopy(Place(3, 40, 900), False, 3, b"")
    copies = [whole, holed, broken]
    assert choose_copy(copies, [1, 1, 1]) is whole
    assert choose_copy(copies, [1, 0, 1]) is holed
    assert choose_copy([broken], [1, 1, 1]) is broken


def test_files_that_are_no_packs_are_ignored(tmp_path):
    path = tmp_path / "s"
    _simple(path)
    (path / "packs" / "notes.txt").write_text("mine")
    (path / "packs" / "00000999.pack").write_bytes(struct.pack(">8s", b"LYRPACK\n").ljust(PACK_HEADER.size, b"\0"))
    report, store = _rebuilt(path)
    with store:
        assert report.is_clean
        with store._opened.index.read() as transaction:
            assert transaction.meta["next_pack"] == 1000
            assert 999 not in transaction.packs


def test_the_command_says_that_nothing_needs_the_damaged_bytes(tmp_path):
    path = tmp_path / "s"
    _simple(path)
    pack, head = next(_records(path, RecordKind.FRAME))
    _flip(pack, head.body_offset + head.body_size // 2)
    with Store.open(path) as store:
        store.repair()
        for name in ("base", "app", "not tar"):
            store.push_layer(LAYERS[name])
        assert store.repair().lost == 0 and store.verify().is_clean
    command = [sys.executable, "-m", "layerstore", "--store", str(path), "rebuild-index"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bytes damaged: 0" not in done.stdout
    assert "nothing needs the damaged bytes" in done.stdout
