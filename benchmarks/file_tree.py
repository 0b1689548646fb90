"""A deterministic image of many small files in some layers, and one large file: what file systems are measured on."""

import argparse
import os
import random
from pathlib import Path

from benchmarks.corpus import WORK

WORDS = [f"{word}{number}" for word in ("alpha", "beta", "gamma", "delta", "omega") for number in range(200)]
FILE_SIZE_MEAN = 4_000
FILES_PER_DIRECTORY = 20
LAYERS = 4
LARGE_FILE = "large/data"
_MTIME = 1_700_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the programs that measure on such an image."""
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="where everything is made (%(default)s)")
    parser.add_argument("--files", type=int, default=20_000, metavar="N", help="small files (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (%(default)s)")
    parser.add_argument("--output-json", type=Path, metavar="FILE", help="write the figures to this file, too")


def write_layers(root: Path, files: int, large_size: int, seed: int = 1) -> list[Path]:
    """Write the layers as directories, the lowest first; each but the first replaces some files of the one below.

    The large file is in the lowest. Contents are text that a compressor halves or better.
    """
    source = random.Random(seed)
    folders = [root / f"layer{number}" for number in range(LAYERS)]
    for number in range(files):
        where = f"usr/share/{number // 1000}/{number % 1000 // FILES_PER_DIRECTORY}/file{number}"
        path = folders[number * LAYERS // files] / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_text(source, int(source.expovariate(1 / FILE_SIZE_MEAN))))
        if number % 50 == 0 and number * LAYERS // files + 1 < LAYERS:
            again = folders[number * LAYERS // files + 1] / where
            again.parent.mkdir(parents=True, exist_ok=True)
            again.write_bytes(_text(source, FILE_SIZE_MEAN))
    large = folders[0] / LARGE_FILE
    large.parent.mkdir(parents=True)
    write_text(large, large_size, seed)
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (_MTIME, _MTIME))
    return folders


def write_text(path: Path, size: int, seed: int) -> None:
    """Write a file of text, no part of which comes again."""
    source = random.Random(seed)
    with path.open("wb") as file:
        while size > 0:
            block = _text(source, min(size, 1 << 20))
            file.write(block)
            size -= len(block)


def _text(source: random.Random, size: int) -> bytes:
    numbers = source.randbytes(size // 5 + 1).hex()
    words = source.choices(WORDS, k=size // 16 + 1)
    pieces = (f"{word} {numbers[index * 6 : index * 6 + 6]} " for index, word in enumerate(words))
    return "".join(pieces).encode().ljust(size, b".")[:size]
