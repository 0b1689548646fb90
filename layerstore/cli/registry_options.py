"""The options of commands that speak to registries, and what the environment says of it."""

import os
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import click

from layerstore import ConnectionOptions, Credentials, DockerConfig, Proxies, __version__
from layerstore.cli.grouped_options import Command, Decorator, with_options
from layerstore.cli.parameters import utf8

CONFIG_VARIABLE = "DOCKER_CONFIG"
"""Names the folder of Docker's ``config.json``."""
_PASSWORD_SIZE_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How registries are reached; each field is an option of that name."""

    plain_http: bool
    insecure: bool
    ca_file: Path | None
    username: str | None
    password_stdin: bool

    @property
    def given(self) -> bool:
        """Whether any of them is set."""
        return any(getattr(self, field.name) for field in fields(self))

    def connection(self) -> ConnectionOptions:
        """The options of connections. Reads the password from the standard input if it is to come from there."""
        return ConnectionOptions(
            credentials=self._credentials(),
            plain_http=self.plain_http,
            insecure=self.insecure,
            ca_file=self.ca_file,
            proxies=_proxies(),
            user_agent=f"layerstore/{__version__}",
        )

    def _credentials(self) -> Callable[[str], Credentials | None]:
        if (self.username is None) == self.password_stdin:
            raise click.UsageError("--username and --password-stdin go together")
        if self.username is None:
            return DockerConfig(_config_folder() / "config.json").credentials
        given = Credentials(self.username, _password())
        return lambda domain: given


_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--plain-http", is_flag=True, help="Speak HTTP without TLS; for this machine that is found out by itself."
    ),
    click.option("--insecure", is_flag=True, help="Check no certificates."),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Trust these authorities (PEM), too.",
    ),
    click.option("--username", type=utf8, metavar="NAME", help="Log in as this user, not as `docker login` did."),
    click.option("--password-stdin", is_flag=True, help="Read the password from the standard input."),
)


def registry_options(function: Command) -> Command:
    """Add the options to a command, whose function gets them as one `RegistryOptions` called ``registry``."""
    return with_options(function, RegistryOptions, "registry", _OPTIONS)


def _password() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("the standard input is closed or a terminal; pipe the password into it")
    data = sys.stdin.buffer.read(_PASSWORD_SIZE_MAX + 1)
    try:
        password = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("the password on the standard input is not UTF-8") from None
    if not password or len(data) > _PASSWORD_SIZE_MAX:
        raise click.UsageError("there is no password on the standard input")
    return password


def _config_folder() -> Path:
    folder = os.environ.get(CONFIG_VARIABLE)
    if folder:
        return Path(folder)
    try:
        return Path.home() / ".docker"
    except RuntimeError:
        return Path(".docker")  # nobody's home: there will be no such file


def _proxies() -> Proxies:
    known = urllib.request.getproxies_environment()
    return Proxies(known.get("http"), known.get("https"), lambda host: bool(urllib.request.proxy_bypass(host)))
