"""The command tree: a directory of an image as a drawing."""

import os
from collections.abc import Iterator
from typing import Any

import click

from layerstore import FileSystem, Node
from layerstore.cli.lookup import find_files
from layerstore.cli.nodes import NODE_FORM, node_document, telling
from layerstore.cli.output import print_json, safe
from layerstore.cli.parameters import complete_files, platform_option
from layerstore.cli.settings import Settings, command
from layerstore.wording import count_text, path_text, size_text


@command(
    "tree",
    json_form=f"An array in the order of the drawing: depth (0 for PATH itself), {NODE_FORM}.",
    examples="""
        layerstore tree shop:1.0 /etc
        layerstore tree shop:1.0 --level 2 --directories
    """,
)
@click.argument("image", shell_complete=complete_files, metavar="IMAGE")
@click.argument("path", default="/", metavar="[PATH]")
@click.option("-L", "--level", type=click.IntRange(1), metavar="N", help="Go down so many levels only.")
@click.option("-d", "--directories", is_flag=True, help="Directories alone.")
@click.option("-s", "--size", is_flag=True, help="Also the sizes of files.")
@platform_option()
def tree(
    settings: Settings,
    image: str,
    path: str,
    level: int | None,
    directories: bool,
    size: bool,
    platform: str | None,
) -> None:
    """Draw a directory of an image with all below it.

    IMAGE may be a layer's digest or container:NAME, too. All layers are taken together. Symbolic links are shown with
    their targets, and followed in PATH alone.
    """
    with settings.open(read_only=True) as store:
        _, opened, _ = find_files(store, image, platform)
        with opened as files, telling(image):
            top = files.stat(os.fsencode(path))
            drawing = _Drawing(files, level, directories, size)
            if settings.json:
                print_json(drawing.documents(top))
                return
            click.echo(f"/{safe(path_text(top.path))}")
            for line in drawing.lines(top):
                click.echo(line)
    counts = count_text(drawing.directory_count, "directory")
    click.echo(f"\n{counts}" + ("" if directories else f", {count_text(drawing.file_count, 'file')}"))


class _Drawing:
    """Draws what is below a directory, and counts it."""

    def __init__(self, files: FileSystem, level: int | None, directories: bool, size: bool) -> None:
        self._files = files
        self._level = level
        self._directories = directories
        self._size = size
        self.directory_count = 0
        self.file_count = 0

    def lines(self, top: Node) -> Iterator[str]:
        """The lines below a directory."""
        indents = [""]
        for depth, node, is_last in self._walk(top):
            del indents[depth:]
            indent = indents[-1]
            yield f"{indent}{'└── ' if is_last else '├── '}{self._shown(node)}"
            indents.append(indent + ("    " if is_last else "│   "))

    def documents(self, top: Node) -> list[dict[str, Any]]:
        """A directory and what is below it, each with its depth."""
        below = [{"depth": depth, **node_document(node)} for depth, node, _ in self._walk(top)]
        return [{"depth": 0, **node_document(top)}, *below]

    def _walk(self, top: Node) -> Iterator[tuple[int, Node, bool]]:
        """What is below a directory, each with its depth and whether it is the last of its directory."""
        stack = [iter(self._below(top, 0))]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                continue
            node, is_last = found
            depth = len(stack)
            if node.is_dir:
                self.directory_count += 1
                stack.append(iter(self._below(node, depth)))
            else:
                self.file_count += 1
            yield depth, node, is_last

    def _below(self, node: Node, depth: int) -> list[tuple[Node, bool]]:
        if not node.is_dir or (self._level is not None and depth >= self._level):
            return []
        nodes = [one for one in self._files.scandir(node.path) if one.is_dir or not self._directories]
        return [(one, number == len(nodes)) for number, one in enumerate(nodes, 1)]

    def _shown(self, node: Node) -> str:
        size = f"[{size_text(node.size)}] " if self._size and node.is_file else ""
        target = f" -> {safe(path_text(node.link_target))}" if node.is_symlink else ""
        return f"{size}{safe(path_text(node.name))}{target}"
