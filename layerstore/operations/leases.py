"""Dated leases: a promise that outlives its process, until a stated time."""

import secrets
import time

from layerstore.errors import InvalidOptionError, LeaseEndedError
from layerstore.operations.keeping import end_holds
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import LeaseRecord

TTL_SECONDS_MAX = 10 * 365 * 24 * 3600
_HOLDS_PER_TRANSACTION = 200


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
        for _, number in [key for key, _ in transaction.lease_layers.items_with_prefix(name)]:
            transaction.holds.put((number, name), expires)

    store.index.write(change)


def _check(ttl_seconds: float) -> None:
    if not 0 < ttl_seconds <= TTL_SECONDS_MAX:
        raise InvalidOptionError(f"a lease lasts more than 0 and at most {TTL_SECONDS_MAX} seconds, not {ttl_seconds}")


def end_lease(store: OpenedStore, name: bytes) -> None:
    """End a lease now. Layers that only it kept are collection's."""

    def change(transaction: Transaction) -> bool:
        is_done = end_holds(transaction, name, _HOLDS_PER_TRANSACTION)
        if is_done:
            transaction.leases.delete(name)  # last: whatever interrupts us, the rest ends when the lease was to end
        return is_done

    while not store.index.write(change):
        pass


def expired_leases(transaction: Transaction) -> list[bytes]:
    """The leases whose time is over."""
    now = time.time_ns()
    return [name for name, record in transaction.leases.items() if record.expires <= now]
