"""Blobs: compressed layers under the digest of their compressed bytes.

A blob that is gzip or zstd is decoded into its layer, which is deduplicated like any other; the blob itself becomes an
*encoding* of the layer, first kept raw (`layerstore.operations.raw_files`), later perhaps as a recipe
(`layerstore.operations.prove`). Any other blob is a layer as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from layerstore.decoding import decode, detect
from layerstore.digest import Digest, PromisedDigest
from layerstore.errors import (
    BlobNotFoundError,
    DamagedError,
    DigestMismatchError,
    LayerNotFoundError,
    OversizedError,
    UndecodableError,
)
from layerstore.operations.keeping import has_lost, loosen, release
from layerstore.operations.layer_reader import LayerReader
from layerstore.operations.push import Decoder, Pushed, Report, push_blocks, resolved
from layerstore.operations.raw_files import NewFile, new_file, raw_path, raw_size
from layerstore.operations.source import Source, open_source
from layerstore.operations.upload import Holder, UploadTotals, hold_layer
from layerstore.progress import OnProgress
from layerstore.storage.index import Transaction
from layerstore.storage.leases import Session
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import RecordKind
from layerstore.storage.records import NO_PLACE, EncodingRecord, EncodingState

LAYER_SIZE_MAX = 256 << 30
"""Bytes that a blob may decode to."""
_RATIO_MAX = 1100
"""What gzip cannot exceed (RFC 1951: 258 bytes take two bits at least). zstd can: then it is no layer."""
_FREE_SIZE = 64 << 20
"""So much may come out of a blob of any size."""
_HEAD_SIZE = 16


@dataclass(frozen=True, slots=True)
class PushedBlob:
    """What a push of a blob came to."""

    digest: Digest
    diff_id: Digest
    """The layer that it decodes to; the digest itself for a blob that is kept as it is."""
    size: int
    """Bytes of the blob."""
    already_present: bool
    totals: UploadTotals


def push_blob(
    store: OpenedStore,
    source: Source,
    digest: Digest | PromisedDigest,
    *,
    holder: Holder,
    given: Path | None = None,
    on_progress: OnProgress | None = None,
) -> PushedBlob:
    """Store a blob; it is safe when this returns. ``source`` is not read if the store is known to have the blob.

    ``given`` is the file that the source's bytes are in when it has ended, and that nobody is going to change: it is
    kept itself rather than its copy.

    Raises `DigestMismatchError`, and `OversizedError` for a blob that decodes to more than can be meant.
    """
    store.check_writable()
    if isinstance(digest, Digest) and keep_blob(store, digest, holder):
        found = blob_layer(store, digest)
        if found is not None:
            return PushedBlob(digest, found[0], found[1], True, UploadTotals())
    report = Report(on_progress, source)
    if detect(source.peek()) is None:
        return _push_plain(store, source, digest, holder, report)
    with new_file(store.layout.raw, given) as raw, _LayerHold(store, holder) as hold:
        try:
            limit = _Limit(raw)
            decoder: Decoder = lambda blocks: limit.check(_decode(raw.tee(blocks)))  # noqa: E731
            pushed = hold.push(report.count(source.blocks()), decoder, digest, report)
        except UndecodableError:
            for block in report.count(source.blocks()):
                raw.write(block)
            with open_source(raw.contents, source.name) as again:
                return _push_plain(store, again, digest, holder, report)
        raw.sync()
        name = resolved(digest)
        record = EncodingRecord(0, NO_PLACE, pushed.diff_id, raw.size, EncodingState.RAW)
        add_encoding(store, name, record, holder, raw)
        return PushedBlob(name, pushed.diff_id, raw.size, False, pushed.totals)


def _push_plain(
    store: OpenedStore, source: Source, digest: Digest | PromisedDigest, holder: Holder, report: Report
) -> PushedBlob:
    if digest.algorithm == "sha256":
        pushed = push_blocks(store, report.count(source.blocks()), None, holder, digest, report)
    else:
        with _LayerHold(store, holder) as hold:
            pushed = hold.push(report.count(source.blocks()), None, digest, report)
            record = EncodingRecord(0, NO_PLACE, pushed.diff_id, pushed.size, EncodingState.PLAIN)
            add_encoding(store, resolved(digest), record, holder, None)
    return PushedBlob(resolved(digest), pushed.diff_id, pushed.size, pushed.already_present, pushed.totals)


class _LayerHold:
    """Holds the layer of a blob until its encoding does, by a session of its own: no other hold on it is touched.

    What is pushed under a lease stays held by that.
    """

    def __init__(self, store: OpenedStore, holder: Holder) -> None:
        self._store = store
        self._holder = holder
        self._session: Session | None = None
        self._diff_id: Digest | None = None

    def push(
        self,
        blocks: Iterable[bytes],
        decoder: Decoder | None,
        digest: Digest | PromisedDigest,
        report: Report,
    ) -> Pushed:
        """`push_blocks`; the layer is held until the block of the context manager is left."""
        pushed = push_blocks(self._store, blocks, decoder, self._holder, digest, report)
        self._diff_id = pushed.diff_id
        return pushed

    def __enter__(self) -> Self:
        if not self._holder.is_lease:
            self._session = Session(self._store.layout.leases)
            self._holder = Holder(self._session.name, False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is None:
            return
        if self._diff_id is not None:
            self._store.index.write(partial(_end_hold, diff_id=self._diff_id, holder=self._holder))
        self._session.end()


def _decode(blocks: Iterable[bytes]) -> Iterator[bytes]:
    # What follows the last member is part of the blob and not of the layer, as for the tools that unpack it.
    return decode(blocks, ignore_trailing=True)


@dataclass(slots=True)
class _Limit:
    """Ends a blob that decodes to far more than its size."""

    raw: NewFile
    decoded: int = 0

    def check(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Give every block on until it is too much."""
        for block in blocks:
            self.decoded += len(block)
            if self.decoded > min(LAYER_SIZE_MAX, _FREE_SIZE + _RATIO_MAX * self.raw.size):
                raise OversizedError(f"{self.raw.size} bytes of a blob decode to over {self.decoded}: that is no layer")
            yield block


