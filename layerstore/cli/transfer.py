"""Commands that bring images from one place to another: import, export, copy."""

import click

from layerstore.cli.copies import (
    REPORT_FORM,
    SELECTION_OPTIONS,
    CopyOptions,
    Outcome,
    compression_option,
    copy_all,
    print_outcome,
    show_outcome,
)
from layerstore.cli.encodings import prove_some, show_proof
from layerstore.cli.failures import EXIT_DAMAGED
from layerstore.cli.grouped_options import Command, Decorator, with_options
from layerstore.cli.lookup import find_image
from layerstore.cli.naming import Naming, namings
from layerstore.cli.output import print_json
from layerstore.cli.parameters import complete_image_or_file
from layerstore.cli.places import chosen_references, is_pipe, one_name, opened_sink, opened_source
from layerstore.cli.registry_options import RegistryOptions, registry_options
from layerstore.cli.settings import Settings, command
from layerstore.places.copying import CopyReport
from layerstore.places.opening import FORMATS
from layerstore.places.store_place import StorePlace
from layerstore.store import Store

_PLACE = click.Path(allow_dash=True)
_OPTIONS: tuple[Decorator, ...] = (
    click.option("--name", metavar="NAME", help="What to call the image there."),
    *SELECTION_OPTIONS,
)


def _copy_options(function: Command) -> Command:
    """Add the options to a command, whose function gets them as one `CopyOptions` called ``options``."""
    return with_options(function, CopyOptions, "options", _OPTIONS)


def _format_option(text: str) -> Decorator:
    return click.option("--format", type=click.Choice(FORMATS), help=text)


@command(
    "import",
    json_form=f"An object: {REPORT_FORM}, proof (with --prove what `layerstore encodings prove` has; else null).",
    examples="""
        layerstore import shop.tar
        layerstore import layout/ 1.0 --name registry.example.com/team/shop
        layerstore import oci:layout:1.0 --platform linux/arm64 --prove
        docker save shop:1.0 | layerstore import -
        layerstore import docker://localhost:5000/team/shop:1.0
    """,
)
@click.argument("place", metavar="PLACE", type=_PLACE)
@click.argument("references", nargs=-1, metavar="[REF...]")
@_copy_options
@registry_options
@_format_option("What PLACE is; found out by itself otherwise.")
@click.option("--prove", is_flag=True, help="Run `layerstore encodings prove` on the new blobs.")
def import_(
    settings: Settings,
    place: str,
    references: tuple[str, ...],
    options: CopyOptions,
    registry: RegistryOptions,
    format: str | None,
    prove: bool,
) -> int:
    """Copy images into the store, byte for byte.

    All of a place are copied, or those that are named. PLACE is an OCI layout (a directory), an archive of one, or what
    `docker save` writes; '-' is an archive on the standard input. KIND:PATH[:REF] with oci, oci-archive, docker-archive
    or store says what it is, as skopeo has it, and docker://NAME[:TAG] is in a registry. Compressed layers are given
    back bit for bit; they are kept raw until `layerstore encodings prove` has found out how they are made again.

    --name is a whole reference for one image, or a repository in which all keep their tags.
    """
    with settings.open() as store, opened_source(settings, place, format, registry) as (source, in_place):
        chosen = chosen_references(source, references, in_place)
        copies = namings(source, chosen, options.name, options.platform)
        for one in copies:
            if one.name is not None:
                store.tags.check(one.name)  # before anything is copied
        report = copy_all(settings, source, StorePlace(store), copies, options)
        outcome = Outcome.between(report, source)
        proof = prove_some(settings, store, _blobs(store, report)) if prove else None
    if settings.json:
        print_json({**outcome.document(), "proof": proof})
    else:
        show_outcome(settings, outcome)
        if proof is not None:
            show_proof(settings, proof)
    return EXIT_DAMAGED if proof is not None and proof["damaged"] else 0


