"""The command diff: what differs between images, layers and containers."""

import os
from contextlib import ExitStack
from typing import Any

import click

from layerstore import ByteRange, Change
from layerstore.cli.lookup import CONTAINER_PREFIX, find_container, find_files
from layerstore.cli.nodes import node_document, path_document, telling
from layerstore.cli.output import print_json, safe, table
from layerstore.cli.parameters import complete_files, platform_option
from layerstore.cli.settings import Settings, command
from layerstore.wording import path_text

_LETTERS = {"added": "A", "modified": "C", "deleted": "D"}
"""Those of ``docker diff``: C is a changed path."""


@command(
    "diff",
    json_form=(
        "An array: kind (added, modified, deleted), path, old and new (as `layerstore find` has them; null where there "
        "is nothing), and path_base64 if the path is not UTF-8. With PATH an array: old_offset, old_size, new_offset, "
        "new_size of the bytes that differ."
    ),
    examples="""
        layerstore diff shop:1.0 shop:1.1
        layerstore diff shop:1.0 shop:1.1 /etc/os
        layerstore diff container:web
    """,
)
@click.argument("old", shell_complete=complete_files, metavar="OLD")
@click.argument("new", shell_complete=complete_files, required=False, metavar="[NEW]")
@click.argument("path", required=False, metavar="[PATH]")
@platform_option()
def diff(settings: Settings, old: str, new: str | None, path: str | None, platform: str | None) -> None:
    """List what differs between images or layers.

    OLD and NEW may be containers, too, as container:NAME. A line a path: A for added, C for changed, D for deleted, as
    `docker diff` does. container:NAME alone lists what was changed in a container. With PATH, each line has the bytes
    that differ: their offsets and counts in both.
    """
    with settings.open(read_only=True) as store, ExitStack() as stack:
        if new is None and not old.startswith(CONTAINER_PREFIX):
            raise click.UsageError("give two images or layers, or a container as container:NAME")
        if new is None:
            changes = stack.enter_context(find_container(store, old)).changes()
        else:
            before, after = (stack.enter_context(find_files(store, text, platform)[1]) for text in (old, new))
            if path is not None:
                with telling(f"{old} or {new}"):
                    _show_bytes(settings, store.diff_file(before, after, os.fsencode(path)))
                return
            changes = store.diff(before, after)
        if settings.json:
            print_json([_change_document(change) for change in changes])
            return
    for change in changes:
        click.echo(f"{_LETTERS.get(change.kind, '?')} /{safe(path_text(change.path))}")


def _change_document(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        **path_document(change.path),
        "old": None if change.old is None else node_document(change.old),
        "new": None if change.new is None else node_document(change.new),
    }


def _show_bytes(settings: Settings, ranges: list[ByteRange]) -> None:
    if settings.json:
        print_json(ranges)
        return
    rows = [(f"{one.old_offset:,}", f"{one.old_size:,}", f"{one.new_offset:,}", f"{one.new_size:,}") for one in ranges]
    click.echo(table(("OLD OFFSET", "OLD BYTES", "NEW OFFSET", "NEW BYTES"), rows, right=(0, 1, 2, 3)))
