"""Differences over HTTP: of a blob only that is sent which the other side lacks (ARCHITECTURE.md).

What a caller may not read is no base of anything: neither is told of it, nor can it be copied from. So a DiffID that is
merely known gives nothing, and claims nothing.
"""

import json
from collections.abc import Generator, Iterator
from pathlib import Path

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from layerstore.digest import Digest
from layerstore.errors import EncoderUnavailableError, InvalidDigestError
from layerstore.os_errors import translate_os_errors
from layerstore.registry.protocol import DIFFERENCE_TYPE, DIGEST_HEADER, HAVE_MAX, ErrorCode
from layerstore.registry.server.access import Action, Identity
from layerstore.registry.server.blobs import BlocksResponse
from layerstore.registry.server.problems import ProblemError, blob_unknown
from layerstore.registry.server.registry import Registry, registry_of
from layerstore.registry.server.requests import digest_of, repository_of
from layerstore.registry.server.streaming import body_of, in_thread, sent
from layerstore.registry.server.upload_routes import whole_body

_BODY_SIZE_MAX = 64 << 10
_BLOCK_SIZE = 1 << 20
_FREE_SIZE = 64 << 20
_LITERALS_RATIO_MAX = 200
_COPIES_MAX = 4
"""How often a difference may take all of its bases."""
_PROVED_SIZE_MAX = 64 << 20
"""Blobs up to this size are proved while somebody waits; a larger one is sent as it is until then."""


async def list_known_layers(request: Request) -> Response:
    """POST: which of some layers the server has and the caller may read."""
    registry, repository = registry_of(request), repository_of(request)
    identity = await in_thread(registry.access.authorize, request, repository, Action.READ, Action.WRITE)
    layers = _layers_in(await body_of(request, _BODY_SIZE_MAX), "layers")
    return JSONResponse({"layers": await in_thread(_readable, registry, identity, repository, layers)})


async def get_difference(request: Request) -> Response:
    """POST: a blob as its difference to layers that the caller has. 204: it is to be had as a blob only."""
    registry, repository = registry_of(request), repository_of(request)
    identity = await in_thread(registry.access.authorize, request, repository, Action.READ)
    digest = digest_of(request.path_params["digest"])
    layers = _layers_in(await body_of(request, _BODY_SIZE_MAX), "have")
    blocks = await to_thread.run_sync(
        _difference, registry, identity, repository, digest, layers, limiter=registry.readers
    )
    if blocks is None:
        return Response(status_code=204)
    content = sent(blocks, None, registry.readers)
    return BlocksResponse(content, headers={DIGEST_HEADER: digest}, media_type=DIFFERENCE_TYPE)


async def put_difference(request: Request) -> Response:
    """PUT: a blob as its difference to layers of the server that the caller may read."""
    registry, repository = registry_of(request), repository_of(request)
    identity = await in_thread(registry.access.authorize, request, repository, Action.READ, Action.WRITE)
    digest = digest_of(request.path_params["digest"])
    registry.proxies.check_writable(repository)
    async with whole_body(registry, request, repository, "sha256", goes_ahead=False) as upload:
        await to_thread.run_sync(_take, registry, identity, repository, digest, upload.path, limiter=registry.writers)
    return Response(status_code=201, headers={"Location": f"/v2/{repository}/blobs/{digest}", DIGEST_HEADER: digest})


def _layers_in(body: bytes, name: str) -> list[Digest]:
    try:
        document = json.loads(body)
        texts = document[name] if isinstance(document, dict) else None
        if not isinstance(texts, list) or len(texts) > HAVE_MAX:
            raise ValueError
        return [Digest(text) for text in texts]
    except (ValueError, RecursionError, KeyError, InvalidDigestError):
        message = f"the body must be a JSON object whose {name!r} lists at most {HAVE_MAX} DiffIDs"
        raise ProblemError(400, ErrorCode.UNSUPPORTED, message) from None


def _readable(registry: Registry, identity: Identity, repository: str, layers: list[Digest]) -> list[Digest]:
    return registry.repositories.readable_layers(
        repository, layers, lambda name: registry.access.allows(identity, name, Action.READ)
    )


def _difference(
    registry: Registry, identity: Identity, repository: str, digest: Digest, layers: list[Digest]
) -> Iterator[bytes] | None:
    if not registry.repositories.has_blob(repository, digest):
        if registry.proxies.of(repository) is not None:
            return None  # the caller asks for the blob then, and that fetches it
        raise blob_unknown(digest)
    have = _readable(registry, identity, repository, layers)
    if not have:
        return None
    _prove(registry, digest)
    difference = registry.store.difference(digest, have)
    if difference is None:
        return None

    def blocks() -> Generator[bytes, None, None]:
        with difference:
            yield from difference.blocks()

    return blocks()


def _prove(registry: Registry, digest: Digest) -> None:
    encoding = registry.store.encodings.get(digest)
    if encoding is not None and encoding.kept_as == "queued" and encoding.size <= _PROVED_SIZE_MAX:
        try:
            registry.store.prove_encodings([digest])
        except EncoderUnavailableError:
            return


def _take(registry: Registry, identity: Identity, repository: str, digest: Digest, path: Path) -> None:
    store = registry.store
    with registry.uploads.turns.turn():  # its head may take as much memory as all the rest
        difference = store.open_difference(_file_blocks(path))
    known = set(_readable(registry, identity, repository, list(difference.bases)))
    unknown = [one for one in difference.bases if one not in known]
    if unknown:
        raise ProblemError(400, ErrorCode.BLOB_UPLOAD_INVALID, f"there is no layer {unknown[0]} here to copy from")
    layers = [store.layers.get(one) for one in difference.bases]
    copied = sum(one.size for one in layers if one is not None)
    if difference.size > _FREE_SIZE + _LITERALS_RATIO_MAX * path.stat().st_size + _COPIES_MAX * copied:
        raise ProblemError(413, ErrorCode.SIZE_INVALID, f"a layer of {difference.size} bytes is not made of so little")
    with registry.uploads.turns.turn():
        _, expires = registry.repositories.under_lease(
            lambda lease: store.push_difference(difference, digest=digest, lease=lease)
        )
    registry.repositories.add_blob(repository, digest, expires)


def _file_blocks(path: Path) -> Iterator[bytes]:
    with translate_os_errors(f"cannot read {path}"), path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_SIZE):
            yield block
