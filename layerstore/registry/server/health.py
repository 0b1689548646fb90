"""``/healthz``: the process answers. ``/readyz``: it can do its work, and is not about to end."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from layerstore.errors import LayerstoreError
from layerstore.registry.server.registry import registry_of


def stop(application: Starlette) -> None:
    """Say from now on that the process is not ready."""
    application.state.is_stopping = True


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _readyz(request: Request) -> Response:
    if getattr(request.app.state, "is_stopping", False):
        return PlainTextResponse("the server is about to end\n", 503)
    registry = registry_of(request)
    try:
        next(iter(registry.store.tags), None)
        registry.links.upload("")
    except LayerstoreError:
        # Why it is so is nobody's business who may ask without an account; requests that fail are in the log.
        return PlainTextResponse("the store cannot be read\n", 503)
    return PlainTextResponse("ok\n")


routes = [Route("/healthz", _healthz, methods=["GET"]), Route("/readyz", _readyz, methods=["GET"])]
