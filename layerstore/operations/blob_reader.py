"""Reading blobs: the exact bytes of a layer or of an encoding, from whatever they are kept in.

Whoever reads a blob from its beginning gets its last block only when the digest of all is right. A part of one is made
of frames that are verified, or comes from a file that was compared as a whole, once as long as nobody changed it.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerstore.digest import Digest, digest_of_blocks
from layerstore.encodings.recipe import Recipe
from layerstore.encodings.regenerate import regenerate
from layerstore.errors import BlobNotFoundError, ContentDamagedError, DigestMismatchError, InvalidOptionError
from layerstore.operations.encoding_cache import cached_file, forget_cached, through_cache
from layerstore.operations.pull import layer_blocks, layer_blocks_from, verified
from layerstore.operations.raw_files import file_blocks, raw_path
from layerstore.operations.reader import Reader
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import BlobRecord, EncodingRecord, EncodingState, LayerRecord

_VERIFIED_MAX = 1024


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """What the store has under a digest; the first that is not None gives its bytes."""

    layer: LayerRecord | None
    encoding: EncodingRecord | None
    document: BlobRecord | None

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        if self.layer is not None:
            return self.layer.size
        if self.encoding is not None:
            return self.encoding.size
        return 0 if self.document is None else len(self.document.data)


def find_blob(store: OpenedStore, digest: Digest) -> FoundBlob:
    """What the store has under a digest. Raises `BlobNotFoundError`."""
    with store.index.read() as transaction:
        found = FoundBlob(
            transaction.layers.get(digest), transaction.encodings.get(digest), transaction.blobs.get(digest)
        )
    if found == FoundBlob(None, None, None):
        raise BlobNotFoundError(f"the store has no blob {digest}")
    return found


def read_document(store: OpenedStore, digest: Digest) -> bytes:
    """The exact bytes of a manifest, index or config. Raises `BlobNotFoundError`."""
    document = find_blob(store, digest).document
    if document is None:
        raise BlobNotFoundError(f"the store has no document {digest}")
    return document.data


def blob_blocks(store: OpenedStore, digest: Digest, start: int = 0, threads: int = 1) -> Iterator[bytes]:
    """A blob's bytes from byte ``start`` on, in blocks of about 1 MiB at most; none from its end on.

    ``threads`` is how many may make a part of it at once, where it has to be made again. Raises `BlobNotFoundError`,
    `EncoderUnavailableError` where that cannot be done here, `ContentDamagedError`, and `InvalidOptionError` for a
    negative start.
    """
    if start < 0:
        raise InvalidOptionError(f"a blob has no byte {start}")
    found = find_blob(store, digest)
    if start and start >= found.size:
        return
    if found.layer is not None:
        yield from _layer_bytes(store, digest, start)
    elif found.encoding is not None:
        yield from encoding_blocks(store, digest, start, threads)
    elif found.document is not None:
        yield found.document.data[start:]


def encoding_blocks(
    store: OpenedStore, digest: Digest, start: int = 0, threads: int = 1, *, cached: bool = True
) -> Iterator[bytes]:
    """The bytes of an encoding; if not ``cached``, from what the store vouches for alone. Raises as `blob_blocks`."""
    while True:
        encoding = _encoding(store, digest)
        if encoding.state is EncodingState.PLAIN:
            yield from _layer_bytes(store, encoding.diff_id, start)
        elif encoding.state is EncodingState.RECIPE:
            yield from _made_again(store, digest, encoding, start, threads, cached=cached)
        else:
            try:
                blocks = _file_bytes(raw_path(store.layout, digest), digest, start)
                first = next(blocks, b"")
            except FileNotFoundError:
                if _encoding(store, digest).state is EncodingState.RAW:
                    raise ContentDamagedError(
                        f"the raw file of encoding {digest} is missing; import its image again, or repair the store"
                    ) from None
                continue  # proved just now
            yield first
            yield from blocks
        return


def _encoding(store: OpenedStore, digest: Digest) -> EncodingRecord:
    encoding = find_blob(store, digest).encoding
    if encoding is None:
        raise BlobNotFoundError(f"the store has no encoding {digest}")
    return encoding


def _layer_bytes(store: OpenedStore, diff_id: Digest, start: int) -> Iterator[bytes]:
    return layer_blocks(store, diff_id) if start == 0 else layer_blocks_from(store, diff_id, start)


def _made_again(
    store: OpenedStore, digest: Digest, encoding: EncodingRecord, start: int, threads: int, *, cached: bool
) -> Iterator[bytes]:
    path = cached_file(store, digest, encoding.size) if cached else None
    if path is not None:
        try:
            blocks = _file_bytes(path, digest, start)
            first = next(blocks, b"")
        except OSError:
            pass  # it had to make room just now
        except ContentDamagedError:
            forget_cached(store, digest)
        else:
            try:
                yield first
                yield from blocks
            except ContentDamagedError:
                forget_cached(store, digest)
                raise
            return
    recipe = Recipe.from_bytes(encoding.recipe)
    blocks = regenerate(recipe, lambda offset: layer_blocks_from(store, encoding.diff_id, offset), start, threads)
    if start:
        yield from blocks
    elif cached:
        yield from through_cache(store, digest, encoding.size, _whole(blocks, digest))
    else:
        yield from _whole(blocks, digest)


def _whole(blocks: Iterator[bytes], digest: Digest) -> Iterator[bytes]:
    try:
        yield from verified(blocks, digest)
    except DigestMismatchError as error:
        raise ContentDamagedError(f"what is kept of blob {digest} gives other bytes ({error.actual})") from error


_verified_files: dict[tuple[int, int, int, int], Digest] = {}
_verified_lock = threading.Lock()


def _file_bytes(path: Path, digest: Digest, start: int) -> Iterator[bytes]:
    if start == 0:
        return _whole(file_blocks(path), digest)
    # A part cannot be compared with the digest, so the file is, once as long as it stays what it is.
    status = path.stat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if _verified_files.get(key) != digest:
        if digest_of_blocks(file_blocks(path), digest.algorithm) != digest:
            raise ContentDamagedError(f"the file of encoding {digest} is damaged; run `layerstore verify`")
        with _verified_lock:
            if len(_verified_files) >= _VERIFIED_MAX:
                _verified_files.clear()
            _verified_files[key] = digest
    return file_blocks(path, start)


class BlobReader(Reader):
    """A blob as a seekable, read-only binary file. To seek and read on may mean to make a part of it again."""

    def __init__(self, store: OpenedStore, digest: Digest) -> None:
        super().__init__(find_blob(store, digest).size)
        self._store = store
        self.digest = digest
        self._blocks: Iterator[bytes] | None = None
        self._next = 0  # where `_blocks` goes on
        self._rest = memoryview(b"")

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as one block goes."""
        if self.closed:
            raise ValueError("read of a closed blob")
        self._store.check_usable()
        view = memoryview(buffer).cast("B")
        if self._position >= self.size or not view:
            return 0
        if self._blocks is None or self._next != self._position:
            self._stop()
            self._blocks = blob_blocks(self._store, self.digest, self._position)
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                raise ContentDamagedError(f"blob {self.digest} ends at {self._position}, before {self.size}")
            self._rest = memoryview(block)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        self._next = self._position
        if self._position == self.size:
            next(self._blocks, None)  # what was made again goes into the cache at its end
        return count

    def close(self) -> None:
        """Let go of what is read from. A second call does nothing."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        blocks, self._blocks, self._rest = self._blocks, None, memoryview(b"")
        if blocks is not None:
            blocks.close()  # type: ignore[attr-defined]  # it is a generator
