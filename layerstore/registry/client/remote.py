"""A repository of a registry as a place that images come from and go to."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from layerstore.digest import Digest, reads_as_digest
from layerstore.errors import (
    ImageNotFoundError,
    InvalidDigestError,
    InvalidReferenceError,
    NotFoundError,
)
from layerstore.oci.documents import Descriptor
from layerstore.oci.media_types import INDEXES, MANIFESTS
from layerstore.oci.reference import Reference
from layerstore.places.content import verified_document
from layerstore.places.names import is_tag
from layerstore.places.place import LayoutFiles, Root, Source, Writer
from layerstore.places.store_place import StorePlace
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.downloads import Download
from layerstore.registry.client.endpoints import Endpoints
from layerstore.registry.client.options import ConnectionOptions
from layerstore.registry.client.paging import tags_of
from layerstore.registry.client.references import DEFAULT_TAG, RemoteName
from layerstore.registry.client.referrers import referrers_tag
from layerstore.registry.client.remote_writer import Mounts, RemoteWriter
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.client.traffic import Traffic
from layerstore.registry.protocol import is_repository_name

_DOCUMENTS = MANIFESTS | INDEXES


class RemoteRepository:
    """A `Source` and `Sink`: ``registry/name``, or one image of it, ``registry/name:tag`` or ``registry/name@digest``.

    ``docker://`` may stand before it. With a tag or digest the place has that image only; as a sink, the tag is what
    the image is called there. What names no registry is in Docker's. Its methods may be called from several threads at
    once.
    """

    names_are_references = False
    blobs_are_verified = False

    def __init__(self, reference: str, *, options: ConnectionOptions | None = None) -> None:
        """Nothing is asked of the registry yet. Raises `InvalidReferenceError`."""
        typed = RemoteName.parse(reference)
        normalized = Reference(typed.repository, typed.tag or DEFAULT_TAG).normalized()
        if not is_repository_name(normalized.path):
            raise InvalidReferenceError(f"{normalized.path!r} is no name of a repository in a registry")
        self.name = reference
        self.repository: str | None = typed.repository
        self.tag = typed.tag
        self.digest = typed.digest
        self.domain = normalized.domain
        self.path = normalized.path
        """The name of the repository in the registry."""
        options = options or ConnectionOptions()
        self.jobs = options.jobs
        self.connection = Connection(self.domain, options)
        self._endpoints = Endpoints(self.connection, self.path)
        self._mounts = Mounts()
        self._lock = threading.Lock()
        self._tags: list[str] | None = None
        self._root: Root | None = None

    @property
    def traffic(self) -> Traffic:
        """What has gone over the wire so far: far less than the size of what was copied, if only changes were sent."""
        return self.connection.traffic

    # A source.

    def roots(self) -> list[Root]:
        """The image that was named, which is resolved once; else all that have a tag. Raises `ImageNotFoundError`."""
        named = self.digest or self.tag
        if named is not None:
            with self._lock:
                if self._root is None:
                    self._root = Root(self._endpoints.manifests.resolve(named), self.tag)
                return [self._root]
        tags = self._listed()
        with ThreadPoolExecutor(self.jobs) as pool:
            descriptors = pool.map(self._endpoints.manifests.look, tags)
            return [Root(descriptor, tag) for descriptor, tag in zip(descriptors, tags, strict=True)]

    def roots_named(self, reference: str) -> list[Root]:
        """The image of a tag, a digest or a reference in this repository; nothing is listed. Empty if none is there."""
        tag, digest = self._asked(reference)
        if tag is None and digest is None:
            return []
        try:
            return [Root(self._endpoints.manifests.resolve(digest or tag or ""), tag)]
        except ImageNotFoundError:
            return []

    def referrers_of(self, digest: Digest) -> list[Root]:
        """What says that it refers to a manifest, and what does so by its tag, as cosign's signatures do."""
        found = [Root(descriptor, None) for descriptor in self._endpoints.referrers.of(digest)]
        prefix = f"{referrers_tag(digest)}."
        tags = [tag for tag in self._listed() if tag.startswith(prefix)]
        return found + [Root(self._endpoints.manifests.look(tag), tag) for tag in tags]

    def layout_files(self) -> LayoutFiles | None:
        """See `Source`."""
        return None

    def read_document(self, descriptor: Descriptor) -> bytes:
        """See `Source`."""
        if descriptor.media_type in _DOCUMENTS:
            return verified_document(descriptor, [self._endpoints.manifests.read(descriptor.digest)])
        with self.read_blob(descriptor) as blocks:
            return verified_document(descriptor, blocks)

    def blob_size(self, digest: Digest) -> int | None:
        """See `Source`."""
        with self.connection.request(
            "HEAD", f"/v2/{self.path}/blobs/{digest}", repository_scopes(self.path), accepts=(200, 404)
        ) as response:
            if response.status == 404:
                return None
            size = response.header("Content-Length") or ""
            return int(size) if size.isdecimal() and len(size) < 20 else 0

    @contextmanager
    def read_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """See `Source`. What breaks off goes on where it was."""
        self.traffic.note_whole(descriptor.digest)
        download = Download(self.connection, self.path, descriptor)
        try:
            yield download.blocks()
        finally:
            download.close()

    @contextmanager
    def open_difference(self, descriptor: Descriptor, have: Sequence[Digest]) -> Iterator[Iterator[bytes] | None]:
        """See `DifferenceSource`."""
        if not self._endpoints.differences.are_possible:
            yield None
            return
        with self._endpoints.differences.opened(descriptor, have) as blocks:
            yield blocks

    # A sink.

    def tag_for(self, name: str) -> str:
        """The tag that an image of this name gets here.

        Raises `InvalidReferenceError` for what is neither a tag nor a reference with one in this repository.
        """
        if self.tag is not None:
            return self.tag
        tag, digest = self._asked(name)
        if tag is None or digest is not None:
            raise InvalidReferenceError(f"{name!r} cannot be the name of an image in {self.name}: give a tag")
        return tag

    def check_names(self, names: Iterable[str]) -> None:
        """Raise `InvalidReferenceError` for names that images cannot have here, and if several would get the same."""
        distinct = set(names)
        tags = {self.tag_for(name) for name in distinct}
        if len(tags) < len(distinct):
            raise InvalidReferenceError(f"{len(distinct)} images cannot all be {self.name}: give a repository")

    def may_mount_from(self, source: Source) -> None:
        """Say where blobs come from: what lies in another repository of the registry need not be sent."""
        if isinstance(source, RemoteRepository):
            is_near = source.domain == self.domain and source.path != self.path
            self._mounts = Mounts(source.path if is_near else None)
        elif isinstance(source, StorePlace):
            self._mounts = Mounts(paths=self._known_by(source))

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """See `Sink`. Manifests are put when the block is left, one image after another, each under its tag at last."""
        writer = RemoteWriter(self._endpoints, self._mounts, self.tag_for)
        yield writer
        writer.publish()

    def close(self) -> None:
        """Close connections that are open; the next use opens others."""
        self.connection.close()

    def _listed(self) -> list[str]:
        with self._lock:
            if self._tags is None:
                self._tags = tags_of(self.connection, self.path)
            return self._tags

    def _asked(self, text: str) -> tuple[str | None, Digest | None]:
        """The tag and the digest that are asked for; neither for what lies elsewhere."""
        if reads_as_digest(text):
            try:
                return None, Digest(text)
            except InvalidDigestError:
                return None, None
        if is_tag(text):
            return text, None
        try:
            parsed = Reference.parse(text).normalized()
        except InvalidReferenceError:
            return None, None
        is_here = (parsed.domain, parsed.path) == (self.domain, self.path)
        return (parsed.tag, parsed.digest) if is_here else (None, None)

    def _known_by(self, source: StorePlace) -> dict[Digest, str]:
        """By blob, the repository of this registry that a store has an image of with that blob."""
        found: dict[Digest, str] = {}
        for tag, digest in source.store.tags.items():
            reference = Reference.parse(tag).normalized()
            if reference.domain == self.domain and reference.path != self.path:
                with suppress(NotFoundError):  # another process deletes it
                    found.update(dict.fromkeys(map(Digest, source.store.images[digest].blobs), reference.path))
        return found
