"""Uploads over HTTP: begin, add, ask, finish, cancel, mount (spec.md, "Pushing blobs")."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from layerstore.digest import Digest
from layerstore.registry.protocol import DIGEST_HEADER, UPLOAD_HEADER, ErrorCode, is_repository_name
from layerstore.registry.server.access import Action, Identity
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.registry import Registry, registry_of
from layerstore.registry.server.requests import algorithm_of, content_range_of, digest_of, repository_of
from layerstore.registry.server.streaming import in_thread, received
from layerstore.registry.server.uploads import OpenUpload


async def begin_upload(request: Request) -> Response:
    """POST: begin an upload, push a whole blob, or mount one of another repository."""
    registry, repository = registry_of(request), repository_of(request)
    identity = await in_thread(registry.access.authorize, request, repository, Action.WRITE)
    registry.proxies.check_writable(repository)
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        # A page of another site, in the browser of somebody who is signed in: a form can send nothing but this.
        raise ProblemError(403, ErrorCode.DENIED, "a page of another site may not push")
    mounted = request.query_params.get("mount")
    if mounted is not None:
        digest = digest_of(mounted)
        if await in_thread(_mount, registry, identity, repository, digest, request.query_params.get("from")):
            return _created(repository, digest)
    promised = request.query_params.get("digest")
    digest_promised = None if promised is None or mounted is not None else digest_of(promised)
    algorithm = algorithm_of(request) if digest_promised is None else digest_promised.algorithm
    if digest_promised is None:
        identifier = await in_thread(registry.uploads.begin, repository, algorithm)
        return _status(repository, identifier, 0, 202)
    async with whole_body(registry, request, repository, algorithm) as upload:
        await _finish(registry, repository, upload, digest_promised)
    return _created(repository, digest_promised)


async def add_to_upload(request: Request) -> Response:
    """PATCH: add bytes."""
    registry, repository, identifier = await _authorized(request)
    async with _opened(registry, repository, identifier) as upload:
        await _receive(registry, request, upload)
        size = upload.size
    return _status(repository, identifier, size, 202)


async def finish_upload(request: Request) -> Response:
    """PUT: add what remains, and make a blob of it."""
    registry, repository, identifier = await _authorized(request)
    promised = request.query_params.get("digest")
    if promised is None:
        raise ProblemError(400, ErrorCode.DIGEST_INVALID, "the query parameter digest is missing")
    digest = digest_of(promised)
    async with _opened(registry, repository, identifier, digest.algorithm) as upload:
        await _receive(registry, request, upload)
        await _finish(registry, repository, upload, digest)
    return _created(repository, digest)


async def show_upload(request: Request) -> Response:
    """GET: how many bytes have come."""
    registry, repository, identifier = await _authorized(request)
    size = await in_thread(registry.uploads.size, repository, identifier)
    return _status(repository, identifier, size, 204)


async def cancel_upload(request: Request) -> Response:
    """DELETE: give it up."""
    registry, repository, identifier = await _authorized(request)
    await in_thread(registry.uploads.cancel, repository, identifier)
    return Response(status_code=204)


async def _authorized(request: Request) -> tuple[Registry, str, str]:
    registry, repository = registry_of(request), repository_of(request)
    await in_thread(registry.access.authorize, request, repository, Action.WRITE)
    return registry, repository, str(request.path_params["upload"])


async def _finish(registry: Registry, repository: str, upload: OpenUpload, digest: Digest) -> None:
    await to_thread.run_sync(registry.uploads.finish, repository, upload, digest, limiter=registry.writers)


@asynccontextmanager
async def whole_body(
    registry: Registry, request: Request, repository: str, algorithm: str, *, goes_ahead: bool = True
) -> AsyncIterator[OpenUpload]:
    """The body of a request as an upload of its own, which is gone when the block is left."""
    identifier = await in_thread(registry.uploads.begin, repository, algorithm)
    try:
        async with _opened(registry, repository, identifier, algorithm, goes_ahead=goes_ahead) as upload:
            await _receive(registry, request, upload)
            yield upload
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(registry.uploads.forget, identifier)


@asynccontextmanager
async def _opened(
    registry: Registry, repository: str, identifier: str, algorithm: str | None = None, *, goes_ahead: bool = True
) -> AsyncIterator[OpenUpload]:
    stack = ExitStack()
    try:
        opened = registry.uploads.opened(repository, identifier, algorithm, goes_ahead=goes_ahead)
        yield await in_thread(stack.enter_context, opened)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(stack.close)


async def _receive(registry: Registry, request: Request, upload: OpenUpload) -> None:
    """Add the body. What has come of one that breaks off stays, so that the client can go on from there."""
    span = content_range_of(request)
    if span is not None and span.start != upload.size:
        raise ProblemError(
            416,
            ErrorCode.BLOB_UPLOAD_INVALID,
            f"the upload has {upload.size} bytes; the next chunk begins there",
            headers=_headers(repository_of(request), upload.path.name, upload.size),
        )
    begun = upload.size
    async for block in received(request, min(registry.uploads.size_max - begun, span.length if span else 1 << 63)):
        await in_thread(upload.write, block)
    if span is not None and upload.size - begun != span.length:
        raise ProblemError(
            400, ErrorCode.SIZE_INVALID, f"{upload.size - begun} bytes came; Content-Range says {span.length}"
        )


def _mount(registry: Registry, identity: Identity, repository: str, digest: Digest, source: str | None) -> bool:
    """Let a repository have a blob of another one that the caller may read; whether there is such a one."""
    repositories = registry.repositories
    sources = repositories.names_with_blob(digest) if source is None else [source]
    for name in sources:
        if not is_repository_name(name) or not registry.access.allows(identity, name, Action.READ):
            continue
        if repositories.has_blob(name, digest):
            return repositories.keep_blob(repository, digest)
    return False


def _headers(repository: str, identifier: str, size: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{identifier}",
        "Range": f"0-{max(0, size - 1)}",
        UPLOAD_HEADER: identifier,
    }


def _status(repository: str, identifier: str, size: int, status: int) -> Response:
    return Response(status_code=status, headers=_headers(repository, identifier, size))


def _created(repository: str, digest: Digest) -> Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return Response(status_code=201, headers={"Location": location, DIGEST_HEADER: digest})
