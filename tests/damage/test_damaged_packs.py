"""Damaged packs: nothing wrong is ever handed on, `verify` names what is damaged, and it can be healed."""

import io
import os
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filled_store import BATCH_SIZE, CONTENTS, DIFF_IDS, Region, flip, regions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import assert_clean, make_tar, noise, packs_of, pulled, sha256

from layerstore import Store
from layerstore.errors import ContentDamagedError, DamagedError
from layerstore.operations import batch, verify
from layerstore.operations.verify import VerifyReport
from layerstore.storage.locks import FileLock
from layerstore.storage.recipe import Segment

PARTS = [
    ("pack", "header"),
    *((kind, part) for kind in ("frame", "segment", "layer", "blob") for part in ("head", "meta", "body")),
]
PER_COPY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is sound here; not to walk it in a process of its own saves most of the time."""
    monkeypatch.setattr(verify, "_walk_in_child", lambda _: [])
    monkeypatch.setattr(batch, "BATCH_SIZE_MAX", BATCH_SIZE)  # as when the store was filled


def pull_all(store: Store) -> list[str]:
    """Pull every layer in every way: right, or refused. The names of those that were refused."""
    refused = []
    for name, data in CONTENTS.items():
        layer = store.layers[DIFF_IDS[name]]
        try:
            assert pulled(layer) == data
        except DamagedError:
            refused.append(name)
        try:
            with layer.open() as reader:
                assert reader.readall() == data
        except DamagedError:
            assert name in refused
    return refused


def push_all(store: Store) -> None:
    for name, data in CONTENTS.items():
        assert store.push_layer(data).layer.diff_id == DIFF_IDS[name]


def assert_whole(store: Store) -> None:
    assert pull_all(store) == []
    assert store.images["shop:1.1"].digest == store.tags["shop:latest"]
    assert [layer.diff_id for layer in store.images["shop:1.1"].layers] == list(DIFF_IDS.values())
    assert_clean(store)


def bookkeeping(store: Store) -> object:
    """All that a repair must leave as it is."""
    with store._opened.index.read() as transaction:
        counts = {number: record.counts for number, record in transaction.counts.items()}
        recipes = {key: record.data for key, record in transaction.recipes.items()}
        layers = {one: record.number for one, record in transaction.layers.items()}
        names = [dict(table.items()) for table in (transaction.images, transaction.tags, transaction.trash)]
        return counts, recipes, layers, names, dict(transaction.chunks.items())


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_a_flipped_byte_is_reported_never_handed_on_and_healed(copy: Callable[[], Path], kind: str, part: str) -> None:
    chooser = random.Random(f"{kind} {part}")
    for number in range(len(packs_of_path(copy()))):
        whole = regions(packs_of_path(copy())[number])
        found = [region for region in whole if (region.kind, region.part) == (kind, part)]
        for region in chooser.sample(found, min(3, len(found))):
            path = copy()
            flip(packs_of_path(path)[number], region.start + chooser.randrange(region.size), 1 << chooser.randrange(8))
            with Store.open(path) as store:
                report = store.verify()
                assert not report.is_clean, region
                check_report(report, region)
                before = bookkeeping(store)
                refused = pull_all(store)
                assert not refused or (kind, part) == ("frame", "body")
                push_all(store)
                store.repair()  # what no push brings back: heads, and records beside the frames
                assert bookkeeping(store) == before
                assert_whole(store)


def check_report(report: VerifyReport, region: Region) -> None:
    problem = report.problems[0]
    assert problem.kind == "content"
    if region.kind == "frame":
        assert problem.frame is not None
        assert problem.layers
        assert set(problem.layers) <= set(DIFF_IDS.values())
        assert problem.images
        assert set(problem.images) <= {"shop:1.0", "shop:1.1", "shop:latest"}
    else:
        assert {"pack": "header", "segment": "segment", "layer": "layer", "blob": "blob"}[region.kind] in problem.text


def packs_of_path(path: Path) -> list[Path]:
    return sorted((path / "packs").iterdir())


def damage(packs: list[Path], what: str, chooser: random.Random) -> None:
    pack = chooser.choice(packs)
    data = pack.read_bytes()
    start = chooser.randrange(len(data))
    end = min(len(data), start + chooser.choice((1, 100, 5000, len(data))))
    changed = {
        "cut": data[:start],
        "zero": data[:start] + bytes(end - start) + data[end:],
        "remove bytes": data[:start] + data[end:],
        "insert bytes": data[:start] + chooser.randbytes(end - start) + data[start:],
        "shuffle": data[start:] + data[:start],
        "other pack": chooser.choice([one for one in packs if one != pack]).read_bytes(),
        "empty": b"",
    }
    if what in changed:
        pack.write_bytes(changed[what])
    elif what == "flip":
        for _ in range(chooser.randrange(1, 6)):
            flip(pack, chooser.randrange(len(data)), 1 << chooser.randrange(8))
    else:
        for one in packs if what == "all missing" else [pack]:
            one.unlink()


WAYS = [
    "flip",
    "cut",
    "zero",
    "remove bytes",
    "insert bytes",
    "shuffle",
    "other pack",
    "empty",
    "missing",
    "all missing",
]


@given(st.sampled_from(WAYS), st.integers(0, 2**32))
@settings(PER_COPY, max_examples=45)
def test_any_damage_is_reported_and_healed_by_pushing_again(copy: Callable[[], Path], what: str, seed: int) -> None:
    path = copy()
    damage(packs_of_path(path), what, random.Random(seed))
    with Store.open(path) as store:
        before = bookkeeping(store)
        is_clean = store.verify().is_clean
        refused = pull_all(store)
        assert not (is_clean and refused), "a corrupt entry is never reported fine"
        if is_clean:
            return  # the bytes are as they were, or nothing needs them
        store.repair()
        push_all(store)
        assert bookkeeping(store) == before
        # What a missing pack was needed for stands elsewhere now, and it is only its file that is still missed.
        assert_whole(store)
        store.collect_garbage()
        assert_whole(store)
    with Store.open(path) as store:
        assert_whole(store)


@given(st.sampled_from(WAYS), st.integers(0, 2**32))
@settings(PER_COPY, max_examples=25)
def test_any_damage_is_healed_from_another_store(
    copy: Callable[[], Path], template: Path, what: str, seed: int
) -> None:
    path = copy()
    damage(packs_of_path(path), what, random.Random(seed))
    with Store.open(template, read_only=True) as other, Store.open(path) as store:
        before = bookkeeping(store)
        report = store.repair(from_=other)
        assert report.lost == 0
        assert bookkeeping(store) == before
        assert_whole(store)
        again = store.repair(from_=other)
        assert (again.healed, again.lost, again.records_rewritten) == (0, 0, 0)


def frame_bodies(pack: Path) -> list[Region]:
    return [region for region in regions(pack) if (region.kind, region.part) == ("frame", "body")]


def test_a_failed_pull_marks_what_a_push_then_heals(filled: Path) -> None:
    pack = packs_of_path(filled)[0]
    flip(pack, frame_bodies(pack)[0].start + 30)
    with Store.open(filled) as store:
        refused = pull_all(store)
        assert refused
        report = store.verify()
        assert any("lost" in problem.text for problem in report.problems)
        for name in refused:
            result = store.push_layer(CONTENTS[name])
            assert result.already_present
        assert_whole(store)


def test_a_failed_read_marks_what_a_push_then_heals(filled: Path) -> None:
    pack = packs_of_path(filled)[0]
    flip(pack, frame_bodies(pack)[0].start + 30)
    with Store.open(filled) as store:
        with store.open_layer(DIFF_IDS["base"]) as reader, pytest.raises(ContentDamagedError):
            reader.readall()
        store.push_layer(CONTENTS["base"])
        assert_whole(store)


def test_other_content_with_the_lost_chunks_heals_them_too(filled: Path) -> None:
    pack = packs_of_path(filled)[0]
    flip(pack, frame_bodies(pack)[1].start + 30)
    with Store.open(filled) as store:
        store.repair()
        assert not store.verify().is_clean
        store.push_layer(CONTENTS["base"] + CONTENTS["app"] + CONTENTS["blob"])
        store.push_layer(CONTENTS["blob"])
        assert_whole(store)


def test_damage_while_it_heals_is_marked_as_well(filled: Path) -> None:
    """A frame that is damaged twice: what was still good in it at first must not be forgotten."""
    pack = packs_of_path(filled)[0]
    with Store.open(filled) as store:
        for region in frame_bodies(pack):
            flip(pack, region.start + region.size - 5)
        store.repair()
        for path in packs_of(store):
            if path != pack:
                for region in frame_bodies(path):
                    flip(path, region.start + region.size - 5)
        for name in ("base", "app", "blob"):
            store.push_layer(CONTENTS[name])
        store.repair()
        push_all(store)
        assert_whole(store)


def test_verify_reads_the_disk_and_no_cache(filled: Path) -> None:
    with Store.open(filled) as store:
        assert pull_all(store) == []  # everything is cached now
        pack = packs_of_path(filled)[0]
        flip(pack, frame_bodies(pack)[0].start + 30)
        assert not store.verify().is_clean


def test_verify_reads_a_file_that_took_the_place_of_another(filled: Path) -> None:
    with Store.open(filled) as store:
        assert_whole(store)  # every pack is open now
        pack = packs_of_path(filled)[0]
        damaged = bytearray(pack.read_bytes())
        damaged[frame_bodies(pack)[0].start + 30] ^= 1
        other = pack.with_name("other")
        other.write_bytes(damaged)
        other.replace(pack)
        assert not store.verify().is_clean


def test_quick_verify_sees_missing_and_cut_packs(filled: Path) -> None:
    packs = packs_of_path(filled)
    packs[0].unlink()
    os.truncate(packs[1], packs[1].stat().st_size - 1)
    with Store.open(filled) as store:
        texts = [problem.text for problem in store.verify(full=False).problems]
        assert any("pack 1 is missing" in text for text in texts)
        assert any("pack 2 has" in text for text in texts)


def test_each_damage_is_told_once(filled: Path) -> None:
    packs_of_path(filled)[0].unlink()
    with Store.open(filled) as store:
        problems = store.verify().problems
        assert [one.text for one in problems].count("pack 1 is missing") == 1
        assert len(problems) == len({one.text for one in problems})
        lost = store.repair().lost
        after = store.verify().problems
        frames = [one.frame for one in after if one.frame is not None]
        assert frames
        assert len(frames) == len(set(frames))
        counts = [
            int(match[1]) for one in after if (match := re.match(r"frame \d+ has lost (\d+) chunks?\b", one.text))
        ]
        assert sum(counts) == lost > len(frames)
        assert not any(re.search(r"\b(0|1) chunks", one.text) for one in (*problems, *after))


def test_a_problem_names_the_layers_and_images_that_need_the_frame(filled: Path) -> None:
    pack = packs_of_path(filled)[-1]
    flip(pack, frame_bodies(pack)[-1].start + 30)
    with Store.open(filled) as store:
        refused = {DIFF_IDS[name] for name in pull_all(store)}
        store.repair()
        problems = [one for one in store.verify().problems if one.frame is not None]
        assert {diff_id for one in problems for diff_id in one.layers} == refused
        tags = {tag for diff_id in refused for image in store.layers[diff_id].images for tag in image.tags}
        assert {tag for one in problems for tag in one.images} == tags


def test_verify_decodes_every_segment_a_fixed_number_of_times(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many frames are damaged."""
    for pack in packs_of_path(filled):
        for region in frame_bodies(pack):
            flip(pack, region.start + region.size - 5)
    decoded = 0
    decode = verify.decode_segment

    def counting(data: bytes) -> Segment:
        nonlocal decoded
        decoded += 1
        return decode(data)

    monkeypatch.setattr(verify, "decode_segment", counting)
    with Store.open(filled) as store:
        with store._opened.index.read() as transaction:
            segments = len(transaction.recipes)
        assert len(store.verify().problems) > 5
        assert decoded == 2 * segments


