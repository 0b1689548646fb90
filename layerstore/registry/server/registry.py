"""What all requests have in common: the store as a registry, with whatever decides who may do what."""

import os
from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response

from layerstore.os_errors import translate_os_errors
from layerstore.registry.server.access import create_access
from layerstore.registry.server.links import Links
from layerstore.registry.server.proxy import Proxies
from layerstore.registry.server.repositories import LARGE_DOCUMENTS_AT_ONCE, Repositories
from layerstore.registry.server.settings import ServerSettings
from layerstore.registry.server.uploads import Uploads
from layerstore.store import Store

_STREAMS_MAX = 64


class Registry:
    """An open store as a registry."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.store = Store.open(settings.store, compression_level=settings.compression_level)
        try:
            self.folder = folder = settings.folder
            with translate_os_errors(f"cannot make {folder}"):
                folder.mkdir(mode=0o700, exist_ok=True)
            self.links = Links(folder / "links.sqlite")
            self.repositories = Repositories(self.store, self.links, blob_ttl=settings.blob_ttl)
            # One push of a large layer keeps the machine's cores busy; more of them would only take memory.
            pushes = max(1, min(4, os.cpu_count() or 1))
            self.uploads = Uploads(
                self.repositories, folder / "uploads", pushes=pushes, size_max=settings.blob_size_max
            )
            self.access = create_access(settings)
            self.proxies = Proxies(settings, self.repositories, self.uploads, folder)
        except BaseException:
            self.store.close()
            raise
        # Threads of their own for what takes long, so that short requests always find one.
        self.readers = CapacityLimiter(_STREAMS_MAX)
        self.writers = CapacityLimiter(_STREAMS_MAX)
        # An upstream registry that says nothing keeps those waiting who ask for what is there, and nobody else.
        self.askers = {name: CapacityLimiter(_STREAMS_MAX) for name in settings.proxies}
        self.followers = CapacityLimiter(_STREAMS_MAX)
        self.parsers = CapacityLimiter(LARGE_DOCUMENTS_AT_ONCE)

    def close(self) -> None:
        """Close the database and the store."""
        self.proxies.close()
        self.uploads.close()
        self.links.close()
        self.store.close()


def registry_of(request: Request) -> Registry:
    """The registry that a request is for."""
    registry = request.app.state.registry
    assert isinstance(registry, Registry)
    return registry


async def answer_in_thread(request: Request, answer: Callable[[Request], Response]) -> Response:
    """Answer a read on a thread: for a repository of an upstream registry, on one of those that may have to wait."""
    name = str(request.path_params["name"]).partition("/")[0]
    return await to_thread.run_sync(answer, request, limiter=registry_of(request).askers.get(name))
