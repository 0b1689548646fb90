"""What is said where an encoder is missing or wrong, and that each passes its self-test where it is there."""

import pytest

from layerstore.encodings import encoders
from layerstore.encodings.encoders import EncoderNumber, EncoderUnavailableError, create_encoder, is_available
from layerstore.errors import InvalidOptionError


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_encoders", None)
    assert not any(is_available(number) for number in EncoderNumber)
    with pytest.raises(EncoderUnavailableError, match="GO_FLATE is compiled"):
        create_encoder(EncoderNumber.GO_FLATE, 6)


def test_numbers_are_frozen() -> None:
    assert {number.name: int(number) for number in EncoderNumber} == {
        "GO_FLATE": 1,
        "GO_FLATE_1_27": 2,
        "KLAUSPOST_1_15_10": 3,
        "KLAUSPOST_1_18_1": 4,
        "KLAUSPOST_1_18_2": 5,
        "KLAUSPOST_1_20_4": 6,
        "GO_FLATE_1_27_ARM64": 7,
        "KLAUSPOST_1_15_10_ARM64": 8,
        "KLAUSPOST_1_18_1_ARM64": 9,
        "KLAUSPOST_1_18_2_ARM64": 10,
        "KLAUSPOST_1_15_0": 11,
        "KLAUSPOST_1_12_3": 12,
        "ZLIB": 16,
        "PIGZ": 17,
        "PIGZ_ONE_THREAD": 18,
        "PIGZ_INDEPENDENT": 19,
        "GNU_GZIP": 20,
    }


def test_each_encoder_of_the_extension_passes_its_self_test() -> None:
    extension = pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")
    assert set(extension.numbers()) <= set(EncoderNumber)
    assert [number for number in extension.numbers() if not is_available(number)] == []


def test_a_failed_self_test_makes_an_encoder_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")
    monkeypatch.setitem(encoders._SELF_TESTS, EncoderNumber.GO_FLATE, ((6, 0, "0" * 32),))
    encoders._passes_self_test.cache_clear()
    try:
        assert not is_available(EncoderNumber.GO_FLATE)
        with pytest.raises(EncoderUnavailableError, match="self-test"):
            create_encoder(EncoderNumber.GO_FLATE, 6)
    finally:
        encoders._passes_self_test.cache_clear()


def test_unknown_numbers_and_options() -> None:
    pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")
    with pytest.raises(EncoderUnavailableError, match="number 999"):
        create_encoder(999, 6)
    for level, block_size in ((10, 0), (6, 4096), (6, -1), (6, 1 << 40)):
        with pytest.raises(InvalidOptionError):
            create_encoder(EncoderNumber.GO_FLATE, level, block_size)


def test_a_stream() -> None:
    pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")
    encoder = create_encoder(EncoderNumber.GO_FLATE, 6)
    stream = (
        encoder.write(bytearray(b"layer ")) + encoder.flush() + encoder.write(memoryview(b"layer")) + encoder.finish()
    )
    assert stream.endswith(b"\x00\x00\xff\xff")
