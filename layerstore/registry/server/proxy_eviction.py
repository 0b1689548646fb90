"""Copies of upstream's images that nobody has pulled for a while are deleted; who wants one gets it anew."""

import time
from collections.abc import Callable, Iterator

from layerstore.digest import Digest
from layerstore.oci.documents import Index, parse_image
from layerstore.registry.server.proxy_records import ProxyRecords
from layerstore.registry.server.repositories import Repositories


def evict_unused(
    records: ProxyRecords,
    repositories: Repositories,
    upstream: str,
    keep_seconds: float,
    delete: Callable[[str, Digest], object],
) -> int:
    """Delete what was not pulled for ``keep_seconds`` from the repositories of an upstream registry; how many.

    What an index lists that is pulled is kept with it: clients that have it already ask for nothing else. An image of
    which nothing is known is new.
    """
    evicted = 0
    limit = time.time() - keep_seconds
    for name in _names(records, repositories, upstream):
        known = dict.fromkeys([*records.manifests(name), *repositories.roots(name)])
        used = {one for one in known if records.last_pull(name, one) >= limit}
        for one in list(used):
            used.update(_listed(records, repositories, name, one))
        for digest in known:
            # It may have been pulled since.
            if digest not in used and records.last_pull(name, digest) < limit:
                delete(name, digest)
                evicted += 1
        for digest in records.pulled_before(name, limit):
            if digest not in known:
                records.forget_pulls(name, digest)
    return evicted


def _names(records: ProxyRecords, repositories: Repositories, upstream: str) -> list[str]:
    names = {*records.repositories(), *repositories.names()}
    return sorted(name for name in names if name.partition("/")[0] == upstream)


def _listed(records: ProxyRecords, repositories: Repositories, name: str, digest: Digest) -> Iterator[Digest]:
    found = records.manifest(name, digest) or repositories.manifest(digest)
    if found is None:
        return
    with repositories.turn_to_parse(len(found[0])):
        document = parse_image(found[0])
    if isinstance(document, Index):
        yield from (one.digest for one in document.manifests)
