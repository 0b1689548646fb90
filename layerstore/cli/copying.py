"""The command cp: files out of images and containers, and into containers."""

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from layerstore import Branch, unpack
from layerstore.cli.failures import Interrupted
from layerstore.cli.lookup import CONTAINER_PREFIX, find_container, find_files
from layerstore.cli.nodes import telling
from layerstore.cli.output import print_json, safe
from layerstore.cli.parameters import platform_option
from layerstore.cli.progress import progress_bar
from layerstore.cli.settings import Settings, command
from layerstore.errors import ConflictError, InvalidInputError
from layerstore.wording import count_text, size_text


@command(
    "cp",
    json_form="An object: target, files, directories, size (bytes of the files; null for what went into a container).",
    examples="""
        layerstore cp shop:1.0:/etc/os .
        layerstore cp shop:1.0:/app shop:1.0:/etc there
        layerstore cp ./patch.tar container:web:/srv
    """,
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("target", metavar="TARGET")
@click.option(
    "-a", "--archive", is_flag=True, help="Keep owners and their rights; else all is yours, or in a container root's."
)
@platform_option()
def cp(settings: Settings, sources: Sequence[str], target: str, archive: bool, platform: str | None) -> None:
    """Copy files out of images, or into containers.

    Paths there are written as IMAGE:/PATH or container:NAME:/PATH. Into a directory things are copied under their
    names; else TARGET is the new name. Modes, times and links come along; set-uid and set-gid bits, capabilities and
    devices only with --archive: else devices become empty files. What comes out replaces files but no directories, and
    is complete or not there at all; what goes into a container is merged with what it has.
    """
    places = [_place(source) for source in sources]
    into = _place(target)
    if into is not None:
        if any(place is not None for place in places):
            raise click.UsageError("copy out of an image, or into a container, not both at once")
        if not into[0].startswith(CONTAINER_PREFIX):
            raise click.UsageError("images never change: TARGET is a directory here, or container:NAME:/PATH")
        _copy_in(settings, [Path(source) for source in sources], into, archive)
        return
    named = [place for place in places if place is not None]
    if len(named) < len(places) or len({name for name, _ in named}) > 1:
        raise click.UsageError("give all of SOURCE as IMAGE:/PATH of one image or container, or such a TARGET")
    _copy_out(settings, named[0][0], [os.fsencode(path) for _, path in named], Path(target), archive, platform)


def _place(text: str) -> tuple[str, str] | None:
    """``NAME:/PATH``; None for a path of this machine. No reference has a colon before a slash."""
    if text.startswith(("/", ".")):
        return None
    name, sign, path = text.partition(":/")
    return (name, f"/{path}") if sign else None


def _copy_out(
    settings: Settings, name: str, paths: Sequence[bytes], target: Path, archive: bool, platform: str | None
) -> None:
    """Unpack into a folder beside the target, and rename what is complete."""
    with settings.open(read_only=True) as store:
        _, opened, _ = find_files(store, name, platform)
        with opened as files, telling(name):
            folder, chosen = _targets(paths, target)
            branch = Branch(files, chosen, as_root=not archive)
            owner = (0, 0) if os.geteuid() == 0 and not archive else None
            aside = folder / f".{secrets.token_hex(8)}.cp"
            with progress_bar(settings, "copy") as on_progress:
                try:
                    report = unpack(branch, aside, owner=owner, on_progress=on_progress)
                except KeyboardInterrupt as error:
                    raise Interrupted("nothing was copied") from error
    try:
        for one in chosen:
            (aside / os.fsdecode(one)).replace(folder / os.fsdecode(one))
    except OSError as error:
        raise ConflictError(
            f"cannot put {os.fsdecode(one)} into {folder}: {error.strerror}; move what is there"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if settings.json:
        print_json({"target": target, "files": report.files, "directories": report.directories, "size": report.size})
    else:
        devices = count_text(report.devices_replaced, "device")
        told = f", {devices} made as empty files" if report.devices_replaced else ""
        settings.say(f"{safe(str(target))}   {count_text(report.files, 'file')}, {size_text(report.size)}{told}")


def _targets(paths: Sequence[bytes], target: Path) -> tuple[Path, dict[bytes, bytes]]:
    """The folder to copy to, and by new name what goes there."""
    if target.is_dir():
        chosen = {_last_name(path): path for path in paths}
        folder = target
    elif len(paths) > 1 or not target.parent.is_dir() or target.name in ("", ".."):
        raise ConflictError(f"{target} is no directory; make it first")
    else:
        folder, chosen = target.parent, {os.fsencode(target.name): paths[0]}
    if len(chosen) < len(paths):
        raise InvalidInputError("two of the sources have the same name; copy them one by one")
    for name in chosen:
        if (folder / os.fsdecode(name)).is_dir():
            raise ConflictError(f"{folder / os.fsdecode(name)} is a directory; remove it, or choose another target")
    return folder, chosen


def _last_name(path: bytes) -> bytes:
    name = path.rstrip(b"/").rpartition(b"/")[2]
    if name in (b"", b".", b".."):
        raise InvalidInputError(f"{os.fsdecode(path)} has no name to be copied under; give a new one as TARGET")
    return name


def _copy_in(settings: Settings, sources: Sequence[Path], into: tuple[str, str], archive: bool) -> None:
    name, path = into
    count = 0
    with settings.open() as store, find_container(store, name) as container, telling(name):
        is_directory = container.is_dir(os.fsencode(path))
        if len(sources) > 1 and not is_directory:
            raise ConflictError(f"{path} is no directory of container {container.name}")
        for source in sources:
            # The name of a link is its own, and "." is the name of the directory.
            last = Path(os.path.abspath(source)).name  # noqa: PTH100
            target = f"{path.rstrip('/')}/{last}" if is_directory else path
            count += container.add(source, os.fsencode(target), keep_owners=archive)
    if settings.json:
        print_json({"target": f"{name}:{path}", "files": count, "directories": None, "size": None})
    else:
        settings.say(f"{name}:{safe(path)}   {count_text(count, 'file')}")
