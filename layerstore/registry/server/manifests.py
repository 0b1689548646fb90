"""Manifests and indexes: get, put, delete (spec.md, "Pulling manifests", "Pushing Manifests", "Deleting Manifests")."""

from tempfile import SpooledTemporaryFile

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError, LayerNotFoundError
from layerstore.oci.documents import Descriptor, Index, Manifest, parse_image
from layerstore.oci.media_types import INDEXES, MANIFESTS, NONDISTRIBUTABLE_LAYERS
from layerstore.os_errors import translate_os_errors
from layerstore.registry.protocol import DIGEST_HEADER, SUBJECT_HEADER, TAG_HEADER, ErrorCode
from layerstore.registry.server.access import Action
from layerstore.registry.server.blobs import check_delete_enabled
from layerstore.registry.server.problems import ProblemError, manifest_unknown
from layerstore.registry.server.proxy import FoundManifest
from layerstore.registry.server.registry import Registry, answer_in_thread, registry_of
from layerstore.registry.server.repositories import LARGE_DOCUMENT_SIZE
from layerstore.registry.server.requests import check_tag, is_unchanged, reference_of, repository_of
from layerstore.registry.server.streaming import in_thread, received

_TAGS_MAX = 100
_STALE = '110 layerstore "Response is Stale"'
"""RFC 7234, section 5.5.1."""


async def get_manifest(request: Request) -> Response:
    """GET and HEAD of a manifest by tag or digest."""
    return await answer_in_thread(request, _get_manifest)


def _get_manifest(request: Request) -> Response:
    registry, repository, reference = registry_of(request), repository_of(request), reference_of(request)
    registry.access.authorize(request, repository, Action.READ)
    found = _found(registry, repository, reference)
    entity_tag = f'"{found.digest}"'
    headers = {DIGEST_HEADER: found.digest, "ETag": entity_tag, "X-Content-Type-Options": "nosniff"}
    if found.is_stale:
        headers["Warning"] = _STALE
    if is_unchanged(request, entity_tag):
        return Response(status_code=304, headers=headers)
    headers |= {"Content-Type": found.media_type, "Content-Length": str(len(found.data))}
    return Response(b"" if request.method == "HEAD" else found.data, headers=headers)


async def put_manifest(request: Request) -> Response:
    """PUT of a manifest whose blobs, and manifests, are in the repository."""
    registry, repository, reference = registry_of(request), repository_of(request), reference_of(request)
    await in_thread(registry.access.authorize, request, repository, Action.WRITE)
    registry.proxies.check_writable(repository)
    # Many large ones that come slowly would take much memory; they wait for their turn in files.
    with SpooledTemporaryFile(LARGE_DOCUMENT_SIZE, dir=str(registry.folder)) as body:
        async for block in received(request, registry.settings.manifest_size_max):
            await _write(body, block)
        tags = _tags_of(request, reference)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        limiter = registry.parsers if body.tell() > LARGE_DOCUMENT_SIZE else None
        return await to_thread.run_sync(_put, registry, repository, reference, body, media_type, tags, limiter=limiter)


def delete_manifest(request: Request) -> Response:
    """DELETE of a tag, or of a manifest with all its tags."""
    registry, repository, reference = registry_of(request), repository_of(request), reference_of(request)
    registry.access.authorize(request, repository, Action.DELETE)
    check_delete_enabled(registry)
    proxied = registry.proxies.of(repository)
    if proxied is not None:
        if not proxied.delete(reference):
            raise manifest_unknown(reference)
        return Response(status_code=202)
    repositories = registry.repositories
    digest = repositories.resolve(repository, reference)
    if digest is None or repositories.manifest(digest) is None:
        raise manifest_unknown(reference)
    if not isinstance(reference, Digest):
        # Who moves the tag meanwhile does not lose it.
        repositories.links.add_manifest(repository, digest)
        registry.store.tags.discard(f"{repository}:{reference}", digest)
        return Response(status_code=202)
    users = repositories.users_of(repository, digest)
    if users:
        raise ProblemError(405, ErrorCode.UNSUPPORTED, f"index {users[0]} lists this manifest; delete that first")
    repositories.delete_manifest(repository, digest)
    return Response(status_code=202)


