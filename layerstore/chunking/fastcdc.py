"""FastCDC over payload, with the parameters that the storage format freezes.

The algorithm is FastCDC 2020 (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based
Storage Systems", IEEE TPDS 31(9), 2020) with normalisation level 2, as pyfastcdc implements it. The cut points
decide what is deduplicated, never what is true: a store whose chunks were cut in another way still pulls bit for bit.
"""

import pyfastcdc
from pyfastcdc import FastCDC

CHUNK_SIZE_MIN = 4 * 1024
CHUNK_SIZE_AVERAGE = 16 * 1024
CHUNK_SIZE_MAX = 64 * 1024

if FastCDC.__module__.split(".")[:2] != ["pyfastcdc", "cy"]:
    # The pure-Python fallback cuts the same chunks at 10 MB/s: a push would seem to hang.
    raise ImportError(
        f"pyfastcdc {pyfastcdc.__version__} lacks its compiled part; reinstall it from a wheel, "
        "or with a C compiler and PYFASTCDC_REQUIRE_CYTHON=1"
    )


class Chunker:
    """Cuts contents that arrive in pieces. The cuts do not depend on how the contents were divided into pieces.

    One object serves one thread; it may cut any number of contents one after the other.
    """

    def __init__(self) -> None:
        self._fastcdc = FastCDC(
            CHUNK_SIZE_AVERAGE, min_size=CHUNK_SIZE_MIN, max_size=CHUNK_SIZE_MAX, normalized_chunking=2, seed=0
        )
        self._held: list[memoryview] = []
        self._held_size = 0

    def feed(self, piece: memoryview, last: bool) -> list[memoryview]:
        """Take a piece, give the chunks that are certain now. ``last`` ends the contents and resets the chunker."""
        if not self._held:
            if last and len(piece) <= CHUNK_SIZE_MIN:
                return [piece] if piece else []
            data = piece
        else:
            self._held.append(piece)
            self._held_size += len(piece)
            if not last and self._held_size < 4 * CHUNK_SIZE_MAX:
                return []  # joining only now and then keeps many small pieces linear
            data = memoryview(b"".join(self._held))
        # A cut depends on at most CHUNK_SIZE_MAX bytes from the chunk's beginning; nearer the end it may yet move.
        certain = len(data) if last else len(data) - CHUNK_SIZE_MAX
        chunks = []
        start = 0
        if data:
            for chunk in self._fastcdc.cut_buf(data):
                if start > certain:
                    break
                end = start + chunk.length
                chunks.append(data[start:end])
                start = end
        rest = data[start:]
        self._held = [rest] if rest else []
        self._held_size = len(rest)
        return chunks
