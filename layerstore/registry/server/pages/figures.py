"""The figures of the store, of repositories and of images, each kept for a while: they take long to make."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from anyio import CapacityLimiter
from starlette.requests import Request

from layerstore import ImageUsage, Stats, View
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.objects import Image
from layerstore.registry.server.pages.remembered import Remembered
from layerstore.registry.server.pages.sharing import Sharing, sharing_of
from layerstore.registry.server.pages.summaries import Summary, created, stored_layers, summary_of
from layerstore.registry.server.registry import Registry, registry_of

IMAGES_ADDED_MAX = 1000
"""Images of a repository whose sizes are added up."""
_THREADS = 8
"""How many pages are made at once. Those who push and pull have threads of their own."""
DOWNLOADS_MAX = 32
_VIEWS = 2
"""How many views are built at once: of an image with millions of files it takes memory, and a while."""


@dataclass(frozen=True, slots=True)
class RepositoryFigures:
    """What the images of a repository are together."""

    size: int
    """Bytes of their layers, uncompressed, each once."""
    newest: datetime | None
    """When the newest came into the store."""


class Figures:
    """Makes figures, and keeps them for a while. Its methods may be called from several threads at once."""

    def __init__(self, registry: Registry) -> None:
        self.threads = CapacityLimiter(_THREADS)
        self.downloads = CapacityLimiter(DOWNLOADS_MAX)
        """Files that are on their way to somebody; each holds a view."""
        self._view_turns = threading.BoundedSemaphore(_VIEWS)
        self._store = registry.store
        self._parsing = registry.repositories
        self._stats: Remembered[None, Stats] = Remembered(1)
        self._repositories: Remembered[tuple[str, int], RepositoryFigures] = Remembered(2000)
        self._summaries: Remembered[Digest, Summary] = Remembered(20_000)
        self._usages: Remembered[Digest, ImageUsage] = Remembered(2000)
        self._sharings: Remembered[Digest, Sharing] = Remembered(50)

    def stats(self) -> Stats:
        """The figures of the whole store."""
        return self._stats.get(None, self._store.stats)

    def repository(self, name: str, roots: Sequence[Digest]) -> RepositoryFigures | None:
        """The figures of a repository with these images; None if they are too many to be added up."""
        if len(roots) > IMAGES_ADDED_MAX:
            return None
        return self._repositories.get((name, hash(tuple(roots))), lambda: self._add_up(roots))

    def summary(self, image: Image) -> Summary:
        """What an image is, in a line."""
        # The turn first: whoever makes a page of an image has it, and waits for its summary.
        with self._parsing.turn_to_parse(len(image.manifest_bytes)):
            return self._summaries.get(image.digest, lambda: summary_of(self._store, image))

    def usage(self, image: Image) -> ImageUsage:
        """What an image of the store occupies, and has for itself."""
        return self._usages.get(image.digest, lambda: self._store.image_usage(image))

    def sharing(self, image: Image) -> Sharing:
        """Which other images have layers of an image."""
        return self._sharings.get(image.digest, lambda: sharing_of(self._store, image))

    def view(self, image: Image) -> View:
        """The files of an image. Close it."""
        with self._view_turns:
            return image.view()

    def _add_up(self, roots: Sequence[Digest]) -> RepositoryFigures:
        sizes: dict[Digest, int] = {}
        moments = []
        for digest in roots:
            try:
                image = self._store.images[digest]
                sizes.update(
                    (one.diff_id, one.size) for one in stored_layers(self._store, image) if one.diff_id not in sizes
                )
            except LayerstoreError:
                continue  # deleted meanwhile, or damaged: its own page says so
            moments.append(created(self._store, digest))
        return RepositoryFigures(sum(sizes.values()), max((one for one in moments if one is not None), default=None))


def figures_of(request: Request) -> Figures:
    """The figures of the registry that a request is for."""
    state = request.app.state
    if not hasattr(state, "figures"):
        state.figures = Figures(registry_of(request))
    figures = state.figures
    assert isinstance(figures, Figures)
    return figures
