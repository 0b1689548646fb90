"""Blobs on their way up (spec.md, "Pushing blobs"): begun, sent on, continued after a break, ended with a digest."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlencode

from layerstore.digest import Digest
from layerstore.errors import InvalidInputError, RegistryError
from layerstore.oci.documents import Descriptor
from layerstore.registry.client.addresses import with_query
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.problems import BrokenConnectionError
from layerstore.registry.client.retrying import Patience
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.client.transport import Response

_WHOLE_SIZE_MAX = 1 << 20
"""Bytes of a blob that goes up in the request that ends its upload."""
_SMALL_PART_SIZE = 8 << 20
"""Bytes of a part where a registry, or a proxy before it, takes no larger request."""
_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,18})")
_OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(slots=True)
class Session:
    """An upload that the registry has begun."""

    url: str
    offset: int = 0
    """How many bytes the registry has."""


class Uploads:
    """Sends blobs into one repository. Its methods may be called from several threads at once."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._scopes = repository_scopes(path, push=True)
        self._part_size = connection.options.part_size

    def has(self, digest: Digest) -> bool:
        """Whether the repository has a blob."""
        with self._connection.request(
            "HEAD", f"/v2/{self._path}/blobs/{digest}", self._scopes, accepts=(200, 404)
        ) as response:
            return response.status == 200

    def mount(self, digest: Digest, path: str) -> Session | None:
        """Take a blob over from another repository of the registry. None if it is done, else an upload for it."""
        query = urlencode({"mount": digest, "from": path})
        # One who may not read there gets an upload, too.
        return self._begin(query, (*self._scopes, *repository_scopes(path)), accepts=(201, 202))

    def send(self, descriptor: Descriptor, blocks: Iterable[bytes], session: Session | None = None) -> None:
        """Send a blob. ``blocks`` are gone through again, from their beginning, when a part has to be sent again.

        What they raise is raised. Raises `RegistryError` if the registry does not take the blob.
        """
        patience = Patience(self._connection.options)
        reached = 0
        while True:
            session = session or self._begin("", self._scopes, accepts=(202,))
            if session is None:
                raise RegistryError(f"{self._connection.domain} began no upload")
            reader = _Reader(blocks)
            try:
                self._send_from(session, descriptor, reader)
                return
            except BrokenConnectionError as error:
                if reader.error is not None:
                    self._cancel(session)
                    raise reader.error from None
                broken = error
            except BaseException:
                self._cancel(session)
                raise
            patience.wait(broken)
            if self.has(descriptor.digest):
                return  # it came to its end, and only the answer was lost
            session = self._resumed(session, descriptor.size)
            if session is not None and session.offset > reached:
                reached = session.offset
                patience.progress()

    def _begin(self, query: str, scopes: tuple[str, ...], accepts: tuple[int, ...]) -> Session | None:
        target = f"/v2/{self._path}/blobs/uploads/"
        with self._connection.request(
            "POST", f"{target}?{query}" if query else target, scopes, body=b"", accepts=accepts
        ) as response:
            return None if response.status == 201 else Session(self._location(response, None))

    def _send_from(self, session: Session, descriptor: Descriptor, reader: "_Reader") -> None:
        size = descriptor.size
        if not session.offset and size <= min(_WHOLE_SIZE_MAX, self._part_size or size):
            self._end(session, descriptor.digest, reader.rest())
            return
        reader.skip(session.offset)
        while session.offset < size:
            length = min(self._part_size or size, size - session.offset)
            if length == size - session.offset:
                reader.expect_end(length)
            self._send_part(session, length, reader)
        reader.rest()  # to the end also where nothing was left to be sent
        self._end(session, descriptor.digest, b"")

    def _send_part(self, session: Session, length: int, reader: "_Reader") -> None:
        last = session.offset + length - 1
        headers = {"Content-Length": str(length), "Content-Range": f"{session.offset}-{last}", **_OCTETS}
        with self._connection.request(
            "PATCH",
            session.url,
            self._scopes,
            headers=headers,
            body=reader.take(length),
            accepts=(202, 204, 404, 413, 416),
        ) as response:
            if response.status == 413 and length > _SMALL_PART_SIZE:
                self._part_size = _SMALL_PART_SIZE
                raise BrokenConnectionError(f"{self._connection.domain} takes no part of {length} bytes")
            if response.status not in (202, 204):
                raise BrokenConnectionError(f"{self._connection.domain} answers {response.status} to a part of a blob")
            session.url = self._location(response, session)
            told = _offset(response)
            if told is not None and told != last + 1:
                raise BrokenConnectionError(f"{self._connection.domain} took only a part of what it was sent")
            session.offset = last + 1

    def _end(self, session: Session, digest: Digest, data: bytes) -> None:
        url = with_query(session.url, urlencode({"digest": digest}))
        with self._connection.request(
            "PUT", url, self._scopes, headers=_OCTETS, body=data, accepts=(201, 204, 404, 416)
        ) as response:
            if response.status in (404, 416):
                raise BrokenConnectionError(f"{self._connection.domain} no longer knows of an upload")

    def _resumed(self, session: Session, size: int) -> Session | None:
        """Where an upload can go on; None if it has to begin anew."""
        try:
            with self._connection.request("GET", session.url, self._scopes, accepts=(204,)) as response:
                offset = _offset(response)
                # Some say 0-0 of an upload that has nothing, others of one that has a byte.
                if offset is not None and 1 < offset <= size:
                    return Session(self._location(response, session), offset)
        except RegistryError:
            pass  # it cannot be continued, for whatever reason
        self._cancel(session)
        return None

    def _cancel(self, session: Session) -> None:
        with suppress(RegistryError):
            self._connection.request("DELETE", session.url, self._scopes, accepts=(200, 202, 204)).close()

    def _location(self, response: Response, session: Session | None) -> str:
        location = response.header("Location")
        if location is not None:
            return self._connection.locate(response, location)
        if session is None:
            raise RegistryError(f"{self._connection.domain} does not say where an upload goes on")
        return session.url


