"""The page of a repository: its tags, and the images that have none."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError
from layerstore.registry.protocol import is_tag_name
from layerstore.registry.server.pages.addresses import asked, asked_page
from layerstore.registry.server.pages.commands import host_of, pull_commands
from layerstore.registry.server.pages.figures import Figures, figures_of
from layerstore.registry.server.pages.paging import page_of
from layerstore.registry.server.pages.readers import reader_in, repository_unknown
from layerstore.registry.server.pages.rendering import page
from layerstore.registry.server.pages.summaries import Summary, created
from layerstore.registry.server.registry import registry_of
from layerstore.store import Store

_ROWS = 100
_NEWEST_FIRST_MAX = 20_000
"""Tags of which it is looked up when they came. More of them are listed by name."""
_SEARCH_LENGTH_MAX = 128
_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class _Row:
    tag: str
    """Empty for an image without one."""
    digest: Digest
    created: datetime | None
    summary: Summary


def repository(request: Request) -> Response:
    """The tags and images of a repository."""
    name = request.path_params["repository"]
    reader, registry, figures = reader_in(request, name), registry_of(request), figures_of(request)
    roots = registry.repositories.roots(name)
    if not roots:
        raise repository_unknown(name)
    tags = {tag: digest for tag, digest in registry.repositories.tags(name).items() if is_tag_name(tag)}
    tagged = set(tags.values())
    wanted = asked(request, "q")[:_SEARCH_LENGTH_MAX]
    entries = [item for item in tags.items() if wanted.strip().lower() in item[0].lower()]
    if not wanted:
        entries += [("", digest) for digest in roots if digest not in tagged]
    listed = page_of(_newest_first(registry.store, entries), asked_page(request), _ROWS)
    values = {
        "reader": reader,
        "name": name,
        "wanted": wanted,
        "tag_count": len(tags),
        "image_count": len(roots),
        "untagged_count": sum(digest not in tagged for digest in roots),
        "figures": figures.repository(name, roots),
        "listed": listed,
        "rows": _rows(registry.store, figures, listed.items),
        "commands": pull_commands(request, f"{name}:{_TAG_SHOWN}", is_artifact=False),
        "host": host_of(request),
    }
    return page(request, "repository.html", values)


_TAG_SHOWN = "TAG"


def _newest_first(store: Store, entries: list[tuple[str, Digest]]) -> list[tuple[str, Digest]]:
    """Tags and their images, those without a tag at the end."""
    if len(entries) > _NEWEST_FIRST_MAX:
        return entries
    moments = {digest: created(store, digest) or _NEVER for digest in {digest for _, digest in entries}}
    return sorted(entries, key=lambda entry: (entry[0] != "", moments[entry[1]]), reverse=True)


def _rows(store: Store, figures: Figures, entries: Sequence[tuple[str, Digest]]) -> list[_Row]:
    rows = []
    for tag, digest in entries:
        try:
            image = store.images[digest]
            rows.append(_Row(tag, digest, image.created, figures.summary(image)))
        except ImageNotFoundError:
            continue  # deleted meanwhile
    return rows
