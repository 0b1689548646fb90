import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from layerstore.digest import Digest, hasher
from layerstore.errors import InvalidDigestError

EMPTY_SHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EMPTY_BLAKE3 = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


class Holder(BaseModel):
    model_config = ConfigDict(strict=True)

    digest: Digest


def test_known_values() -> None:
    assert Digest.of(b"") == EMPTY_SHA256
    assert Digest.of(b"", "blake3") == EMPTY_BLAKE3
    assert Digest.of(b"", "sha512") == "sha512:" + hashlib.sha512(b"").hexdigest()
    assert Digest.of(memoryview(b"abc")) == Digest.of(b"abc")


def test_parts() -> None:
    digest = Digest(EMPTY_SHA256)
    assert isinstance(digest, str)
    assert str(digest) == EMPTY_SHA256
    assert digest.algorithm == "sha256"
    assert digest.encoded == EMPTY_SHA256[7:]
    assert digest.short == "e3b0c44298fc"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        ":" + "a" * 64,
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "a" * 128,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "١" * 64,  # digits, but not ASCII ones
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "sha256::" + "a" * 63,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "blake3:" + "a" * 128,
        "md5:" + "a" * 32,
        "sha1:" + "a" * 40,
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidDigestError):
        Digest(text)


@pytest.mark.parametrize("value", [None, 1, b"sha256:" + b"a" * 64])
def test_refuses_what_is_no_text(value: object) -> None:
    with pytest.raises(InvalidDigestError):
        Digest(value)  # type: ignore[arg-type]


def test_an_error_does_not_repeat_a_huge_input() -> None:
    with pytest.raises(InvalidDigestError) as caught:
        Digest("x" * 1_000_000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("algorithm", "number", "size"), [("sha256", 1, 32), ("sha512", 2, 64), ("blake3", 3, 32)])
def test_pack_has_the_algorithm_number_of_the_format(algorithm: str, number: int, size: int) -> None:
    packed = Digest.of(b"layer", algorithm).pack()
    assert packed[0] == number
    assert len(packed) == 1 + size


@given(st.sampled_from(["sha256", "sha512", "blake3"]), st.binary())
def test_unpack_inverts_pack(algorithm: str, data: bytes) -> None:
    digest = Digest.of(data, algorithm)
    again = Digest.unpack(digest.pack())
    assert again == digest
    assert type(again) is Digest
    assert Digest.from_raw(algorithm, digest.pack()[1:]) == digest


@pytest.mark.parametrize("packed", [b"", b"\x00" + bytes(32), b"\x09" + bytes(32), b"\x01" + bytes(31), b"\x01"])
def test_unpack_refuses(packed: bytes) -> None:
    with pytest.raises(InvalidDigestError):
        Digest.unpack(packed)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake3"])
def test_hasher_in_parts_equals_of_the_whole(algorithm: str) -> None:
    state = hasher(algorithm)
    state.update(b"one")
    state.update(memoryview(b"two"))
    assert Digest.from_raw(algorithm, state.digest()) == Digest.of(b"onetwo", algorithm)


def test_hasher_refuses_other_algorithms() -> None:
    with pytest.raises(InvalidDigestError):
        hasher("md5")
    with pytest.raises(InvalidDigestError):
        Digest.of(b"", "sha1")


def test_pydantic_reads_and_writes_it() -> None:
    holder = Holder.model_validate_json(json.dumps({"digest": EMPTY_SHA256}))
    assert type(holder.digest) is Digest
    assert json.loads(holder.model_dump_json()) == {"digest": EMPTY_SHA256}
    assert type(Holder(digest=Digest(EMPTY_SHA256)).digest) is Digest


@pytest.mark.parametrize("value", ["sha256:abc", 1, None, ["sha256:" + "a" * 64]])
def test_pydantic_refuses_with_its_own_error(value: object) -> None:
    with pytest.raises(ValidationError):
        Holder.model_validate_json(json.dumps({"digest": value}))
