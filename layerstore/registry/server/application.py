"""The application: routes, what happens to errors, and what begins and ends with a worker process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from layerstore.errors import LayerstoreError
from layerstore.registry.protocol import NAME_PATTERN, VERSION, VERSION_HEADER, ErrorCode
from layerstore.registry.server import blobs, listings, manifests, upload_routes
from layerstore.registry.server.housekeeping import Housekeeping
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
        Route("/v2/", _ping, methods=["GET"]),
        Route("/v2/_catalog", listings.list_repositories, methods=["GET"]),
        _route("/tags/list", listings.list_tags, "GET"),
        _route("/referrers/{digest}", listings.list_referrers, "GET"),
        _route("/blobs/uploads/", upload_routes.begin_upload, "POST"),
        _route("/blobs/uploads", upload_routes.begin_upload, "POST"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.add_to_upload, "PATCH"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.finish_upload, "PUT"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.show_upload, "GET"),
        _route("/blobs/uploads/{upload:uuid}", upload_routes.cancel_upload, "DELETE"),
        _route("/blobs/{digest}", blobs.get_blob, "GET"),
        _route("/blobs/{digest}", blobs.delete_blob, "DELETE"),
        _route("/manifests/{reference}", manifests.get_manifest, "GET"),
        _route("/manifests/{reference}", manifests.put_manifest, "PUT"),
        _route("/manifests/{reference}", manifests.delete_manifest, "DELETE"),
        Route("/v2/{rest:path}", _unknown_path, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
    ]


def _ping(request: Request) -> Response:
    return Response(b"{}", media_type="application/json", headers={VERSION_HEADER: VERSION})


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
        exception_handlers={ProblemError: answer_problem, LayerstoreError: answer_store_error},
        lifespan=lifespan,
    )
