"""Content-defined chunking: where payload is cut, so that equal content gives equal chunks wherever it stands."""

from layerstore.chunking.fastcdc import CHUNK_SIZE_AVERAGE, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, Chunker

__all__ = ["CHUNK_SIZE_AVERAGE", "CHUNK_SIZE_MAX", "CHUNK_SIZE_MIN", "Chunker"]
