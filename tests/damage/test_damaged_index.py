"""A damaged index: `verify` reports it or opening refuses it, and no wrong byte comes out. In child processes, since
LMDB trusts its pages and may crash on them."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from filled_store import CONTENTS, DIFF_IDS, flip
from samples import assert_clean, noise, pulled

from layerstore import Store
from layerstore.errors import IndexDamagedError, LayerstoreError, StorageError
from layerstore.operations.verify import verify

CHILD = """
import io, json, sys
from layerstore import Store, LayerstoreError
from layerstore.errors import DamagedError, NotFoundError, UnavailableError, InvalidInputError

path, read_only, diff_ids = sys.argv[1], sys.argv[2] == "1", sys.argv[3:]
def say(*what):
    print(json.dumps(what), flush=True)
try:
    store = Store.open(path, read_only=read_only)
except LayerstoreError as error:
    say("refused", error.code)
    sys.exit()
report = store.verify()
say("verify", report.is_clean, [problem.text for problem in report.problems[:3]])
for diff_id in diff_ids:
    target = io.BytesIO()
    try:
        store.pull_layer(diff_id, target)
    except LayerstoreError as error:
        say("pull", diff_id, error.code)
    else:
        from layerstore import Digest
        say("pull", diff_id, "good" if Digest.of(target.getvalue()) == diff_id else "WRONG")
for name in ("images", "tags", "layers"):
    try:
        say(name, sorted(getattr(store, name)))
    except LayerstoreError as error:
        say(name, error.code)
try:
    store.push_layer(b"something new" * 1000)
    say("push", "good")
except LayerstoreError as error:
    say("push", error.code)
store.close()
say("end")
"""


def run(path: Path, *, read_only: bool = False) -> tuple[list[list[object]], int]:
    """What a process that uses the store in every way comes to, and its exit status."""
    command = [sys.executable, "-c", CHILD, str(path), "1" if read_only else "0", *DIFF_IDS.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode <= 0, done.stderr  # a crash is LMDB's; a Python exception would be ours
    return said, done.returncode


def damage(data_file: Path, what: str, chooser: random.Random) -> None:
    data = bytearray(data_file.read_bytes())
    page, other = (PAGE * chooser.randrange(len(data) // PAGE) for _ in range(2))
    if what == "cut":
        del data[page + chooser.choice((0, 100)) :]
    elif what in ("zero page", "noise page", "other page"):
        new = {
            "zero page": bytes(PAGE),
            "noise page": chooser.randbytes(PAGE),
            "other page": data[other : other + PAGE],
        }
        data[page : page + PAGE] = new[what]
    else:
        start, size, times = {
            "bit": (0, len(data), 1),
            "bits": (0, len(data), 200),
            "page head": (page, 16, 1),
            "meta": (chooser.choice((0, PAGE)), 200, 1),
            "value": (page + 16, PAGE - 16, 3),
        }[what]
        for _ in range(times):
            data[start + chooser.randrange(size)] ^= 1 << chooser.randrange(8)
    data_file.write_bytes(data)


PAGE = 4096
WAYS = ["bit", "bits", "zero page", "noise page", "other page", "page head", "meta", "cut", "value"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", WAYS)
def test_damage_is_reported_or_refused_and_nothing_wrong_comes_out(filled: Path, what: str, seed: int) -> None:
    damage(filled / "index" / "data.mdb", what, random.Random(f"{what} {seed}"))
    said, status = run(filled)
    assert not [line for line in said if line[-1] == "WRONG"]
    verified = [line for line in said if line[0] == "verify"]
    if verified and verified[0][1]:
        # Found clean: then everything must be as it was.
        assert status == 0
        assert ["tags", ["shop:1.0", "shop:1.1", "shop:latest"]] in said
        assert [line[2] for line in said if line[0] == "pull"] == ["good"] * 3
        assert ["push", "good"] in said
    else:
        assert verified or status < 0 or said[0][0] == "refused"


@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize("bit", range(0, 64, 3))
def test_an_older_state_does_not_come_back_by_a_flipped_bit(filled: Path, page: int, bit: int) -> None:
    """LMDB goes by the greater of two transaction numbers, which stand in its first two pages without a checksum."""
    flip(filled / "index" / "data.mdb", PAGE * page + 144 + bit // 8, 1 << bit % 8)
    with pytest.raises(IndexDamagedError, match="head"):
        Store.open(filled, read_only=True)


@pytest.mark.parametrize("what", ["zero page", "noise page", "cut", "meta"])
def test_rebuilding_heals_the_index(filled: Path, what: str) -> None:
    damage(filled / "index" / "data.mdb", what, random.Random(f"rebuild {what}"))
    Store.rebuild_index(filled)
    with Store.open(filled) as store:
        assert_clean(store)
        assert sorted(store.tags) == ["shop:1.0", "shop:1.1", "shop:latest"]
        for name, data in CONTENTS.items():
            assert pulled(store.layers[DIFF_IDS[name]]) == data


@pytest.mark.parametrize("gone", ["index/data.mdb", "index"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_missing_index_is_said_to_be_missing(filled: Path, gone: str, read_only: bool) -> None:
    path = filled / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(IndexDamagedError, match="rebuild-index"):
        Store.open(filled, read_only=read_only)
    assert not (filled / "index" / "data.mdb").exists()


def test_an_empty_index_file_is_damage(filled: Path) -> None:
    (filled / "index" / "data.mdb").write_bytes(b"")
    with pytest.raises(IndexDamagedError):
        Store.open(filled)


@pytest.mark.parametrize(
    "table", ["chunks", "frames", "counts", "recipes", "layers", "images", "blobs", "tags", "packs"]
)
def test_a_damaged_value_of_each_table_is_reported(filled: Path, table: str) -> None:
    """The checksum of a record is what finds it: written into the table through LMDB itself, so the pages are sound."""
    with Store.open(filled) as store:
        index = store._opened.index

        def spoil(transaction: object) -> None:
            rows = transaction.table(table)  # type: ignore[attr-defined]
            key, value = next(iter(rows.raw_items()))
            spoiled = bytes([value[0] ^ 1]) + value[1:]
            rows._transaction.put(key, spoiled, db=rows._db)

        index.write(spoil)
        report = store.verify()
        assert [problem.kind for problem in report.problems] == ["index"]
        assert table in report.problems[0].text
        for name, data in CONTENTS.items():
            with suppress(IndexDamagedError):
                assert pulled(store.layers[DIFF_IDS[name]]) == data


@pytest.mark.parametrize(
    "table", ["chunks", "frames", "counts", "recipes", "layer_images", "image_tags", "blobs", "packs"]
)
def test_a_missing_row_of_each_table_is_reported(filled: Path, table: str) -> None:
    with Store.open(filled) as store:
        index = store._opened.index

        def remove(transaction: object) -> None:
            rows = transaction.table(table)  # type: ignore[attr-defined]
            rows.delete(next(iter(rows)))

        index.write(remove)
        assert not store.verify().is_clean
        assert not verify(store._opened, full=False).is_clean


_EMBEDDED = """
import sys
sys.path[:] = {path!r}
from layerstore import Store
with Store.open(sys.argv[1], read_only=True) as store:
    print([problem.text for problem in store.verify().problems])
