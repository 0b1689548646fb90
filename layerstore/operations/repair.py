"""Repair: heal what `verify` reports as damaged content, with chunks from another store, and nothing else."""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from layerstore.digest import Digest
from layerstore.errors import ContentDamagedError, DamagedError, EncoderUnavailableError, NotFoundError
from layerstore.operations.blob_reader import blob_blocks
from layerstore.operations.blobs import push_again
from layerstore.operations.damage import check_frame, mark_lost
from layerstore.operations.heal import heal_chunks
from layerstore.operations.keeping import has_lost
from layerstore.operations.linking import adopt_raw_files, link_images, named_blobs
from layerstore.operations.raw_files import NewFile, new_file, raw_encodings, raw_path, remove_damaged_raw
from layerstore.operations.relocate import copy_record, switch_record
from layerstore.operations.rewrite import forget_pack
from layerstore.progress import OnProgress, Progress
from layerstore.storage.frames import chunk_id
from layerstore.storage.index import Transaction
from layerstore.storage.layout import sync_file, translate_os_errors
from layerstore.storage.locks import FileLock
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PackRecordHead, RecordKind, encode_pack_header
from layerstore.storage.records import EncodingState, PackRecord, Place

_HEAL_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair came to."""

    healed: int
    """Chunks that are good again."""
    lost: int
    """Chunks that are still lost; pushing a layer that holds them heals them."""
    records_rewritten: int
    """What else was damaged and is written anew, as the index has it: records of recipes, layers, manifests and
    configs, encodings, headers of packs, the journal."""
    encodings_healed: int = 0
    """Encodings whose raw file was damaged or missing and is good again."""


def repair(store: OpenedStore, source: OpenedStore | None, on_progress: OnProgress | None = None) -> RepairReport:
    """Mark every damaged chunk as lost, take damaged raw files away, then heal what ``source`` has.

    Counts and names are never touched.
    """
    store.check_writable()
    store.packs.close()  # a file that was put in another's place since is the one to look at
    rewritten = _rewrite_headers(store)
    with store.index.read() as transaction:
        numbers = list(transaction.frames)
    for done, number in enumerate(numbers):
        check = check_frame(store, number)
        if check is not None:
            mark_lost(store, check)
        if on_progress is not None and done % 64 == 0:
            on_progress(Progress("repair", str(store.layout.root), done, len(numbers), "frames"))
    healed = _heal_from(store, source) if source is not None else 0
    encodings = _heal_raw_files(store, source)
    healed += _heal_from_raw_files(store)
    rewritten += _rewrite_records(store)
    adopt_raw_files(store, named_blobs(store))
    link_images(store)
    rewritten += _settle_packs(store)
    if not store.journal.is_sound(store.index):
        store.journal.checkpoint(store.index)
        rewritten += 1
    with store.index.read() as transaction:
        lost = len(transaction.lost)
    if on_progress is not None:
        on_progress(Progress("repair", str(store.layout.root), len(numbers), len(numbers), "frames"))
    return RepairReport(healed, lost, rewritten, encodings)


def _heal_from(store: OpenedStore, source: OpenedStore) -> int:
    with store.index.read() as transaction:
        lost = sorted((where, identity) for identity, where in transaction.lost.items())
    healed = 0
    chunks: dict[bytes, bytes] = {}
    size = 0
    with store.pack_writer() as writer:
        for _, identity in lost:
            data = _fetch(source, identity)
            if data is not None:
                chunks[identity] = data
                size += len(data)
            if size >= _HEAL_BYTES:
                healed += heal_chunks(store, writer, chunks)
                chunks, size = {}, 0
        if chunks:
            healed += heal_chunks(store, writer, chunks)
    return healed


def _heal_raw_files(store: OpenedStore, source: OpenedStore | None) -> int:
    """Damaged files go, so that a push can bring them back, or come from another store."""
    healed = 0
    for digest in raw_encodings(store):
        if not remove_damaged_raw(store, digest) and raw_path(store.layout, digest).exists():
            continue
        if source is None:
            continue
        with suppress(DamagedError, NotFoundError, EncoderUnavailableError), new_file(store.layout.raw) as file:
            for block in blob_blocks(source, digest):
                file.write(block)
            file.sync()
            store.index.write(partial(_install_raw, store=store, digest=digest, file=file))
            healed += 1
    return healed


def _heal_from_raw_files(store: OpenedStore) -> int:
    """Chunks that layers have lost, from encodings of these layers that are kept raw; how many were healed."""
    with store.index.read() as transaction:
        before = len(transaction.lost)
        damaged = [
            digest
            for digest, record in transaction.encodings.items()
            if record.state is EncodingState.RAW
            and (layer := transaction.layers.get(record.diff_id)) is not None
            and has_lost(transaction, layer.number)
        ]
    for digest in damaged:
        push_again(store, digest)
    with store.index.read() as transaction:
        return before - len(transaction.lost)


def _install_raw(transaction: Transaction, store: OpenedStore, digest: Digest, file: NewFile) -> None:
    record = transaction.encodings.get(digest)
    if record is not None and record.state is EncodingState.RAW:
        file.install(raw_path(store.layout, digest))


def _fetch(source: OpenedStore, identity: bytes) -> bytes | None:
    """A chunk's bytes from another store, verified; None if it has none that are good."""
    with source.index.read() as transaction:
        where = transaction.chunks.get(identity)
    if where is None:
        return None
    try:
        data = bytes(source.frames.read(where[0]).run(where[1], 1))
    except DamagedError:
        return None
    return data if chunk_id(data) == identity else None


