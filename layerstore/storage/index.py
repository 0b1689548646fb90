"""The LMDB index: short transactions over typed tables. This is the only module that imports lmdb.

Architecture invariants: no lmdb object or error leaves this module; a write transaction begins and ends in one call
of `Index.write`, on one thread (LMDB's writer lock belongs to a thread); nothing here waits for a disk but the commit.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import lmdb

from layerstore.errors import (
    IndexDamagedError,
    IndexFullError,
    LayerstoreError,
    NoSpaceError,
    ReadOnlyError,
    StorageError,
    StoreClosedError,
    UnavailableError,
)
from layerstore.storage import tables
from layerstore.storage.gate import Gate
from layerstore.storage.index_file import allocate_lock_file, guard_against_damage
from layerstore.storage.layout import os_error
from layerstore.storage.records import seal, unseal
from layerstore.storage.tables import TABLES, TableSpec

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")

MAP_SIZE = 1 << 40
"""Address space, not memory or disk: LMDB's file grows as it is written."""

FORKED = (
    "this process was forked from one that has the store open, which LMDB cannot share; close the store before the "
    "fork, or start the process anew (multiprocessing: spawn or forkserver)"
)

_MAP_SIZE_SMALLEST = 1 << 28
_READERS_MAX = 1024
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.CursorFullError,
    lmdb.NotFoundError,
    lmdb.BadValsizeError,
)


