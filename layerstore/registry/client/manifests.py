"""Manifests and indexes of one repository: resolved by tag or digest, read, and put (spec.md, "Pulling manifests")."""

import re
import threading
from dataclasses import dataclass

from layerstore.digest import Digest
from layerstore.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidDigestError,
    InvalidManifestError,
    RegistryError,
)
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor, parse_image
from layerstore.oci.media_types import INDEXES, MANIFESTS
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.client.transport import Response
from layerstore.registry.protocol import DIGEST_HEADER, SUBJECT_HEADER

_KNOWN = MANIFESTS | INDEXES
_ACCEPT = {"Accept": ", ".join(sorted(_KNOWN))}
_SIZE = re.compile(r"[0-9]{1,19}")
_KEPT_SIZE_MAX = 16 << 20
"""Bytes of documents that are kept, since who resolves a name reads it next."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a registry said when it took a manifest."""

    notes_subject: bool
    """Whether the registry lists it itself as a referrer of its subject."""


class Manifests:
    """The manifests in one repository. Its methods may be called from several threads at once."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._scopes = repository_scopes(path)
        self._lock = threading.Lock()
        self._kept: dict[Digest, bytes] = {}
        self._kept_size = 0

    def resolve(self, reference: str) -> Descriptor:
        """The descriptor of what a tag or digest stands for; its bytes are read, and kept for `read`.

        Raises `ImageNotFoundError`, and `DigestMismatchError` if it is not what the registry says, or was asked for.
        """
        response, data = self._get(reference)
        if response.status == 404:
            sign = "@" if ":" in reference else ":"
            raise ImageNotFoundError(f"{self._connection.domain} has no image {self._path}{sign}{reference}")
        expected = Digest(reference) if ":" in reference else _told_digest(response)
        actual = Digest.of(data, "sha256" if expected is None else expected.algorithm)
        if expected is not None and actual != expected:
            raise DigestMismatchError(expected, actual)
        self._keep(actual, data)
        return Descriptor(media_type=_media_type(response, data), digest=actual, size=len(data))

    def look(self, tag: str) -> Descriptor:
        """As `resolve`, without the bytes if the registry tells all that is needed."""
        with self._connection.request("HEAD", self._target(tag), self._scopes, headers=_ACCEPT) as response:
            digest, size = _told_digest(response), response.header("Content-Length") or ""
            media_type = _told_type(response)
        if digest is None or media_type not in _KNOWN or not _SIZE.fullmatch(size) or int(size) > DOCUMENT_SIZE_MAX:
            return self.resolve(tag)
        return Descriptor(media_type=media_type, digest=digest, size=int(size))

    def read(self, digest: Digest) -> bytes:
        """The bytes of a manifest, as they came. Raises `BlobNotFoundError`."""
        with self._lock:
            kept = self._kept.get(digest)
        if kept is not None:
            return kept
        response, data = self._get(digest)
        if response.status == 404:
            raise BlobNotFoundError(f"{self._connection.domain} has no manifest {digest} in {self._path}")
        return data

    def put(self, descriptor: Descriptor, data: bytes, tag: str | None) -> Stored:
        """Put a manifest, under a tag or else by its digest."""
        with self._connection.request(
            "PUT",
            self._target(tag or descriptor.digest),
            repository_scopes(self._path, push=True),
            headers={"Content-Type": descriptor.media_type},
            body=data,
            accepts=(201,),
        ) as response:
            told = _told_digest(response)
            if told is not None and told.algorithm == descriptor.digest.algorithm and told != descriptor.digest:
                raise RegistryError(
                    f"{self._connection.domain} stored {told} where {descriptor.digest} was put: it changes manifests"
                )
            return Stored(response.header(SUBJECT_HEADER) is not None)

    def _get(self, reference: str) -> tuple[Response, bytes]:
        return self._connection.fetch(
            self._target(reference), self._scopes, headers=_ACCEPT, accepts=(200, 404), size_max=DOCUMENT_SIZE_MAX
        )

    def _target(self, reference: str) -> str:
        return f"/v2/{self._path}/manifests/{reference}"

    def _keep(self, digest: Digest, data: bytes) -> None:
        with self._lock:
            if digest not in self._kept and self._kept_size + len(data) <= _KEPT_SIZE_MAX:
                self._kept[digest] = data
                self._kept_size += len(data)


def _told_digest(response: Response) -> Digest | None:
    try:
        return Digest(response.header(DIGEST_HEADER) or "")
    except InvalidDigestError:
        return None


def _told_type(response: Response) -> str:
    return (response.header("Content-Type") or "").partition(";")[0].strip().lower()


def _media_type(response: Response, data: bytes) -> str:
    """What the registry calls it; where that is too vague, what it calls itself."""
    told = _told_type(response)
    if told in _KNOWN:
        return told
    if "manifest.v1" in told:
        raise InvalidManifestError(f"{told} is the first schema of manifests, which is no longer read: push it anew")
    return parse_image(data).media_type
