"""Figures: what is stored, what it would be without deduplication, and what each image has for itself."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from layerstore.digest import Digest
from layerstore.encodings.recipe import ENCODER_SET
from layerstore.operations.closure import layers_of, stored_closure
from layerstore.operations.encoding_cache import cache_size
from layerstore.operations.forecast import Forecast
from layerstore.operations.keeping import images_of
from layerstore.storage.containers import container_folders
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import decode_segment
from layerstore.storage.records import EncodingRecord, EncodingState


@dataclass(frozen=True, slots=True)
class EncodingClass:
    """The encodings that are kept in one way."""

    name: str
    """``recipe``: made again from the layer; ``queued``: raw, until a proof is tried; ``raw``: no known encoder makes
    it; ``plain``: the layer itself under another digest."""
    encodings: int
    blob_bytes: int
    """The bytes of the blobs."""
    kept_bytes: int
    """What is kept for them beside their layers."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes are bytes. Images in the trash count in what is stored, not in what is logical."""

    images: int
    trash_images: int
    layers: int
    chunks: int
    frames: int
    packs: int
    logical_bytes: int
    """Over all images, the sizes of their layers; a layer in no image counts once."""
    unique_bytes: int
    """The sizes of all layers, each once."""
    chunk_bytes: int
    """The sizes of all chunks, each once, uncompressed."""
    stored_bytes: int
    """The bytes of all packs."""
    dead_bytes: int
    """Those of them that collection can still give back."""
    index_bytes: int
    """What the index occupies on disk."""
    encodings: tuple[EncodingClass, ...]
    """Compressed blobs, by how they are kept: always all four classes."""
    raw_bytes: int
    """The bytes of encodings that are kept raw."""
    cache_bytes: int
    """The bytes of encodings that were made again and are kept for the next who asks."""
    leases: int
    """Dated leases that have not ended, those of containers included."""
    containers: int
    container_bytes: int
    """What containers occupy on disk: their changes."""
    disk_bytes: int
    """What the whole store occupies on disk, as ``du`` counts it."""

    @property
    def ratio(self) -> float:
        """Logical bytes to bytes on disk."""
        return self.logical_bytes / self.disk_bytes if self.disk_bytes else 1.0

    @property
    def layer_ratio(self) -> float:
        """Logical bytes to those of distinct layers: what sharing whole layers gives."""
        return self.logical_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def chunk_ratio(self) -> float:
        """Bytes of distinct layers to those of distinct chunks: what sharing below the layer gives."""
        return self.unique_bytes / self.chunk_bytes if self.chunk_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """Bytes of distinct chunks to those of packs."""
        return self.chunk_bytes / self.stored_bytes if self.stored_bytes else 1.0


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """What an image occupies. ``size`` is uncompressed; the others are estimates of compressed, stored bytes."""

    digest: Digest
    size: int
    stored_bytes: int
    """The stored bytes of everything it needs, each chunk once."""
    exclusive_bytes: int
    """Those that nothing else needs: about what deleting it frees."""

    @property
    def shared_bytes(self) -> int:
        """The stored bytes that others need as well."""
        return max(0, self.stored_bytes - self.exclusive_bytes)


def store_stats(store: OpenedStore) -> Stats:
    """The figures of the whole store."""
    containers = list(container_folders(store.layout.root))
    with store.index.read() as transaction:
        sizes = {diff_id: record.size for diff_id, record in transaction.layers.items()}
        numbers = {diff_id: record.number for diff_id, record in transaction.layers.items()}
        logical = sum(
            sum(sizes.get(diff_id, 0) for diff_id in layers_of(transaction, digest)) for digest in transaction.images
        )
        logical += sum(sizes[diff_id] for diff_id, number in numbers.items() if not images_of(transaction, number))
        packs = [record for _, record in transaction.packs.items()]
        encodings = _encoding_classes(transaction)
        chunk_bytes = sum(record.content_size for _, record in transaction.frames.items())
        return Stats(
            images=len(transaction.images),
            trash_images=len(transaction.trash),
            layers=len(sizes),
            chunks=len(transaction.chunks),
            frames=len(transaction.frames),
            packs=len(packs),
            logical_bytes=logical,
            unique_bytes=sum(sizes.values()),
            chunk_bytes=chunk_bytes,
            stored_bytes=sum(record.size for record in packs),
            dead_bytes=sum(record.dead_bytes for record in packs),
            index_bytes=disk_usage(store.layout.index),
            encodings=encodings,
            raw_bytes=sum(one.kept_bytes for one in encodings if one.name in ("raw", "queued")),
            cache_bytes=cache_size(store),
            leases=_running_leases(transaction),
            containers=len(containers),
            container_bytes=sum(disk_usage(folder.path) for folder in containers),
            disk_bytes=disk_usage(store.layout.root),
        )


def _running_leases(transaction: Transaction) -> int:
    now = time.time_ns()
    return sum(record.expires > now for _, record in transaction.leases.items())


def _encoding_classes(transaction: Transaction) -> tuple[EncodingClass, ...]:
    found: dict[str, list[EncodingRecord]] = {"recipe": [], "queued": [], "raw": [], "plain": []}
    for _, record in transaction.encodings.items():
        found[encoding_class(record)].append(record)
    return tuple(
        EncodingClass(
            name,
            len(records),
            sum(record.size for record in records),
            sum(record.size if record.state is EncodingState.RAW else len(record.recipe) for record in records),
        )
        for name, records in found.items()
    )


def encoding_class(record: EncodingRecord) -> str:
    """The name of the class that an encoding is in."""
    if record.state is EncodingState.RAW:
        return "queued" if record.tried < ENCODER_SET else "raw"
    return record.state.name.lower()


def disk_usage(path: Path) -> int:
    """What a folder occupies, as ``du`` counts it: allocated blocks, each file once."""
    try:
        total = path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            try:
                status = (Path(folder) / name).lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue  # collected, changed or ended while we look
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def image_usage(store: OpenedStore, digest: Digest) -> ImageUsage:
    """What one image occupies and has for itself."""
    with store.index.read() as transaction:
        closure = stored_closure(transaction, digest)
        # Not those that configs name alone: what they do not speak of is kept, too.
        layers = [transaction.layers.get(diff_id) for diff_id in layers_of(transaction, digest)]
        present = [layer for layer in layers if layer is not None]
        raw = [encoding for one in closure.blob_digests if (encoding := transaction.encodings.get(one)) is not None]
        forecast = Forecast(transaction)
        forecast.drop_image(digest)
        exclusive = forecast.dead_bytes_added()
        stored = _stored_bytes(transaction, dict.fromkeys(layer.number for layer in present))
        stored += sum(encoding.size for encoding in raw if encoding.state is EncodingState.RAW)
    size = sum(layer.size for layer in present)
    return ImageUsage(digest, size, max(stored, exclusive), exclusive)


def _stored_bytes(transaction: Transaction, numbers: dict[int, None]) -> int:
    """The share of their frames that the chunks of some recipes take, each once, and the recipes themselves."""
    used: dict[int, set[int]] = {}
    total = 0
    for number in numbers:
        for (owner, _), record in transaction.recipes.items((number, 0)):
            if owner != number:
                break
            total += record.place.size
            for frame, first, chunks in decode_segment(record.data).runs:
                used.setdefault(frame, set()).update(range(first, first + chunks))
    for frame, positions in used.items():
        place = transaction.frames[frame]
        whole = place.content_size
        part = sum(place.lengths[position] for position in positions)
        total += place.place.size * part // whole if whole else 0
    return total
