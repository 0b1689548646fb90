"""What stands at the paths of a file system, for JSON, and errors about paths as users read them."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from layerstore import EntryKind, ImageConfig, Node
from layerstore.cli.output import jsonable, safe
from layerstore.errors import ConflictError, InvalidInputError, LayerstoreError, NotFoundError
from layerstore.running.specification import unsafe_labels
from layerstore.wording import path_text

NODE_FORM = (
    "path, kind, mode (text), uid, gid, size, mtime_ns, link_target, device, links (how many names it has), xattrs "
    "(values are base64), layer (the DiffID it comes from), and path_base64 if the path is not UTF-8"
)
"""What `node_document` has, for the help of commands."""


def node_document(node: Node) -> dict[str, Any]:
    """What is at a path, for JSON."""
    return {
        **path_document(node.path),
        "kind": node.kind,
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "size": node.size,
        "mtime_ns": node.mtime_ns,
        "link_target": node.link_target if node.is_symlink else None,
        "device": node.device if node.kind in (EntryKind.CHARACTER, EntryKind.BLOCK) else None,
        "links": node.links,
        "xattrs": jsonable({name: base64.b64encode(value).decode() for name, value in node.xattrs.items()}),
        "layer": node.layer,
    }


def path_document(path: bytes) -> dict[str, str]:
    """A path for JSON, and its bytes if they are no text."""
    document = {"path": "/" + path_text(path)}
    try:
        path.decode()
    except UnicodeDecodeError:
        document["path_base64"] = base64.b64encode(b"/" + path).decode()
    return document


@contextmanager
def telling(image: str) -> Iterator[None]:
    """Tell of a path that is not what was asked for as of other things that are not there."""
    try:
        yield
    except LayerstoreError as error:
        if not isinstance(error, OSError):
            raise
        kinds = (NotFoundError, ConflictError, InvalidInputError)
        kind = next(one for one in kinds if isinstance(error, one))
        path = error.filename if isinstance(error.filename, bytes) else os.fsencode(error.filename or "")
        raise kind(f"/{path_text(path.lstrip(b'/'))} in {image}: {error.strerror}") from error


def tell_unsafe_labels(config: ImageConfig) -> None:
    """Say which labels of an image a runtime is not given, as conversion.md of the image specification wants."""
    for label in unsafe_labels(config):
        click.echo(f"layerstore: warning: label {safe(label)} is an order to the runtime: left out", err=True)
