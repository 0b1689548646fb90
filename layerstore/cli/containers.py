"""Commands for containers: container create, ls, rm; commit."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click

from layerstore.cli.image_options import ConfigOptions, config_options
from layerstore.cli.lookup import CONTAINER_PREFIX, find_container, find_image, for_platform, refuse_artifact
from layerstore.cli.output import moment_text, print_json, safe, table
from layerstore.cli.parameters import complete_container, complete_image, platform_option, utf8
from layerstore.cli.progress import progress_bar
from layerstore.cli.settings import Settings, command, group
from layerstore.errors import ContainerNotFoundError, DamagedError
from layerstore.objects import Container
from layerstore.store import Store
from layerstore.wording import size_text


@group(
    "container",
    json_form=(
        "An array, the containers by name: name, image, tags (of the image), created, is_in_use, layers, is_damaged. "
        "Of a damaged one nothing but the name is known: image, created and is_in_use are null."
    ),
    examples="""
        layerstore container
        layerstore container create shop:1.0 --name web
        layerstore container rm web
    """,
)
def container(settings: Settings) -> None:
    """List the containers: images under one writable layer.

    Other commands take a container as container:NAME where they take an image: ls, find, tree, cat, cp, mount, unpack.
    """
    with settings.open(read_only=True) as store:
        if settings.quiet and not settings.json:
            for name in store.containers:
                click.echo(name)
            return
        rows = list(_rows(store))
    if settings.json:
        print_json(rows)
        return
    click.echo(table(("NAME", "IMAGE", "CREATED", "IN USE"), [_cells(row) for row in rows]))


@command(
    "create",
    json_form="An object: name, image, tags (of the image), created, is_in_use, layers, is_damaged (false).",
    examples="""
        layerstore container create shop:1.0 --name web
        layerstore container create shop:1.0
    """,
)
@click.argument("image", shell_complete=complete_image, metavar="IMAGE")
@click.option("--name", metavar="NAME", help="Its name; by default the first digits of its id.")
@platform_option()
def create(settings: Settings, image: str, name: str | None, platform: str | None) -> None:
    """Put a writable layer on an image.

    Nothing of the image is copied before it is changed. The container keeps the image's layers, also when the image is
    deleted. Prints the name.
    """
    with settings.open() as store:
        found = refuse_artifact(for_platform(find_image(store, image), image, platform), image)
        made = found.container(name)
        document = _row(store, made)
    if settings.json:
        print_json(document)
    else:
        click.echo(made.name)


@command(
    "rm",
    json_form="An array of the names.",
    examples="""
        layerstore container rm web
        layerstore container rm web worker
    """,
)
@click.argument("names", nargs=-1, required=True, shell_complete=complete_container, metavar="NAME...")
def rm(settings: Settings, names: Sequence[str]) -> None:
    """Remove containers with all their changes.

    They are gone at once: there is no trash for containers. One that is mounted or running is refused.
    """
    with settings.open() as store:
        for name in [_checked_name(store, name) for name in names]:
            store.containers.remove(name)
            settings.say(f"removed container {name}")
    if settings.json:
        print_json(list(names))


@command(
    "ls",
    json_form="As of `layerstore container`.",
    examples="""
        layerstore container ls
        layerstore container ls --json
    """,
)
@click.pass_context
def ls(context: click.Context, settings: Settings) -> None:
    """List the containers, as `layerstore container` does."""
    callback = container.callback
    assert callback is not None, "it is a command"
    context.invoke(callback)


@command(
    "commit",
    json_form=(
        "An object: digest, tag (null if none), layer (the DiffID of the changes; null if there are none), layer_size."
    ),
    examples="""
        layerstore commit web shop:1.1
        layerstore commit web shop:1.1 --comment "mended the price"
    """,
)
@click.argument("name", shell_complete=complete_container, metavar="CONTAINER")
@click.argument("tag", required=False, metavar="[TAG]")
@click.option("--comment", metavar="TEXT", type=utf8, help="What was changed, for the image's history.")
@config_options
def commit(settings: Settings, name: str, tag: str | None, comment: str | None, chosen: ConfigOptions) -> None:
    """Make an image of a container.

    It is the container's image with the changes as one layer on top. The same changes give the same layer. The
    container stays as it is, on its old image. What runs in it should be stopped: a file that changes while it is read
    makes the command fail.
    """
    with settings.open() as store:
        if tag is not None:
            store.tags.check(tag)
        found = find_container(store, name)
        with found, progress_bar(settings, f"commit {safe(found.name)}") as on_progress:
            image = found.commit(
                tag,
                config=chosen.config(found),
                author=chosen.author,
                comment=comment,
                on_progress=on_progress,
            )
        layers = image.layers[len(found.layers) :]
        layer, size = (layers[0].diff_id, layers[0].size) if layers else (None, 0)
    if settings.json:
        print_json({"digest": image.digest, "tag": tag, "layer": layer, "layer_size": size})
        return
    changes = f"changes of {size_text(size)}" if layers else "no changes"
    settings.say(f"{image.digest}   {safe(tag or '')}   {changes}")


def _checked_name(store: Store, text: str) -> str:
    """The name of a container, be it damaged. Raises `ContainerNotFoundError`."""
    with suppress(DamagedError):
        return find_container(store, text).name
    return text.removeprefix(CONTAINER_PREFIX)


def _rows(store: Store) -> Iterator[dict[str, Any]]:
    for name in store.containers:
        try:
            yield _row(store, store.containers[name])
        except ContainerNotFoundError:
            continue  # it was removed meanwhile
        except DamagedError:
            unknown = dict.fromkeys(("image", "created", "is_in_use"))
            yield {"name": name, **unknown, "tags": [], "layers": [], "is_damaged": True}


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    if row["is_damaged"]:
        return row["name"], "damaged: see `layerstore verify`", "-", "-"
    image = ", ".join(row["tags"]) or row["image"].short
    return row["name"], image, moment_text(row["created"]), "yes" if row["is_in_use"] else "-"


def _row(store: Store, one: Container) -> dict[str, Any]:
    image = store.images.get(one.image)
    return {
        "name": one.name,
        "image": one.image,
        "tags": image.tags if image is not None else [],
        "created": one.created,
        "is_in_use": one.is_in_use,
        "layers": [layer.diff_id for layer in one.layers],
        "is_damaged": False,
    }


for one in (create, ls, rm):
    container.add_command(one)