def _found(registry: Registry, repository: str, reference: Digest | str) -> FoundManifest:
    proxied = registry.proxies.of(repository)
    if proxied is not None:
        return proxied.manifest(reference)
    digest = registry.repositories.resolve(repository, reference)
    found = None if digest is None else registry.repositories.manifest(digest)
    if digest is None or found is None:
        raise manifest_unknown(reference)
    return FoundManifest(digest, *found)


def _tags_of(request: Request, reference: Digest | str) -> list[str]:
    if not isinstance(reference, Digest):
        return [reference]
    tags = list(dict.fromkeys(request.query_params.getlist("tag")))
    if len(tags) > _TAGS_MAX:
        raise ProblemError(414, ErrorCode.TAG_INVALID, f"more than {_TAGS_MAX} tags at once")
    for tag in tags:
        check_tag(tag)
    return tags


async def _write(body: SpooledTemporaryFile[bytes], block: bytes) -> None:
    with translate_os_errors("cannot keep what comes"):
        if body.tell() + len(block) > LARGE_DOCUMENT_SIZE:
            await in_thread(body.write, block)
        else:
            body.write(block)


def _put(
    registry: Registry,
    repository: str,
    reference: Digest | str,
    body: SpooledTemporaryFile[bytes],
    media_type: str,
    tags: list[str],
) -> Response:
    size = body.tell()
    with registry.repositories.turn_to_parse(size):
        with translate_os_errors("cannot read what came"):
            body.seek(0)
            data = body.read()
        return _put_document(registry, repository, reference, data, media_type, tags)


def _put_document(
    registry: Registry, repository: str, reference: Digest | str, data: bytes, media_type: str, tags: list[str]
) -> Response:
    document = _parsed(data, media_type)
    digest = Digest.of(data, reference.algorithm if isinstance(reference, Digest) else "sha256")
    if isinstance(reference, Digest) and digest != reference:
        raise ProblemError(400, ErrorCode.DIGEST_INVALID, f"the manifest is {digest}, not {reference}")
    _check_references(registry, repository, document)
    try:
        registry.repositories.put_manifest(repository, data, digest, tags)
    except LayerNotFoundError as error:
        raise ProblemError(400, ErrorCode.MANIFEST_BLOB_UNKNOWN, str(error)) from None
    response = Response(
        status_code=201, headers={"Location": f"/v2/{repository}/manifests/{digest}", DIGEST_HEADER: digest}
    )
    if document.subject is not None:
        response.headers[SUBJECT_HEADER] = document.subject.digest
    if isinstance(reference, Digest) and tags:
        response.headers[TAG_HEADER] = ", ".join(tags)
    return response


def _parsed(data: bytes, media_type: str) -> Manifest | Index:
    try:
        document = parse_image(data)
    except InvalidManifestError as error:
        raise ProblemError(400, ErrorCode.MANIFEST_INVALID, str(error)) from None
    if media_type and media_type != document.media_type:
        raise ProblemError(
            400,
            ErrorCode.MANIFEST_INVALID,
            f"the request calls it {media_type[:120]}, the document {document.media_type}",
        )
    return document


def _check_references(registry: Registry, repository: str, document: Manifest | Index) -> None:
    """Refuse a manifest that names what the repository does not have: it would be given what it only knows by name."""
    named = [document.config, *document.layers] if isinstance(document, Manifest) else document.manifests
    unknown = [one for one in named if not _has(registry, repository, document, one)]
    if unknown:
        raise ProblemError(
            400,
            ErrorCode.MANIFEST_BLOB_UNKNOWN,
            f"the repository has no {unknown[0].digest} ({unknown[0].media_type}), which the manifest names",
            detail=[{"digest": one.digest} for one in unknown[:100]],
        )


def _has(registry: Registry, repository: str, document: Manifest | Index, descriptor: Descriptor) -> bool:
    if isinstance(document, Index) and descriptor.media_type in MANIFESTS | INDEXES:
        return registry.repositories.resolve(repository, descriptor.digest) is not None
    has = registry.repositories.has_blob(repository, descriptor.digest)
    if has and registry.store.blob_size(descriptor.digest) != descriptor.size:
        raise ProblemError(
            400,
            ErrorCode.MANIFEST_INVALID,
            f"blob {descriptor.digest} does not have the {descriptor.size} bytes that the manifest says",
        )
    if descriptor.media_type in NONDISTRIBUTABLE_LAYERS:
        if has:
            # To name such a layer takes nothing, so its manifest will be no proof that the repository had it.
            registry.repositories.add_owned_blob(repository, descriptor.digest)
        return True
    return has