def push_again(store: OpenedStore, digest: Digest) -> bool:
    """Push what the raw file of a blob holds, so that its layer is whole again; whether the file was right.

    An encoding that had no record has one then, and is held as one that was just pushed.
    """
    holder = Holder(store.session.name, False)
    try:
        with open_source(raw_path(store.layout, digest)) as source, _LayerHold(store, holder) as hold:
            pushed = hold.push(source.blocks(), _decode, digest, Report(None, source))
            with store.index.read() as transaction:
                is_encoding = digest in transaction.encodings
            if not is_encoding:
                record = EncodingRecord(0, NO_PLACE, pushed.diff_id, source.size or 0, EncodingState.RAW)
                add_encoding(store, digest, record, holder, None)
    except (DigestMismatchError, UndecodableError):
        return False
    return True


def _end_hold(transaction: Transaction, diff_id: Digest, holder: Holder) -> None:
    layer = transaction.layers.get(diff_id)
    if layer is not None:
        transaction.holds.delete((layer.number, holder.name))
        loosen(transaction, diff_id, layer.number)


def keep_blob(store: OpenedStore, digest: Digest, holder: Holder) -> bool:
    """Whether the store has a blob whole; if so, it is held.

    False also for one that a push would mend, and for a compressed blob that is only kept as the bytes it is.
    """

    def change(transaction: Transaction) -> bool:
        layer, encoding = transaction.layers.get(digest), transaction.encodings.get(digest)
        if encoding is not None:
            its_layer = transaction.layers.get(encoding.diff_id)
            if its_layer is None or has_lost(transaction, its_layer.number) or _lacks_file(store, digest, encoding):
                return False
            hold_layer(transaction, digest, encoding.number, holder)
        elif layer is None or has_lost(transaction, layer.number):
            return False
        if layer is not None:
            hold_layer(transaction, digest, layer.number, holder)
        return True

    with store.index.read() as transaction:
        is_encoding = digest in transaction.encodings
        if not is_encoding and digest not in transaction.layers:
            return False
    if not is_encoding and _looks_compressed(store, digest):
        return False
    return store.index.write(change)


def _looks_compressed(store: OpenedStore, diff_id: Digest) -> bool:
    try:
        with LayerReader(store, diff_id) as reader:
            return detect(reader.read(_HEAD_SIZE) or b"") is not None
    except (LayerNotFoundError, DamagedError):
        return True


def has_blob(store: OpenedStore, digest: Digest) -> bool:
    """Whether the store has a layer or encoding, as far as can be seen without reading it."""
    with store.index.read() as transaction:
        if digest in transaction.layers:
            return True
        encoding = transaction.encodings.get(digest)
    return encoding is not None and not _lacks_file(store, digest, encoding)


def blob_layer(store: OpenedStore, digest: Digest) -> tuple[Digest, int] | None:
    """The layer of a blob and the bytes of the blob; None if the store does not have it."""
    with store.index.read() as transaction:
        encoding = transaction.encodings.get(digest)
        if encoding is not None:
            return encoding.diff_id, encoding.size
        layer = transaction.layers.get(digest)
        return None if layer is None else (digest, layer.size)


def add_encoding(
    store: OpenedStore, digest: Digest, record: EncodingRecord, holder: Holder, raw: NewFile | None
) -> None:
    """Make a blob an encoding of its layer, which is there and held; if it is one already, it is held.

    Raises `LayerNotFoundError` if the layer went away meanwhile, as after the end of the lease that held it.
    """
    number = store.take_numbers("next_layer", 1)
    with store.pack_writer() as writer:
        place = writer.append(
            RecordKind.ENCODING, 0, number, digest.pack(), replace(record, number=number, place=NO_PLACE).encode()
        )
        writer.sync()

        def change(transaction: Transaction) -> bool:
            before = transaction.encodings.get(digest)
            if before is not None:
                if raw is not None and _lacks_file(store, digest, before):
                    raw.install(raw_path(store.layout, digest))
                hold_layer(transaction, digest, before.number, holder)
                return False
            layer = transaction.layers.get(record.diff_id)
            if layer is None:
                raise LayerNotFoundError(f"layer {record.diff_id} was collected before its encoding came; push again")
            if raw is not None:
                raw.install(raw_path(store.layout, digest))
            transaction.encodings.put(digest, replace(record, number=number, place=place))
            transaction.layer_encodings.put((layer.number, digest), None)
            hold_layer(transaction, digest, number, holder)
            writer.commit(transaction)
            return True

        if store.index.write(change):
            writer.committed_now()


def _lacks_file(store: OpenedStore, digest: Digest, record: EncodingRecord) -> bool:
    return record.state is EncodingState.RAW and raw_size(store, digest) != record.size


def release_blob(store: OpenedStore, digest: Digest) -> None:
    """End the holds of whoever pushed the encoding. Raises `LayerInUseError` if images use it."""

    def change(transaction: Transaction) -> None:
        record = transaction.encodings.get(digest)
        if record is None:
            raise BlobNotFoundError(f"the store has no encoding {digest}")
        release(transaction, "encoding", digest, record.number)

    store.index.write(change)
