"""The command run: a program in a container."""

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from layerstore.cli.failures import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, end_with
from layerstore.cli.lookup import CONTAINER_PREFIX, find_container, find_image, for_platform, refuse_artifact
from layerstore.cli.nodes import tell_unsafe_labels
from layerstore.cli.parameters import complete_files, pair, platform_option, utf8
from layerstore.cli.settings import Settings, StoreCommand, settings_of
from layerstore.objects import Container
from layerstore.running import RunOptions, run_container
from layerstore.running.errors import ProgramNotExecutableError, ProgramNotFoundError
from layerstore.running.options import NETWORKS, Volume
from layerstore.running.runtime import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_NOT_STARTED, RUNTIMES
from layerstore.store import Store


class RunCommand(StoreCommand):
    """Ends with Docker's exit codes: those that other commands end with may be the program's own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            is_json = "--json" in args or (parent is not None and settings_of(parent).json)
            raise click.exceptions.Exit(_told(error, as_json=is_json, debug=False)) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, and tell why it cannot be run."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            settings = settings_of(ctx)
            return _told(error, as_json=settings.json, debug=settings.debug)


def _told(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Tell about an error; the exit code."""
    code = end_with(error, as_json=as_json, debug=debug)
    if isinstance(error, ProgramNotFoundError):
        return EXIT_NOT_FOUND
    if isinstance(error, ProgramNotExecutableError):
        return EXIT_NOT_EXECUTABLE
    return code if code in (EXIT_INTERRUPTED, EXIT_BROKEN_PIPE) else EXIT_NOT_STARTED


@click.command(
    "run",
    cls=RunCommand,
    json_form="Nothing of its own: the output is the program's. Errors are objects as everywhere.",
    examples="""
        layerstore run shop:1.0 cat /etc/os
        layerstore run --name web --env PORT=80 shop:1.0 serve
        layerstore run container:web sh -c "ls /data"
    """,
)
@click.argument("image", shell_complete=complete_files, metavar="IMAGE")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
@click.option("--name", metavar="NAME", help="Keep the container under this name; without, it is removed at the end.")
@click.option("-e", "--env", type=pair, multiple=True, metavar="NAME=VALUE", help="Set an environment variable.")
@click.option("-w", "--workdir", type=utf8, metavar="PATH", help="Working directory.")
@click.option("-u", "--user", type=utf8, metavar="USER[:GROUP]", help="Names or numbers.")
@click.option("--entrypoint", type=utf8, metavar="WORDS", help="Program to run in place of the image's.")
@click.option("-v", "--volume", multiple=True, metavar="SOURCE:TARGET[:ro]", help="Show a directory of this machine.")
@click.option(
    "--network", type=click.Choice(NETWORKS), default="none", show_default=True, help="Of this machine, or none."
)
@click.option("--hostname", type=utf8, metavar="NAME", help="The container's host name.")
@click.option("--read-only", is_flag=True, help="Let nothing of the root file system be changed.")
@click.option("-t", "--tty", is_flag=True, help="Give the program a terminal of its own.")
@click.option("--runtime", type=click.Choice(RUNTIMES), help="By default the first that is there.")
@platform_option()
@click.pass_obj
def run(
    settings: Settings,
    image: str,
    words: Sequence[str],
    name: str | None,
    env: Sequence[tuple[str, str]],
    workdir: str | None,
    user: str | None,
    entrypoint: str | None,
    volume: Sequence[str],
    network: str,
    hostname: str | None,
    read_only: bool,
    tty: bool,
    runtime: str | None,
    platform: str | None,
) -> int:
    """Run a program in a container on an image.

    IMAGE may be container:NAME, to go on in a container. The image is mounted, not unpacked: it takes Linux with FUSE
    and runc, crun or bubblewrap. What the program writes is the container's: see `diff` and
    `commit`. Ends with the program's exit code, 128 + N if signal N has ended it, or as Docker with 125 if it could not
    be started, 126 if it cannot be executed and 127 if it is not there.
    """
    options = RunOptions(
        command=tuple(words),
        entrypoint=None if entrypoint is None else tuple(shlex.split(entrypoint)),
        environment=dict(env),
        working_directory=workdir,
        user=user,
        hostname=hostname,
        network=network,
        volumes=tuple(Volume.parse(text) for text in volume),
        read_only=read_only,
        terminal=tty,
    )
    with _hangup_ends(), settings.open() as store, _container(store, image, name, platform) as container:
        tell_unsafe_labels(container.config)
        return run_container(container, options, runtime=runtime)


@contextmanager
def _hangup_ends() -> Iterator[None]:
    """Let SIGHUP do what SIGTERM does, unless it is ignored: what was made for the run is taken away."""
    before = signal.getsignal(signal.SIGHUP)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


@contextmanager
def _container(store: Store, text: str, name: str | None, platform: str | None) -> Iterator[Container]:
    """The container that was named, or a new one, which is removed at the end unless it was given a name."""
    if text.startswith(CONTAINER_PREFIX):
        if name is not None:
            raise click.UsageError("--name is for a new container, and IMAGE names one that is there")
        yield find_container(store, text)
        return
    found = refuse_artifact(for_platform(find_image(store, text), text, platform), text)
    made = found.container(name, is_temporary=name is None)
    try:
        yield made
    finally:
        if name is None:
            made.remove()


run.allow_interspersed_args = False  # options behind the image are the program's