def test_a_header_is_written_under_the_lock_of_its_pack(filled: Path) -> None:
    pack = packs_of_path(filled)[0]
    flip(pack, 2)
    damaged = pack.read_bytes()
    writer = FileLock.acquire(pack, blocking=True, create=False)
    assert writer is not None
    with Store.open(filled) as store, ThreadPoolExecutor(1) as pool:
        done = pool.submit(store.repair)
        with pytest.raises(TimeoutError):
            done.result(timeout=0.3)
        assert pack.read_bytes() == damaged
        writer.release()
        assert done.result().records_rewritten == 1
        assert_whole(store)


def test_verify_changes_nothing(filled: Path) -> None:
    pack = packs_of_path(filled)[0]
    flip(pack, frame_bodies(pack)[0].start + 30)
    before = {path.name: path.read_bytes() for path in packs_of_path(filled)}
    with Store.open(filled) as store:
        known = bookkeeping(store)
        assert store.verify().problems == store.verify().problems
        assert bookkeeping(store) == known
    assert {path.name: path.read_bytes() for path in packs_of_path(filled)} == before


def test_a_store_that_is_read_only_refuses_damage_and_stays_as_it_is(filled: Path) -> None:
    pack = packs_of_path(filled)[0]
    flip(pack, frame_bodies(pack)[0].start + 30)
    before = pack.read_bytes()
    with Store.open(filled, read_only=True) as store:
        assert pull_all(store)
        assert not store.verify().is_clean
    assert pack.read_bytes() == before


