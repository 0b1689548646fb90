"""What refers to a manifest (spec.md, "Listing Referrers"), also where a registry keeps it under a tag."""

import re
from urllib.parse import urlencode

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError, RegistryError
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor, Index, parse_index, serialize
from layerstore.oci.media_types import OCI_INDEX
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.transport import Response

_PAGES_MAX = 1000
_ENTRIES_MAX = 100_000
_LINK = re.compile(r'<([^<>]*)>\s*;[^,]*\brel\s*=\s*"?next\b')
_ALGORITHM_LENGTH_MAX = 32
_ENCODED_LENGTH_MAX = 64


class Pages:
    """Follows the ``Link`` headers of an answer that comes in pages."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen: set[str] = set()

    def next(self, response: Response) -> str | None:
        """Where the next page is, None if there is none. Raises `RegistryError` for pages without an end."""
        match = next((found for header in response.headers("Link") if (found := _LINK.search(header))), None)
        if match is None:
            return None
        url = self._connection.locate(response, match[1])
        if url in self._seen or len(self._seen) >= _PAGES_MAX:
            raise RegistryError(f"{self._connection.domain} lists without an end: it leads to {url[:200]!r}")
        self._seen.add(url)
        return url


class Referrers:
    """The referrers in one repository. Its methods may be called from several threads at once."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def of(self, digest: Digest) -> list[Descriptor]:
        """The manifests whose subject it is."""
        scopes = (f"repository:{self._path}:pull",)
        pages = Pages(self._connection)
        found: list[Descriptor] = []
        target: str | None = f"/v2/{self._path}/referrers/{digest}"
        while target is not None:
            with self._connection.request(
                "GET", target, scopes, headers={"Accept": OCI_INDEX}, accepts=(200, 400, 404, 405)
            ) as response:
                # Registries from before the API, and proxies that do not know it, have nothing there.
                if response.status != 200 or not found and not _is_index(response):
                    return self._tagged(digest, scopes)
                found += parse_index(response.read(DOCUMENT_SIZE_MAX)).manifests
                target = pages.next(response)
            if len(found) > _ENTRIES_MAX:
                raise RegistryError(f"{self._connection.domain} lists more than {_ENTRIES_MAX} referrers of {digest}")
        return found

    def add(self, subject: Digest, referrer: Descriptor) -> None:
        """Note a referrer under the tag of its subject, for a registry that does not do it itself.

        Two who do this at the same time may lose one of the notes: the protocol has nothing against it.
        """
        scopes = (f"repository:{self._path}:pull,push",)
        known = self._tagged(subject, scopes)
        if any(one.digest == referrer.digest for one in known):
            return
        data = serialize(Index(schema_version=2, manifests=(*known, referrer)))
        with self._connection.request(
            "PUT",
            f"/v2/{self._path}/manifests/{referrers_tag(subject)}",
            scopes,
            headers={"Content-Type": OCI_INDEX},
            body=data,
            accepts=(201,),
        ):
            pass

    def _tagged(self, digest: Digest, scopes: tuple[str, ...]) -> list[Descriptor]:
        with self._connection.request(
            "GET",
            f"/v2/{self._path}/manifests/{referrers_tag(digest)}",
            scopes,
            headers={"Accept": OCI_INDEX},
            accepts=(200, 404),
        ) as response:
            if response.status == 404:
                return []
            data = response.read(DOCUMENT_SIZE_MAX)
        try:
            return list(parse_index(data).manifests)
        except InvalidManifestError:
            return []  # somebody's tag that only happens to be called so


def referrers_tag(digest: Digest) -> str:
    """The tag under which the referrers of a manifest are listed (spec.md, "Referrers Tag Schema")."""
    return f"{digest.algorithm[:_ALGORITHM_LENGTH_MAX]}-{digest.encoded[:_ENCODED_LENGTH_MAX]}"


def tags_query(count: int) -> str:
    """The query for a page of so many tags."""
    return urlencode({"n": count})


def _is_index(response: Response) -> bool:
    return (response.header("Content-Type") or "").partition(";")[0].strip() == OCI_INDEX