class Table(Generic[K, V]):
    """One table within one transaction."""

    __slots__ = ("_db", "_spec", "_transaction")

    def __init__(self, transaction: "lmdb.Transaction", db: Any, spec: TableSpec[K, V]) -> None:
        self._transaction = transaction
        self._db = db
        self._spec = spec

    def get(self, key: K) -> V | None:
        """The value, or None."""
        packed = self._spec.key.encode(key)
        value: Any = self._transaction.get(packed, db=self._db)
        return None if value is None else self._decode(packed, value)

    def __getitem__(self, key: K) -> V:
        """The value of a key that another record promises. Raises `IndexDamagedError` if it is missing."""
        value = self.get(key)
        if value is None:
            raise IndexDamagedError(f"the index lacks {self._spec.name}[{key!r}]; run `layerstore verify`")
        return value

    def __contains__(self, key: K) -> bool:
        return self._transaction.get(self._spec.key.encode(key), db=self._db) is not None

    def put(self, key: K, value: V) -> None:
        """Insert or replace."""
        packed = self._spec.key.encode(key)
        self._transaction.put(packed, seal(packed, self._spec.value.encode(value)), db=self._db)

    def put_many(self, items: Iterable[tuple[K, V]]) -> None:
        """Insert or replace many; sorted keys touch fewer pages at a time."""
        encode_key, encode_value = self._spec.key.encode, self._spec.value.encode
        packed = []
        for key, value in items:
            raw = encode_key(key)
            packed.append((raw, seal(raw, encode_value(value))))
        packed.sort()
        with self._transaction.cursor(db=self._db) as cursor:
            cursor.putmulti(packed)

    def delete(self, key: K) -> bool:
        """Remove a key; False if it was not there."""
        return bool(self._transaction.delete(self._spec.key.encode(key), db=self._db))

    def items(self, start: K | None = None) -> Iterator[tuple[K, V]]:
        """All items in order, from the first key not below ``start``. Do not change the table meanwhile."""
        for key, value in self._raw_items(b"" if start is None else self._spec.key.encode(start)):
            yield self._spec.key.decode(key), self._decode(key, value)

    def items_with_prefix(self, prefix: bytes) -> Iterator[tuple[K, V]]:
        """The items whose packed key begins with ``prefix``."""
        for key, value in self._raw_items(prefix):
            if not key.startswith(prefix):
                return
            yield self._spec.key.decode(key), self._decode(key, value)

    def __iter__(self) -> Iterator[K]:
        """All keys in order."""
        for key, _ in self.items():
            yield key

    def last_at_or_before(self, key: K) -> tuple[K, V] | None:
        """The item with the greatest key not above ``key``."""
        packed = self._spec.key.encode(key)
        with self._transaction.cursor(db=self._db) as cursor:
            if not (cursor.set_range(packed) and cursor.key() == packed):
                found = cursor.prev() if cursor.key() else cursor.last()
                if not found:
                    return None
            raw_key, raw_value = bytes(cursor.key()), bytes(cursor.value())
        return self._spec.key.decode(raw_key), self._decode(raw_key, raw_value)

    def __len__(self) -> int:
        return int(self._transaction.stat(self._db)["entries"])

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and sealed values as stored, unchecked, for `verify`."""
        return self._raw_items(b"")

    def _raw_items(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(db=self._db) as cursor:
            found = cursor.set_range(start) if start else cursor.first()
            if found:
                items: Any = cursor.iternext()  # bytes, as the transaction has no buffers
                yield from items

    def _decode(self, key: bytes, value: bytes) -> V:
        body = unseal(key, value)
        try:
            return self._spec.value.decode(body)
        except (LayerstoreError, ValueError, IndexError, OverflowError) as error:
            raise IndexDamagedError(f"a record of the index's table {self._spec.name} makes no sense") from error
        except Exception as error:  # struct.error derives from Exception alone
            raise IndexDamagedError(f"a record of the index's table {self._spec.name} is cut short") from error


class Transaction:
    """A view of the index at one instant; inside `Index.write` also the means to change it."""

    def __init__(self, transaction: "lmdb.Transaction", dbs: dict[str, Any]) -> None:
        self._transaction = transaction
        self._dbs = dbs
        self.meta = self._table(tables.META)
        self.chunks = self._table(tables.CHUNKS)
        self.lost = self._table(tables.LOST)
        self.frames = self._table(tables.FRAMES)
        self.counts = self._table(tables.COUNTS)
        self.touched_frames = self._table(tables.TOUCHED_FRAMES)
        self.packs = self._table(tables.PACKS)
        self.open_packs = self._table(tables.OPEN_PACKS)
        self.touched_packs = self._table(tables.TOUCHED_PACKS)
        self.dead_packs = self._table(tables.DEAD_PACKS)
        self.layers = self._table(tables.LAYERS)
        self.recipes = self._table(tables.RECIPES)
        self.uploads = self._table(tables.UPLOADS)
        self.dropped = self._table(tables.DROPPED)
        self.graves = self._table(tables.GRAVES)
        self.encodings = self._table(tables.ENCODINGS)
        self.layer_encodings = self._table(tables.LAYER_ENCODINGS)
        self.holds = self._table(tables.HOLDS)
        self.lease_layers = self._table(tables.LEASE_LAYERS)
        self.layer_images = self._table(tables.LAYER_IMAGES)
        self.loose_layers = self._table(tables.LOOSE_LAYERS)
        self.images = self._table(tables.IMAGES)
        self.trash = self._table(tables.TRASH)
        self.blobs = self._table(tables.BLOBS)
        self.tags = self._table(tables.TAGS)
        self.image_tags = self._table(tables.IMAGE_TAGS)
        self.leases = self._table(tables.LEASES)

    @property
    def number(self) -> int:
        """Of a write transaction: its number. Of a read transaction: that of the last commit it sees."""
        return int(self._transaction.id())

    def next_number(self, counter: str, count: int = 1) -> int:
        """Take ``count`` consecutive numbers from a counter; the first is returned. Numbers start at 1."""
        first = self.meta.get(counter) or 1
        self.meta.put(counter, first + count)
        return first

    def table(self, name: str) -> Table[Any, Any]:
        """A table by its name, for code that treats all tables alike."""
        return next(self._table(spec) for spec in TABLES if spec.name == name)

    def _table(self, spec: TableSpec[K, V]) -> Table[K, V]:
        return Table(self._transaction, self._dbs[spec.name], spec)


class Index:
    """One LMDB environment. Opened once in a process, however many stores use it (`open_index`).

    A reader says in the lock file which state it reads, so that writers leave its pages alone. Where a read-only index
    lies on a read-only mount, or this user may not write the lock file, it cannot say so. Then a state can be read
    until the second commit after it: the first cannot take pages that this state has, only the next gives them away.
    So such a read looks at its end how many commits there were, and raises `UnavailableError` if what it has read may
    be a mixture. Values have checksums and pages are bounded by the map, so that it ends well until then, too.
    """

    def __init__(self, path: Path, *, read_only: bool = False, create: bool = False, map_size: int = MAP_SIZE) -> None:
        self.path = path
        self.read_only = read_only
        self._pid = os.getpid()
        self._closed = False
        self._gate = Gate()
        self.write_seconds_max = 0.0
        """The longest that a write transaction of this process ran before its commit began."""
        with _translate_errors(f"cannot open the index at {path}"):
            if not create and not (path / "data.mdb").exists():
                raise IndexDamagedError(f"the index at {path} is missing; run `layerstore rebuild-index`")
            self._has_lock = not read_only or _may_lock(path)
            self._environment = _open_environment(path, read_only, map_size, lock=self._has_lock)
            try:
                if not read_only:
                    self._environment.reader_check()
                self._dbs: dict[str, Any] = {
                    spec.name: self._environment.open_db(spec.name.encode(), create=create and not read_only)
                    for spec in TABLES
                }
            except BaseException:
                self._environment.close()
                raise

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A read transaction. Keep it short: LMDB keeps every page it may still see."""
        self._check_usable()
        with self._gate.shared(), _translate_errors("cannot read the index"):
            transaction = self._begin(write=False)
            number = 0 if self._has_lock else transaction.id()
            try:
                yield Transaction(transaction, self._dbs)
            except (*_DAMAGE, IndexDamagedError):
                self._check_unchanged(number)
                raise
            finally:
                transaction.abort()
            self._check_unchanged(number)

    def write(self, change: Callable[[Transaction], R]) -> R:
        """Run ``change`` in a write transaction and commit it durably; an error undoes all of it.

        ``change`` may run more than once (when the map must grow), so it must not change anything else.
        """
        self._check_usable()
        if self.read_only:
            raise ReadOnlyError("the store was opened read-only")
        while True:
            with _translate_errors("cannot change the index"):
                try:
                    with self._gate.shared():
                        return self._write_once(change)
                except lmdb.MapFullError:
                    if not self._grow():
                        raise

    def copy_to(self, path: Path) -> None:
        """Write a consistent, compact copy of the index into the existing folder ``path``, while others go on."""
        self._check_usable()
        with self._gate.shared(), _translate_errors(f"cannot copy the index to {path}"):
            number = int(self._environment.info()["last_txnid"])
            self._environment.copy(str(path), compact=True)
            self._check_unchanged(number)

    def check_pages(self) -> None:
        """Read every page that is in use, LMDB's list of free pages too. Raises `IndexDamagedError`."""
        self._check_usable()
        with (
            self._gate.shared(),
            _translate_errors("the index's pages are damaged"),
            Path(os.devnull).open("wb") as nothing,
        ):
            # A compact copy counts all pages and compares their number with what the list of free ones leaves.
            self._environment.copyfd(nothing.fileno(), compact=True)

    def reader_check(self) -> int:
        """Free the slots of readers whose process is dead; how many there were."""
        self._check_usable()
        with _translate_errors("cannot check the index's readers"):
            return int(self._environment.reader_check())

    def close(self) -> None:
        """Close the environment. Transactions must have ended."""
        if not self._closed and self._pid == os.getpid():
            self._environment.close()
        self._closed = True

    def _write_once(self, change: Callable[[Transaction], R]) -> R:
        transaction = self._begin(write=True)
        started = time.perf_counter()
        try:
            result = change(Transaction(transaction, self._dbs))
            self.write_seconds_max = max(self.write_seconds_max, time.perf_counter() - started)
        except BaseException:
            transaction.abort()
            raise
        transaction.commit()
        return result

    def _begin(self, write: bool) -> "lmdb.Transaction":
        while True:
            try:
                return self._environment.begin(write=write)
            except lmdb.MapResizedError:
                # Another process let the map grow; take its size. This needs that no transaction runs here.
                with self._gate.upgraded():
                    self._environment.set_mapsize(0)

    def _grow(self) -> bool:
        if self._gate.inside():
            return False  # this thread reads as well, and a map must not move under a reader
        with self._gate.exclusive():
            size = self._environment.info()["map_size"]
            try:
                self._environment.set_mapsize(2 * size)
            except (lmdb.Error, MemoryError, OSError, OverflowError):
                return False
            return True

    def _check_unchanged(self, number: int) -> None:
        """Raise `UnavailableError` if pages of the state ``number`` may have been given away since it was begun on."""
        if not self._has_lock and self._environment.info()["last_txnid"] > number + 1:
            raise UnavailableError(
                f"the index at {self.path} was changed while it was read, which this user cannot hold up without "
                "permission to write there; try again"
            )

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise StoreClosedError(FORKED)
        if self._closed:
            raise StoreClosedError("the store is closed")


