"""A registry that is read through this one: what is asked of it, and what its failures mean to who asked here."""

import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from layerstore.digest import Digest
from layerstore.errors import (
    AuthenticationError,
    BlobNotFoundError,
    DeniedError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidDigestError,
    InvalidManifestError,
    InvalidOptionError,
    LayerstoreError,
    OversizedError,
    RegistryError,
)
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor, parse_image
from layerstore.oci.media_types import INDEXES, MANIFESTS
from layerstore.os_errors import translate_os_errors
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.credentials import HUB_DOMAIN, Credentials
from layerstore.registry.client.differences import Differences
from layerstore.registry.client.downloads import Download
from layerstore.registry.client.manifests import Manifests
from layerstore.registry.client.options import ConnectionOptions
from layerstore.registry.client.paging import tags_of
from layerstore.registry.client.problems import BrokenConnectionError
from layerstore.registry.client.referrers import Referrers
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.protocol import DIGEST_HEADER, ErrorCode, is_repository_name
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.settings import Upstream

_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_CONNECT_SECONDS_MAX = 5.0
_TRIES = 3
_LOCKS = 64
_FETCHES_MAX = 32
_MISSED_SECONDS = 1.0
"""So long after it could not be found is nobody kept waiting who waited with others for that."""
_DOWN_SECONDS = 10.0
"""So long after a failure is what is here already given without asking again."""
_PASSWORD_SIZE_MAX = 64 << 10
_ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS | INDEXES))}

REFUSALS = (AuthenticationError, DeniedError)
"""Upstream does not let us."""
FAULTS = (RegistryError, DigestMismatchError, InvalidManifestError, InvalidDigestError, OversizedError)
"""Upstream cannot be reached, or gives what cannot be right."""


