"""Blobs: compressed layers under the digest of their compressed bytes.

A blob that is gzip or zstd is decoded into its layer, which is deduplicated like any other; the blob itself becomes an
*encoding* of the layer, first kept raw (`layerstore.operations.raw_files`), later perhaps as a recipe
(`layerstore.operations.prove`). Any other blob is a layer as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from layerstore.decoding import decode, detect
from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, LayerNotFoundError, OversizedError, UndecodableError
from layerstore.operations.keeping import images_of, release
from layerstore.operations.push import Decoder, Report, push_blocks
from layerstore.operations.raw_files import NewFile, new_file, raw_path, raw_size
from layerstore.operations.source import Source, open_source
from layerstore.operations.upload import Holder, UploadTotals, hold_layer
from layerstore.progress import OnProgress
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import RecordKind
from layerstore.storage.records import EncodingRecord, EncodingState, Place

LAYER_SIZE_MAX = 256 << 30
"""Bytes that a blob may decode to."""
_RATIO_MAX = 1100
"""What gzip cannot exceed (RFC 1951: 258 bytes take two bits at least). zstd can: then it is no layer."""
_FREE_SIZE = 64 << 20
"""So much may come out of a blob of any size."""
_NO_PLACE = Place(0, 0, 0)


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
    store: OpenedStore, source: Source, digest: Digest, *, holder: Holder, on_progress: OnProgress | None = None
) -> PushedBlob:
    """Store a blob; it is safe when this returns. ``source`` is not read if the store has the blob already.

    Raises `DigestMismatchError`, and `OversizedError` for a blob that decodes to more than can be meant.
    """
    store.check_writable()
    if keep_blob(store, digest, holder):
        found = blob_layer(store, digest)
        if found is not None:
            return PushedBlob(digest, found[0], found[1], True, UploadTotals())
    report = Report(on_progress, source)
    if detect(source.peek()) is None:
        return _push_plain(store, source, digest, holder, report)
    with new_file(store.layout.raw) as raw:
        try:
            limit = _Limit(raw)
            decoder: Decoder = lambda blocks: limit.check(decode(raw.tee(blocks)))  # noqa: E731
            pushed = push_blocks(store, report.count(source.blocks()), decoder, holder, digest, report)
        except UndecodableError:
            for block in report.count(source.blocks()):
                raw.write(block)
            with open_source(raw.path, source.name) as again:
                return _push_plain(store, again, digest, holder, report)
        raw.sync()
        record = EncodingRecord(0, _NO_PLACE, pushed.diff_id, raw.size, EncodingState.RAW)
        add_encoding(store, digest, record, holder, raw)
        return PushedBlob(digest, pushed.diff_id, raw.size, False, pushed.totals)


def _push_plain(store: OpenedStore, source: Source, digest: Digest, holder: Holder, report: Report) -> PushedBlob:
    pushed = push_blocks(store, report.count(source.blocks()), None, holder, digest, report)
    if pushed.diff_id != digest:  # of another algorithm
        record = EncodingRecord(0, _NO_PLACE, pushed.diff_id, pushed.size, EncodingState.PLAIN)
        add_encoding(store, digest, record, holder, None)
    return PushedBlob(digest, pushed.diff_id, pushed.size, pushed.already_present, pushed.totals)


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


def keep_blob(store: OpenedStore, digest: Digest, holder: Holder) -> bool:
    """Whether the store has a blob whole; if so, it is held. False also for one that a push would mend."""

    def change(transaction: Transaction) -> bool:
        if len(transaction.lost):
            return False  # chunks are missing somewhere: what is pushed anew brings them back
        layer = transaction.layers.get(digest)
        if layer is not None:
            hold_layer(transaction, digest, layer.number, holder)
            return True
        encoding = transaction.encodings.get(digest)
        if encoding is None or _lacks_file(store, digest, encoding):
            return False
        hold_layer(transaction, digest, encoding.number, holder)
        return True

    with store.index.read() as transaction:
        if digest not in transaction.layers and digest not in transaction.encodings:
            return False
    return store.index.write(change)


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
            RecordKind.ENCODING, 0, number, digest.pack(), replace(record, number=number, place=_NO_PLACE).encode()
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
    """End the holds of whoever pushed the encoding, and its layer. Raises `LayerInUseError` if images use it."""

    def change(transaction: Transaction) -> None:
        record = transaction.encodings.get(digest)
        if record is None:
            raise BlobNotFoundError(f"the store has no encoding {digest}")
        release(transaction, "encoding", digest, record.number)
        layer = transaction.layers.get(record.diff_id)
        if layer is not None and not images_of(transaction, layer.number):
            release(transaction, "layer", record.diff_id, layer.number)

    store.index.write(change)
