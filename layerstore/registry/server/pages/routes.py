"""The pages, and where they are."""

from starlette.routing import Route

from layerstore.registry.server.pages.endpoints import endpoint
from layerstore.registry.server.pages.files import download, files
from layerstore.registry.server.pages.image import image
from layerstore.registry.server.pages.overview import overview, sign_in
from layerstore.registry.server.pages.rendering import style
from layerstore.registry.server.pages.repository import repository

_IMAGE = "/images/{repository:path}@{digest}"

routes: list[Route] = [
    Route("/", endpoint(overview)),
    Route("/sign-in", endpoint(sign_in)),
    Route("/style.css", style),
    Route("/repositories/{repository:path}", endpoint(repository)),
    Route(f"{_IMAGE}/files", endpoint(files)),
    Route(f"{_IMAGE}/download", endpoint(download)),
    Route(_IMAGE, endpoint(image)),
]
