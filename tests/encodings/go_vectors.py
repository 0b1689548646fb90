"""Write ``go_vectors.json`` from the real encoders: ``python tests/encodings/go_vectors.py NUMBER=PROGRAM...``."""

import hashlib
import itertools
import json
import sys
from pathlib import Path

from go_cases import Case, make_cases
from go_oracle import Oracle

VECTORS = Path(__file__).with_name("go_vectors.json")
LEVELS = {1: range(-2, 10), 2: range(-2, 10), 3: [5, 5, 5, 6], 4: [5, 5, 5, 6], 5: [5, 5, 5, 6], 6: [5, 5, 5, 6]}
BLOCK_SIZES = {1: [0], 2: [0]} | {number: [0, 16385, 1 << 18] for number in (3, 4, 5, 6)}


def vector_cases(number: int) -> list[Case]:
    """The cases of an encoder: random ones, and a few of several megabytes."""
    encoders = [(number, level, size) for level in LEVELS[number] for size in BLOCK_SIZES[number]]
    cases = list(itertools.islice(make_cases(number, encoders, 1 << 17), 110))
    level = 6 if number < 3 else 5
    sizes = [0] if number < 3 else [1 << 18, 1 << 20]
    cases += [Case(number, level, size, 0, "mixed", 2_500_000, 10 * number + size) for size in sizes]
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
