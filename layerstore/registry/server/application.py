"""The application: routes, what happens to errors, and what begins and ends with a worker process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerstore.errors import LayerstoreError
from layerstore.registry.protocol import EXCHANGE_HEADER, EXCHANGE_VERSION, NAME_PATTERN, ErrorCode
from layerstore.registry.server import (
    blobs,
    exchange,
    health,
    listings,
    manifests,
    metrics,
    tokens,
    upload_bounds,
    upload_routes,
)
from layerstore.registry.server.housekeeping import Housekeeping
from layerstore.registry.server.middleware import middleware
from layerstore.registry.server.pages import routes as pages
from layerstore.registry.server.pages.endpoints import problem_page
from layerstore.registry.server.problems import ProblemError, answer_problem, answer_store_error
from layerstore.registry.server.registry import Registry
from layerstore.registry.server.settings import ServerSettings
from layerstore.registry.server.streaming import in_thread


class _NameConvertor(Convertor[str]):
    """The name of a repository in a path; so nothing else ever matches a route for one."""

    regex = NAME_PATTERN

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("repository", _NameConvertor())

_REPOSITORY = "/v2/{name:repository}"


def _route(path: str, endpoint: Callable[..., object], *methods: str) -> Route:
    return Route(f"{_REPOSITORY}{path}", endpoint, methods=list(methods))


def _routes() -> list[Route]:
    return [
        *tokens.routes,
        *health.routes,
        *metrics.routes,
        *pages.routes,
        Route("/v2/_catalog", listings.list_repositories, methods=["GET"]),
        _route("/tags/list", listings.list_tags, "GET"),
        _route("/referrers/{digest}", listings.list_referrers, "GET"),
        _route("/blobs/uploads/", upload_bounds.begin_upload, "POST"),
        _route("/blobs/uploads", upload_bounds.begin_upload, "POST"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.add_to_upload, "PATCH"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.finish_upload, "PUT"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.show_upload, "GET"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.cancel_upload, "DELETE"),
        _route("/_layerstore/layers", exchange.list_known_layers, "POST"),
        _route("/_layerstore/blobs/{digest}", exchange.get_difference, "POST"),
        _route("/_layerstore/blobs/{digest}", exchange.put_difference, "PUT"),
        _route("/blobs/{digest}", blobs.get_blob, "GET"),
        _route("/blobs/{digest}", blobs.delete_blob, "DELETE"),
        _route("/manifests/{reference}", manifests.get_manifest, "GET"),
        _route("/manifests/{reference}", manifests.put_manifest, "PUT"),
        _route("/manifests/{reference}", manifests.delete_manifest, "DELETE"),
        Route("/v2/{rest:path}", _unknown_path, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
    ]


class _Announcing:
    """Says in every answer that differences can be had, so that clients find out without a question of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def announce(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["path"].startswith("/v2/"):
                MutableHeaders(scope=message)[EXCHANGE_HEADER] = EXCHANGE_VERSION
            await send(message)

        await self._app(scope, receive, announce)


def _answer_http_error(request: Request, error: Exception) -> Response:
    """What the routes refuse: as JSON where clients ask, as a page elsewhere."""
    assert isinstance(error, HTTPException)
    unknown, message = error.status_code == 404, f"{request.method} of this address: {error.detail}"
    code = ErrorCode.NAME_INVALID if unknown else ErrorCode.UNSUPPORTED
    problem = ProblemError(error.status_code, code, message, headers=error.headers)
    return problem.response() if request.url.path.startswith("/v2") else problem_page(request, problem)


def _answer_nobody(request: Request, error: Exception) -> Response:
    """A client that went away is no fault."""
    return Response(status_code=499)


def _unknown_path(request: Request) -> Response:
    raise ProblemError(404, ErrorCode.NAME_INVALID, "no repository, and nothing of one, has this path")


def create_application(settings: ServerSettings) -> Starlette:
    """The application of one worker process. It opens the store when it starts, and closes it at the end."""

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        registry = Registry(settings)
        application.state.registry = registry
        housekeeping = Housekeeping(registry)
        housekeeping.start()
        try:
            yield
        finally:
            await in_thread(housekeeping.stop)
            registry.close()

    return Starlette(
        routes=_routes(),
        middleware=[*middleware(settings), Middleware(_Announcing)],
        exception_handlers={
            ProblemError: answer_problem,
            LayerstoreError: answer_store_error,
            ClientDisconnect: _answer_nobody,
            HTTPException: _answer_http_error,
        },
        lifespan=lifespan,
    )
