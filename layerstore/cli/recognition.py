"""The command recognise: who made a gzip file."""

from pathlib import Path
from typing import Any

import click

from layerstore.cli.output import print_json, safe
from layerstore.cli.settings import Settings, command
from layerstore.encodings.prove import Proof, prove
from layerstore.wording import size_text


@command(
    "recognise",
    json_form=(
        "An array: file, size, decoded_size, members, encoders (an array of encoder, level and block_size; empty if no "
        "known one makes the file)."
    ),
    examples="""
        layerstore recognise layer.tar.gz
        layerstore recognise --json layer.tar.gz
    """,
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False))
def recognise(settings: Settings, files: tuple[str, ...]) -> None:
    """Say which tool's encoder makes gzip files again.

    Each file is decoded, compressed again and compared to the last byte: docker, containerd, podman, skopeo, buildah,
    umoci, pigz, GNU gzip and Python are known. It needs no store.
    """
    rows = [_row(name, prove(Path(name))) for name in files]
    if settings.json:
        print_json(rows)
        return
    for row in rows:
        click.echo(f"{safe(row['file'])}   {size_text(row['size'])}   {_made_by(row['encoders'])}")


def _made_by(encoders: list[dict[str, Any]]) -> str:
    if not encoders:
        return "no known encoder"
    first = encoders[0]
    blocks = f" in blocks of {size_text(first['block_size'])}" if first["block_size"] else ""
    others = f" (as do {len(encoders) - 1} others)" if len(encoders) > 1 else ""
    return f"{first['encoder']} level {first['level']}{blocks}{others}"


def _row(name: str, proof: Proof) -> dict[str, Any]:
    encoders = [
        {"encoder": one.number.name.lower(), "level": one.level, "block_size": one.block_size}
        for one in proof.candidates
    ]
    return {
        "file": name,
        "size": proof.size,
        "decoded_size": proof.decoded_size,
        "members": proof.members,
        "encoders": encoders,
    }
