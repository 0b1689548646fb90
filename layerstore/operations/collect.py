"""Collection: plan what goes, then take it away, in time proportional to the garbage, while others go on.

The order: images leave the trash, layers that nothing keeps go out of sight, their recipes are drained, frames whose
counts are all zero are removed, packs that are dead are unlinked, and thin ones rewritten. Every step is a short
transaction and can be repeated after a crash.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from layerstore.digest import Digest
from layerstore.oci.closure import Closure
from layerstore.operations.closure import kept_by, stored_closure
from layerstore.operations.containers import end_leases_of_no_container, leases_of_no_container
from layerstore.operations.drain import drain
from layerstore.operations.forecast import Forecast, Freed
from layerstore.operations.keeping import drop_encoding, drop_layer, drop_upload, is_kept, loosen
from layerstore.operations.leases import end_lease, expired_leases
from layerstore.operations.linking import named_blobs
from layerstore.operations.raw_files import remove_orphans, remove_raw
from layerstore.operations.rewrite import PackCollector
from layerstore.progress import OnProgress, Progress
from layerstore.storage.index import Transaction
from layerstore.storage.journal import Event, drop_image_event
from layerstore.storage.layout import remove_leftovers
from layerstore.storage.leases import LiveLeases
from layerstore.storage.opened import OpenedStore

R = TypeVar("R")

_LAYERS_PER_TRANSACTION = 50


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """What a collection would take away now. Nothing else goes when it is carried out."""

    images: tuple[Digest, ...]
    """Images that leave the trash."""
    deletions: tuple[int, ...]
    """When each of them was deleted, in nanoseconds since 1970: one that was brought back and deleted anew stays."""
    layers: tuple[Digest, ...]
    """Layers that nothing keeps then."""
    encodings: tuple[Digest, ...]
    """Encodings that nothing keeps then."""
    uploads: int
    """Abandoned uploads and interrupted collections that are cleaned up."""
    freed: Freed

    @property
    def bytes_freed(self) -> int:
        """Exact: the bytes of packs that go away whole, and of raw encodings."""
        return self.freed.bytes_freed

    @property
    def bytes_freed_by_rewriting(self) -> int:
        """An estimate: what rewriting packs that are partly live gives back beside `bytes_freed`."""
        return self.freed.bytes_freed_by_rewriting


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """What a collection took away."""

    images: int
    layers: int
    encodings: int
    chunks: int
    """References to chunks that were given back."""
    frames: int
    packs: int
    """Packs that went away whole."""
    bytes_freed: int
    """Their bytes, and those of raw encodings."""
    packs_rewritten: int
    bytes_freed_by_rewriting: int
    """What rewriting gave back: the bytes of the old packs less those written anew."""
    postponed: int
    """Layers left for later because someone reads them, and packs that someone writes or a backup copies."""


def plan_collection(store: OpenedStore, *, empty_trash: bool = False) -> CollectionPlan:
    """What a collection would do now. ``empty_trash`` takes images out of the trash before their time is over."""
    now = time.time_ns()
    with store.index.read() as transaction:
        images = {
            digest: record.deleted
            for digest, record in transaction.trash.items()
            if empty_trash or record.expires <= now
        }
        forecast = Forecast(transaction)
        recipes = forecast_garbage(store, forecast, images)
        freed = forecast.freed()
        leftovers = list(transaction.dead_packs.items())
    freed = replace(
        freed, packs=freed.packs + len(leftovers), bytes_freed=freed.bytes_freed + sum(size for _, size in leftovers)
    )
    layers, encodings = tuple(forecast.layers), tuple(forecast.encodings)
    return CollectionPlan(tuple(images), tuple(images.values()), layers, encodings, recipes, freed)


def forecast_garbage(store: OpenedStore, forecast: Forecast, images: Iterable[Digest]) -> int:
    """Add to a forecast what collection would take if ``images`` left the trash; how many recipes of no layer go."""
    transaction = forecast.transaction
    for digest in images:
        forecast.drop_image(digest)
    for _, diff_id in transaction.loose_layers.items():
        forecast.drop_if_loose(diff_id)
    forecast.ended_leases = frozenset(leases_of_no_container(transaction, store))
    for lease in [*expired_leases(transaction), *forecast.ended_leases]:
        for _, diff_id in transaction.lease_layers.items_with_prefix(lease):
            forecast.drop_if_loose(diff_id)
    uploads = dict(transaction.uploads.items())
    live = LiveLeases.look(store.layout.leases)  # after the uploads were read: a session is there before its upload
    recipes = [number for number, session in uploads.items() if session not in live.sessions]
    recipes += [number for number in transaction.dropped if number not in live.layers]
    for number in recipes:
        forecast.drop_recipe(number)
    for number in transaction.touched_frames:
        forecast.touch_frame(number)
    for number in transaction.touched_packs:
        forecast.touch_pack(number)
    return len(recipes)


def collect(store: OpenedStore, plan: CollectionPlan, on_progress: OnProgress | None = None) -> CollectionReport:
    """Carry out a plan. What has come into use since it was made stays."""
    store.check_writable()
    with store.lock("collect"):
        collection = _Collection(store, on_progress)
        collection.run(plan)
    return collection.report()


class _Collection:
    def __init__(self, store: OpenedStore, on_progress: OnProgress | None) -> None:
        self._store = store
        self._on_progress = on_progress
        self._images = self._layers = self._encodings = self._references = self._postponed = 0
        self._raw_bytes = 0
        self._packs = PackCollector(store)

    def run(self, plan: CollectionPlan) -> None:
        # The pages that a dead reader would still see are free only after this.
        self._store.index.reader_check()
        self._packs.remove_orphans()
        remove_leftovers(self._store.layout)
        remove_orphans(self._store, lambda: named_blobs(self._store))
        self._tell("images")
        for digest, deleted in zip(plan.images, plan.deletions, strict=True):
            closure = self._closure(digest)
            if closure is not None:
                self._images += self._write_journal(partial(self._drop_image, closure=closure, deleted=deleted))
        self._expire_leases()
        self._drop_encodings(plan.encodings)
        self._drop_layers(plan.layers)
        self._drop_dead_uploads()
        self._store.journal.sync()
        self._drain()
        self._packs.remove_dead_frames(lambda: self._tell("frames"))
        self._packs.remove_packs(lambda: self._tell("packs"))
        self._store.journal.checkpoint_if_grown(self._store.index)

    def report(self) -> CollectionReport:
        packs = self._packs
        return CollectionReport(
            self._images,
            self._layers,
            self._encodings,
            self._references,
            packs.frames,
            packs.packs,
            packs.bytes_freed + self._raw_bytes,
            packs.packs_rewritten,
            packs.bytes_freed_by_rewriting,
            self._postponed + packs.postponed,
        )

    def _write_journal(self, change: Callable[[Transaction], R]) -> R:
        return self._store.journal.write(self._store.index, change)

    def _closure(self, digest: Digest) -> Closure | None:
        # It never changes, and to parse it takes too long for the writer lock; None: the image is gone.
        with self._store.index.read() as transaction:
            return stored_closure(transaction, digest) if digest in transaction.trash else None

    def _drop_image(self, transaction: Transaction, closure: Closure, deleted: int) -> int:
        digest = closure.root
        record = transaction.trash.get(digest)
        if record is None or record.deleted != deleted:
            return 0  # brought back meanwhile
        transaction.trash.delete(digest)
        for blob in closure.documents:
            self._packs.drop_blob(transaction, blob)
        for number, kept in kept_by(transaction, closure).items():
            transaction.layer_images.delete((number, digest))
            loosen(transaction, kept, number)
        self._store.journal.append(transaction, [drop_image_event(digest)])
        return 1

    def _expire_leases(self) -> None:
        # The plan may be older than their end: what is not in it is the next collection's.
        with self._store.index.read() as transaction:
            expired = expired_leases(transaction)
        for lease in expired:
            end_lease(self._store, lease)
        end_leases_of_no_container(self._store)

    def _drop_encodings(self, encodings: tuple[Digest, ...]) -> None:
        for start in range(0, len(encodings), _LAYERS_PER_TRANSACTION):
            some = encodings[start : start + _LAYERS_PER_TRANSACTION]
            dropped = self._write_journal(partial(self._drop_some_encodings, encodings=some))
            self._encodings += len(dropped)
            # The row went first: who finds none reads no file, and one that is left over is an orphan.
            self._raw_bytes += sum(remove_raw(self._store, digest) for digest in dropped)

    def _drop_some_encodings(self, transaction: Transaction, encodings: tuple[Digest, ...]) -> list[Digest]:
        events: list[Event] = []
        dropped = []
        for digest in encodings:
            record = transaction.encodings.get(digest)
            if record is not None and not is_kept(transaction, record.number):
                events.append(drop_encoding(transaction, digest, record))
                dropped.append(digest)
        if events:
            self._store.journal.append(transaction, events)
        return dropped

    def _drop_layers(self, layers: tuple[Digest, ...]) -> None:
        for start in range(0, len(layers), _LAYERS_PER_TRANSACTION):
            some = layers[start : start + _LAYERS_PER_TRANSACTION]
            self._layers += self._write_journal(partial(self._drop_some_layers, layers=some))

    def _drop_some_layers(self, transaction: Transaction, layers: tuple[Digest, ...]) -> int:
        events: list[Event] = []
        for diff_id in layers:
            record = transaction.layers.get(diff_id)
            if record is not None and not is_kept(transaction, record.number):
                events.append(drop_layer(transaction, diff_id, record))
        if events:
            self._store.journal.append(transaction, events)
        return len(events)

    def _drop_dead_uploads(self) -> None:
        with self._store.index.read() as transaction:
            uploads = dict(transaction.uploads.items())
        # Only now: a session that is made after this look has no upload among those that were read.
        live = LiveLeases.look(self._store.layout.leases)
        for number, session in uploads.items():
            if session not in live.sessions:
                self._store.index.write(partial(drop_upload, number=number))

    def _drain(self) -> None:
        with self._store.index.read() as transaction:
            dropped = list(transaction.dropped)
        # Leases are looked at after the layers went out of sight (`layerstore.storage.leases` says why).
        live = LiveLeases.look(self._store.layout.leases)
        for number in dropped:
            if number in live.layers:
                self._postponed += 1
                continue
            self._references += drain(self._store, number)
            self._tell("references")

    def _tell(self, note: str) -> None:
        if self._on_progress is not None:
            done = self._raw_bytes + self._packs.bytes_freed + self._packs.bytes_freed_by_rewriting
            self._on_progress(Progress("collect", str(self._store.layout.root), done, None, "bytes", note))
