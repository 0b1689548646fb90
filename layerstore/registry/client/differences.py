"""Differences of blobs to layers that the other side has, where the registry is a layerstore."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from layerstore.digest import Digest
from layerstore.errors import InvalidDigestError, RegistryError
from layerstore.oci.documents import Descriptor
from layerstore.places.store_place import StorePlace
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.client.traffic import Measured
from layerstore.registry.protocol import DIFFERENCE_TYPE

_ANSWER_SIZE_MAX = 64 << 10
_JSON = {"Content-Type": "application/json"}


class Differences:
    """What one repository of a registry gives and takes as differences."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._name = f"{connection.domain}/{path}"

    @property
    def are_possible(self) -> bool:
        """Whether the registry does such a thing at all."""
        return self._connection.exchanges_differences

    @contextmanager
    def opened(
        self, descriptor: Descriptor, have: Sequence[Digest], *, as_they_come: bool = False
    ) -> Iterator[Iterator[bytes] | None]:
        """The difference of a blob to layers that we have; None if the registry rather gives the blob as it is.

        ``as_they_come`` as in `Response.blocks`.
        """
        with self._connection.request(
            "POST",
            f"/v2/{self._path}/_layerstore/blobs/{descriptor.digest}",
            repository_scopes(self._path),
            headers=_JSON,
            body=json.dumps({"have": have}).encode(),
            accepts=(200, 204, 400, 404),
        ) as response:
            is_one = response.status == 200 and response.header("Content-Type") == DIFFERENCE_TYPE
            if not is_one:
                yield None
                return
            blocks = Measured(response.blocks(as_they_come=as_they_come))
            yield iter(blocks)
        self._connection.traffic.note_difference(descriptor, blocks.size)

    def known(self, layers: Sequence[Digest]) -> list[Digest]:
        """Those of our layers that we may refer to in what we send."""
        with self._connection.request(
            "POST",
            f"/v2/{self._path}/_layerstore/layers",
            repository_scopes(self._path, push=True),
            headers=_JSON,
            body=json.dumps({"layers": layers}).encode(),
            accepts=(200, 400, 404),
        ) as response:
            if response.status != 200:
                return []
            data = response.read(_ANSWER_SIZE_MAX)
        try:
            asked = set(layers)
            return [one for one in map(Digest, json.loads(data)["layers"]) if one in asked]
        except (ValueError, TypeError, KeyError, RecursionError, InvalidDigestError):
            raise RegistryError(f"{self._connection.domain} answers what is no list of layers") from None

    def send(self, source: StorePlace, descriptor: Descriptor) -> bool:
        """Send a blob of a store as a difference; whether that could be done."""
        near = source.layers_like(self._name, descriptor.digest)
        have = self.known(near) if near else []
        if not have:
            return False
        difference = source.store.difference(descriptor.digest, have)
        if difference is None:
            return False
        with difference:
            blocks = Measured(difference.blocks())
            response = self._connection.request(
                "PUT",
                f"/v2/{self._path}/_layerstore/blobs/{descriptor.digest}",
                repository_scopes(self._path, push=True),
                headers={"Content-Type": DIFFERENCE_TYPE},
                body=blocks,
                accepts=(201, 400, 404, 409, 413),
            )
        response.close()
        if response.status != 201:
            return False
        self._connection.traffic.note_difference(descriptor, blocks.size)
        return True
