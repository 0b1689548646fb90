"""The command that serves a store as a registry: serve."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import click

from layerstore.cli.output import print_json
from layerstore.cli.parameters import pair
from layerstore.cli.settings import Settings, command
from layerstore.errors import UnavailableError
from layerstore.registry.server.options import Options

_SERVER = "layerstore.registry.server.serving"
_OWN_PACKAGE = "layerstore"
_FILE = click.Path(dir_okay=False, path_type=Path)


@command(
    "serve",
    json_form='One object, when the server listens: address (for example "http://127.0.0.1:5000").',
    examples="""
        layerstore serve
        layerstore serve --host 0.0.0.0 --htpasswd users --anonymous read
        layerstore serve --config /etc/layerstore/server.yaml
    """,
)
@click.option("--config", type=_FILE, metavar="FILE", help="Everything else in YAML; options hold over it.")
@click.option("--host", metavar="HOST", help="Where to listen; 127.0.0.1 by default.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="5000 by default; 0: a free one.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes that answer; 1 by default.")
@click.option("--url", metavar="URL", help="How clients reach the server, if a proxy is between.")
@click.option("--tls-certificate", type=_FILE, metavar="FILE", help="Serve HTTPS with this certificate and its chain.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key.")
@click.option("--htpasswd", type=_FILE, metavar="FILE", help="Accounts, as `htpasswd -B` writes them.")
@click.option(
    "--anonymous",
    type=click.Choice(["none", "read", "write", "all"]),
    help="What may be done without an account; by default none with accounts, all without them on this machine.",
)
@click.option("--no-delete", is_flag=True, help="Refuse deletes.")
@click.option("--audit", type=_FILE, metavar="FILE", help="Record pushes, deletes and failed logins here.")
@click.option(
    "--proxy",
    "proxies",
    type=pair,
    multiple=True,
    metavar="NAME=URL",
    help="Serve NAME/... from the registry at URL and keep what was asked for; may be given again.",
)
def serve(
    settings: Settings,
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    url: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    htpasswd: Path | None,
    anonymous: str | None,
    no_delete: bool,
    audit: Path | None,
    proxies: tuple[tuple[str, str], ...],
) -> None:
    """Serve the store as a registry.

    Docker, Podman, skopeo, containerd and all that speak OCI push to it and pull from it; web pages are at its address.
    Without accounts it listens on this machine only, unless --anonymous says what may be done. SIGTERM ends it when
    running transfers have ended; SIGHUP reads accounts, rights and the certificate again.
    """

    def announce(address: str) -> None:
        if settings.json:
            print_json({"address": address}, indent=None)
        else:
            settings.say(f"listening on {address}")
        sys.stdout.flush()

    options = Options(
        configuration=config,
        host=host,
        port=port,
        workers=workers,
        url=url,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        htpasswd=htpasswd,
        anonymous=anonymous,
        no_delete=no_delete,
        audit=audit,
        proxies=dict(proxies),
        quiet=settings.quiet,
    )
    _server()(settings.path, options, announce)


def _server() -> Callable[[Path, Options, Callable[[str], None]], None]:
    # The server's packages are an extra, without which all other commands work: so it is imported when it is asked for.
    try:
        serve: Callable[[Path, Options, Callable[[str], None]], None] = importlib.import_module(_SERVER).serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == _OWN_PACKAGE:
            raise
        raise UnavailableError(
            f"the server needs packages that are not installed ({error.name}): pip install 'layerstore[server]'"
        ) from None
    return serve
