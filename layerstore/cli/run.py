"""The command run: a program in a container."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from layerstore.cli.lookup import CONTAINER_PREFIX, find_container, find_image, for_platform, refuse_artifact
from layerstore.cli.nodes import tell_unsafe_labels
from layerstore.cli.parameters import complete_files, pair, platform_option, utf8
from layerstore.cli.settings import Settings, command
from layerstore.objects import Container
from layerstore.running import RunOptions, run_container
from layerstore.running.options import NETWORKS, Volume
from layerstore.running.runtime import RUNTIMES
from layerstore.store import Store


@command(
    "run",
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
    `commit`. Ends with the program's exit code.
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
    with settings.open() as store, _container(store, image, name, platform) as container:
        tell_unsafe_labels(container.config)
        return run_container(container, options, runtime=runtime)


@contextmanager
def _container(store: Store, text: str, name: str | None, platform: str | None) -> Iterator[Container]:
    """The container that was named, or a new one, which is removed at the end unless it was given a name."""
    if text.startswith(CONTAINER_PREFIX):
        if name is not None:
            raise click.UsageError("--name is for a new container, and IMAGE names one that is there")
        yield find_container(store, text)
        return
    made = refuse_artifact(for_platform(find_image(store, text), text, platform), text).container(name)
    try:
        yield made
    finally:
        if name is None:
            made.remove()


run.allow_interspersed_args = False  # options behind the image are the program's