def test_a_failed_pull_leaves_no_file(filled: Path, tmp_path: Path) -> None:
    pack = packs_of_path(filled)[0]
    flip(pack, frame_bodies(pack)[0].start + 30)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "there").write_bytes(b"as it was")
    with Store.open(filled) as store:
        for name in ("new", "there"):
            with pytest.raises(ContentDamagedError):
                store.pull_layer(DIFF_IDS["base"], folder / name)
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("there", b"as it was")]


def test_damage_does_not_stop_collection(filled: Path) -> None:
    for pack in packs_of_path(filled):
        for region in regions(pack):
            if region.kind == "frame" and region.part == "meta":
                flip(pack, region.start + 40)
    with Store.open(filled) as store:
        store.delete_image("shop:1.1", ttl=0)
        store.collect_garbage()
        assert DIFF_IDS["blob"] not in store.layers
        store.delete_image("shop:1.0", ttl=0)
        store.collect_garbage()
        assert store.stats().chunks == 0
        assert_clean(store)
        push_all(store)
        assert pull_all(store) == []


def test_content_that_shares_nothing_is_not_touched(filled: Path) -> None:
    data = make_tar({"alone": noise(50_000, 1234)})
    before = {pack: pack.stat().st_size for pack in packs_of_path(filled)}
    with Store.open(filled) as store:
        store.push_layer(data)
    for pack, size in before.items():
        pack.write_bytes(bytes(size) + pack.read_bytes()[size:])
    with Store.open(filled) as store:
        out = io.BytesIO()
        store.pull_layer(sha256(data), out)
        assert out.getvalue() == data
