"""Laws: true for any content, any way of giving it, and any order of doing things."""

import io
import os
import random
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from samples import (
    Pipe,
    assert_clean,
    compressed,
    dialects,
    make_tar,
    noise,
    os_pipe,
    packs_on_disk,
    pieces,
    pulled,
    sha256,
    text,
)

from layerstore import Store
from layerstore.chunking import CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, Chunker
from layerstore.operations import batch
from layerstore.tar.splitter import TarSplitter

DIALECTS = dialects()
SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda data, _: data,
    "memoryview": lambda data, _: memoryview(data),
    "file object": lambda data, _: io.BytesIO(data),
    "pipe-like": lambda data, _: Pipe(data),
    "iterable": lambda data, _: pieces(data),
    "path": lambda data, folder: _file(folder, data),
    "path as text": lambda data, folder: str(_file(folder, data)),
}


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    """One store for many examples: laws hold whatever is in it."""
    with (
        TemporaryDirectory() as folder,
        Store.create(Path(folder) / "store", frame_size=1 << 15, pack_size_max=1 << 18) as store,
    ):
        yield store


class Contents(bytes):
    """Bytes that a failing test prints in short."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes {bytes(self[:40])!r} {sha256(self)}>"


def contents() -> st.SearchStrategy[bytes]:
    """Anything, with a bent for what looks like a tar."""
    random_bytes = st.binary(max_size=3000)
    tars = st.dictionaries(st.text("abc/.", min_size=1, max_size=9), random_bytes, max_size=4).map(make_tar)
    mangled = st.builds(_mangle, st.sampled_from(sorted(DIALECTS.values())), st.integers(0), st.binary(max_size=40))
    big = st.builds(noise, st.integers(0, 300_000), st.integers(0, 3))
    anything = random_bytes | tars | mangled | big | st.builds(bytes, st.integers(0, 200_000))
    return anything.map(Contents)


def _mangle(data: bytes, where: int, patch: bytes) -> bytes:
    position = where % (len(data) + 1)
    return data[:position] + patch + data[position + len(patch) :]


@given(contents())
@example(b"")
def test_pull_gives_back_what_was_pushed(shared: Store, data: bytes) -> None:
    result = shared.push_layer(data, decode="never")
    assert result.layer.diff_id == sha256(data)
    assert result.size == result.layer.size == len(data)
    assert pulled(result.layer) == data


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("dialect", ["pax", "no tar", "empty", "cut in contents"])
def test_every_source_gives_the_same_layer(store: Store, tmp_path: Path, source: str, dialect: str) -> None:
    data = DIALECTS[dialect]
    assert store.push_layer(SOURCES[source](data, tmp_path)).layer.diff_id == sha256(data)
    assert pulled(store.layers[sha256(data)]) == data


def test_a_real_pipe_is_a_source(store: Store) -> None:
    data = DIALECTS["pax"]
    with os_pipe(data) as pipe:
        assert store.push_layer(pipe).layer.diff_id == sha256(data)
        assert not pipe.closed  # it is the caller's


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_comes_back(store: Store, tmp_path: Path, dialect: str) -> None:
    data = DIALECTS[dialect]
    layer = store.push_layer(data).layer
    target = tmp_path / "out"
    assert layer.pull(target) == len(data)
    assert target.read_bytes() == data
    assert b"".join(layer.blocks()) == data


@pytest.mark.parametrize("source", ["bytes", "pipe-like", "iterable", "path"])
@pytest.mark.parametrize("form", list(compressed(b"")))
def test_compressed_content_is_decoded_or_kept_as_it_is(store: Store, tmp_path: Path, form: str, source: str) -> None:
    plain = make_tar({"a": text(50_000), "b": noise(30_000)})
    data, decodes = compressed(plain)[form]
    result = store.push_layer(SOURCES[source](data, tmp_path))
    expected = plain if decodes else data
    assert (result.encoding is not None) is decodes
    assert result.layer.diff_id == sha256(expected)
    assert pulled(result.layer) == expected
    raw = store.push_layer(SOURCES[source](data, tmp_path), decode="never")
    assert raw.encoding is None
    assert pulled(raw.layer) == data
    assert_clean(store)


@given(st.lists(st.integers(1, 90_000), max_size=12), st.integers(0, 5), st.lists(st.integers(0, 2**31), max_size=8))
@settings(max_examples=100)
def test_chunks_do_not_depend_on_how_contents_arrive(sizes: list[int], seed: int, cuts: list[int]) -> None:
    data = b"".join(noise(size, seed) if i % 2 else bytes(size) for i, size in enumerate(sizes))
    whole = [bytes(chunk) for chunk in Chunker().feed(memoryview(data), last=True)]
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    divided = Chunker()
    found = []
    for start, end in pairwise(ends):
        found += divided.feed(memoryview(data)[start:end], last=False)
    found += divided.feed(memoryview(b""), last=True)
    assert [bytes(chunk) for chunk in found] == whole
    assert b"".join(whole) == data
    assert all(CHUNK_SIZE_MIN <= len(chunk) <= CHUNK_SIZE_MAX for chunk in whole[:-1])


def test_a_chunker_serves_one_contents_after_the_other() -> None:
    one, two = noise(200_000, 1), noise(150_000, 2)
    fresh = [bytes(c) for data in (one, two) for c in Chunker().feed(memoryview(data), last=True)]
    reused = Chunker()
    again = []
    for data in (one, two):
        for start in range(0, len(data), 7000):
            again += reused.feed(memoryview(data)[start : start + 7000], last=start + 7000 >= len(data))
    assert [bytes(c) for c in again] == fresh


@pytest.mark.parametrize("limit", [600, 4096, 65_536, 100_000])
@pytest.mark.parametrize("around", [-1, 0, 1, 511, 512])
def test_layers_around_the_size_of_a_batch(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: int, around: int
) -> None:
    monkeypatch.setattr(batch, "BATCH_SIZE_MAX", limit)
    monkeypatch.setattr(batch, "BATCH_CHUNKS_MAX", 3)
    size = max(0, 2 * max(limit, 5000) + around)
    plain = noise(size, 1)
    tar = make_tar({"a": noise(size, 2), "b": b"", "c": text(size, 3)})
    for data in (plain, tar, tar[: size + around]):
        layer = store.push_layer(data).layer
        assert pulled(layer) == data
        assert store.push_layer(data).already_present
    assert_clean(store)


@pytest.mark.parametrize("block_size", [1, 511, 700, 4096, 10_000])
def test_recipes_do_not_depend_on_how_contents_arrive(monkeypatch: pytest.MonkeyPatch, block_size: int) -> None:
    """The same content makes the same chunks, those of the skeleton too: so a push can bring lost ones back."""
    monkeypatch.setattr(batch, "BATCH_SIZE_MAX", 9000)
    data = make_tar({"many": b"", **{f"dir/{i}": b"" for i in range(80)}, "a": noise(40_000), "b": text(3000)})[:70_000]
    whole = _recipe(iter([data]))
    assert len(whole) > 3
    assert _recipe(data[start : start + block_size] for start in range(0, len(data), block_size)) == whole


def _recipe(blocks: Iterator[bytes]) -> list[tuple[int, list[bytes], list[bytes]]]:
    splitter, batcher, chunker = TarSplitter(), batch.Batcher(), Chunker()
    batches = [one for block in blocks for one in batcher.add(splitter.feed(block))]
    batches += [*batcher.add(splitter.finish()), batcher.finish()]
    for one in batches:
        one.seal(chunker)
    return [(one.size, one.payload_ids, one.skeleton_ids) for one in batches]


@given(st.data())
@settings(max_examples=40)
def test_reading_anywhere_is_slicing(store_of_batches: tuple[Store, bytes], data: st.DataObject) -> None:
    store, content = store_of_batches
    with store.open_layer(sha256(content)) as reader:
        model = io.BytesIO(content)
        for _ in range(data.draw(st.integers(1, 8))):
            whence = data.draw(st.sampled_from((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)))
            here = {os.SEEK_SET: 0, os.SEEK_CUR: model.tell(), os.SEEK_END: len(content)}[whence]
            target = data.draw(st.integers(0, len(content) + 1000))
            assert reader.seek(target - here, whence) == model.seek(target - here, whence)
            size = data.draw(st.integers(0, 90_000))
            expected = model.read(size)
            assert _exactly(reader, len(expected)) == expected
            assert reader.tell() == model.tell()
        reader.seek(0)
        assert reader.readall() == content


def _exactly(reader: io.RawIOBase, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = reader.read(size - len(found))
        assert more
        found += more
    return found


@pytest.fixture(scope="module")
def store_of_batches() -> Iterator[tuple[Store, bytes]]:
    content = make_tar({f"f{i}": noise(random.Random(i).randrange(30_000), i) for i in range(30)}) + b"behind the end"
    with (
        TemporaryDirectory() as folder,
        Store.create(Path(folder) / "store", frame_size=1 << 14, pack_size_max=1 << 17) as store,
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "BATCH_SIZE_MAX", 50_000)
            store.push_layer(content)
        yield store, content


@given(contents())
@settings(max_examples=30)
def test_the_same_content_again_stores_nothing(shared: Store, data: bytes) -> None:
    shared.push_layer(data, decode="never")
    before = (shared.stats().chunks, shared.stats().stored_bytes, packs_on_disk(shared))
    again = shared.push_layer(Pipe(data), decode="never")
    assert again.already_present
    assert (again.bytes_new, again.bytes_stored, again.chunks_new) == (0, 0, 0)
    assert (shared.stats().chunks, shared.stats().stored_bytes, packs_on_disk(shared)) == before


def test_a_long_layer_again_leaves_nothing_alive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_SIZE_MAX", 20_000)
    data = make_tar({"a": noise(200_000)})
    store.push_layer(data)
    before = store.stats()
    again = store.push_layer(data)
    assert (again.already_present, again.bytes_new, again.chunks_new) == (True, 0, 0)
    # Batches before the last one had to be committed before it was known that the layer is here: their recipe is dead.
    after = store.stats()
    assert after.chunks == before.chunks
    assert after.stored_bytes - after.dead_bytes == before.stored_bytes - before.dead_bytes
    assert_clean(store)


def test_a_shared_file_is_stored_once(store: Store) -> None:
    common = noise(200_000)
    store.push_layer(make_tar({"a": common, "x": b"1"}))
    second = store.push_layer(make_tar({"other/name": common, "y": b"2"}))
    assert second.bytes_new < 10_000
    assert second.chunks_reused > 0


FILES = {f"f{i}": noise(9000 + i * 977, i) for i in range(20)}
LAYERS = [
    make_tar({name: FILES[name] for name in names})
    for names in (list(FILES)[:10], list(FILES)[5:15], list(FILES)[10:], list(FILES)[::3])
]


@given(st.permutations(range(len(LAYERS))))
@settings(max_examples=8)
def test_the_order_of_pushes_does_not_matter(order: list[int]) -> None:
    with TemporaryDirectory() as folder, Store.create(Path(folder) / "s", frame_size=1 << 15) as store:
        for number in order:
            store.push_layer(LAYERS[number])
        stats = store.stats()
        assert (stats.chunks, stats.chunk_bytes, stats.unique_bytes) == _figures_in_plain_order()
        assert all(pulled(store.layers[sha256(data)]) == data for data in LAYERS)
        assert_clean(store, full=False)


_FIGURES: list[tuple[int, int, int]] = []


def _figures_in_plain_order() -> tuple[int, int, int]:
    if not _FIGURES:
        with TemporaryDirectory() as folder, Store.create(Path(folder) / "s", frame_size=1 << 15) as store:
            for data in LAYERS:
                store.push_layer(data)
            stats = store.stats()
            _FIGURES.append((stats.chunks, stats.chunk_bytes, stats.unique_bytes))
    return _FIGURES[0]


@given(st.sets(st.integers(0, len(LAYERS) - 1), min_size=1), st.booleans())
@settings(max_examples=16)
def test_a_plan_frees_what_it_says_and_collecting_again_frees_nothing(gone: set[int], compress: bool) -> None:
    level = 3 if compress else -7
    with TemporaryDirectory() as folder:
        root = Path(folder) / "s"
        with Store.create(root, frame_size=1 << 14, pack_size_max=1 << 16, compression_level=level) as store:
            images = [store.create_image([store.push_layer(data).layer]) for data in LAYERS]
            for number in gone:
                store.delete_image(images[number], ttl=0)
            plan = store.plan_collection()
            before = packs_on_disk(store)
            assert before == store.stats().stored_bytes
            report = store.collect_garbage(plan)
            assert (report.images, report.layers) == (len(gone), len(gone))
            assert report.bytes_freed == plan.bytes_freed
            assert before - packs_on_disk(store) == report.bytes_freed + report.bytes_freed_by_rewriting
            assert_clean(store)
            for number, data in enumerate(LAYERS):
                assert (sha256(data) in store.layers) is (number not in gone)
            stored = store.stats().stored_bytes
            assert store.plan_collection().layers == ()
            again = store.collect_garbage()
            assert (again.layers, again.chunks, again.packs, again.packs_rewritten) == (0, 0, 0, 0)
            assert store.stats().stored_bytes == packs_on_disk(store) == stored
            live = [data for number, data in enumerate(LAYERS) if number not in gone]
            assert all(pulled(store.layers[sha256(data)]) == data for data in live)


def test_deleting_everything_gives_everything_back(store: Store) -> None:
    for number, data in enumerate(LAYERS):
        store.create_image([store.push_layer(data).layer], tag=f"i:{number}")
    for number in range(len(LAYERS)):
        store.delete_image(f"i:{number}", ttl=0)
    plan = store.plan_collection()
    before = packs_on_disk(store)
    store.collect_garbage(plan)
    assert plan.bytes_freed == before
    assert packs_on_disk(store) == store.stats().chunks == store.stats().stored_bytes == 0
    assert_clean(store)


@given(st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=2000), max_size=5), st.integers(0, 2**31))
@settings(max_examples=20)
def test_the_same_tree_gives_the_same_layer(shared: Store, files: dict[str, bytes], seed: int) -> None:
    names = sorted(files)
    shuffled = random.Random(seed).sample(names, len(names))
    found = set()
    for order in (names, shuffled):
        with TemporaryDirectory() as folder:
            for name in order:
                path = Path(folder) / name
                path.write_bytes(files[name])
                path.chmod(0o640)
                os.utime(path, (1_000_000_000, 1_000_000_000))
            result = shared.push_tree(folder)
            found.add(result.layer.diff_id)
            entries = {entry.path.decode(): entry.size for entry in result.layer.entries()}
            assert entries == {name: len(data) for name, data in files.items()}
    assert len(found) == 1


def test_sizes_of_pieces_add_up() -> None:
    """The samples themselves: a source that gives odd pieces gives all of them."""
    data = noise(3_000_000)
    assert b"".join(pieces(data)) == data
    assert list(accumulate(len(part) for part in pieces(data)))[-1] == len(data)
