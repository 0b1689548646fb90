"""Retention by rule: which images to delete, what that frees, and doing it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError, InvalidOptionError
from layerstore.operations.collect import forecast_garbage
from layerstore.operations.forecast import Forecast, Freed
from layerstore.operations.images import delete_image, tags_of
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import EncodingState, ImageRecord


@dataclass(frozen=True, slots=True)
class PruneItem:
    """An image that the rules delete."""

    digest: Digest
    tags: tuple[str, ...]
    created: datetime
    """When it came into the store."""
    reason: str


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """The images that go, the oldest first, and what collection frees when they have left the trash."""

    images: tuple[PruneItem, ...]
    freed: Freed


def plan_prune(
    store: OpenedStore, *, keep_last: int | None, older_than: timedelta | None, max_size: int | None
) -> PrunePlan:
    """Apply the rules; nothing is changed. Raises `InvalidOptionError` without a rule or for a senseless one."""
    _check(keep_last, older_than, max_size)
    with store.index.read() as transaction:
        images = sorted(transaction.images.items(), key=lambda item: item[1].number)
        forecast = Forecast(transaction)
        # What goes anyway is no reason to delete more: pruning twice is pruning once.
        forecast_garbage(store, forecast, transaction.trash)
        gone_anyway = forecast.freed()
        chosen: dict[Digest, str] = {}
        if keep_last is not None or older_than is not None:
            chosen = _by_rules(transaction, images, keep_last, older_than)
            for digest in chosen:
                forecast.drop_image(digest)
        if max_size is not None:
            _until_small(transaction, images, chosen, forecast, max_size)
        items = tuple(
            PruneItem(digest, tuple(tags_of(transaction, digest)), _moment(record.created), chosen[digest])
            for digest, record in images
            if digest in chosen
        )
        return PrunePlan(items, _less(forecast.freed(), gone_anyway))


def prune(store: OpenedStore, plan: PrunePlan) -> PrunePlan:
    """Delete what a plan names; what was deleted. An image that is gone meanwhile is left out."""
    done = []
    for item in plan.images:
        try:
            delete_image(store, item.digest, store.config.trash_ttl_seconds)
        except ImageNotFoundError:
            continue
        done.append(item)
    return PrunePlan(tuple(done), plan.freed)


def _less(all_freed: Freed, gone_anyway: Freed) -> Freed:
    return Freed(
        all_freed.chunks - gone_anyway.chunks,
        all_freed.frames - gone_anyway.frames,
        all_freed.packs - gone_anyway.packs,
        all_freed.bytes_freed - gone_anyway.bytes_freed,
        max(0, all_freed.packs_rewritten - gone_anyway.packs_rewritten),
        max(0, all_freed.bytes_freed_by_rewriting - gone_anyway.bytes_freed_by_rewriting),
        all_freed.raw_bytes - gone_anyway.raw_bytes,
    )


def _check(keep_last: int | None, older_than: timedelta | None, max_size: int | None) -> None:
    if keep_last is None and older_than is None and max_size is None:
        raise InvalidOptionError("prune needs a rule: keep_last, older_than or max_size")
    if keep_last is not None and keep_last < 1:
        raise InvalidOptionError(f"keep_last is at least 1, not {keep_last}")
    if older_than is not None and older_than < timedelta(0):
        raise InvalidOptionError("older_than is not negative")
    if max_size is not None and max_size < 0:
        raise InvalidOptionError("max_size is not negative")


def _by_rules(
    transaction: Transaction,
    images: list[tuple[Digest, ImageRecord]],
    keep_last: int | None,
    older_than: timedelta | None,
) -> dict[Digest, str]:
    limit = None if older_than is None else time.time_ns() - int(older_than.total_seconds() * 1e9)
    kept = set() if keep_last is None else _newest(transaction, images, keep_last)
    chosen = {}
    for digest, record in images:
        if digest in kept or (limit is not None and record.created > limit):
            continue
        reasons = []
        if keep_last is not None:
            reasons.append(f"not among the last {keep_last} of its repository")
        if older_than is not None:
            reasons.append(f"older than {_duration(older_than)}")
        chosen[digest] = " and ".join(reasons)
    return chosen


def _duration(span: timedelta) -> str:
    return f"{span.days} days" if span >= timedelta(days=2) else f"{span.total_seconds():.0f} seconds"


def _newest(transaction: Transaction, images: list[tuple[Digest, ImageRecord]], keep: int) -> set[Digest]:
    """Of each repository, the newest images. An image in several is kept if one of them keeps it."""
    seen: dict[str, int] = {}
    kept = set()
    for digest, _ in reversed(images):
        # Images without a tag are one repository of their own.
        for name in dict.fromkeys(tag.rpartition(":")[0] for tag in tags_of(transaction, digest) or [":"]):
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= keep:
                kept.add(digest)
    return kept


def _until_small(
    transaction: Transaction,
    images: list[tuple[Digest, ImageRecord]],
    chosen: dict[Digest, str],
    forecast: Forecast,
    max_size: int,
) -> None:
    live = sum(record.size - record.dead_bytes for _, record in transaction.packs.items())
    live += sum(one.size for _, one in transaction.encodings.items() if one.state is EncodingState.RAW)
    for digest, _ in images:
        if live - forecast.dead_bytes_added() <= max_size:
            return
        if digest not in chosen:
            chosen[digest] = f"the oldest, while the store holds more than {max_size} bytes"
            forecast.drop_image(digest)


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
