"""A repository of a registry that images are written to: blobs at once, manifests at the end."""

from collections.abc import Callable, Iterable, Mapping

from layerstore.digest import Digest
from layerstore.errors import AuthenticationError, DeniedError
from layerstore.oci.documents import Descriptor, Index, Manifest, parse_image
from layerstore.oci.media_types import INDEXES, MANIFESTS
from layerstore.places.place import LayoutFiles, Root, Source
from layerstore.places.store_place import StorePlace
from layerstore.registry.client.endpoints import Endpoints
from layerstore.registry.client.uploads import Session

_DOCUMENTS = MANIFESTS | INDEXES


class Mounts:
    """Where in the registry blobs may be."""

    def __init__(self, path: str | None = None, paths: Mapping[Digest, str] | None = None) -> None:
        """``paths`` are repositories by blob, ``path`` is the one that may have all others."""
        self._path = path
        self._paths = paths or {}

    def path_of(self, digest: Digest) -> str | None:
        """The repository that may have a blob."""
        return self._paths.get(digest, self._path)


class RemoteWriter:
    """A `Writer`. Manifests are put by `publish`, under the tags that ``tag_for`` gives them."""

    verifies_blobs = False

    def __init__(self, endpoints: Endpoints, mounts: Mounts, tag_for: Callable[[str], str]) -> None:
        self._endpoints = endpoints
        self._uploads = endpoints.uploads
        self._mounts = mounts
        self._tag_for = tag_for
        self._sessions: dict[Digest, Session] = {}
        self._roots: list[tuple[Root, Mapping[Digest, bytes]]] = []

    def expect(self, sizes: Mapping[Digest, int]) -> None:
        """See `Writer`."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """See `Writer`. What lies elsewhere in the registry is taken over."""
        digest = descriptor.digest
        if self._uploads.has(digest):
            return True
        path = self._mounts.path_of(digest)
        if path is None:
            return False
        try:
            session = self._uploads.mount(digest, path)
        except (AuthenticationError, DeniedError):
            return False  # it may be written here without being read there
        if session is None:
            return True
        self._sessions[digest] = session
        return False

    def put_difference(self, descriptor: Descriptor, source: Source) -> bool:
        """See `DifferenceWriter`."""
        differences = self._endpoints.differences
        if not isinstance(source, StorePlace) or not differences.are_possible:
            return False
        return differences.send(source, descriptor)

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        """See `Writer`."""
        self._uploads.send(descriptor, blocks, self._sessions.pop(descriptor.digest, None))

    def put_root(self, root: Root, documents: Mapping[Digest, bytes]) -> None:
        """See `Writer`."""
        self._roots.append((root, documents))

    def resemble(self, files: LayoutFiles) -> None:
        """See `Writer`."""

    def publish(self) -> None:
        """Put all that was put: what others name before them, so that nobody finds half of an image."""
        done: set[Digest] = set()
        for root, documents in self._roots:
            tag = None if root.name is None else self._tag_for(root.name)
            self._put(root.descriptor, documents, done, tag)

    def _put(
        self, descriptor: Descriptor, documents: Mapping[Digest, bytes], done: set[Digest], tag: str | None
    ) -> None:
        data = documents[descriptor.digest]
        parsed = parse_image(data)
        if isinstance(parsed, Manifest):
            self._put_config(parsed.config, documents, done)
        else:
            for child in parsed.manifests:
                if child.media_type in _DOCUMENTS and child.digest not in done:
                    self._put(child, documents, done, None)
        stored = self._endpoints.manifests.put(descriptor, data, tag)
        done.add(descriptor.digest)
        if parsed.subject is not None and not stored.notes_subject:
            self._endpoints.referrers.add(parsed.subject.digest, _as_referrer(descriptor, parsed))

    def _put_config(self, config: Descriptor, documents: Mapping[Digest, bytes], done: set[Digest]) -> None:
        data = documents.get(config.digest)
        if data is None or config.digest in done:
            return  # one that is too large for a document went with the blobs
        if not self.has_blob(config):
            self.put_blob(config, [data])
        done.add(config.digest)


def _as_referrer(descriptor: Descriptor, document: Manifest | Index) -> Descriptor:
    """As the lists of referrers have it (spec.md, "Listing Referrers")."""
    kind = document.artifact_type
    if kind is None and isinstance(document, Manifest):
        kind = document.config.media_type
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        artifact_type=kind,
        annotations=document.annotations,
    )
