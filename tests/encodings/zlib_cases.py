"""Cases for zlib's family of encoders, and the digests of what they must make.

``python tests/encodings/zlib_cases.py`` writes the digests anew, with zlib, pigz and GNU gzip as oracles.
``python tests/encodings/zlib_cases.py --fuzz 10000`` compares so many cases with them instead.
"""

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from go_cases import KINDS, make_input
from zlib_oracle import (
    GNU_GZIP,
    PIGZ,
    PIGZ_BLOCK_SIZE,
    PIGZ_INDEPENDENT,
    PIGZ_ONE_THREAD,
    ZLIB,
    gnu_gzip_bytes,
    no_gnu_gzip,
    no_pigz,
    no_zlib,
    our_bytes,
    pigz_bytes,
    zlib_bytes,
)

VECTORS = Path(__file__).with_name("zlib_vectors.json")

# Sizes around which something changes: the window slides, a block of pigz ends.
_EDGES = (1, 2, 3, 257, 261, 262, 16383, 32506, 32768, 65274, 65536, 98042, 98304, 131072, 163840, 262144)


@dataclass(frozen=True, slots=True)
class Case:
    """One stream: which encoder makes it, of which input, and where that is cut."""

    number: int
    level: int
    block_size: int
    kind: str
    size: int
    seed: int

    @property
    def key(self) -> str:
        """What names the case in the vectors."""
        return f"{self.number}/{self.level}/{self.block_size}/{self.kind}/{self.size}/{self.seed}"

    def data(self) -> bytes:
        """The input."""
        return make_input(self.kind, self.size, self.seed)

    def cuts(self) -> tuple[int, ...]:
        """Where the input is cut when our encoder gets it."""
        source = random.Random(self.seed)
        return tuple(sorted(source.getrandbits(40) % (self.size + 1) for _ in range(source.getrandbits(32) % 6)))

    def expected(self, data: bytes) -> bytes:
        """What the oracle makes."""
        if self.number == ZLIB:
            return zlib_bytes(self.level, data)
        if self.number == GNU_GZIP:
            return gnu_gzip_bytes(self.level, data)
        return pigz_bytes(self.number, self.level, self.block_size, data)

    def actual(self, data: bytes) -> bytes:
        """What we make."""
        return our_bytes(self.number, self.level, self.block_size, data, self.cuts())


def make_cases(seed: int, numbers: tuple[int, ...], size_max: int) -> Iterator[Case]:
    """Cases without end, of all levels, kinds of input and sizes."""
    source = random.Random(seed)

    def below(bound: int) -> int:
        return source.getrandbits(32) % bound

    while True:
        number = numbers[below(len(numbers))]
        block_size = 0 if number in (ZLIB, GNU_GZIP) else (PIGZ_BLOCK_SIZE, PIGZ_BLOCK_SIZE, 32768, 65536)[below(4)]
        kind = KINDS[below(len(KINDS))]
        edge = max(0, _EDGES[below(len(_EDGES))] + below(9) - 4)
        size = (below(301), edge, below(20000), below(size_max + 1))[0 if kind == "tiny" else below(4)]
        yield Case(number, 1 + below(9), block_size, kind, min(size, size_max), below(1 << 30))


def vector_cases() -> list[Case]:
    """The cases that every test run checks against stored digests."""
    numbers = (ZLIB, ZLIB, ZLIB, PIGZ, PIGZ_ONE_THREAD, PIGZ_INDEPENDENT, GNU_GZIP, GNU_GZIP)
    cases = make_cases(2026, numbers, 150_000)
    large = [
        Case(number, level, PIGZ_BLOCK_SIZE if number == PIGZ else 0, "mixed", 1_000_000, level)
        for level in (1, 4, 6, 9)
        for number in (ZLIB, PIGZ, GNU_GZIP)
    ]
    return [next(cases) for _ in range(300)] + large


def _fuzz(count: int, seed: int, size_max: int, numbers: tuple[int, ...]) -> int:
    cases = make_cases(seed, numbers, size_max)
    seen: Counter[tuple[int, int]] = Counter()
    wrong = total = 0
    for case in (next(cases) for _ in range(count)):
        data = case.data()
        seen[case.number, case.level] += 1
        total += len(data)
        if case.actual(data) != case.expected(data):
            wrong += 1
            print(f"differs: {case}")
    print(f"{count} cases, {total} bytes, {wrong} differ; encoder and level: {dict(sorted(seen.items()))}")
    return 1 if wrong else 0


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fuzz", type=int, help="compare so many cases with the oracles")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size-max", type=int, default=300_000)
    parser.add_argument(
        "--encoders", type=int, nargs="+", default=[ZLIB, PIGZ, PIGZ_ONE_THREAD, PIGZ_INDEPENDENT, GNU_GZIP]
    )
    arguments = parser.parse_args()
    if reason := no_zlib() or no_pigz() or no_gnu_gzip():
        sys.exit(reason)
    if arguments.fuzz:
        return _fuzz(arguments.fuzz, arguments.seed, arguments.size_max, tuple(arguments.encoders))
    digests = {case.key: hashlib.sha256(case.expected(case.data())).hexdigest() for case in vector_cases()}
    VECTORS.write_text(json.dumps(digests, indent=0) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
