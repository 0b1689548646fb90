"""Rebuild: the index anew, from the packs and the journal. The old index is never read.

The packs say which frames, recipes, manifests and configs there are; the journal says which layers are dropped, which
images are in the trash, and what the tags are. Neither holds leases and holds: a layer that is in no image comes back
as held by `UNKNOWN_HOLDER` until it is released.

Crash safety: the new index is built beside the old one. Then the old one is moved away, the journal is replaced by one
that says the same and agrees with the new index, and the new index is moved in. A crash before that leaves the old
state, a crash in between a store without an index; packs and journal are complete at every instant, so that running
the rebuild once more finishes it.
"""

import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from layerstore.digest import Digest
from layerstore.errors import ConflictError
from layerstore.operations.closure import kept_by, needed_layers, stored_diff_id
from layerstore.operations.containers import hold_for_containers
from layerstore.operations.damage import note_damage
from layerstore.operations.forecast import dead_bytes, is_thin
from layerstore.operations.keeping import is_kept
from layerstore.operations.linking import adopt_raw_files, named_blobs
from layerstore.operations.raw_files import raw_path
from layerstore.operations.rebuild_names import (
    History,
    ImageDamage,
    Names,
    bring_back_images,
    recover_unnamed_images,
)
from layerstore.operations.rebuild_recipes import LayerDamage, Recipes, RecipeSorter, choose_copy, read_body
from layerstore.operations.survey import FrameCopy, Survey, pack_files, survey_packs
from layerstore.progress import OnProgress, Progress, Throttle
from layerstore.storage.frames import FrameMeta, decode_meta
from layerstore.storage.index import Index, Transaction, index_in_use
from layerstore.storage.journal import Journal
from layerstore.storage.layout import Layout, StoreConfig, open_layout, sync_directory, translate_os_errors
from layerstore.storage.leases import LiveLeases
from layerstore.storage.locks import FileLock
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PACK_HEADER, PackReader, PackWriter, RecordKind
from layerstore.storage.records import (
    UNTIL_RELEASED,
    BlobRecord,
    CountsRecord,
    EncodingState,
    FrameRecord,
    FrameState,
    PackRecord,
    Place,
    SegmentRecord,
)
from layerstore.storage.tables import HOLDER_SIZE

UNKNOWN_HOLDER = bytes(HOLDER_SIZE)
"""Who holds a layer that came back and is in no image: it is not known who pushed it."""

_NEW = "index.new-"
_OLD = "index.damaged"
_POSITIONS_PER_TRANSACTION = 100_000
_ROWS_PER_TRANSACTION = 2000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What came back, and what did not."""

    packs: int
    frames: int
    chunks: int
    layers: int
    images: int
    images_in_trash: int
    tags: int
    bytes_damaged: int
    """Bytes of packs that hold nothing readable. Ends of unfinished pushes and dead records, such as that of a frame
    that was damaged and then healed, are among them: what is missed is told by the fields below."""
    chunks_lost: int
    """Chunks that recipes need and whose bytes are damaged. A push of the same content, or `repair`, heals them."""
    layers_damaged: tuple[LayerDamage, ...]
    """Layers that did not come back. Pushing them again brings them back."""
    layers_recovered: tuple[Digest, ...]
    """Layers whose record was damaged; what their recipe gives told which they are."""
    images_damaged: tuple[ImageDamage, ...]
    """Images that did not come back or lack layers."""
    images_recovered: tuple[Digest, ...]
    """Images that came back without their tags, as the journal does not name them."""
    journal_is_whole: bool
    """If not, names are lost, deleted images come back untagged, and deleted layers come back as held."""
    old_index: Path | None
    """Where the index from before was put. It can be deleted once the store is seen to be well."""
    encodings_lost: tuple[Digest, ...] = ()
    """Encodings that images name and that did not come back. Importing the image again brings them back."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is lost or damaged."""
        damage = self.chunks_lost or self.layers_damaged or self.images_damaged or self.encodings_lost
        return self.journal_is_whole and not damage


