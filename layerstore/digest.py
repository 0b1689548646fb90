"""Digests: ``algorithm:hex`` of exact bytes, as the OCI image specification defines them (descriptor.md, "Digests")."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import blake3
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from layerstore.errors import DigestMismatchError, InvalidDigestError

# The number of an algorithm is part of the storage format (FORMAT.md, "Digests"): never change one.
_ALGORITHM_NUMBERS = {"sha256": 1, "sha512": 2, "blake3": 3}
_ALGORITHMS_BY_NUMBER = {number: name for name, number in _ALGORITHM_NUMBERS.items()}
_SIZES = {"sha256": 32, "sha512": 64, "blake3": 32}
_LOWER_HEX = frozenset("0123456789abcdef")


class Hasher(Protocol):
    """What `hasher` returns: bytes go in, one digest comes out."""

    def update(self, data: bytes | memoryview, /) -> Any: ...

    def digest(self) -> bytes: ...


class Digest(str):
    """A validated digest. It is a `str`, so it prints, compares and sorts as its text."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Validate ``text``. Raises `InvalidDigestError` if it is no digest of sha256, sha512 or blake3."""
        if not isinstance(text, str):
            raise InvalidDigestError(f"a digest is a text like sha256:…, not {type(text).__name__}")
        algorithm, _, encoded = text.partition(":")
        size = _SIZES.get(algorithm)
        if size is None:
            known = ", ".join(_SIZES)
            raise InvalidDigestError(f"{text[:120]!r} is no digest: it must begin with one of {known} and a colon")
        if len(encoded) != 2 * size or not _LOWER_HEX.issuperset(encoded):
            raise InvalidDigestError(f"{text[:200]!r} is no digest: {algorithm} has {2 * size} lower-case hex digits")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of ``data``."""
        state = hasher(algorithm)
        state.update(data)
        return cls.from_raw(algorithm, state.digest())

    @classmethod
    def from_raw(cls, algorithm: str, raw: bytes) -> Self:
        """The digest whose bytes are ``raw``."""
        return cls(f"{algorithm}:{raw.hex()}")

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """The inverse of `pack`."""
        algorithm = _ALGORITHMS_BY_NUMBER.get(packed[0]) if packed else None
        if algorithm is None:
            raise InvalidDigestError("packed digest of an unknown algorithm")
        return cls.from_raw(algorithm, packed[1:])

    @property
    def algorithm(self) -> str:
        """The part before the colon."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The hex digits after the colon."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hex digits, as Docker prints them."""
        return self.encoded[:12]

    def pack(self) -> bytes:
        """One byte for the algorithm, then the raw digest (FORMAT.md, "Digests")."""
        return bytes([_ALGORITHM_NUMBERS[self.algorithm]]) + bytes.fromhex(self.encoded)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls._from_document, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _from_document(cls, text: str) -> Self:
        try:
            return cls(text)
        except InvalidDigestError as error:
            raise ValueError(str(error)) from None  # pydantic collects only ValueError


@dataclass(frozen=True, slots=True)
class PromisedDigest:
    """A digest that is known when the last byte has come, as that of an upload to a registry."""

    algorithm: str
    resolve: Callable[[], Digest]
    """Gives the digest, which is of the algorithm. Called after all bytes were read, perhaps more than once."""


def reads_as_digest(text: str) -> bool:
    """Whether ``text`` begins as digests do, and so can be nothing else: no repository has an algorithm's name."""
    algorithm, colon, _ = text.partition(":")
    return bool(colon) and is_algorithm(algorithm)


def is_algorithm(name: str) -> bool:
    """Whether digests can begin with this name."""
    return name in _SIZES


def digest_of_blocks(blocks: Iterable[bytes], algorithm: str = "sha256") -> Digest:
    """The digest of all blocks together."""
    state = hasher(algorithm)
    for block in blocks:
        state.update(block)
    return Digest.from_raw(algorithm, state.digest())


def compared(blocks: Iterable[bytes], expected: Digest) -> Iterator[bytes]:
    """The blocks as they come. Raises `DigestMismatchError` at the end if all of them have another digest."""
    state = hasher(expected.algorithm)
    for block in blocks:
        state.update(block)
        yield block
    actual = Digest.from_raw(expected.algorithm, state.digest())
    if actual != expected:
        raise DigestMismatchError(expected, actual)


def hasher(algorithm: str) -> Hasher:
    """A fresh hash state. Raises `InvalidDigestError` for an algorithm other than sha256, sha512 or blake3."""
    if algorithm == "blake3":
        return blake3.blake3()
    if algorithm in _SIZES:
        return hashlib.new(algorithm)
    raise InvalidDigestError(f"unknown digest algorithm {algorithm[:40]!r}")