def _offset(response: Response) -> int | None:
    """How many bytes of an upload a registry has, if it says so."""
    match = _RANGE.fullmatch((response.header("Range") or "").strip())
    return None if match is None else int(match[1]) + 1


class _Reader:
    """A blob that is sent piece by piece. Whatever its blocks raise is kept, so that it is not taken for a break."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._source = blocks
        self._blocks: Iterator[bytes] | None = None
        self._rest = b""
        self._end_after: int | None = None
        self.error: BaseException | None = None

    def skip(self, size: int) -> None:
        """Leave bytes out."""
        for _ in self.take(size):
            pass

    def expect_end(self, size: int) -> None:
        """Say that the next `take` is the last one, of ``size`` bytes: the blocks have to end with it."""
        self._end_after = size

    def rest(self) -> bytes:
        """All that is left."""
        return b"".join(iter(self._next, b""))

    def take(self, size: int) -> Iterator[bytes]:
        """The next bytes, in blocks."""
        is_last = self._end_after is not None
        left = size
        while left:
            block = self._next()
            if not block:
                self.error = InvalidInputError(f"a blob ended {left} bytes before its end")
                raise self.error
            piece, self._rest = block[:left], block[left:]
            left -= len(piece)
            if is_last and not left:
                # What verifies the blocks speaks up at their end: the registry must not have the last bytes before.
                self.rest()
            yield piece

    def _next(self) -> bytes:
        """A block, empty at the end."""
        if self._rest:
            block, self._rest = self._rest, b""
            return block
        try:
            if self._blocks is None:
                self._blocks = iter(self._source)
            # No generator around it: one that is dropped would close the blocks.
            return next(filter(None, self._blocks), b"")
        except BaseException as error:
            self.error = error
            raise
