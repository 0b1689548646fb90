"""A store that is open in this process: its folder, index, packs, caches and session together."""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from layerstore.errors import ReadOnlyError, StoreClosedError
from layerstore.storage.frames import FrameReader
from layerstore.storage.index import FORKED, Index, close_index, open_index
from layerstore.storage.journal import Journal
from layerstore.storage.layout import Layout, StoreConfig
from layerstore.storage.leases import Session, lease_layer
from layerstore.storage.locks import FileLock
from layerstore.storage.packs import PackReader, PackWriter

_RESERVATION = 4096
"""Numbers of frames and layers taken from the index at once; there are 2**64 of them."""


class OpenedStore:
    """What operations work on. It knows where things are, not what they mean."""

    def __init__(
        self,
        layout: Layout,
        config: StoreConfig,
        *,
        read_only: bool = False,
        create: bool = False,
        compression_level: int | None = None,
    ) -> None:
        self.layout = layout
        self.config = config
        self.push_level = config.compression_level if compression_level is None else compression_level
        """The zstd level of what is pushed through this object; what is compressed anew gets the store's own."""
        self.read_only = read_only
        self._index: Index = open_index(layout.index, read_only=read_only, create=create)
        self.packs = PackReader(layout)
        self.frames = FrameReader(self._index, self.packs)
        self.journal = Journal(layout.journal)
        self._session: Session | None = None
        self._session_lock = threading.Lock()
        self._reserved: dict[str, tuple[int, int]] = {}
        self._pid = os.getpid()
        self._closed = False

    @property
    def index(self) -> Index:
        """The index. Other stores of this process may share it, so it can be open when this store is closed."""
        self.check_usable()
        return self._index

    @property
    def session(self) -> Session:
        """This store's mark as a writer; made when first needed."""
        self.check_usable()
        with self._session_lock:
            if self._session is None:
                if self.read_only:
                    raise ReadOnlyError("the store was opened read-only")
                self._session = Session(self.layout.leases)
            return self._session

    def check_usable(self) -> None:
        """Raise `StoreClosedError` for a store that is closed or came here by a fork."""
        if self._closed:
            raise StoreClosedError("the store is closed")
        if self._pid != os.getpid():
            raise StoreClosedError(FORKED)

    def check_writable(self) -> None:
        """`check_usable`, and raise `ReadOnlyError` for a store that was opened read-only."""
        self.check_usable()
        if self.read_only:
            raise ReadOnlyError("the store was opened read-only")

    def take_numbers(self, counter: str, count: int) -> int:
        """The first of ``count`` consecutive numbers that nobody else ever gets. Most calls touch no disk."""
        with self._session_lock:
            start, end = self._reserved.get(counter, (0, 0))
            if end - start < count:
                block = max(_RESERVATION, count)
                start = self.index.write(lambda transaction: transaction.next_number(counter, block))
                end = start + block
            self._reserved[counter] = (start + count, end)
            return start

    @contextmanager
    def pack_writer(self) -> Iterator[PackWriter]:
        """A pack to append to; what is not committed at the end is cut off."""
        writer = PackWriter(self.layout, self.index, self.config)
        try:
            yield writer
        finally:
            writer.close()

    def lease_layer(self, number: int) -> AbstractContextManager[None]:
        """Cover a recipe while it is read. A store on a read-only disk has no collection to be covered against."""
        if self.read_only and not os.access(self.layout.leases, os.W_OK):
            return nullcontext()
        return lease_layer(self.layout.leases, number)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process at a time does what ``name`` says; others wait."""
        self.check_usable()
        lock = FileLock.acquire(self.layout.leases.parent / f".{name}.lock", blocking=True, create=True)
        assert lock is not None
        try:
            yield
        finally:
            lock.release()

    def close(self) -> None:
        """Close everything; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            return
        self.packs.close()
        self.frames.clear()
        if self._session is not None:
            self._session.end()
        close_index(self._index)