def rebuild_index(path: Path, on_progress: OnProgress | None) -> RebuildReport:
    """Make the index of the store at ``path`` anew. No process may have the store open, this one included.

    Raises `ConflictError` if one is found to have it open, or to have used it meanwhile; then nothing was changed.
    """
    layout, config = open_layout(path)
    with translate_os_errors(f"cannot rebuild the index of {path}"):
        for folder in (layout.leases, layout.temporary, layout.packs, layout.raw, layout.cache):
            folder.mkdir(exist_ok=True)
        lock = FileLock.acquire(layout.root / ".collect.lock", blocking=False, create=True)
    if lock is None:
        raise ConflictError(f"another process collects or rebuilds the store at {path}; try again when it is done")
    try:
        _refuse_if_used(layout)
        return _Rebuild(layout, config, on_progress).run()
    finally:
        lock.release()


def _refuse_if_used(layout: Layout) -> None:
    live = LiveLeases.look(layout.leases)
    if live.sessions or live.layers or live.everything or index_in_use(layout.index):
        raise ConflictError(f"the store at {layout.root} is open; close it in every process before a rebuild")


class _Rebuild:
    def __init__(self, layout: Layout, config: StoreConfig, on_progress: OnProgress | None) -> None:
        self._layout = layout
        self._config = config
        self._on_progress = on_progress
        self._packs = PackReader(layout)
        self._journal = Journal(layout.journal)
        self._survey = Survey()
        self._live: dict[int, int] = {}
        self._unsound: list[int] = []
        self._unplaced: set[Digest] = set()
        """Encodings whose layer or raw file is not there."""

    def run(self) -> RebuildReport:
        self._remove_leftovers()
        before = self._fingerprint()
        with translate_os_errors(f"cannot read {self._journal.path}"):
            history = History.of(self._journal)
        self._scan()
        if not self._survey.blobs and not self._layout.journal.exists():
            history.is_whole = True  # a store without images may never have needed one
        names = bring_back_images(history, self._read_blob)
        encodings = {
            digest: encoding.diff_id for copies in self._survey.encodings.values() for digest, encoding in copies
        }
        recipes = RecipeSorter(self._survey, self._packs, history.dropped).sort(names.wanted(encodings))
        if not history.is_whole:
            recover_unnamed_images(names, history, self._survey.blobs, recipes.layers, encodings, self._read_blob)
        names.note_missing_layers(recipes.layers, encodings)
        folder = self._layout.root / f"{_NEW}{uuid4().hex}"
        with translate_os_errors(f"cannot create {folder}"):
            folder.mkdir()
        index = Index(folder, create=True)
        try:
            self._fill(index, history, names, recipes)
            if self._fingerprint() != before:
                raise ConflictError("the store was used while its index was rebuilt; close it everywhere and try again")
            self._write_recovered(index, recipes)
            old = self._move_old_away()
            # Only now, with no index in place: an index and a journal that disagree must never meet.
            self._journal.checkpoint(index)
            report = self._report(index, history, names, recipes, old)
        finally:
            index.close()
            self._packs.close()
        with translate_os_errors(f"cannot put {folder} in place"):
            sync_directory(folder)
            folder.rename(self._layout.index)
            sync_directory(self._layout.root)
        return self._mend(report, names)

    def _remove_leftovers(self) -> None:
        for path in self._layout.root.glob(f"{_NEW}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _fingerprint(self) -> dict[str, tuple[int, int]]:
        paths = [*pack_files(self._layout).values(), self._layout.journal]
        with translate_os_errors(f"cannot read {self._layout.packs}"):
            return {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.exists()}

    def _scan(self) -> None:
        total = sum(size for name, (size, _) in self._fingerprint().items() if name != self._layout.journal.name)
        throttle, done = Throttle(), 0
        for pack in survey_packs(self._layout):
            self._survey.add(pack)
            done += pack.size
            if throttle.is_due():
                self._tell(done, total, "packs")
        self._tell(done, total, "index")

    def _read_blob(self, digest: Digest) -> bytes | None:
        place = self._survey.blobs.get(digest)
        return None if place is None else read_body(self._packs, place)

    def _fill(self, index: Index, history: History, names: Names, recipes: Recipes) -> None:
        self._put_frames(index, recipes)
        self._put_recipes(index, recipes)
        index.write(partial(self._put_layers, history=history, recipes=recipes))
        index.write(partial(self._put_encodings, history=history))
        index.write(partial(self._put_owners, names=names))
        index.write(partial(self._put_images, names=names))
        index.write(partial(self._put_packs_and_counters, history=history, recipes=recipes))

    def _put_frames(self, index: Index, recipes: Recipes) -> None:
        """Frames, counts and chunks; first the frames that something refers to, as their chunks' rows come first."""
        chosen = {n: choose_copy(copies, recipes.counts.get(n)) for n, copies in self._survey.frames.items()}
        needed = sorted(number for number in chosen if number in recipes.counts)
        spare = sorted(number for number in chosen if number not in recipes.counts and chosen[number].is_sound)
        for numbers in _batches([*needed, *spare], lambda n: chosen[n].positions, _POSITIONS_PER_TRANSACTION):
            metas = [(number, chosen[number], self._read_meta(chosen[number])) for number in numbers]
            put = partial(self._put_some_frames, metas=metas, recipes=recipes)
            for number, copy, dead in index.write(put):
                self._add_live(copy.place, dead)
                if not copy.is_sound:
                    self._unsound.append(number)

    def _read_meta(self, copy: FrameCopy) -> tuple[int, FrameMeta]:
        head = self._packs.read_head(copy.place)
        return head.codec, decode_meta(head.meta)

    def _put_some_frames(
        self, transaction: Transaction, metas: list[tuple[int, FrameCopy, tuple[int, FrameMeta]]], recipes: Recipes
    ) -> list[tuple[int, FrameCopy, int]]:
        """The frames that were put, each with its dead bytes."""
        done = []
        for number, copy, (codec, meta) in metas:
            counts = recipes.counts.get(number)
            if counts is None:
                # A spare chunk that is there already was collected and pushed again: it would be stored twice.
                if any(i in transaction.chunks for i, s in zip(meta.ids, meta.states, strict=True) if not s):
                    continue
                counts = array("I", bytes(4 * copy.positions))
                transaction.touched_frames.put(number, None)
            states = bytearray(meta.states)
            for position, identity in enumerate(meta.ids):
                if counts[position] and states[position] != FrameState.PRESENT:
                    states[position] = FrameState.LOST
                if states[position] == FrameState.LOST:
                    _settle_lost(transaction, states, counts, position, identity, number)
                if states[position] != FrameState.HOLE:
                    _put_chunk(transaction, identity, (number, position), recipes)
            record = FrameRecord(copy.place, codec, meta.digest, meta.lengths, bytes(states))
            dead = dead_bytes(record, counts)
            transaction.frames.put(number, record)
            transaction.counts.put(number, CountsRecord(dead, counts))
            done.append((number, copy, dead))
        return done

    def _put_recipes(self, index: Index, recipes: Recipes) -> None:
        rows = [
            ((number, offset), place)
            for number in sorted(recipes.numbers)
            for offset, place in sorted(self._survey.segments.get(number, {}).items())
        ]
        for batch in _batches(rows, lambda row: 1, _ROWS_PER_TRANSACTION):
            records = [(key, SegmentRecord(place, read_body(self._packs, place))) for key, place in batch]
            index.write(partial(_put_segments, records=records))
            for _, place in batch:
                self._add_live(place)

    def _put_layers(self, transaction: Transaction, history: History, recipes: Recipes) -> None:
        for diff_id, record in recipes.layers.items():
            transaction.layers.put(diff_id, record)
        for number in [*history.dropped, *recipes.superseded]:
            for pack in self._survey.layer_packs.get(number, ()):
                transaction.graves.put((pack, number), None)

    def _put_encodings(self, transaction: Transaction, history: History) -> None:
        """The encodings whose layers are there. One that is only known as raw must have its file."""
        for number, copies in sorted(self._survey.encodings.items()):
            if number in history.dropped:
                continue
            digest, record = max(copies, key=lambda copy: (copy[1].state is not EncodingState.RAW, copy[1].tried))
            layer = transaction.layers.get(record.diff_id)
            path = raw_path(self._layout, digest)
            is_whole = record.state is not EncodingState.RAW or (path.exists() and path.stat().st_size == record.size)
            if layer is None or not is_whole or digest in transaction.encodings:
                self._unplaced.add(digest)
                continue
            transaction.encodings.put(digest, record)
            transaction.layer_encodings.put((layer.number, digest), None)

    def _put_owners(self, transaction: Transaction, names: Names) -> None:
        for digest, closure in names.closures.items():
            for number in kept_by(transaction, closure):
                transaction.layer_images.put((number, digest), None)
        _hold_unowned(transaction)

    def _put_images(self, transaction: Transaction, names: Names) -> None:
        for digest, record in names.images.items():
            transaction.images.put(digest, record)
        for digest, trash in names.trash.items():
            transaction.trash.put(digest, trash)
        for tag, digest in names.tags.items():
            transaction.tags.put(tag, digest)
            transaction.image_tags.put((digest, tag), None)
        for digest, uses in names.blob_uses.items():
            place = self._survey.blobs[digest]
            transaction.blobs.put(digest, BlobRecord(place, uses, read_body(self._packs, place)))

    def _put_packs_and_counters(self, transaction: Transaction, history: History, recipes: Recipes) -> None:
        survey = self._survey
        for record in recipes.layers.values():
            self._add_live(record.place)
        for _, encoding in transaction.encodings.items():
            self._add_live(encoding.place)
        for digest, _ in transaction.blobs.items():
            self._add_live(survey.blobs[digest])
        for number, size in survey.packs.items():
            if size <= PACK_HEADER.size:
                continue  # nothing is in it: without a row, collection unlinks the file
            dead = size - PACK_HEADER.size - self._live.get(number, 0)
            transaction.packs.put(number, PackRecord(size, dead))
            if is_thin(size, dead) or dead >= size - PACK_HEADER.size:
                transaction.touched_packs.put(number, None)
        layers = [*survey.layers, *survey.segments, *survey.headless_layers, *survey.encodings, *history.dropped]
        image_numbers = [record.number for _, record in transaction.images.items()]
        for counter, numbers in (
            ("next_frame", [*survey.frames, *recipes.counts]),
            ("next_pack", list(survey.packs)),
            ("next_layer", layers),
            ("next_image", [history.image_number_max, *image_numbers]),
        ):
            transaction.meta.put(counter, max(numbers, default=0) + 1)

    def _add_live(self, place: Place, dead: int = 0) -> None:
        self._live[place.pack] = self._live.get(place.pack, 0) + place.size - dead

    def _write_recovered(self, index: Index, recipes: Recipes) -> None:
        """Write the records of recovered layers anew, so that the next rebuild finds them."""
        recovered = [(diff_id, record) for diff_id, record in recipes.layers.items() if not record.place.size]
        if not recovered:
            return
        writer = PackWriter(self._layout, index, self._config)
        try:
            places = [
                (diff_id, record, writer.append(RecordKind.LAYER, 0, record.number, diff_id.pack(), record.encode()))
                for diff_id, record in recovered
            ]
            writer.sync()

            def change(transaction: Transaction) -> None:
                for diff_id, record, place in places:
                    transaction.layers.put(diff_id, replace(record, place=place))
                writer.commit(transaction)

            index.write(change)
            writer.committed_now()
        finally:
            writer.close()

    def _move_old_away(self) -> Path | None:
        _refuse_if_used(self._layout)
        if not self._layout.index.exists():
            return None
        old = self._layout.root / _OLD
        with translate_os_errors(f"cannot move {self._layout.index} away"):
            if old.is_dir():
                shutil.rmtree(old)
            self._layout.index.rename(old)
            sync_directory(self._layout.root)
        return old

    def _mend(self, report: RebuildReport, names: Names) -> RebuildReport:
        """What the new index makes possible: mark what damaged frames have lost, bring layers back from raw files."""
        store = OpenedStore(self._layout, self._config)
        try:
            for number in self._unsound:
                note_damage(store, number)
            adopt_raw_files(store, self._unplaced | named_blobs(store))
            hold_for_containers(store)
            store.index.write(_hold_unowned)
            with store.index.read() as transaction:
                layers = set(transaction.layers)
                lost = tuple(
                    digest
                    for digest in sorted({one for closure in names.closures.values() for one in closure.blob_digests})
                    if digest in self._unplaced and digest not in transaction.encodings and digest not in layers
                )
                artifacts = [
                    ImageDamage(image, (), f"lacks blob {digest}; import it again")
                    for image, closure in names.closures.items()
                    for digest in closure.needed_blob_digests
                    if digest not in layers and digest not in transaction.encodings
                ]
                chunks_lost = len(transaction.lost)
                diff_id_of = partial(stored_diff_id, transaction)
                needed = {image: needed_layers(closure, diff_id_of) for image, closure in names.closures.items()}
            damaged = tuple(damage for damage in report.layers_damaged if damage.diff_id not in layers)
            images = tuple(
                damage
                for damage in report.images_damaged
                if damage.digest not in needed or not layers.issuperset(needed[damage.digest])
            )
            return replace(
                report,
                chunks_lost=chunks_lost,
                layers=len(layers),
                layers_damaged=damaged,
                images_damaged=(*images, *artifacts),
                encodings_lost=lost,
            )
        finally:
            store.close()

    def _report(
        self, index: Index, history: History, names: Names, recipes: Recipes, old: Path | None
    ) -> RebuildReport:
        with index.read() as transaction:
            return RebuildReport(
                packs=len(transaction.packs),
                frames=len(transaction.frames),
                chunks=len(transaction.chunks),
                layers=len(transaction.layers),
                images=len(transaction.images),
                images_in_trash=len(transaction.trash),
                tags=len(transaction.tags),
                bytes_damaged=self._survey.damaged_bytes,
                chunks_lost=0,
                layers_damaged=tuple(recipes.damaged),
                layers_recovered=tuple(d for d, record in recipes.layers.items() if not record.place.size),
                images_damaged=tuple(names.damaged),
                images_recovered=tuple(names.recovered),
                journal_is_whole=history.is_whole,
                old_index=old,
            )

    def _tell(self, done: int, total: int, note: str) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress("rebuild-index", str(self._layout.root), done, total, "bytes", note))


