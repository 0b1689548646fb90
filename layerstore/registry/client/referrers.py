"""What refers to a manifest (spec.md, "Listing Referrers"), also where a registry keeps it under a tag."""

from contextlib import suppress

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError, RegistryError
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor, Index, parse_index, serialize
from layerstore.oci.media_types import OCI_INDEX
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.paging import Pages
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.client.transport import Response

_REFERRERS_MAX = 10_000
_ALGORITHM_LENGTH_MAX = 32
_ENCODED_LENGTH_MAX = 64
_ACCEPT = {"Accept": OCI_INDEX}


class Referrers:
    """The referrers in one repository. Its methods may be called from several threads at once."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def of(self, digest: Digest) -> list[Descriptor]:
        """The manifests whose subject it is."""
        scopes = repository_scopes(self._path)
        pages = Pages(self._connection)
        found: list[Descriptor] = []
        target: str | None = f"/v2/{self._path}/referrers/{digest}"
        is_first = True
        while target is not None:
            response, data = self._connection.fetch(
                target, scopes, headers=_ACCEPT, accepts=(200, 400, 404, 405), size_max=DOCUMENT_SIZE_MAX
            )
            # Registries from before the API have nothing there, and proxies that do not know it something else.
            if response.status != 200 or (is_first and not _is_index(response)):
                with suppress(InvalidManifestError):  # somebody's tag, that only happens to be called so
                    return self._tagged(digest, scopes)
                return []
            found += parse_index(data).manifests
            if len(found) > _REFERRERS_MAX:
                raise RegistryError(f"{self._connection.domain} has more than {_REFERRERS_MAX} referrers of {digest}")
            target = pages.next(response)
            is_first = False
        return found

    def add(self, subject: Digest, referrer: Descriptor) -> None:
        """Note a referrer under the tag of its subject, for a registry that does not do it itself.

        Two who do this at the same time may lose one of the notes: the protocol has nothing against it. Raises
        `InvalidManifestError` if the tag is used for something else.
        """
        scopes = repository_scopes(self._path, push=True)
        known = self._tagged(subject, scopes)
        if any(one.digest == referrer.digest for one in known):
            return
        self._connection.request(
            "PUT",
            f"/v2/{self._path}/manifests/{referrers_tag(subject)}",
            scopes,
            headers={"Content-Type": OCI_INDEX},
            body=serialize(Index(schema_version=2, media_type=OCI_INDEX, manifests=(*known, referrer))),
            accepts=(201,),
        ).close()

    def _tagged(self, digest: Digest, scopes: tuple[str, ...]) -> list[Descriptor]:
        tag = referrers_tag(digest)
        response, data = self._connection.fetch(
            f"/v2/{self._path}/manifests/{tag}",
            scopes,
            headers=_ACCEPT,
            accepts=(200, 404),
            size_max=DOCUMENT_SIZE_MAX,
        )
        return [] if response.status == 404 else list(parse_index(data).manifests)


def referrers_tag(digest: Digest) -> str:
    """The tag under which the referrers of a manifest are listed (spec.md, "Referrers Tag Schema")."""
    return f"{digest.algorithm[:_ALGORITHM_LENGTH_MAX]}-{digest.encoded[:_ENCODED_LENGTH_MAX]}"


def _is_index(response: Response) -> bool:
    return (response.header("Content-Type") or "").partition(";")[0].strip() == OCI_INDEX
