"""Commands for layers: push, pull, layers."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import click

from layerstore.cli.copies import REPORT_FORM, compression_option
from layerstore.cli.failures import Interrupted
from layerstore.cli.image_options import ImageOptions, image_options
from layerstore.cli.lookup import find_encoding, find_image, find_layer
from layerstore.cli.output import moment_text, print_json, safe, table
from layerstore.cli.parameters import complete_image, complete_layer
from layerstore.cli.progress import progress_bar
from layerstore.cli.registry_options import RegistryOptions, registry_options
from layerstore.cli.registry_transfer import TransferOptions, Wanted, pull_image, push_images, transfer_options
from layerstore.cli.settings import Settings, command
from layerstore.digest import reads_as_digest
from layerstore.errors import ImageNotFoundError, InvalidInputError, LayerNotFoundError, NotFoundError
from layerstore.objects import Image, Layer
from layerstore.progress import OnProgress
from layerstore.registry.client.references import names_registry
from layerstore.store import PushResult, Store
from layerstore.wording import count_text, path_text, size_text

_STDIO = "-"
_SKIPPED_SHOWN = 5


@command(
    "push",
    json_form=(
        "One object a line (JSON lines), each as soon as it is known: for a layer type, source, diff_id, size, "
        "already_present, encoding, bytes_new, bytes_stored, chunks_new, chunks_reused, skipped (the first 100 of the "
        "paths that were left out), skipped_count; at the end, for the image that was made, type, digest, tags, "
        f"layers. For what went to a registry an object: {REPORT_FORM}."
    ),
    examples="""
        layerstore push base.tar app.tar.gz
        layerstore push base.tar app.tar.gz --tag shop:1.0 --cmd "python -m shop"
        layerstore push patch.tar --base shop:1.0 --tag shop:1.1 --env MODE=test
        layerstore push rootfs/ --mtime-max 0 --tag base:latest
        zcat layer.tar.gz | layerstore push -
        layerstore push localhost:5000/team/shop:1.0 --from shop:1.0
    """,
)
@click.argument("sources", nargs=-1, required=True, metavar="FILE|DIR|-|REF...", type=click.Path(allow_dash=True))
@click.option("--expected", metavar="DIGEST", help="Refuse the file unless its bytes have this digest.")
@click.option(
    "--decode",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Decode gzip and zstd, so that the layer is the tar, or keep all bytes as they are.",
)
@click.option(
    "--mtime-max",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    envvar="SOURCE_DATE_EPOCH",
    show_envvar=True,
    help="For a directory: no modification time later than this, in seconds since 1970.",
)
@image_options
@click.option(
    "--from",
    "image_name",
    metavar="IMAGE",
    shell_complete=complete_image,
    help="To a registry: send this image of the store, not the one that is called REF.",
)
@transfer_options
@compression_option
@registry_options
def push(
    settings: Settings,
    sources: tuple[str, ...],
    expected: str | None,
    decode: Literal["auto", "never"],
    mtime_max: int | None,
    image: ImageOptions,
    image_name: str | None,
    transfer: TransferOptions,
    compression: str | None,
    registry: RegistryOptions,
) -> None:
    """Store layers from files, or send images to a registry.

    Layers come from files, directories or the standard input. Prints a line a layer, its DiffID first. A directory
    becomes a tar that depends on its contents only. A layer is kept until an image takes it over or `layerstore rm`
    releases it; with --tag or --base the layers become an image at once. With --quiet only DiffIDs are printed, or only
    the image's digest if one is made.

    Of a compressed file the decoded tar is kept, not the compressed bytes themselves.

    REF is REGISTRY/NAME[:TAG], and no file: the store's image of that name goes to the registry, with all platforms
    that the store has; what the registry has already is not sent. Layers go as they came, those of `layerstore push` as
    plain tars, unless --compression says otherwise.
    """
    remote = [source for source in sources if names_registry(source) and not Path(source).exists()]
    if remote:
        if len(remote) < len(sources) or image.wanted or expected is not None:
            raise click.UsageError(f"{remote[0]} is an image of a registry, which goes alone: --from says which it is")
        push_images(settings, remote, image_name, transfer.copying(), compression, registry)
        return
    if image_name is not None or compression is not None or transfer.given or registry.given:
        raise click.UsageError(f"{sources[0]} is no image of a registry; leave out options that are for these")
    _check_sources(sources, expected)
    makes_image = image.wanted
    with settings.open() as store:
        image.check(store)
        layers = []
        for number, source in enumerate(sources, 1):
            subject = source if len(sources) == 1 else f"[{number}/{len(sources)}] {source}"
            with progress_bar(settings, subject) as on_progress:
                try:
                    result = _push_one(store, source, decode, mtime_max, expected, on_progress)
                except KeyboardInterrupt as error:
                    raise Interrupted("`layerstore gc` frees what was stored of this layer") from error
            layers.append(result.layer)
            _print_pushed(settings, source, result, is_quiet=makes_image)
        if makes_image:
            _print_image(settings, image.create(store, layers))


def _check_sources(sources: tuple[str, ...], expected: str | None) -> None:
    if sources.count(_STDIO) > 1:
        raise click.UsageError("'-' can stand only once: there is one standard input")
    for source in sources:
        if source != _STDIO and not Path(source).exists():
            raise NotFoundError(f"there is no file or directory {source}")
    if _STDIO in sources and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("the standard input is closed or a terminal; pipe a layer into it")
    if expected is None:
        return
    if len(sources) > 1:
        raise click.UsageError("--expected goes with one file only")
    if Path(sources[0]).is_dir():
        raise click.UsageError("--expected goes with a file: a directory has no digest before it is packed")


def _push_one(
    store: Store,
    source: str,
    decode: Literal["auto", "never"],
    mtime_max: int | None,
    expected: str | None,
    on_progress: OnProgress | None,
) -> PushResult:
    if source == _STDIO:
        return store.push_layer(sys.stdin.buffer, decode=decode, expected=expected, on_progress=on_progress)
    if Path(source).is_dir():
        return store.push_tree(source, mtime_max=mtime_max, on_progress=on_progress)
    return store.push_layer(source, decode=decode, expected=expected, on_progress=on_progress)


def _print_pushed(settings: Settings, source: str, result: PushResult, *, is_quiet: bool) -> None:
    diff_id = result.layer.diff_id
    if settings.json:
        document = {
            "type": "layer",
            "source": source,
            "diff_id": diff_id,
            "size": result.size,
            "already_present": result.already_present,
            "encoding": result.encoding,
            "undecodable": result.undecodable or None,
            "bytes_new": result.bytes_new,
            "bytes_stored": result.bytes_stored,
            "chunks_new": result.chunks_new,
            "chunks_reused": result.chunks_reused,
            "skipped": result.skipped,
            "skipped_count": result.skipped_count,
        }
        print_json(document, indent=None)
        return
    if result.skipped:
        more = ", …" if result.skipped_count > _SKIPPED_SHOWN else ""
        names = ", ".join(path_text(path) for path in result.skipped[:_SKIPPED_SHOWN])
        left_out = count_text(result.skipped_count, "socket")
        click.echo(f"{safe(source)}: left out {left_out}, which a tar cannot have: {safe(names)}{more}", err=True)
    if result.undecodable:
        click.echo(f"{safe(source)}: kept as the bytes it is: {safe(result.undecodable)}", err=True)
    if settings.quiet:
        if not is_quiet:
            click.echo(diff_id)
    else:
        if result.already_present:
            state = "already present"
        else:
            state = f"{size_text(result.bytes_new)} new   {size_text(result.bytes_stored)} stored"
        encoding = "" if result.encoding is None else f" (decoded {result.encoding.value})"
        click.echo(f"{diff_id}   {size_text(result.size)}   {state}   {safe(source)}{encoding}")


def _print_image(settings: Settings, image: Image) -> None:
    if settings.json:
        layers = [layer.diff_id for layer in image.layers]
        print_json({"type": "image", "digest": image.digest, "tags": image.tags, "layers": layers}, indent=None)
    elif settings.quiet:
        click.echo(image.digest)
    else:
        click.echo(f"{image.digest}   image   {safe(', '.join(image.tags)) or '<none>'}")


@command(
    "pull",
    json_form=(
        "An object: diff_id, size, file. If FILE is '-' it goes to stderr. "
        f"For what came from a registry an object: {REPORT_FORM}."
    ),
    examples="""
        layerstore pull 4f2e9b0c1d3a layer.tar
        layerstore pull 4f2e9b0c1d3a - | tar -tv
        layerstore pull localhost:5000/team/shop:1.0
        layerstore pull localhost:5000/team/shop:1.0 --all --name shop:1.0
    """,
)
@click.argument("name", shell_complete=complete_layer, metavar="DIGEST|REF")
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(allow_dash=True))
@click.option("--name", "new_name", metavar="NAME", help="What to call the image in the store; REF by default.")
@click.option("--all", "all_platforms", is_flag=True, help="All platforms of an index.")
@click.option("--all-tags", is_flag=True, help="All images of the repository REF that have a tag.")
@transfer_options
@registry_options
def pull(
    settings: Settings,
    name: str,
    file: str | None,
    new_name: str | None,
    all_platforms: bool,
    all_tags: bool,
    transfer: TransferOptions,
    registry: RegistryOptions,
) -> None:
    """Write a layer to a file, or get an image from a registry.

    DIGEST is a DiffID or a unique beginning of one, 12 hex digits or more; FILE '-' is the standard output. Every byte
    is verified. A file gets the whole layer or stays as it was; what a pipe got is complete only if the command ends
    with 0.

    REF is REGISTRY/NAME[:TAG][@DIGEST]. Of an index the image for this machine is taken, or for --platform. What the
    store has is not fetched again, and a broken download goes on where it was. Credentials are those of `docker login`.
    """
    if file is None:
        if not names_registry(name):
            raise click.UsageError(f"{name} is no image of a registry (REGISTRY/NAME:TAG), and a layer needs FILE")
        pull_image(settings, name, Wanted(transfer, new_name, all_platforms, all_tags), registry)
        return
    if names_registry(name):
        raise click.UsageError(f"{name} is an image of a registry, which goes into the store; leave out FILE")
    if new_name is not None or all_platforms or all_tags or transfer.given or registry.given:
        raise click.UsageError("a layer goes into FILE; leave out options that are for images of a registry")
    _pull_layer(settings, name, file)


def _pull_layer(settings: Settings, digest: str, file: str) -> None:
    to_stdout = file == _STDIO
    if to_stdout and (sys.stdout is None or sys.stdout.isatty()):
        raise click.UsageError(
            "the standard output is closed or a terminal, a layer is binary; name a file or pipe it on"
        )
    if not to_stdout and Path(file).is_dir():
        raise click.UsageError(f"{file!r} is a directory; name a file")
    with settings.open(read_only=True) as store:
        layer = _layer_to_pull(store, digest)
        with progress_bar(settings, layer.diff_id) as on_progress:
            if to_stdout:
                size = store.pull_layer(layer, sys.stdout.buffer, on_progress=on_progress)
                sys.stdout.buffer.flush()
            else:
                size = store.pull_layer(layer, file, on_progress=on_progress)
    if settings.json:
        print_json({"diff_id": layer.diff_id, "size": size, "file": file}, err=to_stdout)
    elif not to_stdout:
        settings.say(f"{layer.diff_id}   {size_text(size)}   {safe(file)}")


def _layer_to_pull(store: Store, text: str) -> Layer:
    try:
        return find_layer(store, text)
    except (LayerNotFoundError, InvalidInputError) as error:
        if _is_encoding(store, text):
            diff_id = find_encoding(store, text).layer.diff_id
            raise LayerNotFoundError(
                f"{text} is an encoding of layer {diff_id}: pull that, or `layerstore export` an image with it"
            ) from None
        # Somebody who comes from Docker pulls images.
        try:
            image = find_image(store, text)
        except InvalidInputError:
            raise error from None
        except ImageNotFoundError:
            if isinstance(error, LayerNotFoundError) or reads_as_digest(text):
                raise error from None
            raise LayerNotFoundError(
                f"the store has no layer {text}: a layer is named by its DiffID. `layerstore layers` lists them, and "
                "`layerstore inspect` those of an image"
            ) from None
        layers = ", ".join(layer.diff_id.short for layer in image.layers)
        raise LayerNotFoundError(f"{text} is an image; pull its layers one by one: {layers}") from None


def _is_encoding(store: Store, text: str) -> bool:
    try:
        return bool(find_encoding(store, text))
    except (NotFoundError, InvalidInputError):
        return False


@command(
    "layers",
    json_form="An array, the layers by DiffID: diff_id, size, created, images, tags.",
    examples="""
        layerstore layers
        layerstore layers --no-trunc
        layerstore layers --json
    """,
)
@click.option("--no-trunc", is_flag=True, help="Print DiffIDs in full.")
def layers(settings: Settings, no_trunc: bool) -> None:
    """List the layers.

    IMAGES is how many images each is part of, TAGS are the tags of these.
    """
    with settings.open(read_only=True) as store:
        if settings.quiet and not settings.json:
            for diff_id in store.layers:
                click.echo(diff_id if no_trunc else diff_id.short)
            return
        rows = [row for layer in list(store.layers.values()) if (row := _layer_row(layer)) is not None]
    if settings.json:
        print_json(rows)
        return
    cells = [
        (
            row["diff_id"] if no_trunc else row["diff_id"].short,
            moment_text(row["created"]),
            size_text(row["size"]),
            str(len(row["images"])),
            ", ".join(row["tags"]),
        )
        for row in rows
    ]
    click.echo(table(("DIFF ID", "CREATED", "SIZE", "IMAGES", "TAGS"), cells, right=(2, 3)))


def _layer_row(layer: Layer) -> dict[str, Any] | None:
    try:
        images = layer.images
        created: datetime = layer.created
        return {
            "diff_id": layer.diff_id,
            "size": layer.size,
            "created": created,
            "images": [image.digest for image in images],
            "tags": sorted(tag for image in images for tag in image.tags),
        }
    except LayerNotFoundError:
        return None  # another process collected it while we listed
