"""Commands that look into images and layers: inspect, history, diff, why."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from layerstore.cli.lookup import find_either, find_image
from layerstore.cli.output import jsonable, moment_text, path_text, print_json, safe, size_text, table
from layerstore.cli.parameters import complete_any, complete_image
from layerstore.cli.settings import Settings, command
from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError, InvalidDigestError
from layerstore.objects import Image, Layer
from layerstore.store import Store

_LETTERS = {"added": "A", "modified": "C", "deleted": "D"}
"""Those of ``docker diff``: C is a changed path."""


@command(
    "inspect",
    json_form=(
        "The same as without it. For an image: kind, digest, tags, created, size, usage, manifest and config (as they "
        "were stored), layers; for a layer: kind, diff_id, size, created, images, tags."
    ),
    examples="""
        layerstore inspect shop:1.0
        layerstore inspect 4f2e9b0c1d3a
    """,
)
@click.argument("name", shell_complete=complete_any, metavar="IMAGE|DIFF_ID")
def inspect(settings: Settings, name: str) -> None:
    """Print all about an image or a layer, as JSON."""
    with settings.open(read_only=True) as store:
        found = find_either(store, name)
        print_json(_image_document(store, found) if isinstance(found, Image) else _layer_document(found))


def _image_document(store: Store, image: Image) -> dict[str, Any]:
    layers = [
        {"diff_id": layer.diff_id, "chain_id": chain_id, "size": layer.size, "created": layer.created}
        for layer, chain_id in zip(image.layers, image.chain_ids, strict=True)
    ]
    return {
        "kind": "image",
        "digest": image.digest,
        "config_digest": image.config_digest,
        "tags": image.tags,
        "created": image.created,
        "size": image.size,
        "usage": store.image_usage(image),
        "manifest": json.loads(image.manifest_bytes),
        "config": json.loads(image.config_bytes),
        "layers": layers,
    }


def _layer_document(layer: Layer) -> dict[str, Any]:
    images = layer.images
    return {
        "kind": "layer",
        "diff_id": layer.diff_id,
        "size": layer.size,
        "created": layer.created,
        "images": [image.digest for image in images],
        "tags": sorted(tag for image in images for tag in image.tags),
    }


@command(
    "history",
    json_form="An array, the newest step first: diff_id (null if no layer), created, created_by, size, comment.",
    examples="""
        layerstore history shop:1.0
        layerstore history --no-trunc shop:1.0
    """,
)
@click.argument("image", shell_complete=complete_image, metavar="IMAGE")
@click.option("--no-trunc", is_flag=True, help="Print DiffIDs and commands in full.")
def history(settings: Settings, image: str, no_trunc: bool) -> None:
    """Show the steps that made an image, the newest first."""
    with settings.open(read_only=True) as store:
        steps = list(_steps(find_image(store, image)))[::-1]
    if settings.json:
        print_json(steps)
        return
    if settings.quiet:
        for step in steps:
            if step["diff_id"] is not None:
                click.echo(step["diff_id"])
        return
    rows = [
        (
            _shown_layer(step, no_trunc),
            _shown_time(step["created"]),
            _shortened(step["created_by"] or "", no_trunc),
            size_text(step["size"]),
            _shortened(step["comment"] or "", no_trunc),
        )
        for step in steps
    ]
    click.echo(table(("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"), rows, right=(3,)))


def _steps(image: Image) -> Iterator[dict[str, Any]]:
    layers = iter(image.layers)
    for entry in image.config.history:
        layer = None if entry.empty_layer else next(layers, None)
        yield _step(layer, entry.created, entry.created_by, entry.comment)
    for layer in layers:  # a history may be missing, or end before the layers do
        yield _step(layer, None, None, None)


def _step(layer: Layer | None, created: str | None, created_by: str | None, comment: str | None) -> dict[str, Any]:
    return {
        "diff_id": None if layer is None else layer.diff_id,
        "created": created,
        "created_by": created_by,
        "size": 0 if layer is None else layer.size,
        "comment": comment,
    }


def _shown_layer(step: dict[str, Any], no_trunc: bool) -> str:
    diff_id = step["diff_id"]
    if diff_id is None:
        return "-"
    return str(diff_id if no_trunc else diff_id.short)


def _shown_time(created: str | None) -> str:
    if created is None:
        return "-"
    try:
        return moment_text(datetime.fromisoformat(created))
    except (ValueError, OverflowError):
        return created


def _shortened(text: str, no_trunc: bool) -> str:
    return text if no_trunc or len(text) <= 45 else f"{text[:42]}..."


@command(
    "diff",
    json_form=(
        "An array: kind (added, modified, deleted), path, old and new (the entries; null where there is none; values "
        "of xattrs are base64), and path_base64 if the path is not UTF-8."
    ),
    examples="""
        layerstore diff shop:1.0 shop:1.1
        layerstore diff 4f2e9b0c1d3a 9d1c0a7be246
    """,
)
@click.argument("old", shell_complete=complete_any, metavar="OLD")
@click.argument("new", shell_complete=complete_any, metavar="NEW")
def diff(settings: Settings, old: str, new: str) -> None:
    """List the paths that differ between two images or layers.

    A line a path: A for added, C for changed, D for deleted, as `docker diff` does.
    """
    with settings.open(read_only=True) as store:
        changes = store.diff(find_either(store, old), find_either(store, new))
    if settings.json:
        documents = []
        for change in changes:
            document = jsonable(change)
            for side, entry in (("old", change.old), ("new", change.new)):
                if entry is not None:  # values are any bytes, often no text at all
                    values = {name: base64.b64encode(value).decode() for name, value in entry.xattrs.items()}
                    document[side]["xattrs"] = jsonable(values)
            if not _is_utf8(change.path):
                document["path_base64"] = base64.b64encode(change.path).decode()
            documents.append(document)
        print_json(documents)
        return
    for change in changes:
        click.echo(f"{_LETTERS.get(change.kind, '?')} {safe(path_text(change.path))}")


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


@command(
    "why",
    json_form="An object: digest, kind (image or layer), reasons (texts), and what they consist of.",
    examples="""
        layerstore why 4f2e9b0c1d3a
        layerstore why shop:1.0
    """,
)
@click.argument("name", shell_complete=complete_any, metavar="IMAGE|DIFF_ID")
def why(settings: Settings, name: str) -> None:
    """Say what keeps an image or a layer in the store."""
    with settings.open(read_only=True) as store:
        digest = _digest_of(store, name)
        answer = store.why(digest)
    if settings.json:
        print_json(answer)
        return
    click.echo(f"{answer.kind} {answer.digest}")
    for reason in answer.reasons:
        click.echo(f"  {safe(reason)}")
    if not answer.reasons:
        click.echo("  nothing keeps it; the next `layerstore gc` takes it")


def _digest_of(store: Store, name: str) -> str:
    try:
        found = find_either(store, name)
    except ImageNotFoundError as error:
        try:
            return Digest(name)  # it may be in the trash, and the store knows why
        except InvalidDigestError:
            raise error from None
    return found.digest if isinstance(found, Image) else found.diff_id
