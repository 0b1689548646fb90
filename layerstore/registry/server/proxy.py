"""Repositories that are read through this server: the first component of their name stands for an upstream registry.

A manifest is fetched when it is asked for and given at once; a blob likewise, while it is on its way. When all that a
manifest names has come, it is put into the store as any other image, where its layers share what they have in common.

* What a tag names is asked for again when that is older than the time it is fresh. If upstream cannot say it, or says
  what makes no sense, what was known is given, with a warning.
* If upstream says that a tag is gone, it is gone here. What it named can still be had by its digest.
* A blob that the store has for another repository is had by this one when upstream says that it has it there, too, in
  the same size; so nobody gets what only a digest in a manifest claims. A part of an image that is never completed is
  kept for as long as an upload would be.
* What upstream refuses to this server's account is not there. An upstream that lies is believed in one thing alone:
  that its own repositories have a blob which this store has.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError, LayerstoreError
from layerstore.oci.documents import Descriptor, Index, Manifest, parse_image
from layerstore.oci.media_types import INDEXES, MANIFESTS, NONDISTRIBUTABLE_LAYERS
from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.logs import log
from layerstore.registry.server.problems import ProblemError, blob_unknown
from layerstore.registry.server.proxy_differences import UpstreamDifferences
from layerstore.registry.server.proxy_eviction import evict_unused
from layerstore.registry.server.proxy_fetches import Fetches, Follower
from layerstore.registry.server.proxy_records import ProxyRecords
from layerstore.registry.server.proxy_upstream import FAULTS, REFUSALS, UpstreamRegistry
from layerstore.registry.server.repositories import Repositories
from layerstore.registry.server.settings import ServerSettings
from layerstore.registry.server.uploads import Uploads

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest or index of a proxied repository."""

    digest: Digest
    data: bytes
    media_type: str
    is_stale: bool = False
    """Whether upstream could not be asked whether the tag still names it."""


