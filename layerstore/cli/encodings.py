"""Commands for encodings, the compressed forms of layers: encodings, encodings prove."""

from collections.abc import Iterable
from typing import Any

import click

from layerstore.cli.failures import EXIT_DAMAGED
from layerstore.cli.lookup import find_encoding
from layerstore.cli.output import print_json, safe, table
from layerstore.cli.parameters import complete_encoding
from layerstore.cli.progress import progress_bar
from layerstore.cli.settings import Settings, command, group
from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, EncoderUnavailableError
from layerstore.objects import LayerEncoding
from layerstore.store import Store
from layerstore.wording import count_text, size_text

_NONE_SHOWN = "-"


@group(
    "encodings",
    json_form=(
        "An array, the encodings by digest: digest, diff_id (of the layer), size (of the blob), kept_as (recipe, "
        "queued, raw or plain), encoders (texts), is_available (whether this installation can give it back), images, "
        "tags."
    ),
    examples="""
        layerstore encodings
        layerstore encodings --no-trunc
        layerstore encodings --json
        layerstore encodings prove
    """,
)
@click.option("--no-trunc", is_flag=True, help="Print digests in full.")
def encodings(settings: Settings, no_trunc: bool) -> None:
    """List the encodings: the compressed forms of layers.

    Each is given back bit for bit. SIZE is that of the blob. KEPT AS says how: as a recipe, by which ENCODER makes it
    again from its LAYER; queued, raw until `encodings prove` has tried; raw, as no known encoder makes it; plain, the
    layer under another digest.
    """
    with settings.open(read_only=True) as store:
        if settings.quiet and not settings.json:
            for digest in store.encodings:
                click.echo(digest if no_trunc else digest.short)
            return
        rows = [row for one in store.encodings if (row := _row(store, one)) is not None]
    if settings.json:
        print_json(rows)
        return
    cells = [
        (
            row["digest"] if no_trunc else row["digest"].short,
            row["diff_id"] if no_trunc else row["diff_id"].short,
            size_text(row["size"]),
            row["kept_as"],
            _encoder_text(row),
            ", ".join(row["tags"]),
        )
        for row in rows
    ]
    click.echo(table(("DIGEST", "LAYER", "SIZE", "KEPT AS", "ENCODER", "TAGS"), cells, right=(2,)))


def encoding_document(encoding: LayerEncoding) -> dict[str, Any]:
    """All that is known of an encoding."""
    images = encoding.images
    return {
        "digest": encoding.digest,
        "diff_id": encoding.layer.diff_id,
        "size": encoding.size,
        "kept_as": encoding.kept_as,
        "encoders": encoding.encoders,
        "is_available": encoding.is_available,
        "images": [image.digest for image in images],
        "tags": sorted(tag for image in images for tag in image.tags),
    }


def _row(store: Store, digest: Digest) -> dict[str, Any] | None:
    try:
        return encoding_document(store.encodings[digest])
    except BlobNotFoundError:
        return None  # another process collected it while we listed


def _encoder_text(row: dict[str, Any]) -> str:
    text = "; ".join(row["encoders"]) or _NONE_SHOWN
    return text if row["is_available"] else f"{text} (not in this installation)"


@command(
    "prove",
    json_form=(
        "An object: proved, bytes_freed, unproved, damaged (digests), seconds, unavailable (why no proof can be tried; "
        "else null)."
    ),
    examples="""
        layerstore encodings prove
        layerstore encodings prove --json
    """,
)
@click.argument("digests", shell_complete=complete_encoding, nargs=-1, metavar="[DIGEST...]")
def prove(settings: Settings, digests: tuple[str, ...]) -> int:
    """Keep recipes in place of raw encodings, where one is found.

    Finds out which encoder makes each again, as `layerstore recognise` does for files. Works off the queue of those
    that the encoders of this version were not tried on, or the given ones of it. A blob goes only when all of it was
    made again and compared. It may be stopped at any time. Ends with 6 if a blob or its layer cannot be read.
    """
    with settings.open() as store:
        chosen = [find_encoding(store, text).digest for text in digests]
        document = prove_some(settings, store, chosen or None)
    if settings.json:
        print_json(document)
    else:
        show_proof(settings, document)
    return EXIT_DAMAGED if document["damaged"] else 0


def prove_some(settings: Settings, store: Store, digests: Iterable[str] | None) -> dict[str, Any]:
    """Work off the queue, or those of it; what came of it. That there are no encoders is no error: blobs stay raw."""
    try:
        with progress_bar(settings, "prove") as on_progress:
            report = store.prove_encodings(digests, on_progress=on_progress)
    except EncoderUnavailableError as error:
        nothing = {"proved": 0, "bytes_freed": 0, "unproved": 0, "damaged": [], "seconds": 0.0}
        return {**nothing, "unavailable": str(error)}
    return {
        "proved": report.proved,
        "bytes_freed": report.bytes_freed,
        "unproved": report.unproved,
        "damaged": report.damaged,
        "seconds": report.seconds,
        "unavailable": None,
    }


def show_proof(settings: Settings, document: dict[str, Any]) -> None:
    """Say what came of proofs."""
    if document["unavailable"]:
        settings.say(f"nothing can be proved: {safe(document['unavailable'])}")
        return
    for digest in document["damaged"]:
        click.echo(f"damaged: encoding {digest}; `layerstore verify` says more", err=True)
    if document["proved"]:
        freed = size_text(document["bytes_freed"])
        settings.say(f"proved {count_text(document['proved'], 'encoding')}; that freed {freed}")
    if document["unproved"]:
        settings.say(f"no known encoder makes {count_text(document['unproved'], 'encoding')}: kept raw")
    if not (document["proved"] or document["unproved"] or document["damaged"]):
        settings.say("nothing to prove")


encodings.add_command(prove)