def _may_lock(path: Path) -> bool:
    """Whether the lock file can be written, or made."""
    file = path / "lock.mdb"
    return os.access(file if file.exists() else path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _open_environment(path: Path, read_only: bool, map_size: int, *, lock: bool = True) -> "lmdb.Environment":
    guard_against_damage(path, read_only)
    if not read_only:
        allocate_lock_file(path)
    while True:
        try:
            return lmdb.open(
                str(path),
                map_size=map_size,
                readonly=read_only,
                lock=lock,
                create=not read_only,
                max_dbs=len(TABLES),
                max_readers=_READERS_MAX,
                readahead=False,
                meminit=False,
                max_spare_txns=4,
            )
        except (lmdb.MemoryError, MemoryError):
            # A low `ulimit -v`: a smaller map does until it is full.
            if map_size <= _MAP_SIZE_SMALLEST:
                raise
            map_size //= 4


_OPEN: dict[tuple[int, int], tuple[Index, int]] = {}
_OPEN_LOCK = threading.Lock()


def _renew_lock_after_fork() -> None:
    global _OPEN_LOCK  # a thread of the parent may hold the old one, and is not here to let go of it
    _OPEN_LOCK = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock_after_fork)


def open_index(path: Path, *, read_only: bool, create: bool = False, map_size: int = MAP_SIZE) -> Index:
    """The process's one `Index` for ``path``. LMDB forbids to open an environment twice in a process."""
    with _translate_errors(f"cannot open the index at {path}"), _OPEN_LOCK:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise IndexDamagedError(f"the index at {path} is missing; run `layerstore rebuild-index`") from None
        key = (status.st_dev, status.st_ino)
        index, users = _OPEN.get(key, (None, 0))
        if index is not None and index._pid != os.getpid():
            raise StoreClosedError(FORKED)  # lmdb would say no, and closing what came by the fork breaks the parent's
        if index is not None and index.read_only and not read_only:
            raise ReadOnlyError("this process has the store open read-only already; close that first")
        if index is None:
            index = Index(path, read_only=read_only, create=create, map_size=map_size)
        _OPEN[key] = (index, users + 1)
        return index


