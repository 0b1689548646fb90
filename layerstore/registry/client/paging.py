"""Lists that come in pages (spec.md, "Listing Tags")."""

import json
import re

from layerstore.errors import ImageNotFoundError, RegistryError
from layerstore.registry.client.connection import Connection
from layerstore.registry.client.scopes import repository_scopes
from layerstore.registry.client.transport import Response
from layerstore.registry.protocol import is_tag_name

_PAGES_MAX = 1000
_TAGS_MAX = 1_000_000
_PAGE_LENGTH = 1000
_PAGE_SIZE_MAX = 4 << 20
_LINK = re.compile(r'<([^<>]*)>\s*;[^,]*\brel\s*=\s*"?next\b')


class Pages:
    """Follows the ``Link`` headers of one list."""

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


def tags_of(connection: Connection, path: str) -> list[str]:
    """The tags of a repository. Raises `ImageNotFoundError` if the registry does not know it."""
    pages = Pages(connection)
    found: dict[str, None] = {}
    target: str | None = f"/v2/{path}/tags/list?n={_PAGE_LENGTH}"
    while target is not None:
        response, data = connection.fetch(target, repository_scopes(path), accepts=(200, 404), size_max=_PAGE_SIZE_MAX)
        if response.status == 404:
            raise ImageNotFoundError(f"{connection.domain} has no repository {path}")
        found.update(dict.fromkeys(_parsed(data, connection.domain)))
        if len(found) > _TAGS_MAX:
            raise RegistryError(f"{connection.domain} lists more than {_TAGS_MAX} tags of {path}")
        target = pages.next(response)
    return list(found)


def _parsed(data: bytes, domain: str) -> list[str]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    tags = (document.get("tags") or []) if isinstance(document, dict) else None
    if not isinstance(tags, list):
        raise RegistryError(f"{domain} answers with no list of tags")
    # What is no tag could not be asked for.
    return [tag for tag in tags if isinstance(tag, str) and is_tag_name(tag)]
