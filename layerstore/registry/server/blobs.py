"""Blobs: reading and deleting them (spec.md, "Pulling blobs", "Deleting Blobs")."""

import os
from collections.abc import Iterator
from contextlib import aclosing
from itertools import chain
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from layerstore.digest import Digest
from layerstore.errors import RegistryError
from layerstore.registry.protocol import DIGEST_HEADER, ErrorCode
from layerstore.registry.server.access import Action
from layerstore.registry.server.problems import ProblemError, blob_unknown
from layerstore.registry.server.proxy import ProxiedRepository
from layerstore.registry.server.proxy_fetches import Follower
from layerstore.registry.server.registry import Registry, answer_in_thread, registry_of
from layerstore.registry.server.requests import ByteSpan, digest_of, is_unchanged, range_of, repository_of
from layerstore.registry.server.streaming import sent

_BINARY = "application/octet-stream"
_MAKERS = max(1, min(4, os.cpu_count() or 1))
"""Threads that make parts of a blob again at once."""


class BlocksResponse(StreamingResponse):
    """Streams blocks, and lets go of what gives them at the end, whoever ends it."""

    async def stream_response(self, send: Send) -> None:
        """See `StreamingResponse`."""
        iterator: Any = self.body_iterator
        async with aclosing(iterator):
            await super().stream_response(send)


async def get_blob(request: Request) -> Response:
    """GET and HEAD of a blob, whole or a range of it."""
    return await answer_in_thread(request, _get_blob)


def _get_blob(request: Request) -> Response:
    registry, repository = registry_of(request), repository_of(request)
    digest = digest_of(request.path_params["digest"])
    identity = registry.access.authorize(request, repository, Action.READ)
    size, proxied = _found(registry, repository, digest)
    if proxied is None and request.method == "HEAD" and registry.access.allows(identity, repository, Action.WRITE):
        # Who asks so before a push relies on the answer.
        registry.repositories.keep_blob(repository, digest)
    entity_tag = f'"{digest}"'
    headers = {
        DIGEST_HEADER: digest,
        "ETag": entity_tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    if is_unchanged(request, entity_tag):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(size)}, media_type=_BINARY)
    part = range_of(request, size, entity_tag)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{size}"
    span = part or ByteSpan(0, size)
    headers["Content-Length"] = str(span.length)
    follower = None if proxied is None else proxied.blob(digest, size)
    if follower is None:
        # A whole blob is read to the end of its iterator, behind its last byte: then it is compared and cached.
        length = None if part is None else span.length
        blocks = sent(_begun(registry, digest, span), length, registry.readers)
    else:
        blocks = sent(_followed(follower, span), span.length, registry.followers)
    return BlocksResponse(blocks, 200 if part is None else 206, headers, _BINARY)


def delete_blob(request: Request) -> Response:
    """DELETE of a blob that no manifest of the repository names."""
    registry, repository = registry_of(request), repository_of(request)
    digest = digest_of(request.path_params["digest"])
    registry.access.authorize(request, repository, Action.DELETE)
    check_delete_enabled(registry)
    if not registry.repositories.has_blob(repository, digest):
        raise blob_unknown(digest)
    users = registry.repositories.users_of(repository, digest)
    if users:
        raise ProblemError(405, ErrorCode.UNSUPPORTED, f"manifest {users[0]} needs this blob; delete that first")
    registry.repositories.forget_blob(repository, digest)
    return Response(status_code=202)


def check_delete_enabled(registry: Registry) -> None:
    """Refuse a delete where the operator does not want them."""
    if not registry.settings.is_delete_enabled:
        raise ProblemError(405, ErrorCode.UNSUPPORTED, "nothing can be deleted from this registry")


def _found(registry: Registry, repository: str, digest: Digest) -> tuple[int, ProxiedRepository | None]:
    """The size of a blob, and the repository that has to get it from upstream if it is not here."""
    repositories = registry.repositories
    proxied = registry.proxies.of(repository)
    if repositories.has_blob(repository, digest):
        if proxied is not None and not repositories.users_of(repository, digest):
            # Parts of an image that is never completed are kept as long as somebody asks for them.
            repositories.keep_blob(repository, digest)
        return registry.store.blob_size(digest), None
    if proxied is None:
        raise blob_unknown(digest)
    return proxied.blob_size(digest), proxied


def _begun(registry: Registry, digest: Digest, span: ByteSpan) -> Iterator[bytes]:
    """The bytes from an offset on. The first block is made at once: what is wrong from the start has a status still."""
    blocks = registry.store.blob_blocks(digest, start=span.start, threads=_MAKERS)
    first = next(blocks, b"") if span.length else b""
    return _closing(blocks, chain([first], blocks))


def _followed(follower: Follower, span: ByteSpan) -> Iterator[bytes]:
    """The bytes of a blob on its way, as `_begun`. An empty one has begun when it is known to be right."""
    blocks = follower.blocks(span.start, span.length)
    try:
        first = next(filter(None, blocks), b"")
    except RegistryError as error:
        raise ProblemError(502, ErrorCode.UNAVAILABLE, str(error)) from error
    return _closing(blocks, chain([first], blocks))


def _closing(blocks: Iterator[bytes], joined: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from joined
    finally:
        getattr(blocks, "close", lambda: None)()
