"""Commands for the files of an image: ls, find, cat, unpack. None but the last writes anything."""

import base64
import codecs
import fnmatch
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import click

from layerstore import EntryKind, FileSystem, ImageConfig, Node
from layerstore.cli.failures import Interrupted
from layerstore.cli.lookup import find_files
from layerstore.cli.nodes import NODE_FORM, node_document, tell_unsafe_labels, telling
from layerstore.cli.output import moment_text, print_json, safe
from layerstore.cli.parameters import complete_files, platform_option, utf8
from layerstore.cli.progress import progress_bar
from layerstore.cli.settings import Settings, command
from layerstore.running import RunOptions, unpack_bundle
from layerstore.unpacking import UnpackReport, unpack
from layerstore.wording import count_text, path_text, size_text

_BLOCK_SIZE = 1 << 20
_SHORTFALLS_SHOWN = 5
_LETTERS = {
    "f": EntryKind.FILE,
    "d": EntryKind.DIRECTORY,
    "l": EntryKind.SYMLINK,
    "c": EntryKind.CHARACTER,
    "b": EntryKind.BLOCK,
    "p": EntryKind.FIFO,
}
"""Those of ``find -type``."""
_image_argument = click.argument("image", shell_complete=complete_files, metavar="IMAGE")


@command(
    "ls",
    json_form=f"An array: {NODE_FORM}.",
    examples="""
        layerstore ls shop:1.0
        layerstore ls -l shop:1.0 /etc
    """,
)
@_image_argument
@click.argument("path", default="/", metavar="[PATH]")
@click.option("-l", "--long", is_flag=True, help="Also modes, owners, sizes, times and the targets of links.")
@platform_option()
def ls(settings: Settings, image: str, path: str, long: bool, platform: str | None) -> None:
    """List a directory of an image.

    All layers are taken together. Without PATH it is the root; symbolic links in PATH are followed inside of the image.
    IMAGE may be a layer's digest, which is then shown alone, or container:NAME.
    """
    with _view(settings, image, platform) as view, telling(image):
        node = view.stat(os.fsencode(path))
        nodes = view.scandir(node.path) if node.is_dir else [node]
    if settings.json:
        print_json([node_document(node) for node in nodes])
    elif long:
        _print_long([(node, path_text(node.name)) for node in nodes])
    else:
        for node in nodes:
            click.echo(safe(path_text(node.name)))


@command(
    "find",
    json_form=f"An array: {NODE_FORM}.",
    examples="""
        layerstore find shop:1.0 --name "*.py" --type f
        layerstore find shop:1.0 /etc -l
        layerstore find shop:1.0 -0 | tr "\\\\0" "\\\\n"
    """,
)
@_image_argument
@click.argument("path", default="/", metavar="[PATH]")
@click.option("--name", metavar="GLOB", help="Only names that match: *, ? and [...], for the last part of the path.")
@click.option("--type", "kinds", metavar="LETTERS", help="Only these: f, d, l, c, b, p, with commas between.")
@click.option("-l", "--long", is_flag=True, help="Also modes, owners, sizes, times and the targets of links.")
@click.option("-0", "--null", is_flag=True, help="Print the bytes of each path with a zero byte behind, for xargs -0.")
@platform_option()
def find(
    settings: Settings,
    image: str,
    path: str,
    name: str | None,
    kinds: str | None,
    long: bool,
    null: bool,
    platform: str | None,
) -> None:
    """List everything below a directory of an image.

    All layers are taken together; IMAGE may be a layer's digest, which is then shown alone, or container:NAME.
    Directories come before what is in them, names in the order of their bytes. That nothing matches is no failure.
    """
    wanted = None if kinds is None else _kinds(kinds)
    pattern = None if name is None else os.fsencode(name)
    with _view(settings, image, platform) as view, telling(image):
        nodes = [
            node
            for node in view.nodes(os.fsencode(path))
            if (wanted is None or node.kind in wanted) and (pattern is None or fnmatch.fnmatchcase(node.name, pattern))
        ]
    if settings.json:
        print_json([node_document(node) for node in nodes])
    elif null:
        click.echo(b"".join(b"/" + node.path + b"\0" for node in nodes), nl=False)
    elif long:
        _print_long([(node, f"/{path_text(node.path)}") for node in nodes])
    else:
        for node in nodes:
            click.echo(f"/{safe(path_text(node.path))}")


