"""Blobs on their way down (spec.md, "Pulling blobs"): what breaks off goes on where it was."""

import re
from collections.abc import Iterator

from layerstore.errors import BlobNotFoundError, RegistryError
from layerstore.oci.documents import Descriptor
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.problems import BrokenConnectionError
from layerstore.registry.client.retrying import Patience
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.client.transport import Response

_PROGRESS_SIZE = 1 << 20
"""Bytes that make a try worth it: a registry that gives a byte each time does not keep us for ever."""
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")


class Download:
    """One blob. It is to be closed."""

    def __init__(self, connection: Connection, path: str, descriptor: Descriptor) -> None:
        """Raises `BlobNotFoundError` if the repository does not have it."""
        self._connection = connection
        self._scopes = repository_scopes(path)
        self._target = f"/v2/{path}/blobs/{descriptor.digest}"
        self._descriptor = descriptor
        self._response = self._ask(0)

    def blocks(self, *, as_they_come: bool = False) -> Iterator[bytes]:
        """The bytes of the blob, whatever breaks in between. Who uses them compares size and digest.

        ``as_they_come`` as in `Response.blocks`.
        """
        patience = Patience(self._connection.options)
        done = begun = 0
        while True:
            # A registry that knows no ranges gives what we have again.
            ahead = done if self._response.status == 200 else 0
            try:
                for block in self._response.blocks(as_they_come=as_they_come):
                    fresh = block[ahead:]
                    ahead -= len(block) - len(fresh)
                    done += len(fresh)
                    if fresh:
                        yield fresh
                if done >= self._descriptor.size or self._response.header("Content-Length") is not None:
                    return
                broken = BrokenConnectionError(f"{self._connection.domain} ended a blob after {done} bytes")
            except BrokenConnectionError as error:
                broken = error
            if done >= self._descriptor.size:
                return
            if done - begun >= _PROGRESS_SIZE:
                patience.progress()
            patience.wait(broken)
            self._response.close()
            self._response = self._ask(done)
            begun = done

    def close(self) -> None:
        """Let go of the connection."""
        self._response.close()

    def _ask(self, offset: int) -> Response:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._connection.request(
            "GET", self._target, self._scopes, headers=headers, accepts=(200, 206, 404) if offset else (200, 404)
        )
        if response.status == 404:
            response.close()
            raise BlobNotFoundError(f"{self._connection.domain} has no blob {self._descriptor.digest}")
        if response.status == 206:
            match = _RANGE.fullmatch(response.header("Content-Range") or "")
            if match is None or int(match[1]) != offset:
                response.close()
                raise RegistryError(
                    f"{self._connection.domain} was asked for a blob from byte {offset} on, and gives another part"
                )
        return response
