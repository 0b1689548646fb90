"""Compare encoders with an oracle over many cases: ``python tests/encodings/go_fuzz.py PROGRAM NUMBER ...``."""

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

from go_cases import Case, make_cases
from go_oracle import Oracle

from layerstore.encodings._encoders import Encoder


def encode(case: Case, data: bytes, source: random.Random | None = None) -> bytes:
    """What our encoder makes of the data, cut into writes of odd sizes if there is a source of them."""
    encoder = Encoder(case.number, case.level, case.block_size)
    pieces, at, flushed = [], 0, 0
    while at < len(data):
        end = len(data) if source is None else min(len(data), at + 1 + source.getrandbits(20) % 70000)
        if case.flush_every:
            end = min(end, flushed + case.flush_every)
        pieces.append(encoder.write(data[at:end]))
        at = end
        if case.flush_every and at == flushed + case.flush_every:
            pieces.append(encoder.flush())
            flushed = at
    pieces.append(encoder.finish())
    return b"".join(pieces)


def main() -> int:
    """Report how many cases agree; the first that doesn't is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("--levels", default="6")
    parser.add_argument("--blocks", default="0")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--largest", type=int, default=1 << 19)
    parser.add_argument("--cut", action="store_true", help="our input in writes of odd sizes")
    parser.add_argument("--cut-oracle", type=int, default=0, help="the oracle's input in writes of this size")
    arguments = parser.parse_args()
    encoders = [
        (arguments.number, int(level), int(block))
        for level in arguments.levels.split(",")
        for block in arguments.blocks.split(",")
    ]
    failures = size = 0
    started = time.monotonic()
    source = random.Random(arguments.seed) if arguments.cut else None
    with Oracle(arguments.program) as oracle:
        for case in itertools.islice(make_cases(arguments.seed, encoders, arguments.largest), arguments.cases):
            data = case.data()
            size += len(data)
            if encode(case, data, source) != oracle.compress(case, data, arguments.cut_oracle):
                failures += 1
                if failures <= 10:
                    print("differs:", case)
    print(f"{arguments.cases} cases, {failures} differ, {size:,} bytes, {time.monotonic() - started:.1f} s")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