"""


def test_a_program_with_a_path_of_its_own_can_verify(filled: Path, tmp_path: Path) -> None:
    """The interpreter alone would not find layerstore: not from this folder, nor isolated."""
    program = _EMBEDDED.format(path=[str(Path(one).absolute()) for one in sys.path])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys._base_executable, "-I", "-S", "-c", program, str(filled)]  # type: ignore[attr-defined]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/true", "/bin/false"])
def test_no_process_to_read_the_index_is_no_damage(
    filled: Path, executable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with Store.open(filled, read_only=True) as store, pytest.raises(StorageError, match="index"):
        store.verify()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_journal_costs_nothing(filled: Path, seed: int) -> None:
    chooser = random.Random(seed)
    journal = filled / "journal"
    match seed % 4:
        case 0:
            flip(journal, chooser.randrange(journal.stat().st_size), 1 << chooser.randrange(8))
        case 1:
            os.truncate(journal, chooser.randrange(journal.stat().st_size))
        case 2:
            journal.write_bytes(chooser.randbytes(300))
        case _:
            journal.unlink()
    with Store.open(filled, read_only=True) as store:
        assert [problem.kind for problem in store.verify().problems] == ["content"]
        assert pulled(store.layers[DIFF_IDS["app"]]) == CONTENTS["app"]
    with Store.open(filled) as store:
        assert_clean(store)
    Store.rebuild_index(filled)
    with Store.open(filled) as store:
        assert sorted(store.tags) == ["shop:1.0", "shop:1.1", "shop:latest"]
        assert_clean(store)


def test_a_journal_that_is_damaged_while_it_is_in_use_is_repaired(filled: Path) -> None:
    with Store.open(filled) as store:
        flip(filled / "journal", 40)
        assert "journal" in store.verify().problems[0].text
        assert store.repair().records_rewritten == 1
        assert_clean(store)


@pytest.mark.parametrize("seed", range(60))
def test_a_flipped_bit_in_the_configuration_is_harmless_or_refused(copy: Callable[[], Path], seed: int) -> None:
    path = copy()
    chooser = random.Random(seed)
    config = path / "layerstore.json"
    flip(config, chooser.randrange(config.stat().st_size), 1 << chooser.randrange(8))
    try:
        store = Store.open(path, read_only=True)
    except LayerstoreError:
        return
    with store:
        for name, data in CONTENTS.items():
            assert pulled(store.layers[DIFF_IDS[name]]) == data


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", b"1", b"\xff\xfe", b'{"format_version": "1"}', noise(200)]
)
def test_a_configuration_that_is_none_is_refused(filled: Path, text: bytes) -> None:
    (filled / "layerstore.json").write_bytes(text)
    with pytest.raises(LayerstoreError):
        Store.open(filled)
