"""One step of the image benchmark as a process of its own, so that all it costs is counted.

``python -m benchmarks.image_driver import LAYOUT STORE``, ``prove STORE`` or ``inflate BLOB...``.
"""

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from layerstore import Store
from layerstore.places.copying import copy
from layerstore.places.layout import OCILayout
from layerstore.places.store_place import StorePlace

READ_SIZE = 1 << 20
GZIP_WINDOW = 31


def main(arguments: Sequence[str]) -> int:
    """Do one step."""
    match list(arguments):
        case ["import", layout, store]:
            import_layout(Path(layout), Path(store))
        case ["prove", store]:
            with Store.open(store) as opened:
                opened.prove_encodings()
        case ["inflate", *blobs]:
            for blob in blobs:
                inflate(Path(blob))
        case _:
            raise ValueError(f"no step {arguments!r}")
    return 0


def import_layout(layout: Path, root: Path) -> None:
    """Copy all images of a layout into a new store that keeps no cache of encodings."""
    with Store.create(root, encoding_cache_max=0) as store:
        copy(OCILayout(layout), StorePlace(store))


def inflate(blob: Path) -> int:
    """Decompress a gzip file with zlib and return the size of what came out, which goes nowhere."""
    size = 0
    with blob.open("rb", buffering=0) as file:
        decoder = zlib.decompressobj(GZIP_WINDOW)
        while block := file.read(READ_SIZE):
            while block:
                size += len(decoder.decompress(block))
                block = decoder.unused_data
                if decoder.eof:
                    decoder = zlib.decompressobj(GZIP_WINDOW)
    return size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
