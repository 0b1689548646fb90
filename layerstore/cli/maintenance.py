"""Commands that free space: gc, prune; and figures: stats."""

from datetime import timedelta
from typing import Any

import click

from layerstore.cli.output import moment_text, print_json, table
from layerstore.cli.parameters import duration, size
from layerstore.cli.progress import progress_bar
from layerstore.cli.settings import Settings, command
from layerstore.running import remove_dead_runs
from layerstore.wording import count_text, size_text

_CLASSES = {
    "recipe": "made again from their layers",
    "queued": "raw until `layerstore encodings prove`",
    "raw": "no known encoder makes them",
    "plain": "the layers themselves under another digest",
}
"""What the classes of encodings are."""


@command(
    "gc",
    json_form=(
        "An object: plan (images, layers, encodings, uploads, freed, bytes_freed, bytes_freed_by_rewriting) and report "
        "(null with --dry-run; images, layers, encodings, chunks, frames, packs, bytes_freed, packs_rewritten, "
        "bytes_freed_by_rewriting, postponed)."
    ),
    examples="""
        layerstore gc --dry-run
        layerstore gc
        layerstore gc --empty-trash
    """,
)
@click.option("--dry-run", "-n", is_flag=True, help="Show the plan only.")
@click.option("--empty-trash", is_flag=True, help="Take deleted images before their time is over, too.")
def gc(settings: Settings, dry_run: bool, empty_trash: bool) -> None:
    """Free the space of what nothing keeps.

    Shows the plan, then carries it out. Takes images whose time in the trash is over, layers that were released, and
    what broken pushes and runs left. Others may push, pull and delete meanwhile; what comes into use stays.
    """
    if not dry_run:
        remove_dead_runs()
    with settings.open(read_only=dry_run) as store:
        plan = store.plan_collection(empty_trash=empty_trash)
        settings.say(_plan_text(plan))
        if dry_run:
            report = None
        else:
            with progress_bar(settings, "gc") as on_progress:
                report = store.collect_garbage(plan, on_progress=on_progress)
    if settings.json:
        print_json({"plan": plan, "report": report})
    elif report is not None:
        if freed := report.bytes_freed + report.bytes_freed_by_rewriting:
            settings.say(f"freed {size_text(freed)}")
        elif report.layers or report.encodings or report.chunks or report.frames:
            settings.say("collected; a pack gives its space back once enough of it is dead")
        if report.postponed:
            settings.say(f"left for later, because somebody uses them: {report.postponed:,} layers or packs")


def _plan_text(plan: Any) -> str:
    freed = plan.freed
    whole = (
        (len(plan.images), "image"),
        (len(plan.layers), "layer"),
        (len(plan.encodings), "encoding"),
        (plan.uploads, "unfinished upload"),
        (freed.chunks, "chunk"),
        (freed.frames, "frame"),
        (freed.packs, "pack"),
    )
    parts = [count_text(count, noun) for count, noun in whole if count]
    sizes = f"; {size_text(plan.bytes_freed)}" if plan.bytes_freed else ""
    lines = [f"to go: {', '.join(parts)}{sizes}"] if parts else []
    if freed.packs_rewritten:
        rewritten = count_text(freed.packs_rewritten, "pack")
        lines.append(f"to be rewritten: {rewritten}; about {size_text(plan.bytes_freed_by_rewriting)}")
    return "\n".join(lines) or "nothing to collect"


