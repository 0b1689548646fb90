"""Dated leases: a promise that outlives its process, until a stated time."""

import secrets
import time

from layerstore.errors import InvalidOptionError, LeaseEndedError
from layerstore.operations.keeping import loosen_numbers
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import LeaseRecord

TTL_SECONDS_MAX = 10 * 365 * 24 * 3600


def make_lease(store: OpenedStore, ttl_seconds: float) -> bytes:
    """A new lease; its name. Raises `InvalidOptionError` for a time that is not positive, or over ten years."""
    _check(ttl_seconds)
    name = secrets.token_bytes(16)
    now = time.time_ns()
    record = LeaseRecord(now, now + int(ttl_seconds * 1e9))
    store.index.write(lambda transaction: transaction.leases.put(name, record))
    return name


def renew_lease(store: OpenedStore, name: bytes, ttl_seconds: float) -> None:
    """Let a lease, and what it holds, last ``ttl_seconds`` from now. Raises `LeaseEndedError`."""
    _check(ttl_seconds)

    def change(transaction: Transaction) -> None:
        record = transaction.leases.get(name)
        now = time.time_ns()
        if record is None or record.expires <= now:
            raise LeaseEndedError("the lease has ended; make a new one and push again")
        expires = now + int(ttl_seconds * 1e9)
        transaction.leases.put(name, LeaseRecord(record.created, expires))
        for key in [key for key, _ in transaction.holds.items() if key[1] == name]:
            transaction.holds.put(key, expires)

    store.index.write(change)


def _check(ttl_seconds: float) -> None:
    if not 0 < ttl_seconds <= TTL_SECONDS_MAX:
        raise InvalidOptionError(f"a lease lasts more than 0 and at most {TTL_SECONDS_MAX} seconds, not {ttl_seconds}")


def end_lease(store: OpenedStore, name: bytes) -> None:
    """End a lease now. Layers that only it kept are collection's."""

    def change(transaction: Transaction) -> None:
        transaction.leases.delete(name)
        ended = {number for (number, holder) in transaction.holds if holder == name}
        for number in ended:
            transaction.holds.delete((number, name))
        if ended:
            loosen_numbers(transaction, ended)

    store.index.write(change)
