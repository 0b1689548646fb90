"""Reading blobs: the exact bytes of a layer or of an encoding, from whatever they are kept in.

Every byte is verified before it leaves. Whoever reads a blob from its beginning gets its last block only when the
digest of all is right. A part of one comes from a file that was compared as a whole, or is made of verified frames.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

from layerstore.digest import Digest, hasher
from layerstore.encodings.recipe import Recipe
from layerstore.encodings.regenerate import regenerate
from layerstore.errors import BlobNotFoundError, ContentDamagedError, DigestMismatchError
from layerstore.operations.encoding_cache import add_to_cache, cached, forget_cached, is_cacheable
from layerstore.operations.pull import layer_blocks, layer_blocks_from, verified
from layerstore.operations.raw_files import file_blocks, new_file, raw_path
from layerstore.operations.reader import Reader
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import EncodingRecord, EncodingState

_VERIFIED_MAX = 1024


def blob_size(store: OpenedStore, digest: Digest) -> int:
    """The bytes of a blob. Raises `BlobNotFoundError`."""
    with store.index.read() as transaction:
        encoding = transaction.encodings.get(digest)
        if encoding is not None:
            return encoding.size
        layer = transaction.layers.get(digest)
        if layer is not None:
            return layer.size
        document = transaction.blobs.get(digest)
    if document is None:
        raise BlobNotFoundError(f"the store has no blob {digest}")
    return len(document.data)


def read_document(store: OpenedStore, digest: Digest) -> bytes:
    """The exact bytes of a manifest, index or config. Raises `BlobNotFoundError`."""
    with store.index.read() as transaction:
        record = transaction.blobs.get(digest)
    if record is None:
        raise BlobNotFoundError(f"the store has no document {digest}")
    return record.data


def blob_blocks(store: OpenedStore, digest: Digest, start: int = 0, threads: int = 1) -> Iterator[bytes]:
    """A blob's bytes from byte ``start`` on, in blocks of about 1 MiB at most.

    ``threads`` is how many may make a part of it at once, where it has to be made again. Raises `BlobNotFoundError`,
    `EncoderUnavailableError` where that cannot be done here, and `ContentDamagedError`.
    """
    while True:
        with store.index.read() as transaction:
            layer = transaction.layers.get(digest)
            encoding = transaction.encodings.get(digest)
            document = transaction.blobs.get(digest) if layer is None and encoding is None else None
        if layer is not None:
            yield from _layer_bytes(store, digest, start)
        elif document is not None:
            yield document.data[start:]
        elif encoding is None:
            raise BlobNotFoundError(f"the store has no blob {digest}")
        elif encoding.state is EncodingState.PLAIN:
            yield from _layer_bytes(store, encoding.diff_id, start)
        elif encoding.state is EncodingState.RECIPE:
            yield from _made_again(store, digest, encoding, start, threads)
        else:
            try:
                blocks = _file_bytes(raw_path(store.layout, digest), digest, start)
                first = next(blocks, b"")
            except FileNotFoundError:
                if _is_still_raw(store, digest):
                    raise ContentDamagedError(
                        f"the raw file of encoding {digest} is missing; import its image again, or repair the store"
                    ) from None
                continue  # proved or dropped just now
            yield first
            yield from blocks
        return


def _is_still_raw(store: OpenedStore, digest: Digest) -> bool:
    with store.index.read() as transaction:
        encoding = transaction.encodings.get(digest)
    return encoding is not None and encoding.state is EncodingState.RAW


def _layer_bytes(store: OpenedStore, diff_id: Digest, start: int) -> Iterator[bytes]:
    return layer_blocks(store, diff_id) if start == 0 else layer_blocks_from(store, diff_id, start)


def made_blocks(store: OpenedStore, digest: Digest) -> Iterator[bytes]:
    """The whole blob from what the store vouches for, never from the cache."""
    with store.index.read() as transaction:
        encoding = transaction.encodings.get(digest)
    if encoding is None or encoding.state is not EncodingState.RECIPE:
        yield from blob_blocks(store, digest)
        return
    yield from _whole(_regenerated(store, encoding, 0, 1), digest)


def _regenerated(store: OpenedStore, encoding: EncodingRecord, start: int, threads: int) -> Iterator[bytes]:
    recipe = Recipe.from_bytes(encoding.recipe)
    return regenerate(recipe, lambda offset: layer_blocks_from(store, encoding.diff_id, offset), start, threads)


def _made_again(
    store: OpenedStore, digest: Digest, encoding: EncodingRecord, start: int, threads: int
) -> Iterator[bytes]:
    path = cached(store, digest, encoding.size)
    if path is not None:
        try:
            blocks = _file_bytes(path, digest, start)
            first = next(blocks, b"")
        except FileNotFoundError:
            pass  # it had to make room just now
        except ContentDamagedError:
            forget_cached(store, digest)
        else:
            yield first
            yield from blocks
            return
    blocks = _regenerated(store, encoding, start, threads)
    if start:
        yield from blocks
        return
    whole = _whole(blocks, digest)
    if not is_cacheable(store, encoding.size):
        yield from whole
        return
    with new_file(store.layout.cache) as file:
        yield from file.tee(whole)
        add_to_cache(store, digest, file)


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
        state = hasher(digest.algorithm)
        for block in file_blocks(path):
            state.update(block)
        if Digest.from_raw(digest.algorithm, state.digest()) != digest:
            raise ContentDamagedError(f"the file of encoding {digest} is damaged; run `layerstore verify`")
        with _verified_lock:
            if len(_verified_files) >= _VERIFIED_MAX:
                _verified_files.clear()
            _verified_files[key] = digest
    return file_blocks(path, start)


class BlobReader(Reader):
    """A blob as a seekable, read-only binary file. To seek and read on may mean to make a part of it again."""

    def __init__(self, store: OpenedStore, digest: Digest) -> None:
        super().__init__(blob_size(store, digest))
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
