"""Commands for the store itself: init, verify, repair, rebuild-index, backup, upgrade."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from layerstore.cli.failures import EXIT_DAMAGED
from layerstore.cli.output import jsonable, print_json, safe
from layerstore.cli.parameters import duration, size
from layerstore.cli.progress import progress_bar
from layerstore.cli.settings import Settings, command
from layerstore.store import Store
from layerstore.wording import count_text, size_text


@command(
    "init",
    json_form="An object: path, and what is fixed for the store: format_version, store_id, frame_size, ...",
    examples="""
        layerstore --store /var/lib/layers init
        layerstore --store /var/lib/layers init --compression-level 9 --trash-ttl 7d
    """,
)
@click.option("--frame-size", type=size, metavar="SIZE", help="How much is compressed together; 2MiB by default.")
@click.option("--pack-size-max", type=size, metavar="SIZE", help="When a pack is full; 64MiB by default.")
@click.option("--compression-level", type=int, metavar="LEVEL", help="zstd's level, -7 to 19; 5 by default.")
@click.option("--trash-ttl", type=duration, metavar="DURATION", help="How long deleted images stay; 24h by default.")
@click.option(
    "--encoding-cache-max",
    type=size,
    metavar="SIZE",
    help="How much of compressed blobs that were made again is kept for the next who asks; 1GiB by default.",
)
def init(
    settings: Settings,
    frame_size: int | None,
    pack_size_max: int | None,
    compression_level: int | None,
    trash_ttl: timedelta | None,
    encoding_cache_max: int | None,
) -> None:
    """Make a store in a new or empty folder. These options cannot be changed later."""
    store = Store.create(
        settings.path,
        frame_size=frame_size,
        pack_size_max=pack_size_max,
        compression_level=compression_level,
        trash_ttl=None if trash_ttl is None else trash_ttl.total_seconds(),
        encoding_cache_max=encoding_cache_max,
    )
    with store:
        if settings.json:
            print_json({"path": store.path, **store.config.model_dump()})
        else:
            settings.say(f"made a store at {safe(str(store.path))}")


@command(
    "verify",
    json_form=(
        "An object: is_clean, is_full, problems (kind, text, layers, images), frames_read, bytes_read, chunks, "
        "layers_checked, images_checked, encodings_checked, encodings_unavailable."
    ),
    examples="""
        layerstore verify
        layerstore verify --quick
    """,
)
@click.option("--quick", is_flag=True, help="Check records and counts, without reading all contents.")
def verify(settings: Settings, quick: bool) -> int:
    """Recompute everything and report what is damaged. Nothing is changed.

    Ends with 6 if anything is. `layerstore repair` heals contents, `layerstore rebuild-index` the index.
    """
    with settings.open(read_only=True) as store, progress_bar(settings, "verify") as on_progress:
        report = store.verify(full=not quick, on_progress=on_progress)
    if settings.json:
        print_json(report)
    else:
        for problem in report.problems:
            concerned = [*problem.images] or [*problem.layers]
            suffix = f" (concerns {', '.join(concerned)})" if concerned else ""
            click.echo(f"{problem.kind}: {safe(problem.text + suffix)}")
        checked = f"{count_text(report.images_checked, 'image')}, {count_text(report.layers_checked, 'layer')}"
        if report.encodings_checked:
            checked += f", {count_text(report.encodings_checked, 'encoding')}"
        read = "" if quick else f", {size_text(report.bytes_read)} read"
        state = "clean" if report.is_clean else count_text(len(report.problems), "problem")
        settings.say(f"{state}: {checked}, {count_text(report.chunks, 'chunk')}{read}")
        if report.encodings_unavailable:
            unavailable = count_text(report.encodings_unavailable, "encoding")
            settings.say(f"not checked: {unavailable}, for lack of an encoder in this installation; they are not lost")
    return 0 if report.is_clean else EXIT_DAMAGED


@command(
    "repair",
    json_form="An object: healed, lost, records_rewritten, encodings_healed.",
    examples="""
        layerstore repair
        layerstore repair --from /mnt/backup/layers
    """,
)
@click.option(
    "--from",
    "source",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Another store, for example a backup, to take missing contents from.",
)
def repair(settings: Settings, source: Path | None) -> int:
    """Heal what verify reports.

    Without --from, damaged contents are marked as lost: pushing a layer that holds them heals them. Ends with 6 while
    anything is lost.
    """
    with settings.open() as store, progress_bar(settings, "repair") as on_progress:
        if source is None:
            report = store.repair(on_progress=on_progress)
        else:
            with Store.open(source, read_only=True) as other:
                report = store.repair(other, on_progress=on_progress)
    if settings.json:
        print_json(report)
    else:
        rewritten = count_text(report.records_rewritten, "record")
        healed = count_text(report.healed, "chunk")
        if report.encodings_healed:
            healed += f" and {count_text(report.encodings_healed, 'encoding')}"
        settings.say(f"healed {healed}, wrote {rewritten} anew")
        if report.lost:
            settings.say(f"{count_text(report.lost, 'chunk')} lost: repair from a backup, or push the layers again")
    return EXIT_DAMAGED if report.lost else 0


@command(
    "rebuild-index",
    json_form=(
        "An object: what came back (packs, frames, chunks, layers, images, images_in_trash, tags), and what did not "
        "(bytes_damaged, chunks_lost, layers_damaged, images_damaged, ...)."
    ),
    examples="""
        layerstore rebuild-index
    """,
)
def rebuild_index(settings: Settings) -> int:
    """Make the index anew from packs and journal.

    Nobody else may have the store open. Ends with 6 if something did not come back.
    """
    with progress_bar(settings, "rebuild-index") as on_progress:
        report = Store.rebuild_index(settings.path, on_progress=on_progress)
    _print_report(settings, "rebuilt the index", report)
    if report.is_clean and report.bytes_damaged:
        settings.say(
            "nothing needs the damaged bytes: they are what unfinished pushes, deleted contents or contents that were "
            "healed left in packs"
        )
    return 0 if report.is_clean else EXIT_DAMAGED


@command(
    "backup",
    json_form=(
        "An object: packs_copied, packs_removed, bytes_copied, bytes_total, packs_damaged (numbers), layers_damaged "
        "(DiffIDs), encodings_damaged (digests), is_clean."
    ),
    examples="""
        layerstore backup /mnt/backup/layers
    """,
)
@click.argument("target", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
def backup(settings: Settings, target: Path) -> int:
    """Copy the store to another folder while it may be in use.

    The next backup to that folder copies only what is new. The copy is a store. What is damaged in the store is kept
    as an earlier backup has it; a backup that would lose layers which the earlier one has is refused. Ends with 6
    then, and if something of the store is damaged.
    """
    # Only read: so it works where the store cannot be written, too.
    with settings.open(read_only=True) as store, progress_bar(settings, "backup") as on_progress:
        report = store.backup(target, on_progress=on_progress)
    if settings.json:
        print_json(report)
        return 0 if report.is_clean else EXIT_DAMAGED
    copied = f"{count_text(report.packs_copied, 'pack')} and {size_text(report.bytes_copied)} copied"
    total = f"{size_text(report.bytes_total)} in all"
    settings.say(
        f"backed up to {safe(str(target))}: {copied}, {count_text(report.packs_removed, 'pack')} removed, {total}"
    )
    if report.layers_damaged:
        settings.say(
            f"{count_text(len(report.layers_damaged), 'layer')} cannot be pulled from the copy, as neither the store "
            "nor an earlier backup is whole there. Push again, then back up again:"
        )
        for diff_id in report.layers_damaged:
            settings.say(f"  {diff_id}")
    if report.encodings_damaged:
        settings.say(
            f"{count_text(len(report.encodings_damaged), 'encoding')} cannot be read from the copy, as the raw file is "
            "damaged. Import the image again, then back up again:"
        )
        for digest in report.encodings_damaged:
            settings.say(f"  {digest}")
    if report.packs_damaged:
        numbers = ", ".join(map(str, report.packs_damaged))
        settings.say(
            f"damaged in the store: pack {numbers}. What an earlier backup has of it was kept: run `layerstore repair "
            f"--from {safe(str(target))}`"
        )
    return 0 if report.is_clean else EXIT_DAMAGED


@command(
    "upgrade",
    json_form="An object: from_version, to_version, already_current.",
    examples="""
        layerstore upgrade
    """,
)
def upgrade(settings: Settings) -> None:
    """Bring a store of an older format up to this version's.

    Nobody else may have it open.
    """
    with progress_bar(settings, "upgrade") as on_progress:
        report = Store.upgrade(settings.path, on_progress=on_progress)
    if settings.json:
        print_json(report)
    elif report.already_current:
        settings.say(f"the store has format {report.to_version} already")
    else:
        settings.say(f"upgraded from format {report.from_version} to {report.to_version}")


def _print_report(settings: Settings, title: str, report: Any) -> None:
    if settings.json:
        print_json(report)
        return
    settings.say(title)
    for field in dataclasses.fields(report):
        name = field.name.replace("_", " ")
        value = jsonable(getattr(report, field.name))
        if isinstance(value, list):
            settings.say(f"  {name}: {len(value):,}")
            for item in value:
                text = ", ".join(str(part) for part in item.values()) if isinstance(item, dict) else str(item)
                settings.say(f"    {safe(text)}")
        elif value is not None:
            settings.say(f"  {name}: {_figure(field.name, value)}")


def _figure(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return size_text(value) if name.startswith("bytes") else f"{value:,}"
    return safe(str(value))
