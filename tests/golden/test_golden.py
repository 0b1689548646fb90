"""The format, byte for byte (FORMAT.md), and a store that an earlier version wrote and every later one must read."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from make_golden import CONTENTS, EVENTS, ROWS, SEGMENT, STORE_ID, cuts, records, row_bytes, stored_frame
from samples import assert_clean

from layerstore import Digest, Store
from layerstore._zstd import zstd
from layerstore.errors import ConflictError, IndexDamagedError, UnsupportedFormatError, UpgradeNeededError
from layerstore.operations import upgrade as upgrading
from layerstore.storage.frames import CODEC_STORED, CODEC_ZSTD, decode_frame, decode_meta, encode_frame
from layerstore.storage.journal import Journal, encode_event
from layerstore.storage.layout import FORMAT_VERSION
from layerstore.storage.leases import lease_everything
from layerstore.storage.packs import PACK_HEADER, RECORD_HEAD, PackScan, encode_pack_header
from layerstore.storage.recipe import decode_segment, encode_segment
from layerstore.storage.records import Place, unseal
from layerstore.storage.tables import TABLES

FOLDER = Path(__file__).parent
VERSIONS = range(1, FORMAT_VERSION + 1)
GOLDEN: dict[str, Any] = json.loads((FOLDER / f"format-v{FORMAT_VERSION}.json").read_text())


def test_the_header_of_a_pack() -> None:
    assert encode_pack_header(3, STORE_ID).hex() == GOLDEN["pack header"]
    assert PACK_HEADER.size == len(GOLDEN["pack header"]) // 2 == 48


@pytest.mark.parametrize("kind", list(GOLDEN["records"]))
def test_a_record_of_a_pack(kind: str, tmp_path: Path) -> None:
    data = bytes.fromhex(GOLDEN["records"][kind])
    assert records()[kind] == data
    path = tmp_path / "pack"
    path.write_bytes(bytes.fromhex(GOLDEN["pack header"]) + data)
    with path.open("rb") as file:
        scan = PackScan.of(file.fileno(), 3)
        (head,) = scan.records()
    assert scan.damaged_bytes == 0
    assert head.kind.name == kind
    assert head.place == Place(3, PACK_HEADER.size, len(data))
    assert data[RECORD_HEAD.size :].startswith(head.meta)


def test_a_frame_that_is_stored_as_it_is() -> None:
    data = bytes.fromhex(GOLDEN["records"]["FRAME"])
    frame = stored_frame()
    assert frame.codec == CODEC_STORED
    meta = decode_meta(data[RECORD_HEAD.size : len(data) - len(frame.body)])
    assert (list(meta.lengths), meta.states, meta.ids, meta.digest) == ([6, 5], b"\0\0", frame.ids, frame.digest)
    decoded = decode_frame(frame.record(Place(0, 0, 0)), data[len(data) - len(frame.body) :])
    assert [bytes(decoded.run(i, 1)) for i in range(2)] == [b"golden", b"bytes"]


def test_a_frame_that_is_compressed() -> None:
    """Bytes of zstd differ between its versions: what counts is that they decode."""
    frame = encode_frame([b"golden " * 900, b"bytes " * 900], [bytes(32), bytes(32)], 3)
    assert frame.codec == CODEC_ZSTD
    old = zstd.compress(b"golden " * 900 + b"bytes " * 900, level=19)
    assert decode_frame(frame.record(Place(0, 0, 0)), old).content == b"golden " * 900 + b"bytes " * 900


def test_a_segment_of_a_recipe() -> None:
    assert decode_segment(bytes.fromhex(GOLDEN["segment"])) == SEGMENT
    assert decode_segment(encode_segment(SEGMENT)) == SEGMENT
    raw = zstd.decompress(encode_segment(SEGMENT))
    assert raw == zstd.decompress(bytes.fromhex(GOLDEN["segment"]))
    assert len(raw) == 20 + 3 * (8 + 4 + 4) + 4 * 4


@pytest.mark.parametrize("name", [spec.name for spec in TABLES])
def test_a_row_of_each_table(name: str) -> None:
    key, value = (bytes.fromhex(part) for part in GOLDEN["rows"][name])
    assert row_bytes(name) == (key, value)
    spec = next(one for one in TABLES if one.name == name)
    assert spec.key.decode(key) == ROWS[name][0]
    assert spec.value.decode(unseal(key, value)) == ROWS[name][1]
    for position in range(len(value)):
        spoiled = value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]
        with pytest.raises(IndexDamagedError):
            unseal(key, spoiled)
    with pytest.raises(IndexDamagedError):
        unseal(key + b"\0", value)


def test_the_tables_are_those_of_the_format() -> None:
    assert {spec.name for spec in TABLES} == set(GOLDEN["rows"])


def test_events_of_the_journal(tmp_path: Path) -> None:
    for name, event in EVENTS.items():
        assert encode_event(event).decode() == GOLDEN["events"][name]
    path = tmp_path / "journal"
    path.write_text("".join(GOLDEN["events"].values()))
    assert list(Journal(path).events()) == list(EVENTS.values())


@pytest.mark.parametrize("name", CONTENTS)
def test_where_contents_are_cut(name: str) -> None:
    """A version of pyfastcdc that cut elsewhere would deduplicate nothing against stores that are there."""
    assert cuts(CONTENTS[name]) == GOLDEN["cuts"][name]


def test_what_the_first_version_has_is_as_it_was() -> None:
    first = json.loads((FOLDER / "format-v1.json").read_text())
    for kind in ("records", "rows", "events", "cuts"):
        assert first[kind].items() <= GOLDEN[kind].items()
    assert (first["pack header"], first["segment"]) == (GOLDEN["pack header"], GOLDEN["segment"])


def unpacked(folder: Path, version: int) -> Path:
    with tarfile.open(FOLDER / f"store-v{version}.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return folder / "store"


def expected_of(version: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"store-v{version}.json").read_text())
    return document


@pytest.fixture(params=VERSIONS)
def old_store(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store that an earlier version wrote, upgraded."""
    path = unpacked(tmp_path, request.param)
    report = Store.upgrade(path)
    assert (report.from_version, report.to_version) == (request.param, FORMAT_VERSION)
    assert Store.upgrade(path).already_current
    return path


