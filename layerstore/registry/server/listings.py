"""Listings: tags, repositories, referrers (spec.md, "Content Discovery"; the catalog is Docker's)."""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from layerstore.oci.documents import Descriptor, Index, serialize
from layerstore.oci.media_types import OCI_INDEX
from layerstore.registry.protocol import FILTERS_HEADER, ErrorCode
from layerstore.registry.server.access import Action
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.registry import answer_in_thread, registry_of
from layerstore.registry.server.requests import digest_of, number_of, repository_of

_PAGE_MAX = 10_000
_CATALOG_PAGE_MAX = 1000
_REFERRERS_BYTES_MAX = 3 << 20


async def list_tags(request: Request) -> Response:
    """GET of a repository's tags."""
    return await answer_in_thread(request, _list_tags)


def _list_tags(request: Request) -> Response:
    registry, repository = registry_of(request), repository_of(request)
    registry.access.authorize(request, repository, Action.READ)
    proxied = registry.proxies.of(repository)
    tags = list(registry.repositories.tags(repository)) if proxied is None else proxied.tags()
    if proxied is None and not tags and not registry.repositories.is_known(repository):
        raise ProblemError(404, ErrorCode.NAME_UNKNOWN, f"there is no repository {repository}")
    page, headers = _page(request, tags, _PAGE_MAX, f"/v2/{repository}/tags/list")
    return JSONResponse({"name": repository, "tags": page}, headers=headers)


def list_repositories(request: Request) -> Response:
    """GET of the repositories that the caller may read."""
    registry = registry_of(request)
    identity = registry.access.authorize(request, None)
    names = [name for name in registry.repositories.names() if registry.access.allows(identity, name, Action.READ)]
    page, headers = _page(request, names, _CATALOG_PAGE_MAX, "/v2/_catalog")
    return JSONResponse({"repositories": page}, headers=headers)


async def list_referrers(request: Request) -> Response:
    """GET of the manifests that refer to one, as an index."""
    return await answer_in_thread(request, _list_referrers)


def _list_referrers(request: Request) -> Response:
    registry, repository = registry_of(request), repository_of(request)
    subject = digest_of(request.path_params["digest"])
    registry.access.authorize(request, repository, Action.READ)
    source = registry.proxies.of(repository)
    referrers = registry.repositories.referrers(repository, subject) if source is None else source.referrers(subject)
    found = sorted(referrers, key=lambda one: one.digest)
    headers = {}
    artifact_type = request.query_params.get("artifactType")
    if artifact_type is not None:
        found = [one for one in found if one.artifact_type == artifact_type]
        headers[FILTERS_HEADER] = "artifactType"
    last = request.query_params.get("last")
    rest = found if last is None else [one for one in found if one.digest > last]
    page: list[Descriptor] = []
    size = 0
    for descriptor in rest:
        size += len(serialize(descriptor))
        if page and size > _REFERRERS_BYTES_MAX:
            query = {"last": page[-1].digest} | ({} if artifact_type is None else {"artifactType": artifact_type})
            headers["Link"] = _next(f"/v2/{repository}/referrers/{subject}", query)
            break
        page.append(descriptor)
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=tuple(page))
    return Response(serialize(index), headers=headers, media_type=OCI_INDEX)


def _page(request: Request, names: Sequence[str], page_max: int, path: str) -> tuple[list[str], dict[str, str]]:
    """The names that are asked for, and a header that says where there are more."""
    count = number_of(request)
    last = request.query_params.get("last", "")
    rest = [name for name in names if name > last]
    page = rest[: page_max if count is None else min(count, page_max)]
    if not page or len(page) == len(rest):
        return page, {}
    query = {"last": page[-1]} | ({} if count is None else {"n": str(count)})
    return page, {"Link": _next(path, query)}


def _next(path: str, query: dict[str, str]) -> str:
    return f'<{quote(path, safe="/:")}?{urlencode(query)}>; rel="next"'