class UpstreamRegistry:
    """The connections to one registry. Its methods may be called from several threads at once."""

    def __init__(self, upstream: Upstream, data_size_max: int, *, manifest_size_max: int = DOCUMENT_SIZE_MAX) -> None:
        """Raises `InvalidOptionError` for credentials or certificates that cannot be read."""
        self.url = upstream.url
        self.fresh_seconds = upstream.fresh_seconds
        self.keep_seconds = upstream.keep_seconds
        self.blob_size_max = data_size_max
        self._manifest_size_max = manifest_size_max
        parts = urlsplit(upstream.url)
        self._is_hub = parts.netloc in _HUB_HOSTS
        self._domain = HUB_DOMAIN if self._is_hub else parts.netloc
        self._prefix = parts.path.strip("/")
        credentials = _credentials(upstream)
        _check_certificates(upstream)

        def connection(tries: int) -> Connection:
            options = ConnectionOptions(
                credentials=None if credentials is None else lambda domain: credentials,
                plain_http=parts.scheme == "http",
                ca_file=upstream.ca,
                tries=tries,
                connect_seconds_max=min(_CONNECT_SECONDS_MAX, upstream.silent_seconds),
                read_seconds_max=upstream.silent_seconds,
            )
            return Connection(self._domain, options)

        self._patient = connection(_TRIES)
        self._impatient = connection(1)
        self._lock = threading.Lock()
        self.tag_locks = [threading.Lock() for _ in range(_LOCKS)]
        """One is held while upstream is asked for a tag. They are its own: a slow one holds up no other."""
        self.difference_locks = [threading.Lock() for _ in range(_LOCKS)]
        """One is held while a blob is fetched as a difference."""
        self.fetch_turns = threading.BoundedSemaphore(_FETCHES_MAX)
        self._finding = threading.Lock()
        self._is_found = False
        self._missed = float("-inf")
        self._down_until = float("-inf")

    def path(self, name: str) -> str | None:
        """What a repository is called there; None for what no repository can be called."""
        if self._is_hub and name and "/" not in name and not self._prefix:
            name = f"library/{name}"
        path = f"{self._prefix}/{name}".strip("/")
        return path if is_repository_name(path) else None

    @property
    def is_down(self) -> bool:
        """Whether it could not be reached a moment ago."""
        with self._lock:
            return time.monotonic() < self._down_until

    def failed(self, error: LayerstoreError) -> None:
        """Remember that it could not be reached, or did not work, if that is what an error says."""
        if isinstance(error, RegistryError):
            with self._lock:
                self._down_until = time.monotonic() + _DOWN_SECONDS

    def look(self, path: str, tag: str) -> Digest | None:
        """What a tag names, without waiting for long; None if upstream does not say. Raises `ImageNotFoundError`."""
        with self._connection(is_urgent=True).request(
            "HEAD", f"/v2/{path}/manifests/{tag}", repository_scopes(path), headers=_ACCEPT, accepts=(200, 404)
        ) as response:
            if response.status == 404:
                raise ImageNotFoundError(f"{self._domain} has no image {path}:{tag}")
            told = response.header(DIGEST_HEADER)
        return None if told is None else Digest(told)

    def manifest(self, path: str, reference: Digest | str, *, is_urgent: bool) -> tuple[Descriptor, bytes]:
        """A manifest or index, compared with its digest. Raises `ImageNotFoundError`."""
        manifests = Manifests(self._connection(is_urgent=is_urgent), path)
        descriptor = manifests.resolve(reference)
        if descriptor.size > self._manifest_size_max:
            raise OversizedError(
                f"{self._domain} has a manifest of {descriptor.size} bytes: more than {self._manifest_size_max} are "
                "not accepted here"
            )
        data = manifests.read(descriptor.digest)
        parsed = parse_image(data)
        if parsed.media_type != descriptor.media_type:
            raise InvalidManifestError(f"it calls itself {parsed.media_type}, {self._domain} {descriptor.media_type}")
        return descriptor, data

    def blob_size(self, path: str, digest: Digest) -> int | None:
        """The bytes of a blob; None if the repository does not have it. Raises `RegistryError` if they are not told."""
        with self._connection().request(
            "HEAD", f"/v2/{path}/blobs/{digest}", repository_scopes(path), accepts=(200, 404)
        ) as response:
            if response.status == 404:
                return None
            size = response.header("Content-Length") or ""
        if not (size.isascii() and size.isdigit()) or len(size) > 20 or int(size) > self.blob_size_max:
            raise RegistryError(f"{self._domain} says that {digest} has {size[:20] or 'no'} bytes")
        return int(size)

    @contextmanager
    def blob(self, path: str, digest: Digest, size: int) -> Iterator[Iterator[bytes]]:
        """The bytes of a blob as they come. What breaks off goes on where it was; nothing is compared."""
        descriptor = Descriptor(media_type="application/octet-stream", digest=digest, size=size)
        download = Download(self._connection(), path, descriptor)
        try:
            yield download.blocks(as_they_come=True)
        finally:
            download.close()

    @property
    def gives_differences(self) -> bool:
        """Whether it is a layerstore. Raises `RegistryError` if it cannot be reached."""
        return self._connection().exchanges_differences

    @contextmanager
    def difference(
        self, path: str, digest: Digest, size: int, have: Sequence[Digest]
    ) -> Iterator[Iterator[bytes] | None]:
        """A blob as its difference to layers that are here; None if upstream gives it only as it is."""
        connection = self._connection()
        differences = Differences(connection, path)
        descriptor = Descriptor(media_type="application/octet-stream", digest=digest, size=size)
        with differences.opened(descriptor, have, as_they_come=True) as blocks:
            yield blocks
        connection.traffic.note_whole(digest)  # nobody asks what it was, and it would be kept as long as we run

    def tags(self, path: str) -> list[str]:
        """All tags of a repository. Raises `ImageNotFoundError` if there is none such."""
        return tags_of(self._connection(is_urgent=True), path)

    def referrers(self, path: str, subject: Digest) -> list[Descriptor]:
        """The manifests that refer to one."""
        return Referrers(self._connection(is_urgent=True), path).of(subject)

    def problem(self, error: LayerstoreError, code: ErrorCode) -> ProblemError:
        """What an error of upstream means to who asked here. ``code`` is for what is not there."""
        if isinstance(error, REFUSALS):
            # What upstream says is meant for this server: it may name its account.
            return ProblemError(404, code, f"{self._domain} does not give this to this server")
        if isinstance(error, (ImageNotFoundError, BlobNotFoundError)):
            return ProblemError(404, code, f"{self._domain} does not have this")
        if isinstance(error, BrokenConnectionError):
            return ProblemError(504, ErrorCode.UNAVAILABLE, f"{self._domain} cannot be reached now")
        return ProblemError(502, ErrorCode.UNAVAILABLE, f"{self._domain} does not give this as it should")

    def close(self) -> None:
        """Close connections that are open."""
        self._patient.close()
        self._impatient.close()

    def _connection(self, *, is_urgent: bool = False) -> Connection:
        """A connection that tries but once if it is urgent. Raises `RegistryError` if the registry cannot be found.

        One finds out whether it is there at all, and those who wait for that are told, instead of trying one by one.
        """
        with self._finding:
            if not self._is_found:
                if time.monotonic() - self._missed < _MISSED_SECONDS:
                    raise BrokenConnectionError(f"{self._domain} could not be reached a moment ago")
                try:
                    # Whatever is asked of a connection first makes it look for the registry.
                    _ = self._impatient.exchanges_differences, self._patient.exchanges_differences
                except RegistryError:
                    self._missed = time.monotonic()
                    raise
                self._is_found = True
        return self._impatient if is_urgent or self.is_down else self._patient


def _credentials(upstream: Upstream) -> Credentials | None:
    if upstream.username is None or upstream.password is None:
        return None
    with translate_os_errors(f"cannot read {upstream.password}"), upstream.password.open("rb") as file:
        text = file.read(_PASSWORD_SIZE_MAX)
    try:
        return Credentials(upstream.username, text.decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise InvalidOptionError(f"{upstream.password} is no text") from None


def _check_certificates(upstream: Upstream) -> None:
    if upstream.ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(upstream.ca)
        except OSError as error:
            raise InvalidOptionError(f"{upstream.ca} cannot be read as certificates (PEM): {error}") from None