@command(
    "cat",
    json_form="An array: path, size, contents_base64.",
    examples="""
        layerstore cat shop:1.0 /etc/os
        layerstore cat shop:1.0 lib/data app/data | sha256sum
    """,
)
@_image_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@platform_option()
def cat(settings: Settings, image: str, paths: tuple[str, ...], platform: str | None) -> None:
    """Write files of an image to the standard output.

    Symbolic links are followed inside of the image. On a terminal everything is escaped that could harm it; a pipe or
    a file gets the bytes.
    """
    with _view(settings, image, platform) as view, telling(image):
        nodes = [view.stat(os.fsencode(path)) for path in paths]
        if settings.json:
            print_json([_contents_document(view, node) for node in nodes])
            return
        for node in nodes:
            for text in _shown_contents(view, node):
                click.echo(text, nl=False)


@command(
    "unpack",
    json_form=(
        "An object: image (its digest, a layer's, or container:NAME), directory, directories, files, symlinks, "
        "devices, links, size, bytes_written (without holes and what was reused), reused, rootless, owners_not_set, "
        "xattrs_not_set, devices_replaced, shortfalls (path and what of the first 100 of these)."
    ),
    examples="""
        layerstore unpack shop:1.0 root/
        layerstore unpack shop:1.0 root/ --rootless
        layerstore unpack shop:1.0 bundle/ --bundle -- sh -c "ls /data"
        layerstore unpack shop:1.1 new/ --reuse root/ --hard-links
    """,
)
@_image_argument
@click.argument("directory", metavar="DIR", type=click.Path())
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
@click.option(
    "--rootless/--no-rootless",
    default=None,
    help="Do without root's rights, or insist on them; by default as the user has them.",
)
@click.option("--owner", metavar="UID:GID", help="Let everything belong to this user and group.")
@click.option(
    "--reuse", metavar="DIR", type=click.Path(), help="Share blocks of equal files with an earlier unpacking."
)
@click.option("--hard-links", is_flag=True, help="With --reuse: let equal files be one, as rsync --link-dest does.")
@click.option("--bundle", is_flag=True, help="Make an OCI bundle: the files in DIR/rootfs, beside a config.json.")
@platform_option()
def unpack_(
    settings: Settings,
    image: str,
    directory: str,
    words: Sequence[str],
    rootless: bool | None,
    owner: str | None,
    reuse: str | None,
    hard_links: bool,
    bundle: bool,
    platform: str | None,
) -> None:
    """Write the files of an image to a new directory.

    DIR may be there if it is empty. Nothing is written outside of it, whatever the layers say. Without root's rights
    owners are kept in the attribute user.rootlesscontainers, devices become empty files, and what else is not
    permitted is left out and told; with --owner nobody gets set-uid bits, capabilities or devices. If it fails, what
    was written is removed. With --bundle, `runc run --bundle DIR NAME` runs what the image says, or COMMAND in place of
    its own; what stands behind -- is no option.
    """
    pair = None if owner is None else _owner(owner)
    if bundle and reuse is not None:
        raise click.UsageError("--reuse is not for bundles")
    if words and not bundle:
        raise click.UsageError("a command is for bundles: add --bundle")
    if hard_links and reuse is None:
        raise click.UsageError("--hard-links says how files are taken from --reuse DIR")
    with _opened(settings, image, platform) as (digest, view, config), progress_bar(settings, directory) as on_progress:
        try:
            if bundle:
                if config is None:
                    raise click.UsageError(f"{image} is a layer, which says nothing of how it is run")
                tell_unsafe_labels(config)
                options = RunOptions(command=tuple(utf8(word) for word in words))
                report = unpack_bundle(
                    view, config, directory, options=options, owner=pair, rootless=rootless, on_progress=on_progress
                )
            else:
                report = unpack(
                    view,
                    directory,
                    owner=pair,
                    rootless=rootless,
                    reuse=reuse,
                    hard_links=hard_links,
                    on_progress=on_progress,
                )
        except KeyboardInterrupt as error:
            raise Interrupted("what was written has been removed") from error
    if settings.json:
        values = {field.name: getattr(report, field.name) for field in fields(report)}
        print_json({"image": digest, "directory": directory, **values})
        return
    _tell_shortfalls(directory, report)
    counts = f"{count_text(report.files, 'file')}, {size_text(report.size)}"
    settings.say(f"{digest}   {safe(directory)}   {counts}")


