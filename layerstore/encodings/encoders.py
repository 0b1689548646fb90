"""Encoders that make the compressed bytes of other tools again, bit for bit.

They are compiled: where the extension is missing, or where an encoder fails its self-test, that encoder is not
available. It never makes other bytes than on any other machine.
"""

import functools
import hashlib
from enum import IntEnum

from layerstore.errors import EncoderUnavailableError, InvalidOptionError

try:
    from layerstore.encodings import _encoders
except ImportError:  # installed where there was no compiler
    _encoders = None  # type: ignore[assignment]  # checked before every use


class EncoderNumber(IntEnum):
    """Which tool's bytes. The numbers are part of the storage format: none is ever reused or given another meaning."""

    GO_FLATE = 1
    """Go's compress/flate up to Go 1.26; levels -2 to 9."""
    GO_FLATE_1_27 = 2
    """Go's compress/flate from Go 1.27; levels -2 to 9."""
    KLAUSPOST_1_15_10 = 3
    """klauspost/compress 1.15.10 to 1.18.0; levels -2 to 6, the default is 5. With a block size: klauspost/pgzip.

    Levels 1 to 3 are those from 1.15.11 on, level 4 is that of 1.18.0.
    """
    KLAUSPOST_1_18_1 = 4
    """klauspost/compress 1.18.1; else as above."""
    KLAUSPOST_1_18_2 = 5
    """klauspost/compress 1.18.2 to 1.20.3; else as above."""
    KLAUSPOST_1_20_4 = 6
    """klauspost/compress 1.20.4; else as above."""
    GO_FLATE_1_27_ARM64 = 7
    """As 2, compiled for arm64, where Go fuses the multiplications and additions of an estimate: about one block in a
    million is written otherwise."""
    KLAUSPOST_1_15_10_ARM64 = 8
    """As 3, compiled for arm64."""
    KLAUSPOST_1_18_1_ARM64 = 9
    """As 4, compiled for arm64."""
    KLAUSPOST_1_18_2_ARM64 = 10
    """As 5, compiled for arm64, up to 1.20.0: later versions make the same bytes everywhere."""
    KLAUSPOST_1_15_0 = 11
    """klauspost/compress 1.15.0 to 1.15.9, level 5 only. With a block size: klauspost/pgzip."""
    KLAUSPOST_1_12_3 = 12
    """klauspost/compress 1.12.3 to 1.13.6, level 5 only. With a block size: klauspost/pgzip."""
    ZLIB = 16
    """zlib's deflate, as Python's gzip module uses it."""
    PIGZ = 17
    """pigz with several threads."""
    PIGZ_ONE_THREAD = 18
    """pigz -p 1."""
    PIGZ_INDEPENDENT = 19
    """pigz -i."""
    GNU_GZIP = 20
    """GNU gzip."""


