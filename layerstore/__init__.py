"""layerstore: a content-addressed store for container-image layers, deduplicated below the layer.

Begin with `Store.create` or `Store.open`; the README has a tour, ARCHITECTURE.md the map of the code.
"""

from layerstore.decoding import Encoding
from layerstore.digest import Digest, PromisedDigest
from layerstore.errors import LayerstoreError
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
