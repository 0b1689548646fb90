import io
import random
import tarfile
import zlib
from pathlib import Path

import pytest

from benchmarks.baselines import (
    FASTCDC,
    FIXED,
    GZIP,
    WAYS,
    WHOLE_FILE,
    WHOLE_LAYER,
    added_by_pieces,
    cdc_pieces,
    file_pieces,
    fixed_pieces,
    gzip_size,
    measure,
)
from benchmarks.images import LayerFile, make_image, new_layers
from benchmarks.layer_tar import Node, link, write_layer
from benchmarks.zstd_codec import zstd


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def make_layer(path: Path, contents: dict[str, bytes], mtime: int = 0) -> Path:
    write_layer(path, {name: Node(0o644, lambda data=data: data) for name, data in contents.items()}, mtime)
    return path


def test_a_fixed_chunk_that_repeats_is_stored_once_and_noise_is_stored_as_it_is(tmp_path: Path) -> None:
    block, other = noise(16 * 1024, 1), noise(16 * 1024, 2)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(block + other + block)
    second.write_bytes(block + other + other + b"tail")
    assert added_by_pieces([first, second], FIXED.key) == [2 * 16 * 1024, 4]


def test_compressible_pieces_count_with_their_zstd_size(tmp_path: Path) -> None:
    path = tmp_path / "text"
    piece = b"layer " * 2000
    path.write_bytes(piece)
    assert added_by_pieces([path], FIXED.key) == [len(zstd.compress(piece, 3))]


def test_a_file_that_two_layers_share_is_stored_once(tmp_path: Path) -> None:
    shared, own = noise(5000, 1), noise(7000, 2)
    first = make_layer(tmp_path / "first.tar", {"a": shared})
    second = make_layer(tmp_path / "second.tar", {"a": shared, "b": own}, mtime=1_700_000_000)
    first_added, second_added = added_by_pieces([first, second], WHOLE_FILE.key)
    assert 5000 < first_added < 5300
    assert 7000 < second_added < 7300


def test_pieces_of_files_are_the_contents_then_the_headers(tmp_path: Path) -> None:
    path = make_layer(tmp_path / "layer.tar", {"d/a": b"first", "d/b": b"second"})
    with path.open("rb") as file:
        contents = list(file_pieces(file))
    assert contents[:2] == [b"first", b"second"]
    assert sum(len(piece) for piece in contents) == path.stat().st_size


@pytest.mark.parametrize("content", [b"", b"no tar at all", noise(2000, 3)])
def test_what_is_no_tar_is_one_piece(content: bytes) -> None:
    assert list(file_pieces(io.BytesIO(content))) == ([content] if content else [])


def test_a_truncated_tar_loses_no_byte(tmp_path: Path) -> None:
    content = make_layer(tmp_path / "layer.tar", {"a": noise(3000, 1), "b": noise(3000, 2)}).read_bytes()
    for end in (700, 2000, 4500, 6000):
        pieces = list(file_pieces(io.BytesIO(content[:end])))
        assert sum(len(piece) for piece in pieces) == end


def test_every_way_of_cutting_covers_the_stream() -> None:
    content = noise(300_000, 4)
    assert b"".join(bytes(piece) for piece in fixed_pieces(io.BytesIO(content))) == content
    pieces = [bytes(piece) for piece in cdc_pieces(io.BytesIO(content))]
    assert b"".join(pieces) == content
    assert all(4 * 1024 <= len(piece) <= 64 * 1024 for piece in pieces[:-1])


def test_fastcdc_finds_content_that_has_moved(tmp_path: Path) -> None:
    content = noise(400_000, 5)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(content)
    second.write_bytes(b"moved" + content)
    assert added_by_pieces([first, second], FASTCDC.key)[1] < 100_000
    assert added_by_pieces([first, second], FIXED.key)[1] == 400_005


def test_gzip_is_one_member_of_level_6(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    content = b"some text " * 5000
    path.write_bytes(content)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    assert gzip_size(path) == len(packer.compress(content) + packer.flush())


def test_measure_answers_for_every_way_and_layer(tmp_path: Path) -> None:
    layers = [
        LayerFile.of(make_layer(tmp_path / f"{number}.tar", {"a": noise(2000, 1), "b": noise(1000, number)}))
        for number in range(3)
    ]
    added = measure(layers, jobs=2)
    assert set(added) == {way.key for way in WAYS}
    assert all(len(values) == 3 for values in added.values())
    assert added[WHOLE_LAYER.key] == [layer.size for layer in layers]
    assert added[GZIP.key] == [gzip_size(layer.path) for layer in layers]
    assert added[WHOLE_FILE.key][0] > added[WHOLE_FILE.key][1]


def test_a_layer_belongs_to_the_first_image_that_has_it(tmp_path: Path) -> None:
    known: dict[Path, LayerFile] = {}
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "copy-of-a").write_bytes(b"a")
    one = make_image("one", "f", [tmp_path / "a", tmp_path / "b"], known)
    two = make_image("two", "f", [tmp_path / "copy-of-a", tmp_path / "c"], known)
    names = [[layer.path.name for layer in group] for group in new_layers([one, two])]
    assert names == [["a", "b"], ["c"]]


def test_layer_tars_are_sorted_owned_by_root_and_have_one_time(tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    write_layer(path, {"b/x": Node(0o755, lambda: b"run"), "a": link("b/x")}, 1_700_000_000)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert [(member.name, member.type, member.mode) for member in members] == [
        ("a", tarfile.SYMTYPE, 0o777),
        ("b", tarfile.DIRTYPE, 0o755),
        ("b/x", tarfile.REGTYPE, 0o755),
    ]
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {
        (0, 0, "root", 1_700_000_000)
    }
    again = tmp_path / "again.tar"
    write_layer(again, {"a": link("b/x"), "b/x": Node(0o755, lambda: b"run")}, 1_700_000_000)
    assert again.read_bytes() == path.read_bytes()
