"""The commands that get an image from this registry."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from layerstore.registry.client.addresses import is_loopback
from layerstore.registry.server.registry import registry_of

_HOST = re.compile(r"[A-Za-z0-9.\-]+(?::[0-9]+)?|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Command:
    """What to type."""

    program: str
    text: str


def host_of(request: Request) -> str:
    """The registry's name in references: as the settings have it, or as whoever asks has reached it."""
    return _address_of(request)[1]


def _address_of(request: Request) -> tuple[str, str]:
    """Scheme and host."""
    url = registry_of(request).settings.url
    scheme, host = (request.url.scheme, request.headers.get("host", "")) if url is None else urlsplit(url)[:2]
    return scheme, host if _HOST.fullmatch(host) else "REGISTRY"


def pull_commands(request: Request, reference: str, *, is_artifact: bool) -> list[Command]:
    """How an image is pulled. ``reference`` is ``name:tag`` or ``name@digest``.

    Docker and Podman do not take what is no image.
    """
    scheme, host = _address_of(request)
    name = f"{host}/{reference}"
    is_plain = scheme == "http"
    podman = " --tls-verify=false" if is_plain else ""
    skopeo = " --src-tls-verify=false" if is_plain else ""
    layerstore = " --plain-http" if is_plain and not is_loopback(urlsplit(f"//{host}").hostname or "") else ""
    folder = reference.partition("@")[0].partition(":")[0].rpartition("/")[2]
    others = [
        Command("Skopeo", f"skopeo copy{skopeo} docker://{name} oci:{folder}"),
        Command("layerstore", f"layerstore import{layerstore} docker://{name}"),
    ]
    if is_artifact:
        return others
    return [Command("Docker", f"docker pull {name}"), Command("Podman", f"podman pull{podman} {name}"), *others]
