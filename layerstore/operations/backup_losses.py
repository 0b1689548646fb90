"""What a backup would lose: layers that the earlier one can give and the new one could not."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from layerstore.digest import Digest
from layerstore.errors import DamagedError
from layerstore.operations.closure import needed_layers, stored_closure, stored_diff_id
from layerstore.operations.raw_files import raw_path
from layerstore.storage.frames import FrameReader
from layerstore.storage.index import Index, Transaction
from layerstore.storage.layout import Layout
from layerstore.storage.packs import PackReader
from layerstore.storage.recipe import Run, decode_segment
from layerstore.storage.records import EncodingState

_NUMBER = struct.Struct(">Q")


def damaged_layers(transaction: Transaction, frames_damaged: set[int]) -> list[Digest]:
    """The layers that cannot be pulled: their chunks are lost or lie in damaged frames, or images miss them."""
    lost: dict[int, set[int]] = {}
    for _, (frame, position) in transaction.lost.items():
        lost.setdefault(frame, set()).add(position)
    found = []
    if lost or frames_damaged:
        for diff_id, layer in transaction.layers.items():
            runs = _runs(transaction, layer.number)
            if any(run.frame in frames_damaged or _touches(run, lost.get(run.frame)) for run in runs):
                found.append(diff_id)
    for digest in [*transaction.images, *transaction.trash]:
        diff_ids = needed_layers(stored_closure(transaction, digest), partial(stored_diff_id, transaction))
        found += [one for one in diff_ids if one not in transaction.layers and one not in found]
    return found


def missing_blobs(transaction: Transaction) -> list[Digest]:
    """The blobs that manifests name and that are not there. Perhaps they never were: then nobody has lost them."""
    named = {
        digest
        for image in [*transaction.images, *transaction.trash]
        for digest in stored_closure(transaction, image).blob_digests
    }
    return [one for one in sorted(named) if one not in transaction.layers and one not in transaction.encodings]


def still_whole(layout: Layout, digests: list[Digest]) -> list[Digest]:
    """Which of these layers and encodings the store at ``layout`` has whole. One whose index is damaged has none."""
    found: list[Digest] = []
    if not digests or not layout.config.exists():
        return found
    with suppress(DamagedError):
        index = Index(layout.index, read_only=True)
        packs = PackReader(layout)
        try:
            frames = FrameReader(index, packs)
            with index.read() as transaction:
                found += [
                    one
                    for one in digests
                    if _is_whole(transaction, frames, one) or _has_encoding(transaction, frames, layout, one)
                ]
        finally:
            packs.close()
            index.close()
    return found


def _has_encoding(transaction: Transaction, frames: FrameReader, layout: Layout, digest: Digest) -> bool:
    record = transaction.encodings.get(digest)
    if record is None:
        return False
    if record.state is EncodingState.RAW:
        path = raw_path(layout, digest)
        return path.exists() and path.stat().st_size == record.size
    return _is_whole(transaction, frames, record.diff_id)


def _is_whole(transaction: Transaction, frames: FrameReader, diff_id: Digest) -> bool:
    try:
        layer = transaction.layers.get(diff_id)
        if layer is None:
            return False
        for run in _runs(transaction, layer.number):
            frames.read(run.frame).run(run.first, run.chunks)
    except DamagedError:
        return False
    return True


def _runs(transaction: Transaction, number: int) -> Iterator[Run]:
    for _, segment in transaction.recipes.items_with_prefix(_NUMBER.pack(number)):
        yield from decode_segment(segment.data).runs


def _touches(run: Run, positions: set[int] | None) -> bool:
    return positions is not None and not positions.isdisjoint(range(run.first, run.first + run.chunks))