class Proxies:
    """All registries that are read through this one. Its methods may be called from several threads at once."""

    def __init__(self, settings: ServerSettings, repositories: Repositories, uploads: Uploads, folder: Path) -> None:
        self._repositories = repositories
        self._uploads = uploads
        self._upstreams = {
            name: UpstreamRegistry(one, settings.blob_size_max, manifest_size_max=settings.manifest_size_max)
            for name, one in settings.proxies.items()
        }
        self._shared: _Shared | None = None
        if self._upstreams:
            records = ProxyRecords(folder / "proxy.sqlite")
            fetches = Fetches(folder / "fetches", self._keep)
            differences = UpstreamDifferences(repositories, uploads, folder / "fetches")
            self._shared = _Shared(repositories, records, fetches, differences)

    def of(self, repository: str) -> "ProxiedRepository | None":
        """A repository, if it is one of an upstream registry."""
        name, _, rest = repository.partition("/")
        upstream = self._upstreams.get(name)
        if upstream is None or self._shared is None:
            return None
        return ProxiedRepository(repository, upstream.path(rest), upstream, self._shared)

    def check_writable(self, repository: str) -> None:
        """Refuse a push into a repository of an upstream registry."""
        upstream = self._upstreams.get(repository.partition("/")[0])
        if upstream is not None:
            message = f"{repository} is a copy of what is at {upstream.url}: push it there"
            raise ProblemError(405, ErrorCode.UNSUPPORTED, message)

    def evict(self) -> int:
        """Delete what nobody has pulled for as long as it is to be kept; how many manifests and indexes."""
        shared = self._shared
        if shared is None:
            return 0
        return sum(
            evict_unused(shared.records, self._repositories, name, upstream.keep_seconds, self._delete)
            for name, upstream in self._upstreams.items()
            if upstream.keep_seconds
        )

    def close(self) -> None:
        """Give up what is on its way."""
        if self._shared is not None:
            self._shared.fetches.close()
            self._shared.records.close()
        for upstream in self._upstreams.values():
            upstream.close()

    def _delete(self, repository: str, digest: Digest) -> None:
        found = self.of(repository)
        if found is not None and found.delete(digest):
            log(logging.INFO, "deleted what nobody pulls", repository=repository, digest=digest)

    def _keep(self, digest: Digest, path: Path) -> None:
        """Put a blob that has come into the store, for all repositories that wanted it."""
        shared = self._shared
        assert shared is not None
        try:
            with self._uploads.turns.turn():
                self._repositories.under_lease(
                    lambda lease: self._repositories.store.push_blob(path, digest=digest, lease=lease, give_file=True)
                )
            self._uploads.last_used = time.monotonic()
            for name in shared.records.take_wanted(digest):
                repository = self.of(name)
                if repository is not None and self._repositories.keep_blob(name, digest):
                    repository.complete(digest)
        except LayerstoreError as error:
            log(logging.ERROR, f"a blob from upstream was not kept: {error}", digest=digest)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all proxied repositories have in common."""

    repositories: Repositories
    records: ProxyRecords
    fetches: Fetches
    differences: UpstreamDifferences


class ProxiedRepository:
    """One repository that is read from upstream."""

    def __init__(self, name: str, path: str | None, upstream: UpstreamRegistry, shared: _Shared) -> None:
        self._name = name
        self._known_path = path
        self._upstream = upstream
        self._repositories = shared.repositories
        self._records = shared.records
        self._fetches = shared.fetches
        self._differences = shared.differences
        self._locks = upstream.tag_locks

    def manifest(self, reference: Digest | str) -> FoundManifest:
        """A manifest or index. Raises `ProblemError` if upstream has none, or cannot be asked and none is here."""
        if isinstance(reference, Digest):
            found = self._known(reference) or self._fetched(reference)
        else:
            # Those who ask for the same tag at the same time wait for the answer that one of them gets.
            with self._locks[hash((self._name, reference)) % len(self._locks)]:
                found = self._tagged(reference)
        self._records.note_pull(self._name, found.digest)
        self.put(found.digest)
        return found

    def blob_size(self, digest: Digest) -> int:
        """The bytes of a blob that the repository does not have here. Raises `ProblemError` if upstream has none.

        If the store has it, the repository has it from now on.
        """
        size = self._asked(lambda path: self._upstream.blob_size(path, digest), ErrorCode.BLOB_UNKNOWN)
        if size is None:
            raise blob_unknown(digest)
        if self._repositories.store.has_blob(digest) and self._repositories.store.blob_size(digest) != size:
            raise ProblemError(502, ErrorCode.UNAVAILABLE, f"upstream says that {digest} has {size} bytes")
        self._take_over(digest)
        return size

    def blob(self, digest: Digest, size: int) -> Follower | None:
        """A blob of which `blob_size` was just told, on its way; None if the store has it meanwhile."""
        path = self._path
        # Others who ask for the same blob wait until it is here, or is to be fetched as it is.
        with self._upstream.difference_locks[hash(digest) % len(self._upstream.difference_locks)]:
            if self._repositories.has_blob(self._name, digest):
                return None
            if self._differences.fetch(self._upstream, self._name, path, digest, size):
                self.complete(digest)
                return None
        self._records.want(self._name, digest)
        return self._fetches.follow(
            digest,
            size,
            lambda: self._upstream.blob(path, digest, size),
            lambda: self._take_over(digest),
            self._upstream.fetch_turns,
        )

    def tags(self) -> list[str]:
        """Upstream's tags, else those that are known here, in bytewise order."""
        try:
            return sorted(self._asked(self._upstream.tags, ErrorCode.NAME_UNKNOWN))
        except ProblemError as problem:
            known = self._records.tags(self._name).keys() | self._repositories.tags(self._name).keys()
            if problem.status == 404 or not known:
                raise
            return sorted(known)

    def referrers(self, subject: Digest) -> list[Descriptor]:
        """What refers to a manifest at upstream, else here."""
        try:
            return self._asked(lambda path: self._upstream.referrers(path, subject), ErrorCode.NAME_UNKNOWN)
        except ProblemError:
            return self._repositories.referrers(self._name, subject)

    def delete(self, reference: Digest | str) -> bool:
        """Remove the copy of a manifest with its tags, or a tag; whether there was one."""
        if isinstance(reference, Digest):
            found = self._known(reference) is not None
            self._records.remove_manifest(self._name, reference)
            self._repositories.delete_manifest(self._name, reference)
            return found
        return self._forget_tag(reference)

    def complete(self, digest: Digest) -> None:
        """Put the manifests that name a blob or manifest which has come, if it was the last that they waited for."""
        for manifest in self._records.manifests_naming(self._name, digest):
            if manifest != digest:
                self.put(manifest)

    def put(self, digest: Digest) -> None:
        """Put a manifest into the store, under its tags, if all that it names is there."""
        known = self._records.manifest(self._name, digest)
        if known is None:
            return
        tags = self._records.tags_of(self._name, digest)
        present = self._repositories.tags(self._name)
        is_there = self._repositories.resolve(self._name, digest) is not None
        if is_there and all(present.get(tag) == digest for tag in tags):
            return
        with self._repositories.turn_to_parse(len(known[0])):
            is_whole = self._is_whole(parse_image(known[0]))
        if not is_whole:
            return
        try:
            self._repositories.put_manifest(self._name, known[0], digest, tags)
        except LayerstoreError as error:
            # It is given to who asks all the same.
            log(logging.WARNING, f"an image from upstream was not put: {error}", repository=self._name, digest=digest)
            return
        if not is_there:
            self.complete(digest)

    @property
    def _path(self) -> str:
        if self._known_path is None:
            raise ProblemError(404, ErrorCode.NAME_UNKNOWN, f"{self._name} cannot be a repository there")
        return self._known_path

    def _tagged(self, tag: str) -> FoundManifest:
        known = self._known_tag(tag)
        if known is None:
            return self._fetched(tag)
        found, checked = known
        if 0 <= time.time() - checked < self._upstream.fresh_seconds:
            return found
        if self._upstream.is_down:
            return self._stale(tag, found, "it could not be reached a moment ago")
        try:
            if self._upstream.look(self._path, tag) == found.digest:
                self._records.set_tag(self._name, tag, found.digest)
                return found
            return self._noted(*self._upstream.manifest(self._path, tag, is_urgent=True), tag)
        except ImageNotFoundError as error:
            self._forget_tag(tag)
            raise self._upstream.problem(error, ErrorCode.MANIFEST_UNKNOWN) from error
        except REFUSALS as error:
            raise self._upstream.problem(error, ErrorCode.MANIFEST_UNKNOWN) from error
        except FAULTS as error:
            self._upstream.failed(error)
            return self._stale(tag, found, str(error))

    def _stale(self, tag: str, found: FoundManifest, reason: str) -> FoundManifest:
        log(logging.WARNING, f"a tag is not fresh: {reason}", repository=self._name, tag=tag, digest=found.digest)
        return FoundManifest(found.digest, found.data, found.media_type, is_stale=True)

    def _fetched(self, reference: Digest | str) -> FoundManifest:
        descriptor, data = self._asked(
            lambda path: self._upstream.manifest(path, reference, is_urgent=False), ErrorCode.MANIFEST_UNKNOWN
        )
        return self._noted(descriptor, data, None if isinstance(reference, Digest) else reference)

    def _noted(self, descriptor: Descriptor, data: bytes, tag: str | None) -> FoundManifest:
        self._records.add_manifest(self._name, descriptor.digest, descriptor.media_type, data)
        if tag is not None:
            self._records.set_tag(self._name, tag, descriptor.digest)
        log(logging.INFO, "fetched a manifest", repository=self._name, tag=tag, digest=descriptor.digest)
        return FoundManifest(descriptor.digest, data, descriptor.media_type)

    def _known_tag(self, tag: str) -> tuple[FoundManifest, float] | None:
        noted = self._records.tag(self._name, tag)
        if noted is not None:
            found = self._known(noted[0])
            return None if found is None else (found, noted[1])
        digest = self._repositories.tags(self._name).get(tag)
        found = None if digest is None else self._known(digest)
        return None if found is None else (found, float("-inf"))

    def _known(self, digest: Digest) -> FoundManifest | None:
        known = self._records.manifest(self._name, digest)
        if known is None and self._repositories.resolve(self._name, digest) is not None:
            known = self._repositories.manifest(digest)
        return None if known is None else FoundManifest(digest, *known)

    def _forget_tag(self, tag: str) -> bool:
        was_noted = self._records.tag(self._name, tag) is not None
        self._records.remove_tag(self._name, tag)
        digest = self._repositories.tags(self._name).get(tag)
        if digest is not None:
            self._repositories.links.add_manifest(self._name, digest)
            self._repositories.store.tags.discard(f"{self._name}:{tag}", digest)
        return was_noted or digest is not None

    def _take_over(self, digest: Digest) -> bool:
        """Let the repository have a blob of the store; whether there is one."""
        is_kept = self._repositories.keep_blob(self._name, digest)
        if is_kept:
            self.complete(digest)
        return is_kept

    def _is_whole(self, document: Manifest | Index) -> bool:
        return all(self._has(one) for one in _named(document))

    def _has(self, descriptor: Descriptor) -> bool:
        if descriptor.media_type in MANIFESTS | INDEXES:
            return self._repositories.resolve(self._name, descriptor.digest) is not None
        is_optional = descriptor.media_type in NONDISTRIBUTABLE_LAYERS
        return is_optional or self._repositories.has_blob(self._name, descriptor.digest)

    def _asked(self, ask: Callable[[str], T], code: ErrorCode) -> T:
        """What upstream answers. Raises `ProblemError`; ``code`` is for what is not there."""
        try:
            return ask(self._path)
        except (ImageNotFoundError, *REFUSALS) as error:
            raise self._upstream.problem(error, code) from error
        except FAULTS as error:
            self._upstream.failed(error)
            log(logging.WARNING, f"upstream failed: {error}", repository=self._name)
            raise self._upstream.problem(error, code) from error


def _named(document: Manifest | Index) -> Iterator[Descriptor]:
    if isinstance(document, Manifest):
        yield document.config
        yield from document.layers
    else:
        yield from document.manifests
