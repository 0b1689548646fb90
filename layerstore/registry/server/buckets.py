"""How often each client may do something, counted over all worker processes.

A table of numbers in a file that all workers have in memory. A client has one number in it, at a place that a keyed
digest of its address gives: the moment until which what it did is paid for (the generic cell rate algorithm). Two
clients may share a place; nobody can tell which. Two workers that count at the same moment may lose a count: a limit is
no account.
"""

import fcntl
import hashlib
import ipaddress
import mmap
import os
import secrets
import struct
import threading
import time
from pathlib import Path

from layerstore.os_errors import translate_os_errors

_KEY_SIZE = 32
_PLACES = 1 << 16
_NUMBER = struct.Struct("=d")
_SIZE = _KEY_SIZE + _PLACES * _NUMBER.size


class Buckets:
    """A limit. Its methods may be called from several threads, and do not wait."""

    def __init__(self, path: Path, *, per_second: float, burst: int) -> None:
        """``burst`` at once, and ``per_second`` more with time. The file is made when it is first needed."""
        self._path = path
        self._interval = 1 / per_second
        self._window = burst / per_second
        self._lock = threading.Lock()
        self._table: mmap.mmap | None = None

    def take(self, client: str) -> float:
        """Count one; the seconds to wait if it was one too many, which is not counted."""
        table, place = self._place(client)
        with self._lock:
            now = time.monotonic()
            paid = self._paid(table, place, now)
            excess = paid + self._interval - now - self._window
            # Half a count of slack, since sums of intervals are not exact.
            if excess > self._interval / 2:
                return excess
            _NUMBER.pack_into(table, place, paid + self._interval)
            return 0.0

    def wait(self, client: str) -> float:
        """The seconds until one more can be taken; 0: at once."""
        table, place = self._place(client)
        now = time.monotonic()
        excess = self._paid(table, place, now) + self._interval - now - self._window
        return excess if excess > self._interval / 2 else 0.0

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            if self._table is not None:
                self._table.close()
                self._table = None

    def _paid(self, table: mmap.mmap, place: int, now: float) -> float:
        paid: float = _NUMBER.unpack_from(table, place)[0]
        # A number that cannot be of this clock was written before the machine was started.
        return paid if now <= paid <= now + self._window + self._interval else now

    def _place(self, client: str) -> tuple[mmap.mmap, int]:
        with self._lock:
            if self._table is None:
                self._table = _open(self._path)
            table = self._table
        key = table[:_KEY_SIZE]
        digest = hashlib.blake2b(client.encode("utf-8", "surrogatepass"), key=key, digest_size=8).digest()
        return table, _KEY_SIZE + int.from_bytes(digest) % _PLACES * _NUMBER.size


def _open(path: Path) -> mmap.mmap:
    with translate_os_errors(f"cannot use {path}"):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_size != _SIZE:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, _SIZE)
                os.pwrite(descriptor, secrets.token_bytes(_KEY_SIZE), 0)
            return mmap.mmap(descriptor, _SIZE)
        finally:
            # Closing is not enough: the mapping keeps a duplicate of the descriptor, and with it the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def client_of(address: str) -> str:
    """Whom a limit counts: an IPv4 address, or the /64 network that an IPv6 user has to themselves."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((parsed.packed, 64), strict=False))
