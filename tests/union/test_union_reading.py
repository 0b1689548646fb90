"""Contents of files in a view: any part of them, with zeros where a sparse file has holes."""

import io
import os
import random
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import END, gnu_sparse, header, member, noise, padded, pax, pax_sparse, text
from union_samples import Member, file, folder, hardlink, layer, symlink, view_of

from layerstore import Store
from layerstore.errors import InvalidInputError, LayerstoreError, StoreClosedError
from layerstore.tar.entries import EntryKind, TarEntry
from layerstore.union.errors import IsADirectoryInViewError, NotReadableError
from layerstore.union.reading import Contents

BIG = noise(300_000)


def test_a_file_is_seekable(store: Store) -> None:
    with view_of(store, layer(file(b"small", b"s"), file(b"big", BIG), file(b"last", b"l"))) as view:
        assert view.read_bytes("big") == BIG
        with view.open("big") as opened:
            assert opened.seekable()
            assert opened.readable()
            assert not opened.writable()
            assert opened.read(10) == BIG[:10]
            assert opened.seek(-5, os.SEEK_END) == len(BIG) - 5
            assert opened.read() == BIG[-5:]
            assert opened.seek(1 << 40) == 1 << 40
            assert opened.read(1) == b""
            opened.seek(123_456)
            assert opened.read(100_000) == BIG[123_456:223_456]
        with pytest.raises(ValueError, match="closed"):
            opened.read()


def test_an_empty_file(store: Store) -> None:
    with view_of(store, layer(file(b"empty"))) as view, view.open("empty") as opened:
        assert opened.read() == b""
        assert view.read_bytes("empty") == b""
        assert view.regions(view.stat("empty")) == ()


def test_lines_of_a_file(store: Store) -> None:
    with view_of(store, layer(file(b"lines", text(5000)))) as view, view.open("lines") as opened:
        assert list(opened) == list(io.BytesIO(text(5000)))


def test_files_of_several_layers_are_open_at_once(store: Store) -> None:
    layers = [layer(file(b"f%d" % n, noise(50_000, n))) for n in range(3)]
    with view_of(store, *layers) as view:
        opened = [view.open(f"f{n}") for n in range(3)]
        for position in (40_000, 0, 20_000):
            for n, one in enumerate(opened):
                one.seek(position)
                assert one.read(5000) == noise(50_000, n)[position : position + 5000]


