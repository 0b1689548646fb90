"""Verification: recount from zero, compare, read everything, report. Nothing is changed."""

import subprocess
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from layerstore.digest import Digest
from layerstore.errors import (
    ContentDamagedError,
    DamagedError,
    DigestMismatchError,
    EncoderUnavailableError,
    IndexDamagedError,
    NotFoundError,
    StorageError,
)
from layerstore.operations.blob_reader import encoding_blocks
from layerstore.operations.closure import kept_by, needed_layers, stored_closure, stored_diff_id
from layerstore.operations.damage import check_frame
from layerstore.operations.images import tags_of
from layerstore.operations.keeping import images_of
from layerstore.operations.raw_files import raw_size
from layerstore.operations.walk_index import EXIT_DAMAGED, STARTED
from layerstore.operations.walk_index import command as walk_command
from layerstore.progress import OnProgress, Progress, Throttle
from layerstore.storage.containers import damaged_containers
from layerstore.storage.index import Transaction
from layerstore.storage.layout import translate_os_errors
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PACK_HEADER
from layerstore.storage.recipe import Segment, decode_segment
from layerstore.storage.records import EncodingRecord, EncodingState, FrameState, ImageRecord, Place


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it should be."""

    kind: str
    """``content`` (damaged bytes), ``index`` (a damaged record), ``count`` or ``reference`` (contradictions)."""
    text: str
    frame: int | None = None
    layers: tuple[Digest, ...] = ()
    """Layers that cannot be pulled because of it."""
    images: tuple[str, ...] = ()
    """Their images, by tag where they have one."""


@dataclass(slots=True)
class VerifyReport:
    """What was checked, and what was found."""

    is_full: bool
    problems: tuple[Problem, ...] = ()
    frames_read: int = 0
    bytes_read: int = 0
    chunks: int = 0
    layers_checked: int = 0
    images_checked: int = 0
    encodings_checked: int = 0
    encodings_unavailable: int = 0
    """Encodings that this installation has no encoder for. They are not lost: another one can make them."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


def verify(store: OpenedStore, *, full: bool, on_progress: OnProgress | None = None) -> VerifyReport:
    """Check the index against itself and the packs; with ``full``, every byte of every pack that is needed."""
    report = VerifyReport(full)
    walked = _walk_in_child(store)
    if walked:
        # An index that may crash LMDB is not touched in this process any further.
        report.problems = tuple(walked)
        return report
    checker = _Checker(store, report)
    try:
        with store.index.read() as transaction:
            checker.check_index(transaction)
        if full:
            checker.read_everything(on_progress)
        with store.index.read() as transaction:
            report.problems = tuple(_concerning(transaction, checker.problems))
    except IndexDamagedError as error:
        report.problems = (*checker.problems, Problem("index", str(error)))
    damaged = damaged_containers(store.layout.root)
    report.problems += tuple(Problem("content", f"container {name}: {error}") for name, error in damaged.items())
    return report


