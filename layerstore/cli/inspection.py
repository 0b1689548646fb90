"""Commands that look into images and layers: inspect, history, why."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from layerstore.cli.encodings import encoding_document
from layerstore.cli.lookup import (
    artifact_type,
    find_any,
    find_image,
    for_platform,
    platforms_of,
    refuse_artifact,
    stored_layers,
)
from layerstore.cli.output import moment_text, print_json, safe, table
from layerstore.cli.parameters import complete_any, complete_image, platform_option
from layerstore.cli.settings import Settings, command
from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError, InvalidDigestError
from layerstore.objects import Image, Layer
from layerstore.store import Store
from layerstore.wording import size_text


@command(
    "inspect",
    json_form=(
        "The same as without it. For an image: kind, digest, config_digest, tags, created, size, usage, manifest and "
        "config (as they were stored), platform, layers (each with its blob: digest, size, kept_as, encoders, "
        "is_available). For an index: kind, digest, tags, created, size, usage, manifest, platforms (platform, and the "
        "image as above). For an artifact: kind, artifact_type, digest, tags, created, size, usage, manifest, blobs. "
        "For a layer: kind, diff_id, size, created, images, tags, encodings. For an encoding: kind, digest, diff_id, "
        "size, kept_as, encoders, is_available, images, tags. With --platform and for the images of an index, tags, "
        "created and usage are null: they are the index's."
    ),
    examples="""
        layerstore inspect shop:1.0
        layerstore inspect 4f2e9b0c1d3a
    """,
)
@click.argument("name", shell_complete=complete_any, metavar="IMAGE|DIGEST")
@platform_option("Of an index, print only the image for this platform.")
def inspect(settings: Settings, name: str, platform: str | None) -> None:
    """Print all about an image or a layer, as JSON.

    An image may be an index or an artifact, too, and a digest that of an encoding.
    """
    with settings.open(read_only=True) as store:
        found = find_any(store, name)
        if isinstance(found, Image):
            image = found if platform is None else for_platform(found, name, platform)
            print_json(_image_document(store, image, is_whole=image == found))
        elif isinstance(found, Layer):
            print_json(_layer_document(store, found))
        else:
            print_json({"kind": "encoding", **encoding_document(found)})


def _image_document(store: Store, image: Image, *, is_whole: bool = True) -> dict[str, Any]:
    """``is_whole``: the store lists it, and not only an index that it belongs to."""
    kind = artifact_type(image)
    common = {
        "digest": image.digest,
        "tags": image.tags if is_whole else None,
        "created": image.created if is_whole else None,
        "size": sum(layer.size for layer in stored_layers(store, image)),
        "usage": store.image_usage(image) if is_whole else None,
        "manifest": json.loads(image.manifest_bytes),
    }
    if image.is_index:
        platforms = [
            {"platform": _platform_document(known), "image": _image_document(store, child, is_whole=False)}
            for known, child in image.platforms
        ]
        return {"kind": "index", "artifact_type": kind, **common, "platforms": platforms}
    if kind is not None:
        blobs = [_blob_document(store, digest) for digest in image.blobs]
        return {"kind": "artifact", "artifact_type": kind, **common, "blobs": blobs}
    return {
        "kind": "image",
        "config_digest": image.manifest.config.digest,
        **common,
        "config": json.loads(image.config_bytes),
        "platform": next(iter(platforms_of(image)), None),
        "layers": [_layer_of_image(store, image, position) for position in range(len(image.layers))],
    }


def _platform_document(platform: Any) -> dict[str, Any] | None:
    return None if platform is None else json.loads(platform.model_dump_json())


def _layer_of_image(store: Store, image: Image, position: int) -> dict[str, Any]:
    layer = image.layers[position]
    is_there = layer.diff_id in store.layers
    return {
        "diff_id": layer.diff_id,
        "chain_id": image.chain_ids[position],
        "size": layer.size if is_there else None,
        "created": layer.created if is_there else None,
        "blob": _blob_document(store, image.manifest.layers[position].digest),
    }


def _blob_document(store: Store, digest: Digest) -> dict[str, Any]:
    encoding = store.encodings.get(digest)
    if encoding is None:  # the layer itself, or nothing that is kept here
        size = store.blob_size(digest) if store.has_blob(digest) else None
        kept_as = None if size is None else "layer"
        return {"digest": digest, "size": size, "kept_as": kept_as, "encoders": [], "is_available": size is not None}
    return {
        "digest": digest,
        "size": encoding.size,
        "kept_as": encoding.kept_as,
        "encoders": encoding.encoders,
        "is_available": encoding.is_available,
    }


def _layer_document(store: Store, layer: Layer) -> dict[str, Any]:
    images = layer.images
    return {
        "kind": "layer",
        "diff_id": layer.diff_id,
        "size": layer.size,
        "created": layer.created,
        "images": [image.digest for image in images],
        "tags": sorted(tag for image in images for tag in image.tags),
        "encodings": [one.digest for one in store.encodings.values() if one.layer == layer],
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
@platform_option()
def history(settings: Settings, image: str, no_trunc: bool, platform: str | None) -> None:
    """Show the steps that made an image, the newest first."""
    with settings.open(read_only=True) as store:
        found = refuse_artifact(for_platform(find_image(store, image), image, platform), image)
        steps = list(_steps(store, found))[::-1]
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


def _steps(store: Store, image: Image) -> Iterator[dict[str, Any]]:
    layers = iter(image.layers)
    for entry in image.config.history:
        layer = None if entry.empty_layer else next(layers, None)
        yield _step(store, layer, entry.created, entry.created_by, entry.comment)
    for layer in layers:  # a history may be missing, or end before the layers do
        yield _step(store, layer, None, None, None)


def _step(
    store: Store, layer: Layer | None, created: str | None, created_by: str | None, comment: str | None
) -> dict[str, Any]:
    return {
        "diff_id": None if layer is None else layer.diff_id,
        "created": created,
        "created_by": created_by,
        "size": layer.size if layer is not None and layer.diff_id in store.layers else 0,
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
    "why",
    json_form="An object: digest, kind (image, trash, layer or encoding), reasons (texts), and what they consist of.",
    examples="""
        layerstore why 4f2e9b0c1d3a
        layerstore why shop:1.0
    """,
)
@click.argument("name", shell_complete=complete_any, metavar="IMAGE|DIGEST")
def why(settings: Settings, name: str) -> None:
    """Say what keeps an image or a layer, or an encoding of one."""
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
        found = find_any(store, name)
    except ImageNotFoundError as error:
        try:
            return Digest(name)  # it may be in the trash, and the store knows why
        except InvalidDigestError:
            raise error from None
    return found.diff_id if isinstance(found, Layer) else found.digest
