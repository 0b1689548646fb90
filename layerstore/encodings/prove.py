"""Proving who made a gzip file: all of it is made again by an encoder and compared, to the last byte."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from layerstore.encodings.encoders import EncoderNumber, is_available
from layerstore.encodings.finding import find_recipe
from layerstore.encodings.gzip_format import GzipHeader, MemberData, MemberEnd, MemberStart, TrailingData, scan
from layerstore.encodings.recognise import BEGINNING_SIZE, Candidate, Comparison, guess, probe, read_beginning
from layerstore.errors import EncoderUnavailableError, UndecodableError

_BLOCK_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a gzip file after all of it was compared."""

    header: GzipHeader
    """That of the first member."""
    members: int
    size: int
    """Bytes of the file."""
    decoded_size: int
    candidates: tuple[Candidate, ...]
    """Encoders that make every member of the file again, the likeliest first; none if no known one does."""


def prove(path: Path) -> Proof:
    """Find the encoders that make the file at ``path`` again. Memory is bounded by what they hold back.

    Raises `UndecodableError` if it is no gzip file, or one with bytes behind its last member, and
    `EncoderUnavailableError` where layerstore was installed without a compiler.
    """
    if not any(map(is_available, EncoderNumber)):
        raise EncoderUnavailableError("layerstore was installed without a compiler, so it has no encoders to try")
    with path.open("rb") as file:
        beginning = read_beginning(file.read(BEGINNING_SIZE))
        file.seek(0)
        candidates = list(probe(beginning, guess(beginning.header)))
        comparison = Comparison(candidates)
        members = decoded_size = 0
        for event in scan(_blocks(file)):
            match event:
                case MemberStart():
                    # One tool made the file: only who made the members so far is tried on the next one.
                    comparison = Comparison(candidates)
                case MemberData():
                    comparison.expect(event.deflate)
                    comparison.add(event.data)
                    decoded_size += len(event.data)
                case MemberEnd():
                    candidates = comparison.finish()
                    members += 1
                case TrailingData():
                    raise UndecodableError(f"{path} has bytes behind its last member")
        size = file.tell()
    return Proof(beginning.header, members, size, decoded_size, tuple(candidates) or _flushed(path))


def _flushed(path: Path) -> tuple[Candidate, ...]:
    """The one encoder that makes every member when it is flushed where the file says so, as in eStargz."""

    def open_blob() -> Iterator[bytes]:
        with path.open("rb") as file:
            yield from _blocks(file)

    recipe = find_recipe(open_blob)
    if recipe is None or len(recipe.encoders) != 1:
        return ()
    number, level, block_size = recipe.encoders[0]
    return (Candidate(EncoderNumber(number), level, block_size),)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_SIZE):
        yield block
