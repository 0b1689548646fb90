"""layerstore: a content-addressed store for container-image layers, deduplicated below the layer.

Begin with `Store.create` or `Store.open`; the README has a tour, ARCHITECTURE.md the map of the code.
"""

from layerstore.decoding import Encoding
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.objects import DeletedImage, Image, Layer, Lease
from layerstore.oci.config import HistoryEntry
from layerstore.progress import OnProgress, Progress
from layerstore.store import PushResult, Store

__version__ = "0.1.0"

__all__ = [
    "DeletedImage",
    "Digest",
    "Encoding",
    "HistoryEntry",
    "Image",
    "Layer",
    "LayerstoreError",
    "Lease",
    "OnProgress",
    "Progress",
    "PushResult",
    "Store",
]
