"""Whoever looks at a page, and what they may see."""

from starlette.requests import Request

from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError, InvalidDigestError
from layerstore.objects import Image
from layerstore.registry.protocol import ErrorCode, is_repository_name, is_tag_name
from layerstore.registry.server.access import Action, Identity
from layerstore.registry.server.problems import ProblemError, manifest_unknown
from layerstore.registry.server.registry import Registry, registry_of


class Reader:
    """Somebody who looks at pages, in one request."""

    def __init__(self, registry: Registry, identity: Identity) -> None:
        self.registry = registry
        self.identity = identity
        self._allowed: dict[str, bool] = {}

    def may_read(self, repository: str) -> bool:
        """Whether they may see a repository."""
        known = self._allowed.get(repository)
        if known is None:
            known = is_repository_name(repository) and self.registry.access.allows(
                self.identity, repository, Action.READ
            )
            self._allowed[repository] = known
        return known

    def repositories_of(self, digest: Digest) -> tuple[list[str], int]:
        """The repositories with an image that they may see, and how many others have it."""
        try:
            names = self.registry.repositories.repositories_of(digest)
        except ImageNotFoundError:
            return [], 0
        readable = [name for name in names if self.may_read(name)]
        return readable, len(names) - len(readable)

    def tags_of(self, image: Image) -> list[str]:
        """The tags of an image, repositories included, that they may see."""
        parts = [(name, tag) for name, _, tag in (full.rpartition(":") for full in image.tags)]
        return [f"{name}:{tag}" for name, tag in parts if is_tag_name(tag) and self.may_read(name)]


def reader_of(request: Request) -> Reader:
    """Whoever makes a request, wherever they look. Raises `ProblemError` if they are not who they say."""
    registry = registry_of(request)
    return Reader(registry, registry.access.authorize(request, None))


def reader_in(request: Request, repository: str) -> Reader:
    """Whoever makes a request, if they may see a repository. Raises `ProblemError` otherwise."""
    registry = registry_of(request)
    reader = Reader(registry, registry.access.authorize(request, repository, Action.READ))
    if not is_repository_name(repository):
        raise repository_unknown(repository)
    return reader


def repository_unknown(name: str) -> ProblemError:
    """There is no such repository."""
    return ProblemError(404, ErrorCode.NAME_UNKNOWN, f"there is no repository {name[:255]}")


def image_in(reader: Reader, repository: str, text: str) -> Image:
    """The image of a digest, if it belongs to a repository: by itself, or as part of an index of it."""
    repositories, store = reader.registry.repositories, reader.registry.store
    try:
        digest = Digest(text)
    except InvalidDigestError:
        raise manifest_unknown(text[:200]) from None
    if repositories.resolve(repository, digest) is None:
        raise manifest_unknown(digest)
    image = store.images.get(digest)
    if image is not None:
        return image
    for user in repositories.users_of(repository, digest):
        part = _part(store.images[user], digest)
        if part is not None:
            return part
    raise manifest_unknown(digest)


def _part(image: Image, digest: Digest) -> Image | None:
    """The image that an index lists, directly or through another index."""
    for _, child in image.platforms:
        if child.digest == digest:
            return child
        found = _part(child, digest)
        if found is not None:
            return found
    return None
