"""The options of commands that speak to registries, and what the environment says of it."""

import functools
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
from layerstore.registry.client.auth_file import ContainersAuthFile
from layerstore.registry.client.references import RemoteName

CONFIG_VARIABLE = "DOCKER_CONFIG"
"""Names the folder of Docker's ``config.json``."""
AUTH_FILE_VARIABLE = "REGISTRY_AUTH_FILE"
"""Names the file of logins of Podman and its relatives, in place of where they keep it else."""
_AUTH_FILE = Path("containers", "auth.json")
_PASSWORD_SIZE_MAX = 64 << 10
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class ReachOptions:
    """How registries are reached; each field is an option of that name."""

    plain_http: bool
    insecure: bool
    ca_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None

    @property
    def given(self) -> bool:
        """Whether any of them is set."""
        return any(getattr(self, field.name) for field in fields(self))

    def connection_as(self, credentials: Callable[[str], Credentials | None] | None) -> ConnectionOptions:
        """The options of connections on which ``credentials`` say who we are."""
        return ConnectionOptions(
            credentials=credentials,
            plain_http=self.plain_http,
            insecure=self.insecure,
            ca_file=self.ca_file,
            client_certificate=self.tls_cert,
            client_key=self.tls_key,
            proxies=_proxies(),
            user_agent=f"layerstore/{__version__}",
        )


@dataclass(frozen=True)
class RegistryOptions(ReachOptions):
    """How registries are reached, and as whom; each field is an option of that name."""

    username: str | None
    password_stdin: bool

    def connection(self, remote: RemoteName) -> ConnectionOptions:
        """The options of connections to a repository. Reads a password from the standard input if that is wanted."""
        if (self.username is None) == self.password_stdin:
            raise click.UsageError("--username and --password-stdin go together")
        given = self._given
        if given is not None:
            return self.connection_as(lambda _: given)
        return self.connection_as(lambda domain: known_credentials(domain, remote.full_repository))

    @functools.cached_property
    def _given(self) -> Credentials | None:
        # Once: both places of a copy may be in registries.
        return None if self.username is None else Credentials(self.username, piped_password())


_REACH_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--plain-http", is_flag=True, help="Speak HTTP without TLS; for this machine that is found out by itself."
    ),
    click.option("--insecure", is_flag=True, help="Check no certificates."),
    click.option("--ca-file", type=_FILE, metavar="FILE", help="Trust these authorities (PEM), too."),
    click.option("--tls-cert", type=_FILE, metavar="FILE", help="Show the registry this certificate (PEM)."),
    click.option("--tls-key", type=_FILE, metavar="FILE", help="The key of --tls-cert, if that file does not have it."),
)
_LOGIN_OPTIONS: tuple[Decorator, ...] = (
    click.option("--username", type=utf8, metavar="NAME", help="Be this user, not who logged in."),
    click.option("--password-stdin", is_flag=True, help="Read the password from the standard input."),
)


def registry_options(function: Command) -> Command:
    """Add the options to a command, whose function gets them as one `RegistryOptions` called ``registry``."""
    return with_options(function, RegistryOptions, "registry", (*_REACH_OPTIONS, *_LOGIN_OPTIONS))


def reach_options(function: Command) -> Command:
    """Add the options of `ReachOptions` to a command, whose function gets them as ``reach``."""
    return with_options(function, ReachOptions, "reach", _REACH_OPTIONS)


def piped_password() -> str:
    """The password that comes through the standard input."""
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


def known_credentials(domain: str, repository: str) -> Credentials | None:
    """Who logged in at a registry with Docker, or else with Podman or its relatives."""
    found = docker_config().credentials(domain)
    for path in () if found is not None else auth_files():
        found = ContainersAuthFile(path).credentials(repository)
        if found is not None:
            break
    return found


def docker_config() -> DockerConfig:
    """The file of `docker login`."""
    folder = os.environ.get(CONFIG_VARIABLE)
    return DockerConfig((Path(folder) if folder else _home() / ".docker") / "config.json")


def auth_files() -> list[Path]:
    """Where Podman and its relatives look, one after the other (containers-auth.json(5))."""
    named = os.environ.get(AUTH_FILE_VARIABLE)
    if named:
        return [Path(named)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folders = [Path(runtime)] if runtime else []
    folders.append(Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config"))
    return [folder / _AUTH_FILE for folder in folders]


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path()  # nobody's home: there will be no such file


def _proxies() -> Proxies:
    known = urllib.request.getproxies_environment()
    return Proxies(known.get("http"), known.get("https"), lambda host: bool(urllib.request.proxy_bypass(host)))
