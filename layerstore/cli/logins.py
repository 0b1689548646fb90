"""Commands for who we are at a registry: login, logout."""

import sys

import click
from click.shell_completion import CompletionItem

from layerstore import Credentials
from layerstore.cli.output import print_json, safe
from layerstore.cli.parameters import utf8
from layerstore.cli.registry_options import ReachOptions, auth_files, docker_config, piped_password, reach_options
from layerstore.cli.settings import Settings, command
from layerstore.errors import AuthenticationError, InvalidInputError
from layerstore.registry.client.auth_file import ContainersAuthFile
from layerstore.registry.client.login import check_login
from layerstore.registry.client.problems import CredentialsError
from layerstore.registry.client.references import parse_registry


def _complete_registry(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        known = docker_config().domains()
    except InvalidInputError:
        return []  # an error message in the middle of a line helps nobody
    return [CompletionItem(one) for one in known if one.startswith(incomplete)]


@command(
    "login",
    json_form="An object: registry, username, checked (whether the registry asked for them), kept_by (file or helper).",
    examples="""
        layerstore login registry.example.com
        layerstore login registry.example.com -u shop --password-stdin < password
        layerstore login localhost:5000 --ca-file ca.pem
    """,
)
@click.argument("registry", metavar="REGISTRY", shell_complete=_complete_registry)
@click.option("-u", "--username", type=utf8, metavar="USER", help="Who to log in as; asked for on a terminal.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the standard input.")
@reach_options
def login(settings: Settings, registry: str, username: str | None, password_stdin: bool, reach: ReachOptions) -> None:
    """Log in at a registry, and remember it.

    REGISTRY is a host, with its port if it has one; docker.io is Docker Hub. The registry is asked whether the password
    is right. Then it is kept where `docker login` keeps it, so that either command does for both: by the credential
    helper of Docker's configuration, or else in $DOCKER_CONFIG/config.json (~/.docker/config.json), which only you can
    read and which does not encrypt it.

    The password is asked for on a terminal, or comes through the standard input: an option would show it to everybody
    on this machine.
    """
    domain = parse_registry(registry)
    given = Credentials(*_asked(domain, username, password_stdin))
    try:
        checked = check_login(domain, reach.connection_as(lambda _: given))
    except CredentialsError as error:
        raise AuthenticationError(f"{domain} does not accept this name and password") from error
    if not checked:
        click.echo(f"layerstore: {domain} asks nobody who they are: the password was not checked", err=True)
    kept_by = docker_config().store(domain, given)
    if settings.json:
        print_json({"registry": domain, "username": given.username, "checked": checked, "kept_by": kept_by})
    else:
        settings.say(f"logged in to {domain} as {safe(given.username)}; the password is kept by {safe(kept_by)}")


def _asked(domain: str, username: str | None, password_stdin: bool) -> tuple[str, str]:
    if username is not None:
        _check_username(username)
    if password_stdin:
        if username is None:
            raise click.UsageError("--password-stdin goes with --username")
        return username, piped_password()
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("the standard input is no terminal to ask for a password; use --password-stdin")
    if username is None:
        username = utf8(click.prompt(f"User at {domain}", err=True))
        _check_username(username)
    return username, utf8(click.prompt(f"Password of {safe(username)}", hide_input=True, err=True))


def _check_username(username: str) -> None:
    if not username or ":" in username:
        raise click.UsageError(f"{username!r} is no user name: it is empty, or has a colon")


@command(
    "logout",
    json_form="An object: registry, was_logged_in.",
    examples="""
        layerstore logout registry.example.com
    """,
)
@click.argument("registry", metavar="REGISTRY", shell_complete=_complete_registry)
def logout(settings: Settings, registry: str) -> None:
    """Forget the login at a registry.

    That of `layerstore login` and `docker login`, in Docker's configuration and its credential helper. What Podman or
    skopeo keep in a file of their own stays.
    """
    domain = parse_registry(registry)
    had = docker_config().erase(domain)
    if settings.json:
        print_json({"registry": domain, "was_logged_in": had})
    else:
        settings.say(f"logged out of {domain}" if had else f"nobody was logged in to {domain}")
    for path in auth_files():
        if ContainersAuthFile(path).credentials(domain) is not None:
            click.echo(f"layerstore: {path} still has a login for {domain}: `podman logout` removes it", err=True)
