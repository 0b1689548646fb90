"""The page at ``/``: all repositories, and what the store is altogether."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from layerstore.digest import Digest
from layerstore.registry.protocol import ErrorCode, is_repository_name
from layerstore.registry.server.pages.addresses import asked, asked_page
from layerstore.registry.server.pages.chart import chart_of
from layerstore.registry.server.pages.commands import host_of
from layerstore.registry.server.pages.figures import Figures, RepositoryFigures, figures_of
from layerstore.registry.server.pages.paging import page_of
from layerstore.registry.server.pages.readers import reader_of
from layerstore.registry.server.pages.rendering import page
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.registry import registry_of
from layerstore.registry.server.repositories import Repositories

_ROWS = 50
_SEARCH_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    tag_count: int
    image_count: int
    figures: RepositoryFigures | None


def overview(request: Request) -> Response:
    """All repositories that somebody may see."""
    reader, registry, figures = reader_of(request), registry_of(request), figures_of(request)
    # The store may have names that no registry can have, such as one with the port of another.
    names = [name for name in registry.repositories.names() if is_repository_name(name)]
    readable = [name for name in names if reader.may_read(name)]
    # Totals tell of every push, also of those to repositories that are not theirs to see.
    sees_all = len(readable) == len(names)
    wanted = asked(request, "q")[:_SEARCH_LENGTH_MAX]
    found = [name for name in readable if wanted.strip().lower() in name]
    listed = page_of(found, asked_page(request), _ROWS)
    values = {
        "reader": reader,
        "wanted": wanted,
        "repository_count": len(readable),
        "listed": listed,
        "rows": [_row(registry.repositories, figures, name) for name in listed.items],
        "sees_all": sees_all,
        "stats": figures.stats() if sees_all else None,
        "chart": chart_of(registry.links.history()) if sees_all else None,
        "may_sign_in": reader.identity.name is None and not sees_all and registry.access.has_accounts,
        "host": host_of(request),
    }
    return page(request, "overview.html", values)


def sign_in(request: Request) -> Response:
    """Makes a browser ask for a name and a password, and leads back to the overview."""
    if reader_of(request).identity.name is None:
        raise ProblemError(401, ErrorCode.UNAUTHORIZED, "a name and a password are needed")
    return RedirectResponse("/", 303)


def _row(repositories: Repositories, figures: Figures, name: str) -> _Row:
    roots: list[Digest] = repositories.roots(name)
    return _Row(name, len(repositories.tags(name)), len(roots), figures.repository(name, roots))