@contextmanager
def _opened(
    settings: Settings, text: str, platform: str | None
) -> Iterator[tuple[str, FileSystem, ImageConfig | None]]:
    """What to call what a user named, its files, and the config of the image if it has one."""
    with settings.open(read_only=True) as store:
        name, opened, config = find_files(store, text, platform)
        with opened as view:
            yield name, view, config


@contextmanager
def _view(settings: Settings, text: str, platform: str | None) -> Iterator[FileSystem]:
    with _opened(settings, text, platform) as (_, view, _):
        yield view


def _kinds(text: str) -> set[EntryKind]:
    letters = text.split(",") if "," in text else list(text)
    unknown = [letter for letter in letters if letter not in _LETTERS]
    if unknown or not letters:
        raise click.BadParameter(f"{text!r} is no list of {', '.join(_LETTERS)}", param_hint="'--type'")
    return {_LETTERS[letter] for letter in letters}


def _owner(text: str) -> tuple[int, int]:
    user, colon, group = text.partition(":")
    if not (colon and user.isdecimal() and group.isdecimal() and user.isascii() and group.isascii()):
        raise click.BadParameter(f"{text!r} is not UID:GID, two numbers", param_hint="'--owner'")
    return int(user[:20]), int(group[:20])


def _contents_document(view: FileSystem, node: Node) -> dict[str, Any]:
    with view.open_node(node) as file:
        contents = file.read()
    return {
        "path": "/" + path_text(node.path),
        "size": node.size,
        "contents_base64": base64.b64encode(contents).decode(),
    }


def _shown_contents(view: FileSystem, node: Node) -> Iterator[str | bytes]:
    """A file in blocks: its bytes, or on a terminal the text that it shows safely."""
    is_terminal = _is_terminal()
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    with view.open_node(node) as file:
        while block := file.read(_BLOCK_SIZE):
            yield _safe_lines(decoder.decode(block)) if is_terminal else block
    if is_terminal:
        yield _safe_lines(decoder.decode(b"", final=True))


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _safe_lines(text: str) -> str:
    return "\n".join("\t".join(safe(part) for part in line.split("\t")) for line in text.split("\n"))


def _print_long(nodes: Sequence[tuple[Node, str]]) -> None:
    """Modes, owners, sizes and times in columns, names last as they may be of any width."""
    rows = [(*_columns(node), _shown_name(node, name)) for node, name in nodes]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    for mode, links, owner, size, moment, name in rows:
        columns = (mode, links.rjust(widths[1]), owner.ljust(widths[2]), size.rjust(widths[3]), moment.ljust(widths[4]))
        click.echo("   ".join((*columns, name)))


def _columns(node: Node) -> tuple[str, str, str, str, str]:
    is_device = node.kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
    size = "{}, {}".format(*node.device) if is_device else f"{node.size:,}"
    mode = stat.filemode(node.kind.file_type | node.mode)
    return mode, str(node.links), f"{node.uid}:{node.gid}", size, _moment(node.mtime_ns)


def _moment(time_ns: int) -> str:
    try:
        return moment_text(datetime.fromtimestamp(time_ns // 10**9, UTC))
    except (ValueError, OverflowError, OSError):
        return f"@{time_ns // 10**9}"  # a year that no calendar has


def _shown_name(node: Node, name: str) -> str:
    target = f" -> {safe(path_text(node.link_target))}" if node.is_symlink else ""
    return f"{safe(name)}{target}"


def _tell_shortfalls(directory: str, report: UnpackReport) -> None:
    parts = []
    if report.owners_not_set:
        parts.append(f"{count_text(report.owners_not_set, 'owner')} not kept")
    if report.xattrs_not_set:
        parts.append(f"{count_text(report.xattrs_not_set, 'extended attribute')} not set")
    if report.devices_replaced:
        parts.append(f"{count_text(report.devices_replaced, 'device')} made as empty files")
    if not parts:
        return
    shown = [f"/{path_text(one.path)} ({one.what})" for one in report.shortfalls[:_SHORTFALLS_SHOWN]]
    count = report.owners_not_set + report.xattrs_not_set + report.devices_replaced
    more = ", …" if count > len(shown) else ""
    click.echo(f"{safe(directory)}: {'; '.join(parts)}: {safe(', '.join(shown))}{more}", err=True)
