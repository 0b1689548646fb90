"""The files of an LMDB environment, looked at before LMDB maps them: what is wrong then would crash the process."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from layerstore.errors import IndexDamagedError

_NO_PAGE = (1 << 64) - 1
_PAGE_SIZES = frozenset(1 << bits for bits in range(8, 17))
_LOOKS = 20
_DATA_SIZE_MAX = 1 << 44
_LOCK_FILE_SIZE = 17 << 12
"""Room for LMDB's head and 64 bytes a reader."""
_META_END = 152


def guard_against_damage(path: Path, read_only: bool) -> None:
    """Raise `IndexDamagedError` for what LMDB would not see in its two meta pages, which have no checksums.

    A flipped bit in the number of a transaction would bring back an older state as if nothing had happened since. LMDB
    writes the two pages in turn, even numbers to the first, so they differ by one.

    LMDB maps the file and would die of SIGBUS on a page beyond its end. A file may rightly be shorter than its last
    page: one that was freed in the transaction that took it is never written. So only a missing root is certain
    damage; the rest gets zeros, which LMDB refuses as a page.
    """
    try:
        file = (path / "data.mdb").open("rb" if read_only else "r+b")
    except FileNotFoundError:
        return
    with file:
        for _ in range(_LOOKS):
            metas = _Meta.read(file.fileno())
            size = os.fstat(file.fileno()).st_size  # after the pages: a writer first lets the file grow, then commits
            if not size:
                return
            if _are_in_turn(metas):
                break
            time.sleep(0.01)  # perhaps another process has committed twice between our two looks
        else:
            raise IndexDamagedError(f"the head of {path / 'data.mdb'} is damaged; run `layerstore rebuild-index`")
        newest = max(metas, key=lambda meta: meta.transaction)
        if any((root + 1) * newest.page_size > size for root in newest.roots):
            raise IndexDamagedError(f"{path / 'data.mdb'} is cut short; run `layerstore rebuild-index`")
        end = (newest.last_page + 1) * newest.page_size
        if size < end <= _DATA_SIZE_MAX and not read_only and hasattr(os, "posix_fallocate"):
            # It never cuts nor overwrites what another process writes there just now. A full disk is no reason to stop.
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), end - 1, 1)


class _Meta(NamedTuple):
    """What a meta page of LMDB 0.9 says (MDB_meta in mdb.c)."""

    page_size: int
    roots: list[int]
    last_page: int
    transaction: int

    @classmethod
    def read(cls, descriptor: int) -> "list[_Meta]":
        """Those meta pages of a data file that are there."""
        page_size = int.from_bytes(os.pread(descriptor, 4, 40), sys.byteorder)
        if page_size not in _PAGE_SIZES:
            return []
        raw = [os.pread(descriptor, _META_END, start) for start in (0, page_size)]
        return [cls._parse(page_size, one) for one in raw if len(one) == _META_END]

    @classmethod
    def _parse(cls, page_size: int, raw: bytes) -> Self:
        free, main, last, transaction = (
            int.from_bytes(raw[start : start + 8], sys.byteorder) for start in (80, 128, 136, 144)
        )
        return cls(page_size, [root for root in (free, main) if root != _NO_PAGE], last, transaction)


def _are_in_turn(metas: list[_Meta]) -> bool:
    if len(metas) != 2:
        return False
    first, second = (meta.transaction for meta in metas)
    return first == second == 0 or (abs(first - second) == 1 and first % 2 == 0)


def allocate_lock_file(path: Path) -> None:
    """Give LMDB's lock file its blocks: LMDB writes to it through a memory map, and on a full disk would die of SIGBUS.

    Only for an index that is not open in this process: closing the file drops this process's locks on it.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(path / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o755)  # LMDB's own mode
    try:
        status = os.fstat(descriptor)
        if status.st_blocks * 512 < max(status.st_size, 1):
            os.posix_fallocate(descriptor, 0, status.st_size or _LOCK_FILE_SIZE)
    finally:
        os.close(descriptor)