def _rewrite_records(store: OpenedStore) -> int:
    """Write records that are no frames anew where their copy in the packs is damaged; the index has their bytes."""
    with store.index.read() as transaction:
        heads = [
            PackRecordHead(RecordKind.SEGMENT, 0, number, offset.to_bytes(8, "big"), record.place, 0, 0)
            for (number, offset), record in transaction.recipes.items()
        ]
        heads += [
            PackRecordHead(RecordKind.LAYER, 0, record.number, diff_id.pack(), record.place, 0, 0)
            for diff_id, record in transaction.layers.items()
        ]
        heads += [
            PackRecordHead(RecordKind.ENCODING, 0, record.number, digest.pack(), record.place, 0, 0)
            for digest, record in transaction.encodings.items()
        ]
        heads += [
            PackRecordHead(RecordKind.BLOB, 0, 0, digest.pack(), record.place, 0, 0)
            for digest, record in transaction.blobs.items()
        ]
    rewritten = 0
    with store.pack_writer() as writer:
        for head in heads:
            if not _is_damaged(store, head.place):
                continue
            place = copy_record(store, head, writer)
            if place is None:
                continue
            writer.sync()

            def change(transaction: Transaction, head: PackRecordHead = head, place: Place = place) -> None:
                switch_record(transaction, head, place)
                writer.commit(transaction)

            store.index.write(change)
            writer.committed_now()
            rewritten += 1
    return rewritten


def _rewrite_headers(store: OpenedStore) -> int:
    """A header says nothing but the pack's number and the store's, so it can be put in place again."""
    with store.index.read() as transaction:
        sizes = {number: record.size for number, record in transaction.packs.items()}
    return sum(_rewrite_header(store, number, size) for number, size in sizes.items())


def _rewrite_header(store: OpenedStore, number: int, size: int) -> bool:
    try:
        store.packs.check_header(number, store.config.store_id)
        return False
    except ContentDamagedError:
        # Whoever writes the pack now comes to an end; then it is ours.
        lock = FileLock.acquire(store.layout.pack(number), blocking=True, create=False)
    if lock is None:
        return False  # missing, or collected meanwhile
    try:
        with translate_os_errors(f"cannot write pack {number}"):
            if os.fstat(lock.descriptor).st_size < size:
                return False  # cut: there is more to it than its header
            os.pwrite(lock.descriptor, encode_pack_header(number, store.config.store_id), 0)
            sync_file(lock.descriptor)
        return True
    finally:
        lock.release()


def _settle_packs(store: OpenedStore) -> int:
    """Let the index take packs that are cut or missing as they are, if nothing that is needed lay in what is gone."""
    with store.index.read() as transaction:
        packs = dict(transaction.packs.items())
    short = {number: size for number, record in packs.items() if (size := _file_size(store, number)) < record.size}
    return store.index.write(lambda transaction: _shorten(transaction, short)) if short else 0


def _shorten(transaction: Transaction, short: dict[int, int]) -> int:
    places = [record.place for _, record in transaction.frames.items()]
    places += [record.place for _, record in transaction.recipes.items()]
    places += [record.place for _, record in transaction.layers.items()]
    places += [record.place for _, record in transaction.encodings.items()]
    places += [record.place for _, record in transaction.blobs.items()]
    ends: dict[int, int] = {}
    for place in places:
        ends[place.pack] = max(ends.get(place.pack, 0), place.offset + place.size)
    done = 0
    for number, size in short.items():
        record = transaction.packs.get(number)
        if record is None or size >= record.size or ends.get(number, 0) > size:
            continue
        done += 1
        if number in ends:
            transaction.packs.put(number, PackRecord(size, record.dead_bytes - (record.size - size)))
        else:
            forget_pack(transaction, number, record.size)
    return done


def _file_size(store: OpenedStore, number: int) -> int:
    try:
        return store.layout.pack(number).stat().st_size
    except FileNotFoundError:
        return 0


def _is_damaged(store: OpenedStore, place: Place) -> bool:
    try:
        store.packs.check_record(place)
    except ContentDamagedError:
        return True
    return False
