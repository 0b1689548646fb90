"""The API: what each call gives, and which error it raises instead."""

import gzip
import inspect
import io
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from samples import Pipe, assert_clean, make_tar, noise, packs_on_disk, pulled, sha256, text

from layerstore import Digest, Encoding, LayerstoreError, Progress, Store
from layerstore.errors import (
    ConflictError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidDigestError,
    InvalidInputError,
    InvalidManifestError,
    InvalidOptionError,
    InvalidReferenceError,
    LayerInUseError,
    LayerNotFoundError,
    LeaseEndedError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    StoreClosedError,
    StoreExistsError,
    StoreNotFoundError,
    TagNotFoundError,
    UnsupportedPlaceError,
)
from layerstore.storage import layout

A = make_tar({"a": noise(40_000, 1), "t": text(9000)})
B = make_tar({"a": noise(40_000, 1), "b": noise(30_000, 2)})


# --- making and opening -----------------------------------------------------------------------------------------------


def test_open_never_makes_a_store(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file" / "below"):
        with pytest.raises(StoreNotFoundError):
            Store.open(path)
    assert not (tmp_path / "missing").exists()


def test_create_refuses_what_is_there(tmp_path: Path) -> None:
    Store.create(tmp_path / "store").close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for path in (tmp_path / "store", tmp_path / "other"):
        before = sorted(path.rglob("*"))
        with pytest.raises(StoreExistsError):
            Store.create(path)
        assert sorted(path.rglob("*")) == before
    with pytest.raises(LayerstoreError):
        Store.create(tmp_path / "other" / "file")


@pytest.mark.parametrize(
    "options",
    [
        {"frame_size": 0},
        {"frame_size": 1 << 40},
        {"pack_size_max": 1},
        {"compression_level": 99},
        {"trash_ttl": -1.0},
        {"trash_ttl": 1e12},
    ],
)
def test_create_refuses_senseless_options(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidOptionError):
        Store.create(tmp_path / "store", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


def test_options_are_kept(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", frame_size=1 << 13, pack_size_max=1 << 20, trash_ttl=7) as store:
        config = store.config
        assert store.path == tmp_path / "s"
    with Store.open(tmp_path / "s") as store:
        assert store.config == config
        assert (config.frame_size, config.pack_size_max, config.trash_ttl_seconds) == (1 << 13, 1 << 20, 7)


def test_a_network_file_system_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_file_system_of", lambda _: "nfs4")
    with pytest.raises(UnsupportedPlaceError, match="nfs4"):
        Store.create(tmp_path / "new")
    with pytest.raises(UnsupportedPlaceError, match="nfs4"):
        Store.open(store.path)


def test_a_closed_store_says_so(store: Store) -> None:
    layer = store.push_layer(A).layer
    store.close()
    store.close()
    for action in (store.stats, lambda: store.push_layer(B), lambda: len(store.layers), lambda: layer.size):
        with pytest.raises(StoreClosedError):
            action()


def test_a_store_that_is_open_twice_in_a_process(store: Store) -> None:
    with Store.open(store.path) as other:
        layer = other.push_layer(A).layer
        assert pulled(store.layers[layer.diff_id]) == A
        store.create_image([layer.diff_id], tag="a:1")
        assert "a:1" in other.tags
    assert pulled(store.images["a:1"].layers[0]) == A
    with Store.open(store.path, read_only=True) as reader, pytest.raises(ReadOnlyError):
        reader.push_layer(B)
    store.push_layer(B)
    assert_clean(store)


def test_a_store_that_was_opened_before_a_fork_says_so(store: Store) -> None:
    layer = store.push_layer(A).layer
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = b""
        for action in (store.stats, lambda: store.push_layer(B), lambda: pulled(layer), lambda: Store.open(store.path)):
            try:
                action()
            except StoreClosedError as error:
                said += b"1" if "spawn" in str(error) else b"0"
            except BaseException:
                said += b"0"
        store.close()
        os.write(writer, said)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 10) == b"1111"
    os.close(reader)
    assert pulled(layer) == A
    store.push_layer(B)
    assert_clean(store)


def test_a_store_that_is_closed_before_a_fork_opens_in_the_child(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        diff_id = store.push_layer(A).layer.diff_id
    child = os.fork()
    if not child:
        status = 1
        try:
            with Store.open(tmp_path / "store") as own:
                own.push_layer(B)
                status = 0 if pulled(own.layers[diff_id]) == A else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    with Store.open(tmp_path / "store") as store:
        assert pulled(store.layers[sha256(B)]) == B


def test_threads_may_share_a_store(store: Store) -> None:
    contents = [make_tar({f"{n}-{i}": noise(3000, i) for i in range(n, n + 12)}) for n in range(6)]
    failed: list[BaseException] = []

    def work(data: bytes) -> None:
        try:
            for _ in range(2):
                layer = store.push_layer(data).layer
                assert pulled(layer) == data
                store.create_image([layer], tag="shared:1")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(data,)) for data in contents * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(store.images) == len(store.layers) == len(contents)
    assert_clean(store)


# --- push and pull ----------------------------------------------------------------------------------------------------


def test_what_a_push_tells(store: Store) -> None:
    first, second, again = store.push_layer(A), store.push_layer(B), store.push_layer(A)
    assert (first.size, first.already_present, first.encoding, first.chunks_reused) == (len(A), False, None, 0)
    assert len(A) * 0.5 < first.bytes_new <= len(A)
    assert packs_on_disk(store) >= first.bytes_stored + second.bytes_stored
    assert second.bytes_new < 45_000
    assert second.chunks_reused
    assert (again.already_present, again.bytes_new, again.layer) == (True, 0, first.layer)
    assert store.push_layer(gzip.compress(A)).encoding is Encoding.GZIP


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake3"])
@pytest.mark.parametrize("compress", [False, True])
def test_an_expected_digest_is_that_of_the_source(store: Store, algorithm: str, compress: bool) -> None:
    source = gzip.compress(A) if compress else A
    assert store.push_layer(source, expected=Digest.of(source, algorithm)).layer.diff_id == sha256(A)
    with pytest.raises(DigestMismatchError) as caught:
        store.push_layer(source, expected=Digest.of(b"else", algorithm))
    assert (caught.value.expected, caught.value.actual) == (
        Digest.of(b"else", algorithm),
        Digest.of(source, algorithm),
    )


def test_a_push_with_a_wrong_digest_leaves_nothing(store: Store) -> None:
    with pytest.raises(DigestMismatchError):
        store.push_layer(A, expected=sha256(B))
    assert len(store.layers) == 0
    store.collect_garbage()
    assert store.stats().chunks == 0
    assert_clean(store)


@pytest.mark.parametrize(
    "source",
    [io.StringIO("text"), ["text"], 5, None, [b"good", "bad"]],
    ids=["text file", "texts", "number", "nothing", "bytes and text"],
)
def test_what_cannot_be_pushed_is_refused(store: Store, source: object) -> None:
    with pytest.raises(InvalidInputError):
        store.push_layer(source)  # type: ignore[arg-type]
    assert len(store.layers) == 0


def test_a_push_refuses_folders_missing_files_and_wrong_options(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="push_tree"):
        store.push_layer(tmp_path)
    with pytest.raises(StorageError):
        store.push_layer(tmp_path / "missing")
    with pytest.raises(InvalidOptionError):
        store.push_layer(A, decode="always")
    with pytest.raises(InvalidDigestError):
        store.push_layer(A, expected="sha256:short")
    with pytest.raises(InvalidInputError):
        store.push_tree(tmp_path / "missing")


def test_a_file_is_read_from_where_it_stands(store: Store) -> None:
    file = io.BytesIO(b"before" + A)
    file.seek(6)
    assert store.push_layer(file).layer.diff_id == sha256(A)


@pytest.mark.parametrize("source", ["bytes", "pipe"])
def test_progress_of_push_and_pull(store: Store, source: str) -> None:
    told: list[Progress] = []
    layer = store.push_layer(A if source == "bytes" else Pipe(A), on_progress=told.append).layer
    assert (told[-1].operation, told[-1].done) == ("push", len(A))
    assert len(told) == len(set(told))
    assert told[-1].total == (len(A) if source == "bytes" else None)
    told.clear()
    layer.pull(io.BytesIO(), on_progress=told.append)
    assert (told[-1].operation, told[-1].done, told[-1].total) == ("pull", len(A), len(A))
    assert len(told) == len(set(told))
    told.clear()
    store.push_layer(A, on_progress=told.append)
    assert told[-1].note == "already present"


def test_pull_by_name_and_by_object(store: Store, tmp_path: Path) -> None:
    layer = store.push_layer(A).layer
    for target in (tmp_path / "one", str(tmp_path / "two")):
        assert store.pull_layer(layer.diff_id, target) == len(A)
        assert Path(target).read_bytes() == A
    assert store.pull_layer(layer, tmp_path / "one") == len(A)
    with (tmp_path / "three").open("wb", buffering=0) as raw:
        layer.pull(raw)
    assert (tmp_path / "three").read_bytes() == A
    layer.pull(os.devnull)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_pull_that_fails_leaves_no_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LayerNotFoundError):
        store.pull_layer(sha256(b"unknown"), tmp_path / "out")
    layer = store.push_layer(A).layer
    with pytest.raises(StorageError):
        layer.pull(tmp_path / "missing" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_reader_is_a_file(store: Store) -> None:
    layer = store.push_layer(A).layer
    with layer.open() as reader:
        assert (reader.readable(), reader.seekable(), reader.writable(), reader.size) == (True, True, False, len(A))
        assert io.BufferedReader(reader).read() == A
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)
    reader.close()
    with store.open_layer(layer) as reader, pytest.raises(ValueError, match="negative"):
        reader.seek(-1)


def test_a_reader_cannot_be_written_to(store: Store) -> None:
    with store.push_layer(A).layer.open() as reader:
        assert not reader.writable()
        for action in (lambda: reader.write(b"x"), lambda: reader.truncate(0)):
            with pytest.raises(io.UnsupportedOperation):
                action()


def test_objects_say_what_they_are(store: Store) -> None:
    assert repr(store) == f"<Store {str(store.path)!r}>"
    with Store.open(store.path, read_only=True) as reader:
        assert repr(reader) == f"<Store {str(store.path)!r}, read-only>"
    for mapping in (store.layers, store.images, store.tags, store.trash):
        assert repr(mapping) == f"<{type(mapping).__name__} of {str(store.path)!r}>"
    with store.lease(60) as lease:
        assert repr(lease) == f"<Lease {lease.name.hex()}>"
    store.close()
    assert repr(store) == f"<Store {str(store.path)!r}>"


def test_progress_is_a_keyword(store: Store, tmp_path: Path) -> None:
    layer = store.push_layer(A).layer
    for action in (store.pull_layer, store.backup, Store.rebuild_index, Store.upgrade, layer.pull):
        assert inspect.signature(action).parameters["on_progress"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_reader_keeps_its_layer_from_collection(store: Store) -> None:
    layer = store.push_layer(A).layer
    with layer.open() as reader:
        store.release_layer(layer)
        assert store.collect_garbage().postponed == 1
        assert layer.diff_id not in store.layers
        assert reader.readall() == A
    store.collect_garbage()
    assert store.stats().chunks == 0


# --- images and tags --------------------------------------------------------------------------------------------------


def test_an_image_holds_what_it_was_made_of(store: Store) -> None:
    a, b = store.push_layer(A).layer, store.push_layer(B).layer
    when = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    image = store.create_image(
        [a, b.diff_id], tag="shop", config={"Env": ["A=b"]}, architecture="arm64", created=when, author="me",
        annotations={"k": "v"},
    )  # fmt: skip
    assert image.layers == [a, b]
    assert image.tags == ["shop:latest"]
    assert image.size == len(A) + len(B)
    assert Digest.of(image.manifest_bytes) == image.digest
    assert Digest.of(image.config_bytes) == image.config_digest == image.manifest.config.digest
    config = json.loads(image.config_bytes)
    assert (config["architecture"], config["os"], config["author"]) == ("arm64", "linux", "me")
    assert config["rootfs"]["diff_ids"] == [a.diff_id, b.diff_id]
    assert (image.config.architecture, image.manifest.annotations) == ("arm64", {"k": "v"})
    assert store.images["shop"] == store.images["shop:latest"] == store.images[image.digest] == image
    assert store.images[image.digest.encoded[:12]] == image
    assert a.images == [image]
    assert datetime.now(UTC) - image.created < timedelta(minutes=5)


def test_an_image_inherits_from_its_base(store: Store) -> None:
    a, b = store.push_layer(A).layer, store.push_layer(B).layer
    base = store.create_image([a], tag="base:1", config={"Env": ["A=b"], "Cmd": ["sh"]})
    for one in (base, "base:1", base.digest):
        child = store.create_image([b], base=one, config={"Cmd": ["run"]})
        assert child.layers == [a, b]
        assert child.chain_ids[0] == base.chain_ids[0]
        document = json.loads(child.config_bytes)["config"]
        assert (document["Env"], document["Cmd"]) == (["A=b"], ["run"])
    store.delete_image("base:1", ttl=0)
    store.collect_garbage()
    assert pulled(child.layers[0]) == A


def test_the_same_arguments_give_the_same_image(store: Store) -> None:
    layer = store.push_layer(A).layer
    one, two = (store.create_image([layer], architecture="amd64") for _ in range(2))
    assert one == two
    assert len(store.images) == 1
    assert len({one, two}) == 1


def test_an_image_of_what_is_not_there_is_refused(store: Store) -> None:
    layer = store.push_layer(A).layer
    before = packs_on_disk(store)
    with pytest.raises(LayerNotFoundError):
        store.create_image([layer, sha256(b"unknown")])
    with pytest.raises(ImageNotFoundError):
        store.create_image([layer], base="unknown:1")
    with pytest.raises(InvalidReferenceError):
        store.create_image([layer], tag="no tag at all")
    with pytest.raises(InvalidOptionError, match="architecture"):
        store.create_image([layer], architecture="")
    with pytest.raises(InvalidManifestError):
        store.create_image([layer], config={"Env": 5})
    assert len(store.images) == 0
    assert packs_on_disk(store) == before


def test_documents_are_kept_byte_for_byte(store: Store) -> None:
    layer = store.push_layer(A).layer
    image = store.create_image([layer])
    config = json.dumps(json.loads(image.config_bytes), indent=3).encode()
    document = json.loads(image.manifest_bytes)
    document["config"] |= {"digest": Digest.of(config), "size": len(config)}
    manifest = json.dumps(document, indent=5).encode()
    put = store.put_image(manifest, config, tag="put:1")
    assert (put.manifest_bytes, put.config_bytes, put.layers) == (manifest, config, [layer])
    with pytest.raises(InvalidManifestError, match="config"):
        store.put_image(manifest, config + b" ")
    with pytest.raises(InvalidManifestError):
        store.put_image(b"{}", config)
    with pytest.raises(InvalidManifestError):
        store.put_image(b"\xff", config)


def test_tags_are_a_mapping(store: Store) -> None:
    one = store.create_image([store.push_layer(A).layer], tag="shop:1.0")
    two = store.create_image([store.push_layer(B).layer])
    store.tags["shop"] = two.digest
    assert dict(store.tags) == {"shop:1.0": one.digest, "shop:latest": two.digest}
    store.tags["shop:1.0"] = two.digest
    assert (one.tags, two.tags) == ([], ["shop:1.0", "shop:latest"])
    del store.tags["shop"]
    assert list(store.tags) == ["shop:1.0"]
    assert len(store.images) == 2  # artifact-keeper#1776: a tag deleted removes that tag only
    assert store.tags.get("shop:2") is None
    assert "shop:2" not in store.tags
    with pytest.raises(TagNotFoundError):
        store.tags["shop:2"]
    with pytest.raises(KeyError):
        del store.tags["shop:2"]
    with pytest.raises(ImageNotFoundError):
        store.tags["shop:2"] = sha256(b"unknown")
    with pytest.raises(InvalidReferenceError):
        store.tags["UPPER CASE"] = two.digest
    with pytest.raises(InvalidReferenceError):
        store.tags[f"shop@{two.digest}"] = two.digest


def test_mappings_say_what_they_lack(store: Store) -> None:
    assert (len(store.layers), list(store.layers), len(store.images), list(store.tags)) == (0, [], 0, [])
    with pytest.raises(LayerNotFoundError):
        store.layers[sha256(b"unknown")]
    assert sha256(b"unknown") not in store.layers
    assert store.images.get("unknown:1") is None
    with pytest.raises(InvalidDigestError):
        store.layers["unknown"]
    for error in (LayerNotFoundError, ImageNotFoundError, TagNotFoundError):
        assert issubclass(error, NotFoundError)
        assert issubclass(error, KeyError)


# --- what keeps, and what goes ----------------------------------------------------------------------------------------


def test_a_deleted_image_can_be_brought_back(store: Store) -> None:
    layer = store.push_layer(A).layer
    image = store.create_image([layer], tag="shop:1.0")
    store.tags["shop:latest"] = image.digest
    assert store.delete_image("shop:1.0") == ["shop:1.0", "shop:latest"]
    with pytest.raises(ImageNotFoundError, match="trash"):
        store.images[image.digest]
    with pytest.raises(ImageNotFoundError, match="nope:latest"):
        store.undelete_image("nope")
    assert layer.images == []
    store.collect_garbage()
    assert store.undelete_image("shop:latest") == image
    assert image.tags == ["shop:1.0", "shop:latest"]
    store.delete_image(image, ttl=0)
    store.collect_garbage()
    with pytest.raises(ImageNotFoundError):
        store.undelete_image(image.digest)
    with pytest.raises(ImageNotFoundError):
        store.delete_image(image)
    assert len(store.layers) == 0


def test_a_tag_that_was_given_away_does_not_come_back(store: Store) -> None:
    one = store.create_image([store.push_layer(A).layer], tag="shop:1.0")
    store.delete_image(one)
    two = store.create_image([store.push_layer(B).layer], tag="shop:1.0")
    assert store.undelete_image(one.digest).tags == []
    assert two.tags == ["shop:1.0"]


@pytest.mark.parametrize("ttl", [-1.0, 1e30, float("nan"), float("inf")])
def test_senseless_times_are_refused(store: Store, ttl: float) -> None:
    image = store.create_image([store.push_layer(A).layer])
    with pytest.raises(InvalidOptionError):
        store.delete_image(image, ttl=ttl)
    with pytest.raises(InvalidOptionError):
        store.lease(ttl)
    with store.lease(10) as lease, pytest.raises(InvalidOptionError):
        lease.renew(ttl)
    assert len(store.images) == 1


def test_a_pushed_layer_is_kept_until_it_is_released(store: Store) -> None:
    layer = store.push_layer(A).layer
    store.collect_garbage()
    assert layer.diff_id in store.layers
    path = store.path
    store.close()
    with Store.open(path) as again:
        again.collect_garbage()
        assert layer.diff_id in again.layers
        assert "has ended" in again.why(layer.diff_id).reasons[0]
        again.release_layer(layer.diff_id)
        assert again.why(layer.diff_id).reasons == ()
        again.collect_garbage()
        assert len(again.layers) == 0
        with pytest.raises(LayerNotFoundError):
            again.release_layer(layer.diff_id)


def test_a_layer_of_an_image_cannot_be_released(store: Store) -> None:
    layer = store.push_layer(A).layer
    image = store.create_image([layer], tag="a:1")
    with pytest.raises(LayerInUseError):
        store.release_layer(layer)
    store.delete_image(image)
    with pytest.raises(ConflictError):
        store.release_layer(layer)


def test_a_lease_keeps_what_was_pushed_under_it(store: Store) -> None:
    with store.lease(1000) as lease:
        layer = store.push_layer(A, lease=lease).layer
        store.collect_garbage()
        assert "lease" in store.why(layer.diff_id).reasons[0]
    store.collect_garbage()
    assert len(store.layers) == 0
    with pytest.raises(LeaseEndedError):
        lease.renew(10)
    with pytest.raises(LeaseEndedError):
        store.push_layer(A, lease=lease)
    lease.end()
    assert_clean(store)


def test_a_lease_that_runs_out_while_a_push_runs(store: Store) -> None:
    lease = store.lease(1000)

    def blocks() -> object:
        yield A[:30_000]
        lease.end()
        yield A[30_000:]

    with pytest.raises(LeaseEndedError):
        store.push_layer(blocks(), lease=lease)  # type: ignore[arg-type]
    assert len(store.layers) == 0
    store.collect_garbage()
    assert store.stats().chunks == 0


def test_why(store: Store) -> None:
    layer = store.push_layer(A).layer
    image = store.create_image([layer], tag="shop:1.0")
    assert store.why(image.digest).kind == store.why("shop:1.0").kind == "image"
    found = store.why(layer.diff_id)
    assert (found.kind, found.images, found.tags) == ("layer", (image.digest,), ("shop:1.0",))
    store.delete_image(image)
    assert store.why(image.digest).kind == "trash"
    assert "trash" in store.why(layer.diff_id).reasons[0]
    with pytest.raises(NotFoundError):
        store.why(sha256(b"unknown"))


def test_a_plan_that_was_overtaken_takes_nothing_that_came_into_use(store: Store) -> None:
    layer = store.push_layer(A).layer
    store.release_layer(layer)
    plan = store.plan_collection()
    assert plan.layers == (layer.diff_id,)
    store.create_image([layer])
    report = store.collect_garbage(plan)
    assert (report.layers, report.bytes_freed) == (0, 0)
    assert pulled(layer) == A


def test_pushing_again_after_collection(store: Store) -> None:
    """distribution#3254: a push after collection works like the first one."""
    for _ in range(3):
        image = store.create_image([store.push_layer(A).layer], tag="shop:1.0")
        assert pulled(image.layers[0]) == A
        store.delete_image(image, ttl=0)
        store.collect_garbage()
        assert store.stats().chunks == packs_on_disk(store) == 0
    assert_clean(store)


# --- prune, stats, diff -----------------------------------------------------------------------------------------------


def test_prune_keeps_the_last_of_each_repository(store: Store) -> None:
    for number in range(4):
        for name in ("one", "two"):
            store.create_image([store.push_layer(f"{name}{number}".encode()).layer], tag=f"{name}:{number}")
    plan = store.plan_prune(keep_last=2)
    assert sorted(tag for item in plan.images for tag in item.tags) == ["one:0", "one:1", "two:0", "two:1"]
    assert len(store.images) == 8
    assert store.prune(plan).images == plan.images
    assert sorted(store.tags) == ["one:2", "one:3", "two:2", "two:3"]
    assert store.plan_prune(keep_last=1, older_than=timedelta(days=1)).images == ()
    assert len(store.plan_prune(older_than=timedelta(0)).images) == 4
    assert len(store.plan_prune(max_size=0).images) == 4
    assert store.plan_prune(max_size=1 << 40).images == ()


@pytest.mark.parametrize("rules", [{}, {"keep_last": 0}, {"older_than": timedelta(-1)}, {"max_size": -1}])
def test_prune_refuses_senseless_rules(store: Store, rules: dict[str, int]) -> None:
    with pytest.raises(InvalidOptionError):
        store.plan_prune(**rules)  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", [{"keep_last": 1}, {"older_than": timedelta(0)}, {"max_size": 0}])
def test_prune_takes_a_plan_or_rules(store: Store, rules: dict[str, int]) -> None:
    store.create_image([store.push_layer(A).layer], tag="shop:1.0")
    with pytest.raises(InvalidOptionError, match="not both"):
        store.prune(store.plan_prune(max_size=0), **rules)  # type: ignore[arg-type]
    assert list(store.tags) == ["shop:1.0"]


def test_figures_agree_with_the_disk(store: Store) -> None:
    a, b = store.push_layer(A).layer, store.push_layer(B).layer
    one, two = store.create_image([a], tag="a:1"), store.create_image([a, b], tag="b:1")
    stats = store.stats()
    assert (stats.images, stats.layers, stats.logical_bytes) == (2, 2, 2 * len(A) + len(B))
    assert stats.unique_bytes == len(A) + len(B)
    assert stats.stored_bytes == packs_on_disk(store)
    blocks = sum(path.lstat().st_blocks * 512 for path in [store.path, *store.path.rglob("*")])
    assert abs(stats.disk_bytes - blocks) <= 8192
    assert min(stats.ratio, stats.layer_ratio, stats.chunk_ratio, stats.compression_ratio) > 0
    usage = store.image_usage(two)
    assert usage.size == len(A) + len(B)
    assert usage.exclusive_bytes < usage.stored_bytes <= stats.stored_bytes
    assert usage.shared_bytes == usage.stored_bytes - usage.exclusive_bytes
    assert store.image_usage(one).exclusive_bytes < 3000


def test_diff_of_layers_and_images(store: Store) -> None:
    a, b = store.push_layer(A).layer, store.push_layer(B).layer
    expected = [("added", b"b"), ("deleted", b"t")]
    assert [(change.kind, change.path) for change in store.diff(a, b)] == expected
    assert [(change.kind, change.path) for change in store.diff(a.diff_id, b.diff_id)] == expected
    one, two = store.create_image([a], tag="a:1"), store.create_image([b], tag="b:1")
    assert [(change.kind, change.path) for change in store.diff("a:1", "b:1")] == expected
    assert [(change.kind, change.path) for change in store.diff(one, two.digest)] == expected
    with pytest.raises(ImageNotFoundError):
        store.diff("a:1", "c:1")


def test_verify_tells_what_it_checked(store: Store) -> None:
    told: list[Progress] = []
    store.create_image([store.push_layer(A).layer, store.push_layer(B).layer])
    quick, full = store.verify(full=False), store.verify(on_progress=told.append)
    assert (quick.is_full, quick.frames_read, full.is_full) == (False, 0, True)
    assert full.frames_read == store.stats().frames
    assert (full.layers_checked, full.images_checked, full.chunks) == (2, 1, store.stats().chunks)
    assert told[-1].done == told[-1].total