def _hold_unowned(transaction: Transaction) -> None:
    numbers = [record.number for _, record in transaction.layers.items()]
    numbers += [record.number for _, record in transaction.encodings.items()]
    for number in numbers:
        if not is_kept(transaction, number):
            transaction.holds.put((number, UNKNOWN_HOLDER), UNTIL_RELEASED)


def _settle_lost(
    transaction: Transaction, states: bytearray, counts: "array[int]", position: int, identity: bytes, number: int
) -> None:
    """Note a lost chunk; one that nothing refers to is no loss."""
    if counts[position]:
        transaction.lost.put(identity, (number, position))
        transaction.chunks.put(identity, (number, position))
    else:
        states[position] = FrameState.HOLE


def _put_chunk(transaction: Transaction, identity: bytes, where: tuple[int, int], recipes: Recipes) -> None:
    """Let a chunk's row point to the first position that recipes refer to, or else to the first one."""
    before = transaction.chunks.get(identity)
    if before is not None:
        counts, counts_before = recipes.counts.get(where[0]), recipes.counts.get(before[0])
        if counts is None or not counts[where[1]] or (counts_before is not None and counts_before[before[1]]):
            return
    transaction.chunks.put(identity, where)


def _put_segments(transaction: Transaction, records: list[tuple[tuple[int, int], SegmentRecord]]) -> None:
    for key, record in records:
        transaction.recipes.put(key, record)


def _batches(items: Iterable[T], weight: Callable[[T], int], weight_max: int) -> Iterator[list[T]]:
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += weight(item)
        if total >= weight_max:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