def close_index(index: Index) -> None:
    """Give back what `open_index` gave; the last one closes."""
    with _OPEN_LOCK:
        for key, (candidate, users) in list(_OPEN.items()):
            if candidate is index:
                if users > 1:
                    _OPEN[key] = (index, users - 1)
                    return
                del _OPEN[key]
        index.close()


def index_in_use(path: Path) -> bool:
    """Whether any process, this one included, has the index at ``path`` open. No record of it is read."""
    with _translate_errors(f"cannot look at the index at {path}"), _OPEN_LOCK:
        try:
            status = path.stat()
            # This process must be ruled out first: to close any descriptor of the lock file would drop LMDB's own lock.
            index, _ = _OPEN.get((status.st_dev, status.st_ino), (None, 0))
            if index is not None and index._pid == os.getpid():
                return True
            descriptor = os.open(path / "lock.mdb", os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            # LMDB holds a shared lock on the first byte for as long as an environment is open.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except (BlockingIOError, PermissionError):
            return True
        finally:
            os.close(descriptor)
        return False


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    try:
        yield
    except lmdb.MapFullError as error:
        raise IndexFullError(f"{what}: the index has reached the largest map this process may have") from error
    except lmdb.DiskError as error:
        raise NoSpaceError(f"{what}: the disk is full. Free space or run `layerstore gc`, then try again") from error
    except lmdb.ReadonlyError as error:
        raise ReadOnlyError(f"{what}: it can only be read") from error
    except _DAMAGE as error:
        raise IndexDamagedError(f"{what}: {error}; run `layerstore rebuild-index`") from error
    except lmdb.Error as error:
        raise _unclassified(error, what) from error
    except OSError as error:
        raise os_error(error, what) from error


def _unclassified(error: lmdb.Error, what: str) -> LayerstoreError:
    text = str(error)
    if "No space left" in text or "Disk quota" in text:
        return NoSpaceError(f"{what}: {text}. Free space on the disk, then try again")
    if "Read-only file system" in text:
        return ReadOnlyError(f"{what}: {text}")
    return StorageError(f"{what}: {text}")
