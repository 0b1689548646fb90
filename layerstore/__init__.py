"""layerstore: a content-addressed store for container-image layers, deduplicated below the layer.

Begin with `Store.create` or `Store.open`; the README has a tour, ARCHITECTURE.md the map of the code.
"""

import importlib
from typing import TYPE_CHECKING, Any

from layerstore.errors import LayerstoreError

if TYPE_CHECKING:
    from layerstore.decoding import Encoding
    from layerstore.digest import Digest, PromisedDigest
    from layerstore.mounting.client import Mount
    from layerstore.objects import Container, DeletedImage, Image, Layer, LayerEncoding, Lease
    from layerstore.oci.config import HistoryEntry, ImageConfig
    from layerstore.operations.backup import BackupReport
    from layerstore.operations.blob_reader import BlobReader
    from layerstore.operations.blobs import PushedBlob
    from layerstore.operations.collect import CollectionPlan, CollectionReport
    from layerstore.operations.compare import ByteRange
    from layerstore.operations.forecast import Freed
    from layerstore.operations.layer_reader import LayerReader
    from layerstore.operations.prove import ProofReport
    from layerstore.operations.prune import PruneItem, PrunePlan
    from layerstore.operations.rebuild import RebuildReport
    from layerstore.operations.repair import RepairReport
    from layerstore.operations.stats import EncodingClass, ImageUsage, Stats
    from layerstore.operations.upgrade import UpgradeReport
    from layerstore.operations.verify import Problem, VerifyReport
    from layerstore.operations.why import Why
    from layerstore.places.archive import OCIArchive
    from layerstore.places.copying import CopiedImage, CopyReport, copy
    from layerstore.places.docker_archive import DockerArchive
    from layerstore.places.layout import OCILayout
    from layerstore.progress import OnProgress, Progress
    from layerstore.registry.client.credentials import Credentials, DockerConfig
    from layerstore.registry.client.options import ConnectionOptions, Proxies
    from layerstore.registry.client.remote import RemoteRepository
    from layerstore.store import PushResult, Store
    from layerstore.tar.entries import EntryKind, TarEntry
    from layerstore.union.branch import Branch
    from layerstore.union.changes import Change
    from layerstore.union.file_system import FileSystem
    from layerstore.union.node import Node
    from layerstore.union.path import ImagePath
    from layerstore.union.view import View
    from layerstore.unpacking import Shortfall, UnpackReport, unpack

__version__ = "0.1.0"

__all__ = [
    "BackupReport",
    "BlobReader",
    "Branch",
    "ByteRange",
    "Change",
    "CollectionPlan",
    "CollectionReport",
    "ConnectionOptions",
    "Container",
    "CopiedImage",
    "CopyReport",
    "Credentials",
    "DeletedImage",
    "Digest",
    "DockerArchive",
    "DockerConfig",
    "Encoding",
    "EncodingClass",
    "EntryKind",
    "FileSystem",
    "Freed",
    "HistoryEntry",
    "Image",
    "ImageConfig",
    "ImagePath",
    "ImageUsage",
    "Layer",
    "LayerEncoding",
    "LayerReader",
    "LayerstoreError",
    "Lease",
    "Mount",
    "Node",
    "OCIArchive",
    "OCILayout",
    "OnProgress",
    "Problem",
    "Progress",
    "PromisedDigest",
    "ProofReport",
    "Proxies",
    "PruneItem",
    "PrunePlan",
    "PushResult",
    "PushedBlob",
    "RebuildReport",
    "RemoteRepository",
    "RepairReport",
    "Shortfall",
    "Stats",
    "Store",
    "TarEntry",
    "UnpackReport",
    "UpgradeReport",
    "VerifyReport",
    "View",
    "Why",
    "copy",
    "unpack",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "layerstore.decoding": ("Encoding",),
    "layerstore.digest": (
        "Digest",
        "PromisedDigest",
    ),
    "layerstore.mounting.client": ("Mount",),
    "layerstore.objects": (
        "Container",
        "DeletedImage",
        "Image",
        "Layer",
        "LayerEncoding",
        "Lease",
    ),
    "layerstore.oci.config": (
        "HistoryEntry",
        "ImageConfig",
    ),
    "layerstore.operations.backup": ("BackupReport",),
    "layerstore.operations.blob_reader": ("BlobReader",),
    "layerstore.operations.blobs": ("PushedBlob",),
    "layerstore.operations.collect": (
        "CollectionPlan",
        "CollectionReport",
    ),
    "layerstore.operations.compare": ("ByteRange",),
    "layerstore.operations.forecast": ("Freed",),
    "layerstore.operations.layer_reader": ("LayerReader",),
    "layerstore.operations.prove": ("ProofReport",),
    "layerstore.operations.prune": (
        "PruneItem",
        "PrunePlan",
    ),
    "layerstore.operations.rebuild": ("RebuildReport",),
    "layerstore.operations.repair": ("RepairReport",),
    "layerstore.operations.stats": (
        "EncodingClass",
        "ImageUsage",
        "Stats",
    ),
    "layerstore.operations.upgrade": ("UpgradeReport",),
    "layerstore.operations.verify": (
        "Problem",
        "VerifyReport",
    ),
    "layerstore.operations.why": ("Why",),
    "layerstore.places.archive": ("OCIArchive",),
    "layerstore.places.copying": (
        "CopiedImage",
        "CopyReport",
        "copy",
    ),
    "layerstore.places.docker_archive": ("DockerArchive",),
    "layerstore.places.layout": ("OCILayout",),
    "layerstore.progress": (
        "OnProgress",
        "Progress",
    ),
    "layerstore.registry.client.credentials": (
        "Credentials",
        "DockerConfig",
    ),
    "layerstore.registry.client.options": (
        "ConnectionOptions",
        "Proxies",
    ),
    "layerstore.registry.client.remote": ("RemoteRepository",),
    "layerstore.store": (
        "PushResult",
        "Store",
    ),
    "layerstore.tar.entries": (
        "EntryKind",
        "TarEntry",
    ),
    "layerstore.union.branch": ("Branch",),
    "layerstore.union.changes": ("Change",),
    "layerstore.union.file_system": ("FileSystem",),
    "layerstore.union.node": ("Node",),
    "layerstore.union.path": ("ImagePath",),
    "layerstore.union.view": ("View",),
    "layerstore.unpacking": (
        "Shortfall",
        "UnpackReport",
        "unpack",
    ),
}
"""Where the names come from (PEP 562). To load all of it takes half a second, and most programs need little of it."""
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
