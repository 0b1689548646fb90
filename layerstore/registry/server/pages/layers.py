"""The layers of an image lined up with the steps that made them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from layerstore.digest import Digest
from layerstore.objects import Image
from layerstore.oci.config import HistoryEntry
from layerstore.oci.documents import Descriptor
from layerstore.registry.server.pages.summaries import layer_of
from layerstore.registry.server.pages.text import moment_of
from layerstore.store import Store

STEPS_MAX = 500
"""Steps or blobs that are shown."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that a manifest names, and how the store has it."""

    descriptor: Descriptor
    kept_as: str
    """``layer``, ``recipe``, ``queued``, ``raw``, ``plain``, or ``missing``."""
    explanation: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step that made an image, with the layer that came of it."""

    number: int
    """That of the layer, from 1; 0 if the step made none."""
    diff_id: Digest | None
    size: int | None
    """Bytes of the layer, uncompressed; None if the store does not have it."""
    blob: StoredBlob | None
    created: datetime | None
    created_by: str
    comment: str


def steps_of(store: Store, image: Image) -> list[Step]:
    """The first steps of an image, the lowest layer first. Layers that no history tells of come last."""
    config = image.config
    manifest = image.manifest
    return list(islice(_steps(store, config.history, config.diff_ids, manifest.layers), STEPS_MAX))


def stored_blobs(store: Store, descriptors: Sequence[Descriptor]) -> list[StoredBlob]:
    """How the store has the first of some blobs."""
    return [_stored(store, one) for one in descriptors[:STEPS_MAX]]


def _steps(
    store: Store, history: Sequence[HistoryEntry], diff_ids: Sequence[Digest], blobs: Sequence[Descriptor]
) -> Iterator[Step]:
    numbered = iter(enumerate(zip(diff_ids, blobs, strict=False), 1))
    for entry in history:
        if entry.empty_layer:
            yield Step(0, None, None, None, moment_of(entry.created), entry.created_by or "", entry.comment or "")
            continue
        number, pair = next(numbered, (0, None))
        if pair is not None:
            yield _step(store, number, *pair, entry)
    for number, pair in numbered:  # a history may be missing, or end before the layers do
        yield _step(store, number, *pair, HistoryEntry())


def _step(store: Store, number: int, diff_id: Digest, descriptor: Descriptor, entry: HistoryEntry) -> Step:
    # A config may name any layer: of one that is not the blob nothing is told.
    layer = store.layers.get(diff_id) if diff_id == layer_of(store, descriptor) else None
    return Step(
        number,
        diff_id,
        None if layer is None else layer.size,
        _stored(store, descriptor),
        moment_of(entry.created),
        entry.created_by or "",
        entry.comment or "",
    )


def _stored(store: Store, descriptor: Descriptor) -> StoredBlob:
    encoding = store.encodings.get(descriptor.digest)
    if encoding is not None:
        kept_as = encoding.kept_as
        how = ", ".join(encoding.encoders) if kept_as == "recipe" else ""
        return StoredBlob(descriptor, kept_as, _EXPLANATIONS[kept_as] + (f": {how}" if how else ""))
    kept_as = "layer" if store.has_blob(descriptor.digest) else "missing"
    return StoredBlob(descriptor, kept_as, _EXPLANATIONS[kept_as])


_EXPLANATIONS = {
    "layer": "The blob is the layer itself; its chunks are stored once for all layers",
    "recipe": "The blob is made again from the layer, bit for bit",
    "queued": "The blob is kept as it came, until a way to make it again was looked for",
    "raw": "The blob is kept as it came: no known encoder makes it",
    "plain": "The blob is the layer, under a digest of another algorithm",
    "missing": "The store does not have the blob; its licence may keep it elsewhere",
}