@command(
    "prune",
    json_form=(
        "An object: images (digest, tags, created, reason), freed (what collection frees once they have left the "
        "trash), dry_run."
    ),
    examples="""
        layerstore prune --keep-last 3 --dry-run
        layerstore prune --keep-last 3 --older-than 30d
        layerstore prune --max-size 10GiB
    """,
)
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Of each repository all but the N newest.")
@click.option("--older-than", type=duration, metavar="DURATION", help="Images that came longer ago, e.g. 30d.")
@click.option("--max-size", type=size, metavar="SIZE", help="The oldest images, until packs hold at most this.")
@click.option("--dry-run", "-n", is_flag=True, help="Show the plan only.")
def prune(
    settings: Settings, keep_last: int | None, older_than: timedelta | None, max_size: int | None, dry_run: bool
) -> None:
    """Delete images by rule; they go into the trash.

    --keep-last and --older-than must both agree on an image if both are given; --max-size stands alone. Nothing else
    keeps an image: look at the plan with --dry-run first.
    """
    if keep_last is None and older_than is None and max_size is None:
        raise click.UsageError("give a rule: --keep-last, --older-than or --max-size")
    with settings.open(read_only=dry_run) as store:
        plan = store.plan_prune(keep_last=keep_last, older_than=older_than, max_size=max_size)
        if not dry_run:
            plan = store.prune(plan)
        ttl = store.config.trash_ttl_seconds
    if settings.json:
        print_json({"images": plan.images, "freed": plan.freed, "dry_run": dry_run})
        return
    if settings.quiet:
        for item in plan.images:
            click.echo(item.digest)
        return
    rows = [
        (", ".join(item.tags) or "<none>", item.digest.short, moment_text(item.created), item.reason)
        for item in plan.images
    ]
    if rows:
        click.echo(table(("TAG", "DIGEST", "CREATED", "REASON"), rows))
    verb = "would be deleted" if dry_run else "deleted"
    sizes = size_text(plan.freed.bytes_freed)
    if plan.freed.bytes_freed_by_rewriting:
        sizes += f", and about {size_text(plan.freed.bytes_freed_by_rewriting)} by rewriting packs"
    click.echo(f"{count_text(len(rows), 'image')} {verb}; that frees {sizes}")
    if rows and not dry_run:
        later = f" after {timedelta(seconds=ttl)} in the trash, or `layerstore gc --empty-trash` at once" if ttl else ""
        click.echo(f"`layerstore gc` frees the space{later}")


@command(
    "stats",
    json_form=(
        "An object of counts (images, trash_images, layers, chunks, frames, packs), bytes (logical_bytes, "
        "unique_bytes, chunk_bytes, stored_bytes, dead_bytes, index_bytes, raw_bytes, cache_bytes, disk_bytes), "
        "ratios, and encodings (an array of name, encodings, blob_bytes, kept_bytes)."
    ),
    examples="""
        layerstore stats
        layerstore stats --json
    """,
)
def stats(settings: Settings) -> None:
    """Show sizes, counts and ratios of the store."""
    with settings.open(read_only=True) as store:
        figures = store.stats()
    if settings.json:
        print_json(figures)
        return
    trash = f" and {figures.trash_images:,} in the trash" if figures.trash_images else ""
    click.echo(f"{count_text(figures.images, 'image')}{trash}, {count_text(figures.layers, 'layer')}")
    click.echo(
        f"{count_text(figures.chunks, 'chunk')} in {count_text(figures.frames, 'frame')} "
        f"in {count_text(figures.packs, 'pack')}\n"
    )
    rows = [
        ("logical size", size_text(figures.logical_bytes), "", "the layers of every image, and those of none"),
        ("unique size", size_text(figures.unique_bytes), _times(figures.layer_ratio), "every layer once"),
        ("chunk size", size_text(figures.chunk_bytes), _times(figures.chunk_ratio), "every chunk once"),
        ("stored size", size_text(figures.stored_bytes), _times(figures.compression_ratio), "compressed, in packs"),
        ("  of it dead", size_text(figures.dead_bytes), "", "for `layerstore gc`"),
        ("index", size_text(figures.index_bytes), "", ""),
        *_encoding_sizes(figures),
        *_container_sizes(figures),
        (
            "on disk",
            size_text(figures.disk_bytes),
            _times(figures.ratio),
            "all, as `du` has it, against the logical size",
        ),
        ("shared", size_text(_shared(figures)), "", "logical size less chunk size"),
    ]
    click.echo(table(("", "SIZE", "RATIO", ""), rows, right=(1, 2)))
    if any(one.encodings for one in figures.encodings):
        cells = [
            (one.name, f"{one.encodings:,}", size_text(one.blob_bytes), size_text(one.kept_bytes), _CLASSES[one.name])
            for one in figures.encodings
        ]
        click.echo("")
        click.echo(table(("ENCODINGS", "COUNT", "BLOBS", "KEPT", ""), cells, right=(1, 2, 3)))


def _container_sizes(figures: Any) -> list[tuple[str, str, str, str]]:
    if not figures.containers:
        return []
    return [("containers", size_text(figures.container_bytes), "", f"changes of {figures.containers:,}")]


def _encoding_sizes(figures: Any) -> list[tuple[str, str, str, str]]:
    found = (
        ("raw encodings", figures.raw_bytes, "blobs that are kept as they are"),
        ("cache", figures.cache_bytes, "blobs that were made again, for the next who asks"),
    )
    return [(name, size_text(number), "", text) for name, number, text in found if number]


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x"


def _shared(figures: Any) -> int:
    return max(0, int(figures.logical_bytes - figures.chunk_bytes))
