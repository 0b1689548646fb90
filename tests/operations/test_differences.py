"""Differences: what is needed to make a blob out of layers that another store has."""

import gzip
import io
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import make_tar, noise, text

from layerstore import Digest, LayerstoreError, Store
from layerstore._zstd import zstd
from layerstore.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    InvalidInputError,
    LayerNotFoundError,
    UndecodableError,
)
from layerstore.operations.difference_format import (
    MAGIC,
    Copy,
    Head,
    InstructionCoder,
    RecordKind,
    Take,
    decode_records,
    encode_head,
    encode_literals,
    encode_record,
)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "ours") as store:
        yield store


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "theirs") as store:
        yield store


def files(count: int = 60, seed: int = 0) -> dict[str, bytes]:
    return {f"usr/file{n:03}": noise(random.Random(n).randrange(200, 40_000), seed * 1000 + n) for n in range(count)}


def tar_of(contents: dict[str, bytes], mtime: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def difference(store: Store, digest: str, have: list[str]) -> bytes | None:
    made = store.difference(digest, have)
    if made is None:
        return None
    with made:
        return b"".join(made.blocks())


def pushed(store: Store, data: bytes) -> Digest:
    return store.push_layer(data, decode="never").layer.diff_id


def take(store: Store, data: bytes, digest: str) -> None:
    store.push_difference(store.open_difference([data]), digest=digest)


def test_a_changed_file_costs_about_the_file(ours: Store, theirs: Store) -> None:
    old = files()
    new = old | {"usr/file030": noise(20_000, 5)}
    base = pushed(theirs, make_tar(old))
    pushed(ours, make_tar(old))
    layer = pushed(ours, make_tar(new))
    data = difference(ours, layer, [base])
    assert data is not None
    assert 20_000 < len(data) < 45_000 < len(make_tar(new)) // 20
    take(theirs, data, layer)
    assert b"".join(theirs.blob_blocks(layer)) == make_tar(new)


def test_times_alone_cost_next_to_nothing(ours: Store, theirs: Store) -> None:
    old, new = make_tar(files()), tar_of(files(), 1_700_000_000)
    base = pushed(theirs, old)
    pushed(ours, old)
    layer = pushed(ours, new)
    data = difference(ours, layer, [base])
    assert data is not None
    assert len(data) < 6_000
    take(theirs, data, layer)
    assert b"".join(theirs.blob_blocks(layer)) == new


def test_a_compressed_blob_is_made_again_and_kept_as_its_recipe(ours: Store, theirs: Store) -> None:
    old, new = make_tar(files()), make_tar(files() | {"usr/new": text(9_000)})
    blob = gzip.compress(new, 6, mtime=0)
    digest = Digest.of(blob)
    base = pushed(theirs, old)
    pushed(ours, old)
    ours.push_blob(blob, digest=digest)
    assert ours.difference(digest, [base]) is None, "it is kept raw as yet, and cannot be told by its layer"
    ours.prove_encodings()
    data = difference(ours, digest, [base])
    assert data is not None
    assert len(data) < len(blob) // 10
    take(theirs, data, digest)
    assert b"".join(theirs.blob_blocks(digest)) == blob
    assert theirs.encodings[digest].kept_as == "recipe"
    assert theirs.verify().is_clean


def test_frames_that_are_new_as_a_whole_go_as_they_are_stored(ours: Store, theirs: Store) -> None:
    old = files()
    new = old | {f"zz/big{n}": text(3 << 20, n) for n in range(3)}
    base = pushed(theirs, make_tar(old))
    pushed(ours, make_tar(old))
    layer = pushed(ours, make_tar(new))
    data = difference(ours, layer, [base])
    assert data is not None
    bodies = [body for kind, body in decode_records([data]) if kind is RecordKind.LITERALS]
    stored = b"".join(path.read_bytes() for path in (ours.path / "packs").iterdir())
    as_stored = [body for body in bodies if body[6:] in stored]
    assert as_stored, "none was passed on"
    take(theirs, data, layer)
    assert b"".join(theirs.blob_blocks(layer)) == make_tar(new)


def test_it_is_made_against_several_bases(ours: Store, theirs: Store) -> None:
    first, second = files(40, 1), {f"b{name}": data for name, data in files(40, 2).items()}
    bases = [pushed(theirs, make_tar(one)) for one in (first, second)]
    for one in (first, second):
        pushed(ours, make_tar(one))
    layer = pushed(ours, make_tar(first | second))
    made = ours.difference(layer, [Digest.of(b"unknown"), *bases, *bases])
    assert made is not None
    with made:
        assert set(made.bases) == set(bases)
        assert made.copied > len(make_tar(first | second)) * 0.9
        data = b"".join(made.blocks())
    take(theirs, data, layer)
    assert b"".join(theirs.blob_blocks(layer)) == make_tar(first | second)


def test_there_is_none_to_what_has_nothing_in_common(ours: Store) -> None:
    layer, other = pushed(ours, make_tar(files(20, 1))), pushed(ours, make_tar(files(20, 2)))
    assert ours.difference(layer, [other]) is None
    assert ours.difference(layer, []) is None
    assert ours.difference(layer, [layer]) is None, "who has the blob needs none"


def test_of_an_unknown_blob_there_is_none(ours: Store) -> None:
    with pytest.raises(BlobNotFoundError):
        ours.difference(Digest.of(b"unknown"), [])


def test_its_layers_stay_while_it_is_open(ours: Store, theirs: Store) -> None:
    old, new = make_tar(files()), make_tar(files() | {"n": b"n"})
    base = pushed(theirs, old)
    pushed(ours, old)
    layer = pushed(ours, new)
    made = ours.difference(layer, [base])
    assert made is not None
    with made:
        for one in (base, layer):
            ours.release_layer(one)
        ours.collect_garbage()
        data = b"".join(made.blocks())
    take(theirs, data, layer)
    assert theirs.has_blob(layer)
    ours.collect_garbage()
    assert not ours.has_blob(layer)


# Contents that repeat, move, grow and vanish.
_piece = st.binary(min_size=0, max_size=40) | st.builds(noise, st.integers(0, 60_000), st.integers(0, 5))
_tree = st.dictionaries(st.sampled_from([f"d/{n}" for n in range(12)]), _piece, max_size=12)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=st.lists(_tree, min_size=1, max_size=3), new=_tree, tail=st.binary(max_size=30))
def test_what_comes_of_it_is_the_layer(
    old: list[dict[str, bytes]], new: dict[str, bytes], tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Law: a difference to whatever layers gives the layer, bit for bit."""
    path = tmp_path_factory.mktemp("law")
    contents = make_tar(new | old[0]) + tail
    with Store.create(path / "ours", frame_size=1 << 14) as ours, Store.create(path / "theirs") as theirs:
        bases = [pushed(theirs, make_tar(one)) for one in old]
        for one in old:
            pushed(ours, make_tar(one))
        layer = pushed(ours, contents)
        data = difference(ours, layer, list(bases))
        if data is not None:
            take(theirs, data, layer)
            assert b"".join(theirs.blob_blocks(layer)) == contents
            assert theirs.verify().is_clean


def head(store: Store, base: Digest, layer: Digest, size: int, recipe: bytes = b"") -> bytes:
    return MAGIC + encode_head(Head(layer, layer, size, recipe, (base,)))


def end() -> bytes:
    return encode_record(RecordKind.END)


def instructions(*given: Copy | Take) -> bytes:
    return InstructionCoder(8).encode(given)


def bomb(size: int) -> bytes:
    return zstd.compress(bytes(size))


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        pytest.param(b"", "cut", id="cut"),
        pytest.param(end(), "makes 0 bytes", id="nothing"),
        pytest.param(b"\x09\x00", "unknown kind", id="kind"),
        pytest.param(instructions(Copy(0, 0, 5)) + end(), "makes 5 bytes", id="short"),
        pytest.param(instructions(Copy(0, 0, 500)) + end(), "makes more than", id="long"),
        pytest.param(instructions(Copy(0, 1 << 40, 100)) + end(), "behind the end", id="behind"),
        pytest.param(instructions(Copy(7, 0, 100)) + end(), "make no sense", id="no such base"),
        pytest.param(instructions(Take(0, 100)) + end(), "does not have", id="no literals"),
        pytest.param(
            encode_literals(0, 0, 100, bytes(100)) + instructions(Copy(0, 0, 100)) + end(), "makes 100", id="left over"
        ),
        pytest.param(encode_literals(0, 0, 99, bytes(100)) + end(), "not 99", id="size"),
        pytest.param(encode_literals(0, 1, 99, b"junk") + end(), "make no sense", id="no zstd"),
        pytest.param(encode_literals(0, 1, 99, bomb(1 << 28)) + end(), "not 99", id="bomb"),
        pytest.param(encode_record(RecordKind.INSTRUCTIONS, bomb(1 << 28)) + end(), "too many", id="instruction bomb"),
        pytest.param(encode_record(RecordKind.INSTRUCTIONS, zstd.compress(b"\x07")) + end(), "unknown", id="operation"),
        pytest.param(
            encode_record(RecordKind.INSTRUCTIONS, zstd.compress(b"\x04\x80")) + end(), "sense|have", id="number"
        ),
        pytest.param(encode_head(Head(Digest.of(b""), Digest.of(b""), 0, b"", ())), "two heads", id="two heads"),
        pytest.param(end() + b"more", "behind its end", id="behind the end"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(ours: Store, tail: bytes, message: str) -> None:
    base = pushed(ours, b"base" * 100)
    layer = Digest.of(b"wanted")
    before = ours.stats()
    with pytest.raises(UndecodableError, match=message):
        take(ours, head(ours, base, layer, 100) + tail, layer)
    assert not ours.has_blob(layer)
    ours.collect_garbage()
    after = ours.stats()
    assert (after.layers, after.chunks) == (before.layers, before.chunks)


def test_another_layer_than_promised_is_refused(ours: Store) -> None:
    base = pushed(ours, b"base" * 100)
    layer = Digest.of(b"wanted")
    data = head(ours, base, layer, 100) + instructions(Copy(0, 0, 100)) + end()
    with pytest.raises(DigestMismatchError):
        take(ours, data, layer)
    with pytest.raises(DigestMismatchError):
        take(ours, data, Digest.of(b"another"))
    assert list(ours.layers) == [base]


def test_a_base_that_is_not_there_is_told(ours: Store) -> None:
    layer = Digest.of(b"wanted")
    data = head(ours, Digest.of(b"nowhere"), layer, 1) + instructions(Copy(0, 0, 1)) + end()
    with pytest.raises(LayerNotFoundError):
        take(ours, data, layer)


def test_a_recipe_that_does_not_fit_is_refused(ours: Store, theirs: Store) -> None:
    content = make_tar(files(3))
    blob = gzip.compress(content, 6, mtime=0)
    digest, layer = Digest.of(blob), Digest.of(content)
    base = pushed(ours, content)
    theirs.push_blob(gzip.compress(content[:-1], 9, mtime=0), digest=Digest.of(gzip.compress(content[:-1], 9, mtime=0)))
    theirs.prove_encodings()
    made = theirs.difference(next(iter(theirs.encodings)), [pushed(theirs, content)])
    assert made is not None
    wrong = theirs.open_difference([b"".join(made.blocks())]).recipe
    made.close()
    for recipe in (b"junk", wrong):
        data = MAGIC + encode_head(Head(digest, layer, len(content), recipe, (base,)))
        data += instructions(Copy(0, 0, len(content))) + end()
        with pytest.raises(InvalidInputError):
            take(ours, data, digest)
        assert not ours.has_blob(digest)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_are_refused_with_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Fuzz: a good difference with some of its bytes changed, cut or added gives the layer or one of our errors."""
    with _Sample.of(tmp_path_factory) as sample:
        damaged = bytearray(sample.difference)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(damaged) - 1))
            kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
            if kind == "flip":
                damaged[place] ^= data.draw(st.integers(1, 255))
            elif kind == "cut":
                del damaged[place : place + data.draw(st.integers(1, 50))]
            else:
                damaged[place:place] = data.draw(st.binary(min_size=1, max_size=50))
        try:
            take(sample.store, bytes(damaged), sample.layer)
        except LayerstoreError:
            pass
        else:
            assert b"".join(sample.store.blob_blocks(sample.layer)) == sample.content
            sample.store.release_layer(sample.layer)
            sample.store.collect_garbage()


class _Sample:
    """One store that takes, made once: making it costs more than a case."""

    made: "_Sample | None" = None

    def __init__(self, path: Path) -> None:
        old, self.content = make_tar(files(8)), make_tar(files(8) | {"n": text(5000)})
        self.store = Store.create(path / "takes", trash_ttl=0)
        base = pushed(self.store, old)
        with Store.create(path / "gives") as gives:
            pushed(gives, old)
            self.layer = pushed(gives, self.content)
            self.difference = difference(gives, self.layer, [base]) or b""

    @classmethod
    def of(cls, factory: pytest.TempPathFactory) -> "_Sample":
        cls.made = cls.made or cls(factory.mktemp("fuzz"))
        return cls.made

    def __enter__(self) -> "_Sample":
        return self

    def __exit__(self, *_: object) -> None:
        pass
