"""Write ``go_vectors.json`` from the real encoders: ``python tests/encodings/go_vectors.py NUMBER=PROGRAM...``."""

import hashlib
import itertools
import json
import sys
from pathlib import Path

from go_cases import Case, make_cases
from go_oracle import Oracle

VECTORS = Path(__file__).with_name("go_vectors.json")
GO, KLAUSPOST = (1, 2, 7), (3, 4, 5, 6, 8, 9, 10, 11, 12)
LEVELS = (
    dict.fromkeys(GO, tuple(range(-2, 10))) | dict.fromkeys(KLAUSPOST, (5, 5, 5, 6)) | dict.fromkeys((11, 12), (5,))
)
BLOCK_SIZES = dict.fromkeys(GO, (0,)) | dict.fromkeys(KLAUSPOST, (0, 16385, 1 << 18))
CLOSE_CALLS = (13300, 82601, 209302, 90305)  # seeds of the kind "drift" that tell numbers 4 and 5 apart


def vector_cases(number: int) -> list[Case]:
    """The cases of an encoder: random ones, and a few of several megabytes."""
    encoders = [(number, level, size) for level in LEVELS[number] for size in BLOCK_SIZES[number]]
    cases = list(itertools.islice(make_cases(number, encoders, 1 << 17), 90))
    level = 6 if number in GO else 5
    sizes = [0] if number in GO else [1 << 18, 1 << 20]
    cases += [Case(number, level, size, 0, "mixed", 2_500_000, 10 * number + size) for size in sizes]
    cases += [Case(number, level, 0, 0, "drift", 131170, seed) for seed in CLOSE_CALLS]
    return cases


def main() -> None:
    """Ask the oracles."""
    vectors = {}
    for argument in sys.argv[1:]:
        number, program = argument.split("=")
        with Oracle(Path(program)) as oracle:
            for case in vector_cases(int(number)):
                vectors[case.key] = hashlib.sha256(oracle.compress(case, case.data())).hexdigest()[:24]
    VECTORS.write_text(json.dumps(vectors, indent=0) + "\n")


if __name__ == "__main__":
    main()
