"""layerstore: a content-addressed store for container-image layers, deduplicated below the layer.

Begin with `Store.create` or `Store.open`; the README has a tour, ARCHITECTURE.md the map of the code.
"""

from layerstore.decoding import Encoding
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.objects import DeletedImage, Image, Layer, Lease
from layerstore.oci.config import HistoryEntry
from layerstore.operations.backup import BackupReport
from layerstore.operations.collect import CollectionPlan, CollectionReport
from layerstore.operations.diff import Change
from layerstore.operations.forecast import Freed
from layerstore.operations.layer_reader import LayerReader
from layerstore.operations.prune import PruneItem, PrunePlan
from layerstore.operations.rebuild import RebuildReport
from layerstore.operations.repair import RepairReport
from layerstore.operations.stats import ImageUsage, Stats
from layerstore.operations.upgrade import UpgradeReport
from layerstore.operations.verify import Problem, VerifyReport
from layerstore.operations.why import Why
from layerstore.progress import OnProgress, Progress
from layerstore.store import PushResult, Store
from layerstore.tar.entries import TarEntry

__version__ = "0.1.0"

__all__ = [
    "BackupReport",
    "Change",
    "CollectionPlan",
    "CollectionReport",
    "DeletedImage",
    "Digest",
    "Encoding",
    "Freed",
    "HistoryEntry",
    "Image",
    "ImageUsage",
    "Layer",
    "LayerReader",
    "LayerstoreError",
    "Lease",
    "OnProgress",
    "Problem",
    "Progress",
    "PruneItem",
    "PrunePlan",
    "PushResult",
    "RebuildReport",
    "RepairReport",
    "Stats",
    "Store",
    "TarEntry",
    "UpgradeReport",
    "VerifyReport",
    "Why",
]