def test_threads_share_a_view(store: Store) -> None:
    contents = {b"f%d" % n: noise(20_000, n) for n in range(20)}
    wrong: list[bytes] = []
    with view_of(store, layer(*(file(name, data) for name, data in contents.items()))) as view:

        def read(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(100):
                name = chance.choice(list(contents))
                start = chance.randrange(20_000)
                with view.open(name) as opened:
                    opened.seek(start)
                    if opened.read(3000) != contents[name][start : start + 3000]:
                        wrong.append(name)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_what_has_no_contents(store: Store) -> None:
    everything = layer(folder(b"d"), symlink(b"l", b"d"), Member(b"p", b"6"), Member(b"n", b"3", device=(1, 3)))
    with view_of(store, everything) as view:
        for path in ("d", "l", "/"):
            with pytest.raises(IsADirectoryInViewError):
                view.open(path)
        with pytest.raises(IsADirectoryError):
            view.read_bytes("d")
        for path in ("p", "n"):
            with pytest.raises(NotReadableError) as caught:
                view.open(path)
            assert isinstance(caught.value, OSError)
        with pytest.raises(NotReadableError):
            view.open_node(view.lstat("l"))
        with pytest.raises(FileNotFoundError):
            view.open("nothing")


def test_a_store_that_is_closed_reads_no_more(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        view = view_of(store, layer(file(b"a", b"x")))
        opened = view.open("a")
    with pytest.raises(StoreClosedError):
        opened.read()
    opened.detach()
    view.close()


# --- sparse files -----------------------------------------------------------------------------------------------------

REGIONS = [(0, b"begin"), (4096, text(1000)), (70_000, noise(512)), (99_990, b"end")]


def filled(size: int, regions: list[tuple[int, bytes]]) -> bytes:
    data = bytearray(size)
    for offset, part in regions:
        data[offset : offset + len(part)] = part
    return bytes(data)


def pax_sparse_old(name: bytes, size: int, regions: list[tuple[int, bytes]], *, listed: bool = True) -> bytes:
    """PAX sparse 0.1, with the map in one record, or 0.0, with two records for each region."""
    numbers = [number for offset, data in regions for number in (offset, len(data))]
    records = {b"GNU.sparse.size": b"%d" % size, b"GNU.sparse.numblocks": b"%d" % len(regions)}
    if listed:
        records |= {b"GNU.sparse.name": name, b"GNU.sparse.map": b",".join(b"%d" % number for number in numbers)}
        head = pax(records)
    else:
        body = b"".join(
            record(key, value)
            for key, value in [
                *records.items(),
                *(
                    (key, b"%d" % value)
                    for offset, data in regions
                    for key, value in ((b"GNU.sparse.offset", offset), (b"GNU.sparse.numbytes", len(data)))
                ),
            ]
        )
        head = header(b"pax", len(body), b"x") + padded(body)
    return head + member(b"".join(data for _, data in regions), name)


def record(key: bytes, value: bytes) -> bytes:
    for length in range(1000):
        line = b"%d %s=%s\n" % (length, key, value)
        if len(line) == length:
            return line
    raise AssertionError


def pax_sparse_pairs(name: bytes, size: int, regions: list[tuple[int, bytes]]) -> bytes:
    return pax_sparse_old(name, size, regions, listed=False)


FORMATS = [gnu_sparse, pax_sparse, pax_sparse_old, pax_sparse_pairs]


@pytest.mark.parametrize("make", FORMATS)
def test_holes_are_zeros(store: Store, make: object) -> None:
    with view_of(store, make(b"s", 100_000, REGIONS) + member(b"after", b"t") + END) as view:  # type: ignore[operator]
        expected = filled(100_000, REGIONS)
        assert view.stat("s").size == 100_000
        assert view.read_bytes("s") == expected
        assert view.regions(view.stat("s")) == tuple((offset, len(data)) for offset, data in REGIONS)
        assert view.read_bytes("t") == b"after"
        with view.open("s") as opened:
            for start in (0, 3, 5, 4095, 4096, 5095, 5096, 69_000, 99_989, 99_992):
                opened.seek(start)
                assert opened.read(1500) == expected[start : start + 1500]


@pytest.mark.parametrize("make", FORMATS)
def test_a_file_that_ends_in_a_hole_or_is_one(store: Store, make: object) -> None:
    with view_of(store, make(b"s", 5000, [(10, b"x"), (5000, b"")]) + make(b"h", 7000, [(7000, b"")]) + END) as view:  # type: ignore[operator]
        assert view.read_bytes("s") == filled(5000, [(10, b"x")])
        assert view.read_bytes("h") == bytes(7000)
        assert view.regions(view.stat("h")) == ()


@pytest.mark.parametrize("make", FORMATS)
def test_moby_5419_a_part_of_a_huge_sparse_file_is_read_at_once(store: Store, make: object) -> None:
    size = 423 * 10**9
    with view_of(store, make(b"lastlog", size, [(size - 100, b"login")]) + END) as view:  # type: ignore[operator]
        with view.open("lastlog") as opened:
            opened.seek(size - 1000)
            assert opened.read() == filled(1000, [(900, b"login")])
        assert view.stat("lastlog").size == size


@pytest.mark.parametrize("make", [gnu_sparse, pax_sparse, pax_sparse_old])
@pytest.mark.parametrize("regions", [[(100, b"abc"), (50, b"def")], [(0, b"abc"), (2, b"def")], [(4995, b"abcdefg")]])
def test_a_map_that_makes_no_sense_is_an_error(store: Store, make: object, regions: object) -> None:
    with view_of(store, make(b"s", 5000, regions) + END) as view, pytest.raises(InvalidInputError, match="no sense"):  # type: ignore[operator]
        view.read_bytes("s")


@pytest.mark.parametrize(
    "start", [b"x\n", b"3\n0\n1\n", b"99999999\n", b"9" * 600 + b"\n", b"1\n0\n-1\n", b"", b"1\n0"]
)
def test_a_map_in_the_payload_that_is_none_is_an_error(store: Store, start: bytes) -> None:
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"5000"}
    with view_of(store, pax(records) + member(padded(start), b"s") + END) as view:
        with pytest.raises(InvalidInputError, match="sparse file"):
            view.open("s")
        assert view.stat("s").size == 5000


def test_a_layer_that_is_cut_within_a_file(store: Store) -> None:
    with view_of(store, member(b"whole", b"a") + member(noise(2000), b"b")[:1500]) as view:
        assert view.read_bytes("a") == b"whole"
        with pytest.raises(InvalidInputError, match="not all of the contents"):
            view.open("b")


def test_a_region_that_is_longer_than_the_payload_is_an_error(store: Store) -> None:
    records = {b"GNU.sparse.size": b"5000", b"GNU.sparse.map": b"0,4000", b"GNU.sparse.numblocks": b"1"}
    tar = pax(records) + member(b"short", b"s") + END
    with view_of(store, tar) as view, pytest.raises(InvalidInputError, match="not all of the contents"):
        view.open("s")


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={n}"] for n in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files_of_gnu_tar(store: Store, tmp_path: Path, options: list[str]) -> None:
    if subprocess.run(["tar", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("needs GNU tar")
    expected = {}
    for name, size, places in (
        ("many", 3 << 20, range(0, 3 << 20, 65_536)),
        ("hole", 1 << 20, []),
        ("end", 1 << 20, [4096]),
    ):
        with (tmp_path / name).open("wb") as made:
            made.truncate(size)
            for place in places:
                made.seek(place)
                made.write(noise(4096, place))
        expected[name] = (tmp_path / name).read_bytes()
    subprocess.run(["tar", *options, "-S", "-cf", tmp_path / "tar", "-C", tmp_path, *expected], check=True)
    with view_of(store, (tmp_path / "tar").read_bytes(), layer(hardlink(b"link", b"many"))) as view:
        for name, data in expected.items():
            assert view.read_bytes(name) == data, name
        assert view.read_bytes("link") == expected["many"]


@given(data=st.data())
def test_any_part_of_any_sparse_file(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=40)), max_size=8))
    position, regions = 0, []
    for gap, part in gaps:
        regions.append((position + gap, part))
        position += gap + len(part)
    size = position + data.draw(st.integers(0, 40))
    contents = Contents(FakeLayer(b"".join(part for _, part in regions)), entry_of(size, regions))
    expected = filled(size, regions)
    start = data.draw(st.integers(0, size))
    part = bytearray(b"?" * data.draw(st.integers(0, size - start)))
    contents.read_into(memoryview(part), start)
    assert part == expected[start : start + len(part)]


class FakeLayer:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_into(self, target: memoryview, offset: int) -> None:
        target[:] = self.data[offset : offset + len(target)]


def entry_of(size: int, regions: list[tuple[int, bytes]]) -> TarEntry:
    return TarEntry(
        path=b"s",
        raw_path=b"s",
        kind=EntryKind.FILE,
        mode=0,
        uid=0,
        gid=0,
        uname=b"",
        gname=b"",
        size=size,
        mtime_ns=0,
        link_target=b"",
        device=(0, 0),
        header_offset=0,
        payload_offset=0,
        payload_size=sum(len(part) for _, part in regions),
        after_end=False,
        sparse=[(offset, len(part)) for offset, part in regions],
    )


def test_errors_are_of_both_kinds() -> None:
    for error in (IsADirectoryInViewError(b"p"), NotReadableError(b"p")):
        assert isinstance(error, LayerstoreError)
        assert isinstance(error, OSError)
        assert error.code == "invalid-input"
        assert error.filename == b"p"
