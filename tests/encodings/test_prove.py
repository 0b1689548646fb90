"""A gzip file is made again, all of it, before it is said who made it."""

import gzip
from pathlib import Path

import pytest

pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")

from blobs import make_member
from go_cases import make_input
from zlib_oracle import no_zlib

from layerstore.encodings.encoders import EncoderNumber
from layerstore.encodings.gzip_format import GzipHeader
from layerstore.encodings.prove import prove
from layerstore.encodings.recipe import Method
from layerstore.encodings.recognise import Candidate
from layerstore.errors import UndecodableError

DATA = make_input("tar", 700_000, 3)


def write(path: Path, *members: bytes) -> Path:
    path.write_bytes(b"".join(members))
    return path


@pytest.mark.skipif(bool(no_zlib()), reason=str(no_zlib()))
def test_the_encoder_of_a_whole_file_is_found(tmp_path: Path) -> None:
    proof = prove(write(tmp_path / "a.gz", gzip.compress(DATA, 6, mtime=0)))
    assert proof.candidates[0].number == EncoderNumber.ZLIB
    assert proof.candidates[0].level == 6
    assert (proof.members, proof.decoded_size) == (1, len(DATA))


@pytest.mark.skipif(bool(no_zlib()), reason=str(no_zlib()))
def test_several_members_need_one_encoder_for_all_of_them(tmp_path: Path) -> None:
    same = prove(write(tmp_path / "a.gz", gzip.compress(DATA, 6, mtime=0), gzip.compress(DATA[:300_000], 6, mtime=0)))
    assert same.members == 2
    assert same.candidates[0].number == EncoderNumber.ZLIB
    mixed = prove(write(tmp_path / "b.gz", gzip.compress(DATA, 6, mtime=0), gzip.compress(DATA, 1, mtime=0)))
    assert mixed.candidates == ()


def test_a_flushed_member_is_proven(tmp_path: Path) -> None:
    method = Method(EncoderNumber.GO_FLATE, 9, 0)
    flushed = make_member(method, GzipHeader(extra_flags=2), DATA, (1000, len(DATA)))
    assert prove(write(tmp_path / "a.gz", flushed)).candidates == (Candidate(EncoderNumber.GO_FLATE, 9, 0),)


def test_one_bit_of_difference_late_in_the_file_is_no_proof(tmp_path: Path) -> None:
    half = len(DATA) // 2
    other = gzip.compress(DATA[:half], 6, mtime=0)
    stored = gzip.compress(DATA[half:], 0, mtime=0)
    assert prove(write(tmp_path / "a.gz", other, stored)).candidates == ()


@pytest.mark.parametrize("content", [b"", b"no gzip at all", gzip.compress(DATA) + b"behind", gzip.compress(DATA)[:-3]])
def test_what_is_no_whole_gzip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UndecodableError):
        prove(write(tmp_path / "a.gz", content))
