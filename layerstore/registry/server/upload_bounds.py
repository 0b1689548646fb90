"""How many uploads one client may have begun and not ended: each may take the space of a blob for a day."""

import time

from starlette.requests import Request
from starlette.responses import Response

from layerstore.registry.protocol import UPLOAD_HEADER, ErrorCode
from layerstore.registry.server import upload_routes
from layerstore.registry.server.buckets import client_of
from layerstore.registry.server.configuration import is_loopback
from layerstore.registry.server.observation import observation_of
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.registry import Registry, registry_of
from layerstore.registry.server.streaming import in_thread
from layerstore.registry.server.uploads import UPLOAD_TTL_SECONDS

_RETRY_SECONDS = 60


async def begin_upload(request: Request) -> Response:
    """POST: `upload_routes.begin_upload`, unless the client has too many others."""
    response = await upload_routes.begin_upload(request)
    registry = registry_of(request)
    identifier, owner = response.headers.get(UPLOAD_HEADER), _owner(request)
    if registry.settings.client_uploads_max and identifier is not None and owner is not None:
        await in_thread(_count, registry, identifier, owner)
    return response


def _owner(request: Request) -> str | None:
    """Who is counted: an account, else a client; nobody on this machine, where a proxy may stand for many."""
    account = observation_of(request.scope).account
    if account is not None:
        return f"account {account}"
    address = request.client.host if request.client else ""
    return None if is_loopback(address) else f"client {client_of(address)}"


def _count(registry: Registry, identifier: str, owner: str) -> None:
    # Counted when it is there, so that of many at once none is missed.
    count = registry.links.own_upload(identifier, owner, time.time() - UPLOAD_TTL_SECONDS)
    if count <= registry.settings.client_uploads_max:
        return
    registry.uploads.forget(identifier)
    raise ProblemError(
        429,
        ErrorCode.TOOMANYREQUESTS,
        f"there are {registry.settings.client_uploads_max} uploads that were begun and not ended; end some of them",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )
