"""Pages out of templates, and the headers that keep what is in them from doing anything."""

from collections.abc import Mapping
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from layerstore.digest import Digest
from layerstore.registry.server.pages import addresses
from layerstore.registry.server.pages.text import bytes_text, exact_moment, moment_text, visible
from layerstore.wording import count_text, path_text, size_text

_PACKAGE = "layerstore.registry.server.pages"
_STYLE = files(_PACKAGE).joinpath("style.css").read_bytes()
_STYLE_ADDRESS = f"/style.css?version={Digest.of(_STYLE).short}"
_HEADERS = {
    # No script at all, nothing from elsewhere, nobody's frame: names and texts of images are hostile.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What a page shows is for whoever asked, as long as they may see it.
    "Cache-Control": "private, no-cache",
    "Vary": "Authorization",
}


def page(
    request: Request,
    template: str,
    values: Mapping[str, object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A page of a template and what it is to show."""
    text = _ENVIRONMENT.get_template(template).render(values, style_address=_STYLE_ADDRESS)
    return HTMLResponse(text, status, {**(headers or {}), **_HEADERS})


def style(request: Request) -> Response:
    """The style sheet. Its address changes when it does."""
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(_STYLE, headers=headers, media_type="text/css")


def _shown(value: object) -> object:
    """What a template writes: every text with nothing hidden in it."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=size_text,
        bytes=bytes_text,
        moment=moment_text,
        exact=exact_moment,
        path=path_text,
    )
    environment.globals.update(
        count=count_text,
        repository_address=addresses.repository_address,
        image_address=addresses.image_address,
        files_address=addresses.files_address,
        download_address=addresses.download_address,
        address_with=addresses.address_with,
    )
    return environment


_ENVIRONMENT = _environment()