@pytest.fixture
def expected(old_store: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What must come out of it."""
    return expected_of(request.node.callspec.params["old_store"])


def assert_as_expected(store: Store, expected: dict[str, Any]) -> None:
    assert sorted(store.layers) == list(expected["layers"])
    assert {one: [layer.diff_id for layer in image.layers] for one, image in store.images.items()} == expected["images"]
    assert dict(store.tags) == expected["tags"]
    assert {digest: one.kept_as for digest, one in store.encodings.items()} == expected.get("blobs", {})
    for digest in store.encodings:
        assert Digest.of(b"".join(store.blob_blocks(digest)), digest.algorithm) == digest
    for diff_id, size in expected["layers"].items():
        target = io.BytesIO()
        assert store.pull_layer(diff_id, target) == size
        assert Digest.of(target.getvalue()) == diff_id
    for diff_id, count in expected["entries"].items():
        assert len(list(store.layers[diff_id].entries())) == count


def test_an_old_store_is_read(old_store: Path, expected: dict[str, Any]) -> None:
    with Store.open(old_store, read_only=True) as store:
        assert_clean(store)
        assert_as_expected(store, expected)


def test_an_old_store_is_written(old_store: Path, expected: dict[str, Any]) -> None:
    with Store.open(old_store) as store:
        assert_as_expected(store, expected)
        image = store.undelete_image(expected["trash"])
        assert image.tags == [expected["trash"]]
        known = next(iter(expected["entries"]))
        target = io.BytesIO()
        store.pull_layer(known, target)
        assert store.push_layer(target.getvalue()).already_present
        more = store.push_layer(target.getvalue() + b"and more")
        assert more.chunks_reused
        store.create_image([more.layer], base="shop:1.0", tag="shop:1.1")
        store.delete_image("shop:1.0", ttl=0)
        store.collect_garbage()
        assert_clean(store)
        blob = gzip.compress(target.getvalue(), 6, mtime=0)
        store.push_blob(blob, digest=Digest.of(blob))
        store.prove_encodings()
        assert store.encodings[Digest.of(blob)].kept_as == "recipe"
        assert b"".join(store.blob_blocks(Digest.of(blob))) == blob
        assert_clean(store)


def test_an_old_store_is_rebuilt(old_store: Path, expected: dict[str, Any]) -> None:
    shutil.rmtree(old_store / "index")
    Store.rebuild_index(old_store)
    with Store.open(old_store) as store:
        assert_clean(store)
        assert_as_expected(store, expected)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_an_old_store_wants_to_be_upgraded(tmp_path: Path, version: int) -> None:
    path = unpacked(tmp_path, version)
    for opener in (Store.open, Store.rebuild_index):
        with pytest.raises(UpgradeNeededError, match="upgrade"):
            opener(path)


def test_a_store_that_is_open_is_not_upgraded(tmp_path: Path) -> None:
    path = unpacked(tmp_path, 1)
    with lease_everything(path / "leases"), pytest.raises(ConflictError):
        Store.upgrade(path)
    assert json.loads((path / "layerstore.json").read_text())["format_version"] == 1


def test_an_upgrade_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = unpacked(tmp_path, 1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(upgrading, "write_config", interrupt)
        Store.upgrade(path)
    with pytest.raises(UpgradeNeededError):
        Store.open(path)
    assert not Store.upgrade(path).already_current
    with Store.open(path) as store:
        assert_as_expected(store, expected_of(1))


@pytest.mark.parametrize(
    ("version", "error"),
    [(FORMAT_VERSION + 1, UnsupportedFormatError), (999, UnsupportedFormatError), (0, UpgradeNeededError)],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_another_version_is_refused(tmp_path: Path, version: int, error: type[Exception], read_only: bool) -> None:
    old_store = unpacked(tmp_path, FORMAT_VERSION)
    config = old_store / "layerstore.json"
    document = json.loads(config.read_text()) | {"format_version": version}
    config.write_text(json.dumps(document))
    before = sorted((path.name, path.stat().st_mtime_ns) for path in old_store.rglob("*"))
    with pytest.raises(error, match=str(version)):
        Store.open(old_store, read_only=read_only)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in old_store.rglob("*")) == before


def test_what_a_later_version_adds_to_the_configuration_is_kept(old_store: Path, expected: dict[str, Any]) -> None:
    config = old_store / "layerstore.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"something_new": True}))
    with Store.open(old_store) as store:
        assert_as_expected(store, expected)


def test_an_upgrade_keeps_what_the_configuration_has(tmp_path: Path) -> None:
    path = unpacked(tmp_path, 1)
    config = path / "layerstore.json"
    before = json.loads(config.read_text()) | {"something_new": True}
    config.write_text(json.dumps(before))
    Store.upgrade(path)
    assert json.loads(config.read_text()).items() >= (before | {"format_version": FORMAT_VERSION}).items()