def _walk_in_child(store: OpenedStore) -> list[Problem]:
    """Read every record of the index in a process of its own: damaged pages can crash whoever maps them.

    Raises `StorageError` if there can be no such process: that says nothing about the index.
    """
    if not sys.executable:
        raise StorageError("verify reads the index in a process of its own, and Python's sys.executable names none")
    with translate_os_errors(f"cannot run {sys.executable} to read the index"):
        done = subprocess.run(
            walk_command(store.layout.index),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    started, *lines = done.stdout.splitlines() or [""]
    if started != STARTED or (done.returncode > 0 and done.returncode != EXIT_DAMAGED):
        reason = done.stderr.strip().rpartition("\n")[2] or f"it ended with {done.returncode}"
        raise StorageError(f"cannot read the index in a process of its own ({sys.executable}): {reason}")
    if done.returncode < 0:
        return [
            Problem("index", f"reading the index crashes (signal {-done.returncode}); run `layerstore rebuild-index`")
        ]
    return [Problem("index", line) for line in lines]


def _concerning(transaction: Transaction, problems: list[Problem]) -> Iterator[Problem]:
    """The problems with the layers and images that they concern, from one pass over all recipes."""
    users: dict[int, set[int]] = {problem.frame: set() for problem in problems if problem.frame is not None}
    if users:
        for (number, _), record in transaction.recipes.items():
            for frame in {run.frame for run in decode_segment(record.data).runs} & users.keys():
                users[frame].add(number)
    diff_ids = {record.number: diff_id for diff_id, record in transaction.layers.items()} if users else {}
    names = {number: _image_names(transaction, number) for number in set().union(*users.values()) & diff_ids.keys()}
    for problem in problems:
        if problem.frame is None:
            yield problem
            continue
        numbers = [number for number in sorted(users[problem.frame]) if number in diff_ids]
        images = dict.fromkeys(name for number in numbers for name in names[number])
        layers = tuple(diff_ids[number] for number in numbers)
        yield replace(problem, layers=layers, images=tuple(images))


def _image_names(transaction: Transaction, number: int) -> list[str]:
    return [name for digest in images_of(transaction, number) for name in tags_of(transaction, digest) or [str(digest)]]


def _images(transaction: Transaction) -> Iterator[tuple[Digest, ImageRecord]]:
    """All images, those in the trash included."""
    yield from transaction.images.items()
    for digest, trash in transaction.trash.items():
        yield digest, trash.image


def _chunks(count: int) -> str:
    return "1 chunk" if count == 1 else f"{count:,} chunks"


@dataclass(slots=True)
class _Checker:
    store: OpenedStore
    report: VerifyReport
    problems: list[Problem] = field(default_factory=list)
    _counts: "dict[int, array[int]]" = field(default_factory=dict)
    _live: dict[int, int] = field(default_factory=dict)
    _frames: dict[int, int] = field(default_factory=dict)
    _records: list[tuple[str, Place]] = field(default_factory=list)
    _dangling: set[tuple[int, int]] = field(default_factory=set)
    """Recipes and frames that they refer to and that are not there."""
    _short_packs: set[int] = field(default_factory=set)
    """Packs that are missing or cut."""

    def check_index(self, transaction: Transaction) -> None:
        """Everything that can be known without reading packs."""
        self._frames = {n: len(record.lengths) for n, record in transaction.frames.items()}
        self._check_layers(transaction)
        self._check_frames(transaction)
        self._check_chunks(transaction)
        self._check_encodings(transaction)
        self._check_images(transaction)
        self._check_packs(transaction)

    def _add(self, kind: str, text: str, frame: int | None = None) -> None:
        self.problems.append(Problem(kind, text, frame))

    def _check_layers(self, transaction: Transaction) -> None:
        known: dict[int, int | None] = dict.fromkeys(transaction.uploads)
        known |= dict.fromkeys(transaction.dropped)
        for diff_id, record in transaction.layers.items():
            known[record.number] = record.size
            self._use(f"layer {diff_id}", record.place)
        self.report.layers_checked = len(transaction.layers)
        ends: dict[int, int] = {}
        for (number, offset), part in transaction.recipes.items():
            if number not in known:
                self._add("reference", f"recipe {number} belongs to no layer and no upload")
            if offset != ends.get(number, 0) and number not in transaction.dropped:
                self._add("reference", f"recipe {number} has a gap before {offset}")
            segment = decode_segment(part.data)
            ends[number] = offset + segment.size
            self._use(f"segment {offset} of recipe {number}", part.place)
            self._count(segment, number)
        for number, size in known.items():
            if size is not None and ends.get(number, 0) != size:
                self._add("reference", f"recipe {number} makes {ends.get(number, 0)} bytes of a layer of {size}")

    def _count(self, segment: Segment, number: int) -> None:
        for frame, first, chunks in segment.runs:
            positions = self._frames.get(frame)
            if positions is None or first + chunks > positions:
                if (number, frame) not in self._dangling:
                    self._dangling.add((number, frame))
                    text = f"recipe {number} refers to frame {frame}, which is missing or smaller"
                    self._add("reference", text, frame)
                continue
            counts = self._counts.get(frame)
            if counts is None:
                counts = self._counts[frame] = array("I", bytes(4 * positions))
            for position in range(first, first + chunks):
                counts[position] += 1

    def _check_frames(self, transaction: Transaction) -> None:
        for number, record in transaction.frames.items():
            expected = self._counts.get(number, array("I", bytes(4 * len(record.lengths))))
            counts = transaction.counts.get(number)
            if counts is None:
                self._add("index", f"frame {number} has no counts", number)
                continue
            if counts.counts != expected:
                self._add("count", f"the counts of frame {number} are not those of the recipes", number)
            if not any(expected) and number not in transaction.touched_frames:
                self._add("count", f"nothing refers to frame {number}, and collection does not know it")
            needed = [state for position, state in enumerate(record.states) if expected[position]]
            if holes := needed.count(FrameState.HOLE):
                self._add("reference", f"frame {number} lacks {_chunks(holes)} that recipes refer to", number)
            if lost := needed.count(FrameState.LOST):
                self._add("content", f"frame {number} has lost {_chunks(lost)} of {len(record.states):,}", number)
            self._use(f"frame {number}", record.place, dead=counts.dead_bytes, check=False)
        for number in transaction.counts:
            if number not in self._frames:
                self._add("count", f"there are counts of frame {number}, which does not exist")

    def _check_chunks(self, transaction: Transaction) -> None:
        rows: dict[int, bytearray] = {}
        for identity, (frame, position) in transaction.chunks.items():
            self.report.chunks += 1
            positions = self._frames.get(frame)
            if positions is None or position >= positions:
                self._add("reference", f"chunk {identity.hex()} is said to be in frame {frame}, where it cannot be")
                continue
            rows.setdefault(frame, bytearray(positions))[position] += 1
        for number, record in transaction.frames.items():
            seen = rows.get(number, bytearray(len(record.states)))
            counts = self._counts.get(number, array("I", bytes(4 * len(record.states))))
            wrong = []
            for position, state in enumerate(record.states):
                # A position that nothing refers to may have lost its row to a collection that goes on.
                needed = state != FrameState.HOLE and counts[position]
                if seen[position] > (state != FrameState.HOLE) or (needed and not seen[position]):
                    wrong.append(position)
            if wrong:
                first = f"position {wrong[0]} has {seen[wrong[0]]}"
                self._add("index", f"frame {number} has wrong rows of {_chunks(len(wrong))} ({first})", number)

    def _check_images(self, transaction: Transaction) -> None:
        blobs: dict[Digest, int] = {}
        rows: set[tuple[int, Digest]] = set()
        needed: set[tuple[int, Digest]] = set()
        for digest, record in _images(transaction):
            self.report.images_checked += 1
            closure = stored_closure(transaction, digest)
            if closure.config != record.config:
                self._add("reference", f"the index names another config of image {digest} than its manifest")
            for used in closure.documents:
                blobs[used] = blobs.get(used, 0) + 1
            layers = set(needed_layers(closure, partial(stored_diff_id, transaction)))
            for diff_id in [one for one in sorted(layers) if one not in transaction.layers]:
                self._add("reference", f"image {digest} needs layer {diff_id}, which is missing")
            kept = kept_by(transaction, closure)
            rows |= {(number, digest) for number in kept}
            needed |= {(number, digest) for number, one in kept.items() if one in layers & closure.diff_ids.keys()}
            for blob in closure.needed_blob_digests:
                if blob not in transaction.layers and blob not in transaction.encodings:
                    self._add("reference", f"image {digest} needs blob {blob}, which is missing")
        # An encoding that was pushed after its image belongs to it only from the next time that the image is put.
        if not needed <= set(transaction.layer_images) <= rows:
            self._add("count", "the list of the images of each layer is not that of the images' documents")
        self._check_documents(transaction, blobs)
        self._check_tags(transaction)

    def _check_documents(self, transaction: Transaction, blobs: dict[Digest, int]) -> None:
        """``blobs``: how many images use each manifest and config."""
        for digest, blob in transaction.blobs.items():
            if blob.count != blobs.pop(digest, 0):
                self._add("count", f"the count of blob {digest} is not that of the images")
            if Digest.of(blob.data, digest.algorithm) != digest:
                self._add("content", f"blob {digest} has another digest")
            self._use(f"blob {digest}", blob.place)
        for digest in blobs:
            self._add("reference", f"blob {digest} is missing")

    def _check_encodings(self, transaction: Transaction) -> None:
        rows = set()
        for digest, record in transaction.encodings.items():
            self.report.encodings_checked += 1
            layer = transaction.layers.get(record.diff_id)
            if layer is None:
                self._add("reference", f"encoding {digest} needs layer {record.diff_id}, which is missing")
            else:
                rows.add((layer.number, digest))
            if self._lacks_file(digest, record):
                self._add("content", f"encoding {digest} is kept raw, and its file is missing or has another size")
            self._use(f"encoding {digest}", record.place)
        if rows != set(transaction.layer_encodings):
            self._add("count", "the list of the encodings of each layer is not that of the encodings")

    def _lacks_file(self, digest: Digest, record: EncodingRecord) -> bool:
        if record.state is not EncodingState.RAW or raw_size(self.store, digest) == record.size:
            return False
        # The record is from before the look at the file: it may have been proved or dropped in between.
        with self.store.index.read() as now:
            return now.encodings.get(digest) == record

    def _check_tags(self, transaction: Transaction) -> None:
        tags = {(digest, tag) for tag, digest in transaction.tags.items()}
        if tags != set(transaction.image_tags):
            self._add("count", "the tags of each image are not those that name it")
        for digest, record in transaction.images.items():
            if record.tag_count != sum(1 for one, _ in tags if one == digest):
                self._add("count", f"the count of tags of image {digest} is wrong")
        for digest, tag in tags:
            if digest not in transaction.images:
                self._add("reference", f"tag {tag} names image {digest}, which is missing")

    def _check_packs(self, transaction: Transaction) -> None:
        for number, record in transaction.packs.items():
            dead = record.size - PACK_HEADER.size - self._live.pop(number, 0)
            if record.dead_bytes != dead:
                self._add("count", f"pack {number} has {dead} dead bytes; the index says {record.dead_bytes}")
            try:
                size = self.store.layout.pack(number).stat().st_size
            except FileNotFoundError:
                if self._is_still_there(number):
                    self._short_packs.add(number)
                    self._add("content", f"pack {number} is missing")
                continue
            if size < record.size:
                self._short_packs.add(number)
                self._add("content", f"pack {number} has {size} of its {record.size} bytes")
        for number in self._live:
            self._add("reference", f"records lie in pack {number}, which the index does not have")

    def _is_still_there(self, number: int) -> bool:
        # The transaction is from before the look at the file; collection may have removed the pack in between.
        with self.store.index.read() as now:
            return number in now.packs

    def _use(self, what: str, place: Place, *, dead: int = 0, check: bool = True) -> None:
        self._live[place.pack] = self._live.get(place.pack, 0) + place.size - dead
        if check:
            self._records.append((what, place))

    def read_everything(self, on_progress: OnProgress | None) -> None:
        """Read every frame from disk, and what else `rebuild-index` would need."""
        self.store.packs.close()  # a file that was put in another's place since is the one to look at
        self.store.frames.clear()
        self._check_headers()
        if not self.store.journal.is_sound(self.store.index):
            self._add("content", "the journal is damaged or cut; the index still has what it said")
        numbers = sorted(self._frames)
        throttle = Throttle(at_once=False)
        for done, number in enumerate(numbers):
            self._read_frame(number)
            if on_progress is not None and throttle.is_due():
                on_progress(Progress("verify", str(self.store.layout.root), done, len(numbers), "frames"))
        for what, place in self._records:
            self._read_record(what, place)
        self._read_encodings(on_progress)
        if on_progress is not None:
            on_progress(Progress("verify", str(self.store.layout.root), len(numbers), len(numbers), "frames"))

    def _read_encodings(self, on_progress: OnProgress | None) -> None:
        """Compare every raw file with its digest, and make every other encoding again."""
        with self.store.index.read() as transaction:
            encodings = list(transaction.encodings)
        for done, digest in enumerate(encodings):
            self._read_encoding(digest)
            if on_progress is not None:
                on_progress(Progress("verify", str(self.store.layout.root), done + 1, len(encodings), "encodings"))

    def _read_encoding(self, digest: Digest) -> None:
        try:
            for _ in encoding_blocks(self.store, digest, cached=False):
                pass
        except EncoderUnavailableError:
            self.report.encodings_unavailable += 1
        except NotFoundError:
            pass  # collected meanwhile
        except (DamagedError, DigestMismatchError) as error:
            self._add("content", f"encoding {digest} cannot be given back: {error}")

    def _check_headers(self) -> None:
        with self.store.index.read() as transaction:
            numbers = list(transaction.packs)
        for number in numbers:
            if number in self._short_packs:
                continue  # it was told of already
            try:
                self.store.packs.check_header(number, self.store.config.store_id)
            except ContentDamagedError as error:
                if self._is_still_there(number):
                    self._add("content", str(error))

    def _read_frame(self, number: int) -> None:
        check = check_frame(self.store, number)
        if check is None:
            return
        self.report.frames_read += 1
        self.report.bytes_read += check.size_read
        if not check.is_good:
            place = check.record.place
            damaged = (
                f"{_chunks(len(check.bad))} damaged" if check.bad else "its record is damaged, its contents are not"
            )
            reason = check.reason or "they do not match their ChunkIDs"
            self._add("content", f"frame {number} in pack {place.pack} at {place.offset}: {damaged} ({reason})", number)

    def _read_record(self, what: str, place: Place) -> None:
        try:
            self.store.packs.check_record(place)
        except ContentDamagedError as error:
            if self._has_moved(place):
                return
            self._add("content", f"{what}: its copy in the packs is damaged ({error}); the index still has it")

    def _has_moved(self, place: Place) -> bool:
        with self.store.index.read() as transaction:
            return place.pack not in transaction.packs