class Encoder:
    """One raw DEFLATE stream. Its bytes depend on what is written and where it is flushed, not on the writes' sizes."""

    def __init__(self, number: EncoderNumber, level: int, block_size: int) -> None:
        self._stream = _encoders.Encoder(number, level, block_size)

    def write(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compress the data and return what came out. Other threads run meanwhile."""
        return self._stream.write(data)

    def flush(self) -> bytes:
        """Flush as the tool would in the middle of a stream (a sync flush), and return what came out."""
        return self._stream.flush()

    def finish(self) -> bytes:
        """End the stream and return its last bytes. Nothing can be written afterwards."""
        return self._stream.finish()


def create_encoder(number: int, level: int, block_size: int = 0) -> Encoder:
    """Begin a stream.

    Args:
        number: An :class:`EncoderNumber`.
        level: As the tool counts them; Go's -1 is the default level, -2 codes literals only.
        block_size: Bytes of a block where the tool compresses in blocks, 0 for one stream.

    Raises:
        EncoderUnavailableError: This installation cannot make such streams.
        InvalidOptionError: The encoder has no such level or block size.
    """
    if not is_available(number):
        raise EncoderUnavailableError(_explain(number))
    try:
        return Encoder(EncoderNumber(number), level, block_size)
    except (ValueError, OverflowError) as error:
        raise InvalidOptionError(str(error)) from error


def is_available(number: int) -> bool:
    """Whether this installation has the encoder, and it passes its self-test."""
    return _encoders is not None and number in _encoders.numbers() and _passes_self_test(number)


def _explain(number: int) -> str:
    name = EncoderNumber(number).name if number in set(EncoderNumber) else f"number {number}"
    if _encoders is None:
        return f"encoder {name} is compiled, and layerstore was installed without its extension module"
    if number not in _encoders.numbers():
        return f"encoder {name} is unknown to this version of layerstore"
    return f"encoder {name} failed its self-test on this machine"


# number -> (level, block size, first half of the SHA-256 of the stream over _self_test_input); tests compare each with
# the real encoder.
_SELF_TESTS: dict[int, tuple[tuple[int, int, str], ...]] = {
    EncoderNumber.GO_FLATE: (
        (6, 0, "c840dba774efe2e4b097c3a63a4a5117"),
        (1, 0, "e9b08a46da9e28d550200ab9ece37635"),
    ),
    EncoderNumber.GO_FLATE_1_27: (
        (6, 0, "5dc80f1c92187a8774d4eaf855980ab2"),
        (1, 0, "e17143eb5d1615aa508fe5d8c243f39f"),
    ),
    EncoderNumber.KLAUSPOST_1_15_10: (
        (5, 0, "5bb8ff5ea592779d5fd06d5352751dba"),
        (5, 1 << 16, "f30a02615c529468b43d0592b5455dbb"),
    ),
    EncoderNumber.KLAUSPOST_1_18_1: (
        (5, 0, "324db67a2bb98836cdb7f505b9e5a649"),
        (5, 1 << 16, "1973b85a7a30ffc93d7de4ddd3e94a56"),
    ),
    EncoderNumber.KLAUSPOST_1_18_2: (
        (5, 0, "324db67a2bb98836cdb7f505b9e5a649"),
        (5, 1 << 16, "1973b85a7a30ffc93d7de4ddd3e94a56"),
    ),
    EncoderNumber.KLAUSPOST_1_20_4: (
        (5, 0, "324db67a2bb98836cdb7f505b9e5a649"),
        (5, 1 << 16, "6344500baa3e10b61497fcdf774d7fb2"),
    ),
    EncoderNumber.GO_FLATE_1_27_ARM64: (
        (6, 0, "5dc80f1c92187a8774d4eaf855980ab2"),
        (1, 0, "e17143eb5d1615aa508fe5d8c243f39f"),
    ),
    EncoderNumber.KLAUSPOST_1_15_10_ARM64: (
        (5, 0, "5bb8ff5ea592779d5fd06d5352751dba"),
        (5, 1 << 16, "f30a02615c529468b43d0592b5455dbb"),
    ),
    EncoderNumber.KLAUSPOST_1_18_1_ARM64: (
        (5, 0, "324db67a2bb98836cdb7f505b9e5a649"),
        (5, 1 << 16, "1973b85a7a30ffc93d7de4ddd3e94a56"),
    ),
    EncoderNumber.KLAUSPOST_1_18_2_ARM64: (
        (5, 0, "324db67a2bb98836cdb7f505b9e5a649"),
        (5, 1 << 16, "1973b85a7a30ffc93d7de4ddd3e94a56"),
    ),
    EncoderNumber.KLAUSPOST_1_15_0: (
        (5, 0, "67976c9d5f9898d35e8c31ea557a3116"),
        (5, 1 << 16, "8a1960d2abfece4da277d5015c9640b9"),
    ),
    EncoderNumber.KLAUSPOST_1_12_3: (
        (5, 0, "978f6f5bbbea85d36c4d02ccd00b7862"),
        (5, 1 << 16, "ff6f62ce0a38a09a7eaedd343537aa47"),
    ),
    EncoderNumber.ZLIB: (
        (6, 0, "7c944b4ca4145637e269904389126e65"),
        (1, 0, "7fe5f82bce3dd038b49f27ef6a2282ae"),
    ),
    EncoderNumber.PIGZ: ((6, 1 << 16, "c744eb3f81ddf59bcce01520b430f6e0"),),
    EncoderNumber.PIGZ_ONE_THREAD: ((6, 1 << 16, "c744eb3f81ddf59bcce01520b430f6e0"),),
    EncoderNumber.PIGZ_INDEPENDENT: ((6, 1 << 16, "a7953ca37b4db10dc9910675504d2a15"),),
    EncoderNumber.GNU_GZIP: (
        (6, 0, "24c15844d8879f349af144e38ffe4dbb"),
        (1, 0, "1d7e235f8355a86483a9a2bc2c9c5bfc"),
    ),
}


@functools.cache
def _self_test_input() -> bytes:
    choices = hashlib.shake_128(b"layerstore").digest(17000)
    words = [choices[i : i + 1 + i % 9] for i in range(0, 640, 10)]
    return b"".join([words[choice & 63] if choice < 200 else b"\0" * (choice & 15) for choice in choices])


@functools.cache
def _passes_self_test(number: int) -> bool:
    for level, block_size, expected in _SELF_TESTS[number]:
        encoder = _encoders.Encoder(number, level, block_size)
        data = _self_test_input()
        stream = encoder.write(data[:1001]) + encoder.write(data[1001:]) + encoder.finish()
        if hashlib.sha256(stream).hexdigest()[:32] != expected:
            return False
    return True
