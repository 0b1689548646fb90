"""Figures: what is stored, what it would be without deduplication, and what each image has for itself."""

import os
from dataclasses import dataclass
from pathlib import Path

from layerstore.digest import Digest
from layerstore.operations.forecast import Forecast
from layerstore.operations.images import image_config
from layerstore.operations.keeping import images_of
from layerstore.operations.pull import find_layer
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import decode_segment


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
    with store.index.read() as transaction:
        sizes = {diff_id: record.size for diff_id, record in transaction.layers.items()}
        numbers = {diff_id: record.number for diff_id, record in transaction.layers.items()}
        logical = sum(
            sum(sizes.get(diff_id, 0) for diff_id in image_config(transaction, digest).diff_ids)
            for digest in transaction.images
        )
        logical += sum(sizes[diff_id] for diff_id, number in numbers.items() if not images_of(transaction, number))
        packs = [record for _, record in transaction.packs.items()]
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
            disk_bytes=disk_usage(store.layout.root),
        )


def disk_usage(path: Path) -> int:
    """What a folder occupies, as ``du`` counts it: allocated blocks, each file once."""
    total = path.lstat().st_blocks * 512
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            try:
                status = (Path(folder) / name).lstat()
            except FileNotFoundError:
                continue  # collected or ended while we look
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def image_usage(store: OpenedStore, digest: Digest) -> ImageUsage:
    """What one image occupies and has for itself."""
    with store.index.read() as transaction:
        diff_ids = image_config(transaction, digest).diff_ids
        forecast = Forecast(transaction)
        forecast.drop_image(digest)
        exclusive = forecast.dead_bytes_added()
        stored = _stored_bytes(transaction, dict.fromkeys(transaction.layers[d].number for d in diff_ids))
    size = sum(find_layer(store, diff_id).size for diff_id in diff_ids)
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
