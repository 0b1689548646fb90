"""How fast blobs are recognised and made again: ``python tests/encodings/regeneration_speed.py TAR [THREADS]``.

Figures are MB of the tar a second of CPU time (with one thread) and of wall-clock time.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from blobs import GO, PGZIP, UNIX, single

from layerstore.encodings.encoders import EncoderNumber
from layerstore.encodings.finding import find_recipe
from layerstore.encodings.gzip_format import GzipHeader
from layerstore.encodings.recipe import Method
from layerstore.encodings.regenerate import regenerate

Result = TypeVar("Result")

CASES: list[tuple[str, Method, GzipHeader]] = [
    ("pgzip 1 MiB", Method(EncoderNumber.KLAUSPOST_1_15_10, 5, 1 << 20), PGZIP),
    ("Go 6", Method(EncoderNumber.GO_FLATE, 6, 0), GO),
    ("Go 1", Method(EncoderNumber.GO_FLATE, 1, 0), GzipHeader(extra_flags=4)),
    ("Go 1.27 6", Method(EncoderNumber.GO_FLATE_1_27, 6, 0), GO),
    ("zlib 6", Method(EncoderNumber.ZLIB, 6, 0), GzipHeader(modified=1)),
    ("pigz 6", Method(EncoderNumber.PIGZ, 6, 1 << 17), UNIX),
    ("GNU gzip 6", Method(EncoderNumber.GNU_GZIP, 6, 0), UNIX),
]


def measured(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """The result, and the CPU and wall-clock seconds it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Print a line for each encoder."""
    layer = Path(sys.argv[1]).read_bytes()
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(f"{len(layer) / 1e6:.0f} MB, {threads} threads; MB/s   find (CPU)   regenerate (CPU)   regenerate (wall)")
    for name, method, header in CASES:
        sample = single(method, header, layer)

        def open_blob(blob: bytes = sample.blob) -> list[bytes]:
            return [blob[start : start + (1 << 20)] for start in range(0, len(blob), 1 << 20)]

        def read(offset: int) -> list[bytes]:
            return [layer[start : start + (1 << 20)] for start in range(offset, len(layer), 1 << 20)]

        recipe, found_cpu, _ = measured(lambda open_blob=open_blob: find_recipe(open_blob))
        assert recipe is not None
        size, cpu, wall = measured(lambda recipe=recipe, read=read: sum(map(len, regenerate(recipe, read, 0, threads))))
        assert size == len(sample.blob)
        rates = [len(layer) / seconds / 1e6 for seconds in (found_cpu, cpu, wall)]
        print(
            f"{name:14} {rates[0]:12.0f} {rates[1]:14.0f} {rates[2]:16.0f}", recipe.encoders[0], len(recipe.to_bytes())
        )


if __name__ == "__main__":
    main()
