"""Commands for mounted images: mount, umount."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import click

from layerstore.cli.lookup import (
    CONTAINER_PREFIX,
    artifact_type,
    find_container,
    find_either,
    for_platform,
    refuse_artifact,
)
from layerstore.cli.output import print_json, safe, table
from layerstore.cli.parameters import complete_files, platform_option
from layerstore.cli.settings import Settings, command
from layerstore.errors import LayerstoreError
from layerstore.mounting.client import MountInfo, mounts, unmount
from layerstore.objects import Image
from layerstore.store import Store
from layerstore.wording import count_text


@command(
    "mount",
    json_form=(
        "An object: image (its digest, a layer's, or container:NAME), directory. Without arguments an array: "
        "directory, kind (view or container), store (null if its server is dead), tags, layers."
    ),
    examples="""
        layerstore mount shop:1.0 /mnt/shop
        layerstore mount container:web /mnt/web
        layerstore mount
        layerstore umount /mnt/shop
    """,
)
@click.argument("image", required=False, shell_complete=complete_files, metavar="[IMAGE]")
@click.argument("directory", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
@platform_option()
def mount(settings: Settings, image: str | None, directory: Path | None, platform: str | None) -> None:
    """Mount an image or container, or list mounts.

    Nothing is unpacked: a process of its own reads what is asked for out of the store, until the image is unmounted by
    `layerstore umount` or plain `umount`. Images are read-only, and with layers in common share the memory that keeps
    their files. IMAGE may be a layer's digest, which is then shown alone, or container:NAME: what is changed there is
    the container's. Needs Linux with FUSE; without root fusermount3, and for containers fuse-overlayfs.
    """
    if image is None:
        _list(settings)
        return
    if directory is None:
        raise click.UsageError("give the directory to mount at, too")
    with settings.open(read_only=True) as store:
        if image.startswith(CONTAINER_PREFIX):
            container = find_container(store, image)
            name, mounted = f"{CONTAINER_PREFIX}{container.name}", container.mount(directory)
        else:
            found = find_either(store, image)
            if isinstance(found, Image):
                found = refuse_artifact(for_platform(found, image, platform), image)
            name, mounted = found.digest if isinstance(found, Image) else found.diff_id, store.mount(found, directory)
    if settings.json:
        print_json({"image": name, "directory": mounted.target})
    else:
        settings.say(f"{name}   {safe(str(mounted.target))}")


@command(
    "umount",
    json_form="An array of the directories.",
    examples="""
        layerstore umount /mnt/shop
        layerstore umount --lazy /mnt/shop /mnt/base
    """,
)
@click.argument("directories", required=True, nargs=-1, metavar="DIR...", type=click.Path(path_type=Path))
@click.option("--lazy", is_flag=True, help="Also what is in use: it goes away when nobody uses it any more.")
def umount(settings: Settings, directories: Sequence[Path], lazy: bool) -> None:
    """Unmount what is mounted at directories.

    Also what a server that died has left behind. Nothing but what layerstore has mounted is unmounted.
    """
    for directory in directories:
        unmount(directory, lazy=lazy)
        settings.say(f"{safe(str(directory))} is unmounted")
    if settings.json:
        print_json(list(directories))


def _list(settings: Settings) -> None:
    found = mounts()
    tags = [_tags(one) for one in found]
    if settings.json:
        documents = [
            {"directory": one.target, "kind": _kind(one), "store": one.store, "tags": names, "layers": one.layers}
            for one, names in zip(found, tags, strict=True)
        ]
        print_json(documents)
    elif found:
        rows = [
            (
                str(one.target),
                _kind(one),
                ", ".join(names) or count_text(len(one.layers), "layer") if one.is_alive else "its server is dead",
                str(one.store or ""),
            )
            for one, names in zip(found, tags, strict=True)
        ]
        click.echo(table(("DIRECTORY", "KIND", "IMAGE", "STORE"), rows))


def _kind(mounted: MountInfo) -> str:
    return "container" if mounted.is_container else "view"


def _tags(mounted: MountInfo) -> list[str]:
    """The tags of the images that have exactly these layers; none if the store cannot be asked now."""
    names = []
    if mounted.store is not None:
        with contextlib.suppress(LayerstoreError), Store.open(mounted.store, read_only=True) as store:
            for name, digest in store.tags.items():
                image = store.images[digest]
                if (
                    not image.is_index
                    and artifact_type(image) is None
                    and tuple(image.config.diff_ids) == mounted.layers
                ):
                    names.append(name)
    return sorted(names)