@command(
    "export",
    json_form=f"An object: {REPORT_FORM}. If PLACE is '-' it goes to stderr.",
    examples="""
        layerstore export shop:1.0 shop.tar
        layerstore export shop:1.0 shop:1.1 layout/
        layerstore export shop:1.0 oci-archive:shop.oci:1.0 --compression zstd
        layerstore export shop:1.0 - | docker load
        layerstore export shop:1.0 docker://localhost:5000/team/shop
    """,
)
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image_or_file, metavar="REF...")
@click.argument("place", metavar="PLACE", type=_PLACE)
@_copy_options
@registry_options
@_format_option("What PLACE is to be; by its ending otherwise: .tar for docker-archive, else oci.")
@compression_option
def export(
    settings: Settings,
    images: tuple[str, ...],
    place: str,
    options: CopyOptions,
    registry: RegistryOptions,
    format: str | None,
    compression: str | None,
) -> None:
    """Copy images out of the store, byte for byte.

    PLACE is a directory, an OCI layout that is made or added to; or a new file, an archive that `docker load` and OCI
    tools read; '-' is the standard output. KIND:PATH[:REF] with oci, oci-archive, docker-archive or store says what it
    is to be, as skopeo has it, and docker://NAME[:TAG] is in a registry. Layers are compressed as they came; those of
    images that were made with `layerstore push` are plain tars. With --compression, layers and so digests are others.
    """
    with settings.open(read_only=True) as store:
        chosen = [_reference(store, text) for text in images]
        with opened_sink(place, format, registry) as (sink, in_place):
            copies = [Naming(chosen, one_name(options.name, in_place))]
            report = copy_all(settings, StorePlace(store), sink, copies, options, compression=compression)
    print_outcome(settings, Outcome.between(report, StorePlace(store), sink), to_stdout=is_pipe(place))


@command(
    "copy",
    json_form=f"An object: {REPORT_FORM}. If SINK is '-' it goes to stderr.",
    examples="""
        layerstore copy layout/ oci-archive:shop.oci
        layerstore copy docker-archive:shop.tar oci:other shop:1.0
        layerstore copy oci:layout:1.0 shop-1.0.tar --name shop:1.0
        layerstore copy docker://localhost:5000/team/shop:1.0 oci:other
    """,
)
@click.argument("source", metavar="SOURCE", type=_PLACE)
@click.argument("sink", metavar="SINK", type=_PLACE)
@click.argument("references", nargs=-1, metavar="[REF...]")
@_copy_options
@registry_options
@compression_option
def copy_(
    settings: Settings,
    source: str,
    sink: str,
    references: tuple[str, ...],
    options: CopyOptions,
    registry: RegistryOptions,
    compression: str | None,
) -> None:
    """Copy images between any two places. It needs no store.

    All of the first are copied, or those that are named, byte for byte. Places are as for `layerstore import` and
    `layerstore export`: a directory, a file, '-', or KIND:PATH[:REF] with oci, oci-archive, docker-archive or store,
    or docker://NAME[:TAG] in a registry. With --compression, layers and so digests are others.
    """
    with opened_source(settings, source, None, registry) as (opened, in_source):
        chosen = chosen_references(opened, references, in_source)
        with opened_sink(sink, None, registry) as (target, in_sink):
            copies = [Naming(chosen, one_name(options.name, in_sink))]
            report = copy_all(settings, opened, target, copies, options, compression=compression)
    print_outcome(settings, Outcome.between(report, opened, target), to_stdout=is_pipe(sink))


def _reference(store: Store, text: str) -> str:
    """What `copy` is to look for: a tag as it is, and a digest whole."""
    image = find_image(store, text)
    return text if store.tags.get(text) == image.digest else image.digest


def _blobs(store: Store, report: CopyReport) -> list[str]:
    blobs = dict.fromkeys(blob for image in report.images for blob in store.images[image.digest].blobs)
    return [blob for blob in blobs if blob in store.encodings]
