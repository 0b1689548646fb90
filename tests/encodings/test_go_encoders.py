"""Go's and klauspost's bytes from our own encoders: stored digests, and the real ones where Go is installed."""

import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import threading
import zlib
from pathlib import Path

import pytest

pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")

from go_cases import Case, make_cases, make_input
from go_fuzz import encode
from go_oracle import Oracle
from go_vectors import GO, VECTORS, vector_cases

from layerstore.encodings._encoders import Encoder

NUMBERS = range(1, 13)
OWN_CODE = (1, 2, 3, 6)  # the others differ from these in single decisions
ORACLES = Path(__file__).with_name("oracle")


@pytest.mark.parametrize("number", NUMBERS)
def test_stored_digests(number: int) -> None:
    digests = json.loads(VECTORS.read_text(encoding="utf-8"))
    cases = vector_cases(number)
    assert {case.key for case in cases} == {key for key in digests if key.startswith(f"{number}/")}
    wrong = [
        case.key
        for case in cases
        if not hashlib.sha256(encode(case, case.data())).hexdigest().startswith(digests[case.key])
    ]
    assert not wrong


@pytest.mark.parametrize("number", OWN_CODE)
def test_cuts_make_no_difference(number: int) -> None:
    encoders = [(number, level, size) for level in (-2, 0, 1, 5, 6) for size in ([0] if number in GO else [0, 20000])]
    for case in itertools.islice(make_cases(40 + number, encoders, 1 << 18), 40):
        data = case.data()
        assert encode(case, data, random.Random(case.seed)) == encode(case, data), case


@pytest.mark.parametrize("number", OWN_CODE)
@pytest.mark.parametrize("size", [0, 1, 12, 13, 16, 17, 32, 33, 127, 128, 65534, 65535, 65536, 131070, 131072])
def test_sizes_at_the_edges_inflate(number: int, size: int) -> None:
    for level in range(-2, 10 if number in GO else 7):
        for kind in ("text", "random", "sparse"):
            case = Case(number, level, 0 if number in GO else size % 3 * 65536, size // 3, kind, size, size)
            data = case.data()
            assert zlib.decompress(encode(case, data), -15) == data, case


def test_every_input_inflates_after_a_flush() -> None:
    for number in NUMBERS:
        encoder = Encoder(number, 5, 0 if number in GO else 1 << 17)
        inflater = zlib.decompressobj(-15)
        for seed in range(8):
            data = make_input("mixed", 50_000, seed)
            assert inflater.decompress(encoder.write(data) + encoder.flush())[-len(data) :] == data
        assert inflater.decompress(encoder.finish()) == b""
        assert inflater.eof


def test_a_finished_stream_takes_no_more() -> None:
    encoder = Encoder(1, 6)
    encoder.finish()
    with pytest.raises(ValueError, match="finished"):
        encoder.write(b"more")
    with pytest.raises(ValueError, match="finished"):
        encoder.finish()


@pytest.mark.parametrize(
    ("number", "level", "block_size"),
    [(1, -3, 0), (1, 10, 0), (2, 6, 65536), (3, 7, 0), (3, 5, 16384), (6, 5, 1 << 31)],
)
def test_options_that_no_encoder_has(number: int, level: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="has no"):
        Encoder(number, level, block_size)


def test_unknown_number() -> None:
    with pytest.raises(LookupError):
        Encoder(0, 6)


def test_streams_in_threads_are_independent() -> None:
    data = make_input("tar", 3_000_000, 5)
    expected = {number: hashlib.sha256(encode(Case(number, 5, 0, 0, "tar", 0, 0), data)).digest() for number in NUMBERS}
    actual: dict[int, bytes] = {}

    def run(number: int) -> None:
        actual[number] = hashlib.sha256(encode(Case(number, 5, 0, 0, "tar", 0, 0), data)).digest()

    threads = [threading.Thread(target=run, args=(number,)) for number in NUMBERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert actual == expected


def go_version() -> tuple[int, int] | None:
    go = shutil.which("go")
    if go is None:
        return None
    text = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    major, minor, *_ = text.strip().removeprefix("go").split(".")
    return int(major), int(minor)


@pytest.mark.skipif(go_version() is None, reason="Go is not installed")
def test_the_installed_go_makes_the_same(tmp_path: Path) -> None:
    program = tmp_path / "stdflate"
    environment = os.environ | {"GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    subprocess.run(["go", "build", "-o", program, ORACLES / "stdlib" / "stdflate.go"], env=environment, check=True)
    number = 1 if (go_version() or (0, 0)) < (1, 27) else 2
    with Oracle(program) as oracle:
        for case in itertools.islice(make_cases(77, [(number, level, 0) for level in range(-2, 10)], 1 << 17), 150):
            data = case.data()
            assert encode(case, data) == oracle.compress(case, data), case


# The number and the version of klauspost/compress it stands for; set to run with modules from the network.
KLAUSPOST_VERSIONS = {
    12: ["1.12.3", "1.13.6"],
    11: ["1.15.0", "1.15.9"],
    3: ["1.15.11", "1.18.0"],
    4: ["1.18.1"],
    5: ["1.18.2", "1.20.3"],
    6: ["1.20.4"],
}


@pytest.mark.skipif("LAYERSTORE_GO_MODULES" not in os.environ, reason="LAYERSTORE_GO_MODULES is not set")
@pytest.mark.parametrize(
    ("number", "version"),
    [(number, version) for number in KLAUSPOST_VERSIONS for version in KLAUSPOST_VERSIONS[number]],
)
def test_klauspost_makes_the_same(number: int, version: str, tmp_path: Path) -> None:
    shutil.copy(ORACLES / "klauspost" / "klauspost.go", tmp_path)
    requires = {"compress": version, "pgzip": "1.2.6"}
    lines = [f"require github.com/klauspost/{name} v{wanted}" for name, wanted in requires.items()]
    (tmp_path / "go.mod").write_text("\n".join(["module oracle", "go 1.23", *lines]))
    environment = os.environ | {"GOFLAGS": "-mod=mod"}
    subprocess.run(["go", "build", "-o", "oracle", "."], cwd=tmp_path, env=environment, check=True)
    levels = (5,) if number >= 11 else (5, 5, -2, 0, 1, 2, 3, 6)
    encoders = [(number, level, size) for level in levels for size in (0, 16385, 1 << 18)]
    with Oracle(tmp_path / "oracle") as oracle:
        for case in itertools.islice(make_cases(78, encoders, 1 << 18), 300):
            data = case.data()
            assert encode(case, data) == oracle.compress(case, data), case
