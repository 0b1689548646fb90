"""Images of registries as they are typed: ``registry/name:tag``, or ``docker://name:tag`` as skopeo has it."""

import re
from dataclasses import dataclass

from layerstore.digest import Digest, reads_as_digest
from layerstore.errors import InvalidReferenceError
from layerstore.oci import reference
from layerstore.oci.reference import Reference
from layerstore.places.opening import REMOTE
from layerstore.registry.client.credentials import HUB_DOMAIN

DEFAULT_TAG = reference.DEFAULT_TAG
_HUB_ALIASES = frozenset({"index.docker.io"})


@dataclass(frozen=True, slots=True)
class RemoteName:
    """An image of a registry, or a whole repository."""

    repository: str
    """With the registry, as it was typed."""
    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> "RemoteName":
        """Read one, with ``docker://`` before it or without. Raises `InvalidReferenceError`."""
        bare = text.removeprefix(REMOTE)
        parsed = Reference.parse(bare)
        is_whole = parsed.digest is None and bare == parsed.name
        return cls(parsed.name, None if is_whole else parsed.tag, parsed.digest)

    @property
    def image(self) -> str | None:
        """What names the image in the repository; None for the whole."""
        if self.digest is None:
            return self.tag
        return str(self.digest) if self.tag is None else f"{self.repository}:{self.tag}@{self.digest}"

    @property
    def full_repository(self) -> str:
        """The repository with Docker's defaults filled in, so that it begins with a registry."""
        return Reference(self.repository, DEFAULT_TAG).normalized().name

    @property
    def with_tag(self) -> str:
        """The reference by tag, ``latest`` if there is none."""
        return f"{self.repository}:{self.tag or DEFAULT_TAG}"


_WITH_REGISTRY = re.compile(
    r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:[0-9]+|\[[0-9A-Fa-f:]+\](?::[0-9]+)?)/[^/]"
)


def names_registry(text: str) -> bool:
    """Whether a text names something in a registry, and says in which."""
    if text.startswith(REMOTE):
        return True
    # Whatever else is wrong with it is told as that, not as if it were a file.
    return not reads_as_digest(text) and _WITH_REGISTRY.match(text) is not None


def parse_registry(text: str) -> str:
    """A registry as it stands in references: a host, with its port if it has one. Raises `InvalidReferenceError`."""
    bare = text.removeprefix("https://").removesuffix("/")
    try:
        domain = Reference(f"{bare}/name", DEFAULT_TAG).normalized().domain
    except InvalidReferenceError:
        domain = ""
    if not domain or (domain != bare and not (domain == HUB_DOMAIN and bare in _HUB_ALIASES)):
        raise InvalidReferenceError(
            f"{text[:80]!r} is no registry: that is a host with a dot or a port, for example registry.example.com or "
            "localhost:5000"
        )
    return domain
