"""What every request passes before and after it is answered."""

from starlette.middleware import Middleware

from layerstore.registry.server.limits import Limits
from layerstore.registry.server.observing import Observing
from layerstore.registry.server.settings import ServerSettings


def middleware(settings: ServerSettings) -> list[Middleware]:
    """The middleware of the application, the outermost first."""
    return [Middleware(Observing, settings=settings), Middleware(Limits, settings=settings)]
