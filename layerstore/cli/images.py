"""Commands that name and list images: images, tag, untag, rm, undelete."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from layerstore.cli.lookup import artifact_type, find_any, find_image, platforms_of, stored_layers
from layerstore.cli.output import moment_text, print_json, safe, table
from layerstore.cli.parameters import complete_any, complete_image, complete_tag, complete_trash
from layerstore.cli.settings import Settings, command
from layerstore.errors import ConflictError, NotFoundError
from layerstore.objects import Image, Layer, LayerEncoding
from layerstore.store import Store
from layerstore.wording import count_text, size_text

UNTAGGED = "<none>"
"""What stands for the tag of an image that has none."""


@command(
    "images",
    json_form=(
        "An array, the oldest image first: kind (image, index or artifact), artifact_type, digest, tags, created, "
        "size (uncompressed), shared_bytes and exclusive_bytes (stored bytes that other images need too, and that only "
        "it needs), stored_bytes, platforms, layers. The stored bytes are null with --no-usage."
    ),
    examples="""
        layerstore images
        layerstore images --quiet
        layerstore images --json
    """,
)
@click.option("--no-trunc", is_flag=True, help="Print digests in full.")
@click.option("--no-usage", is_flag=True, help="Leave out SHARED and EXCLUSIVE: faster in a large store.")
def images(settings: Settings, no_trunc: bool, no_usage: bool) -> None:
    """List the images: a line a tag.

    SIZE is that of all layers, uncompressed. SHARED and EXCLUSIVE are bytes on disk: what other layers and images need
    as well, and what only this image needs. PLATFORM is what an image runs on; an index has several, an artifact its
    type.
    """
    with settings.open(read_only=True) as store:
        if settings.quiet and not settings.json:
            for digest in store.images:
                click.echo(digest if no_trunc else digest.short)
            return
        rows = [row for digest in store.images if (row := _image_row(store, digest, not no_usage)) is not None]
    if settings.json:
        print_json(rows)
        return
    cells = [
        (
            tag,
            row["digest"] if no_trunc else row["digest"].short,
            moment_text(row["created"]),
            size_text(row["size"]),
            *(() if no_usage else (size_text(row["shared_bytes"]), size_text(row["exclusive_bytes"]))),
            _platform_text(row),
        )
        for row in rows
        for tag in row["tags"] or [UNTAGGED]
    ]
    header = ("TAG", "DIGEST", "CREATED", "SIZE", *(() if no_usage else ("SHARED", "EXCLUSIVE")), "PLATFORM")
    click.echo(table(header, cells, right=range(3, len(header) - 1)))


def _image_row(store: Store, digest: str, with_usage: bool) -> dict[str, Any] | None:
    try:
        image = store.images[digest]
        usage = store.image_usage(image) if with_usage else None
        kind = artifact_type(image)
        layers = stored_layers(store, image)
        return {
            "kind": "index" if image.is_index else "image" if kind is None else "artifact",
            "artifact_type": kind,
            "digest": image.digest,
            "tags": image.tags,
            "created": image.created,
            "size": sum(layer.size for layer in layers),
            "shared_bytes": None if usage is None else usage.shared_bytes,
            "exclusive_bytes": None if usage is None else usage.exclusive_bytes,
            "stored_bytes": None if usage is None else usage.stored_bytes,
            "platforms": platforms_of(image),
            "layers": [layer.diff_id for layer in layers],
        }
    except NotFoundError:
        return None  # another process deleted it while we listed


def _platform_text(row: dict[str, Any]) -> str:
    if row["kind"] == "index":
        return count_text(len(row["platforms"]), "platform")
    return row["artifact_type"] or ", ".join(row["platforms"])


@command(
    "tag",
    json_form="An object: digest, tags (all that the image has now).",
    examples="""
        layerstore tag shop:1.0 shop:latest
        layerstore tag 4f2e9b0c1d3a registry.example.com/team/shop:1.0
    """,
)
@click.argument("image", shell_complete=complete_image, metavar="IMAGE")
@click.argument("tags", shell_complete=complete_tag, nargs=-1, required=True, metavar="TAG...")
def tag(settings: Settings, image: str, tags: tuple[str, ...]) -> None:
    """Give an image more tags. A tag that names another image moves."""
    with settings.open() as store:
        found = find_image(store, image)
        for name in tags:
            store.tags.check(name)  # before anything is changed
        for name in tags:
            store.tags[name] = found.digest
        if settings.json:
            print_json({"digest": found.digest, "tags": found.tags})
        else:
            settings.say(f"{found.digest}   {safe(', '.join(found.tags))}")


@command(
    "untag",
    json_form="An array: tag, digest (the image that it named).",
    examples="""
        layerstore untag shop:latest
    """,
)
@click.argument("tags", shell_complete=complete_tag, nargs=-1, required=True, metavar="TAG...")
def untag(settings: Settings, tags: tuple[str, ...]) -> None:
    """Remove tags. Their images stay, untagged if need be."""
    with settings.open() as store:
        named = {name: store.tags[name] for name in tags}
        for name in named:
            del store.tags[name]
        if settings.json:
            print_json([{"tag": name, "digest": digest} for name, digest in named.items()])
        for name, digest in named.items():
            settings.say(f"untagged {safe(name)}   {digest}")


@command(
    "rm",
    json_form=(
        "An array: for an image kind, digest, tags, undelete_until (null if the next collection may take it); for a "
        "layer kind, diff_id; for an encoding kind, digest."
    ),
    examples="""
        layerstore rm shop:1.0
        layerstore rm --all-tags shop:1.0
        layerstore rm --now 4f2e9b0c1d3a
    """,
)
@click.argument("names", shell_complete=complete_any, nargs=-1, required=True, metavar="IMAGE|DIGEST...")
@click.option("--all-tags", is_flag=True, help="Delete an image named by one of its tags although it has others.")
@click.option("--now", is_flag=True, help="Let the next collection take the images from the trash at once.")
def rm(settings: Settings, names: tuple[str, ...], all_tags: bool, now: bool) -> None:
    """Delete images, or release layers that belong to none.

    Encodings are released as layers are. An image goes into the trash with all its tags. `layerstore undelete` brings
    it back until its time is over; the space is free after the next `layerstore gc` then. All names are looked up
    before anything is deleted.
    """
    with settings.open() as store:
        found = list(dict.fromkeys(find_any(store, name) for name in names))
        chosen = [one for one in found if isinstance(one, Image)]
        if not all_tags:
            for image in chosen:
                _refuse_other_tags(store, image, names)
        deleted = []
        for one in found:
            if isinstance(one, Image):
                deleted.append(_delete(settings, store, one, now))
            else:
                deleted.append(_release(settings, store, one))
    if settings.json:
        print_json(deleted)


def _refuse_other_tags(store: Store, image: Image, names: Iterable[str]) -> None:
    # A digest means the image; a tag may be meant as just that name, unless all of them are given.
    named = {name for name in image.tags if any(_is_tag(store, text, name) for text in names)}
    if named and named != set(image.tags):
        others = ", ".join(sorted(set(image.tags) - named))
        one = min(named)
        raise ConflictError(
            f"{one} has other tags too: {others}. `layerstore untag {one}` removes this tag only; "
            "`layerstore rm --all-tags` deletes the image"
        )


def _is_tag(store: Store, text: str, tag: str) -> bool:
    # `shop` and `shop:latest` are the same tag.
    return text == tag or f"{text}:latest" == tag


def _delete(settings: Settings, store: Store, image: Image, now: bool) -> dict[str, Any]:
    ttl = 0 if now else store.config.trash_ttl_seconds
    tags = store.delete_image(image, ttl=ttl)
    until = datetime.now(UTC) + timedelta(seconds=ttl) if ttl else None
    names = f" ({safe(', '.join(tags))})" if tags else ""
    settings.say(f"deleted {image.digest}{names}")
    if until is None:
        settings.say("  the next `layerstore gc` frees its space")
    else:
        back = safe(tags[0]) if tags else image.digest
        settings.say(f"  `layerstore undelete {back}` brings it back until {moment_text(until)}")
    return {"kind": "image", "digest": image.digest, "tags": tags, "undelete_until": until}


def _release(settings: Settings, store: Store, one: Layer | LayerEncoding) -> dict[str, Any]:
    document: dict[str, Any]
    if isinstance(one, Layer):
        store.release_layer(one)
        document = {"kind": "layer", "diff_id": one.diff_id}
    else:
        store.release_blob(one.digest)
        document = {"kind": "encoding", "digest": one.digest}
    settings.say(f"released {list(document.values())[1]}\n  the next `layerstore gc` frees its space")
    return document


@command(
    "trash",
    json_form="An array: digest, tags, deleted, expires.",
    examples="""
        layerstore trash
        layerstore trash --json
    """,
)
def trash(settings: Settings) -> None:
    """List deleted images that can be brought back."""
    with settings.open(read_only=True) as store:
        found = list(store.trash.values())
    if settings.json:
        print_json([asdict(one) for one in found])
    elif settings.quiet:
        for one in found:
            click.echo(one.digest)
    else:
        cells = [
            (tag, one.digest.short, moment_text(one.deleted), moment_text(one.expires))
            for one in found
            for tag in one.tags or [UNTAGGED]
        ]
        click.echo(table(("TAG", "DIGEST", "DELETED", "UNTIL"), cells))


@command(
    "undelete",
    json_form="An object: digest, tags.",
    examples="""
        layerstore undelete shop:1.0
    """,
)
@click.argument("image", shell_complete=complete_trash, metavar="TAG|DIGEST")
def undelete(settings: Settings, image: str) -> None:
    """Bring a deleted image back from the trash.

    It is named by its digest or a tag it had, and gets those of its tags that name no other image by now.
    """
    with settings.open() as store:
        found = store.undelete_image(image)
        if settings.json:
            print_json({"digest": found.digest, "tags": found.tags})
        else:
            settings.say(f"restored {found.digest}   {safe(', '.join(found.tags)) or UNTAGGED}")
