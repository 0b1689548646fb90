"""Copies of images as commands make them: their options, how they run, and what is told of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import click

from layerstore import RemoteRepository
from layerstore.cli.failures import Interrupted
from layerstore.cli.grouped_options import Decorator
from layerstore.cli.naming import Naming
from layerstore.cli.output import print_json, safe
from layerstore.cli.progress import progress_bars
from layerstore.cli.settings import Settings
from layerstore.errors import EncoderUnavailableError
from layerstore.places.copying import CopiedImage, CopyReport, copy
from layerstore.places.place import Sink, Source
from layerstore.progress import OnProgress, Progress
from layerstore.registry.client.traffic import Traffic, TransferredDifference
from layerstore.wording import count_text, size_text

_UNNAMED = "<none>"
_COMPRESSIONS = ("none", "gzip", "zstd")
REPORT_FORM = (
    "images (digest, source_digest, source_name, name), documents, blobs_copied, bytes_copied, blobs_present, "
    "bytes_present, blobs_absent (layers that licences keep elsewhere), replaced (names that another image had), "
    "bytes_sent and bytes_received (to and from registries, in bodies of HTTP), differences (blobs of which only the "
    "changed chunks were transferred: digest, size, transferred)"
)


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What the commands have in common; each field is an option of that name."""

    name: str | None
    platform: str | None
    referrers: bool
    jobs: int | None


SELECTION_OPTIONS: tuple[Decorator, ...] = (
    click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an index, copy only the image for this platform."),
    click.option("--referrers", is_flag=True, help="Also what refers to the images: signatures, attestations."),
    click.option(
        "--jobs",
        type=click.IntRange(1, 64),
        metavar="N",
        help="How many blobs are copied at the same time; by default as many as suit the place.",
    ),
)
"""What every command has that copies images: ``platform``, ``referrers``, ``jobs``."""

compression_option = click.option(
    "--compression",
    type=click.Choice(_COMPRESSIONS),
    help="Compress layers anew that are not compressed so; digests change.",
)


def copy_all(
    settings: Settings,
    source: Source,
    sink: Sink,
    copies: Sequence[Naming],
    options: CopyOptions,
    *,
    compression: str | None = None,
    operation: str = "copy",
) -> CopyReport:
    """Run copies, of which bars tell under the name of the operation; what they came to."""
    try:
        with progress_bars(settings) as bars:
            on_progress = None if bars is None else _called(bars, operation)
            reports = [
                copy(
                    source,
                    sink,
                    one.references,
                    name=one.name,
                    platform=options.platform,
                    referrers=options.referrers,
                    compression=compression,
                    on_progress=on_progress,
                    jobs=options.jobs,
                )
                for one in copies
            ]
    except KeyboardInterrupt as error:
        raise Interrupted("what has come whole into a store or a layout is not copied again the next time") from error
    except EncoderUnavailableError as error:
        others = "`--compression zstd` or `--compression none`"
        raise EncoderUnavailableError(f"{error}; {others} gives the same layers under other digests") from error
    return summed(reports)


def _called(bars: OnProgress, operation: str) -> OnProgress:
    def tell(progress: Progress) -> None:
        bars(replace(progress, operation=operation) if progress.operation == "copy" else progress)

    return tell


def summed(reports: Sequence[CopyReport]) -> CopyReport:
    """What several copies came to together."""
    counts = [field.name for field in fields(CopyReport) if field.name not in ("images", "replaced")]
    return CopyReport(
        tuple(image for report in reports for image in report.images),
        **{name: sum(getattr(report, name) for report in reports) for name in counts},
        replaced=tuple(name for report in reports for name in report.replaced),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the copies of a command came to, and what of it went over the wire."""

    report: CopyReport
    received: Sequence[Traffic] = ()
    """With registries that images came from."""
    sent: Sequence[Traffic] = ()
    """With registries that they went to."""

    @classmethod
    def between(cls, report: CopyReport, source: Source, *sinks: Sink) -> Self:
        """That of copies from one place to others, whichever of them are in registries."""
        return cls(report, _traffics([source]), _traffics(sinks))

    @property
    def differences(self) -> list[TransferredDifference]:
        """The blobs of which only a part was transferred."""
        return [one for traffic in (*self.received, *self.sent) for one in traffic.differences]

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        every = (*self.received, *self.sent)
        return {
            **{field.name: getattr(self.report, field.name) for field in fields(self.report)},
            "bytes_sent": sum(traffic.bytes_sent for traffic in every),
            "bytes_received": sum(traffic.bytes_received for traffic in every),
            "differences": self.differences,
        }


def _traffics(places: Iterable[Source | Sink]) -> list[Traffic]:
    return [place.traffic for place in places if isinstance(place, RemoteRepository)]


def print_outcome(settings: Settings, outcome: Outcome, *, to_stdout: bool = False) -> None:
    """Print what copies came to; on stderr if what was copied went ``to_stdout``."""
    if settings.json:
        print_json(outcome.document(), err=to_stdout)
    elif not to_stdout:
        show_outcome(settings, outcome)
    elif not settings.quiet:
        for image in outcome.report.images:
            if image.digest != image.source_digest:
                click.echo(_image_line(image), err=True)


def _image_line(image: CopiedImage) -> str:
    name = _UNNAMED if image.name is None else safe(image.name)
    before = "" if image.digest == image.source_digest else f"   (was {image.source_digest})"
    return f"{image.digest}   {name}{before}"


def show_outcome(settings: Settings, outcome: Outcome) -> None:
    """Print it for humans, only digests if little is to be told."""
    report = outcome.report
    if settings.quiet:
        for digest in dict.fromkeys(image.digest for image in report.images):
            click.echo(digest)
        return
    for image in report.images:
        click.echo(_image_line(image))
    for one in outcome.differences:
        click.echo(f"{one.digest}   changed chunks: {size_text(one.transferred)} of {size_text(one.size)}")
    parts = [f"{count_text(report.blobs_copied, 'blob')} new, {size_text(report.bytes_copied)}"]
    if report.blobs_present:
        parts.append(f"{report.blobs_present:,} already present, {size_text(report.bytes_present)}")
    if report.blobs_absent:
        parts.append(f"{report.blobs_absent:,} kept elsewhere for their licence")
    if outcome.received:
        parts.append(f"{size_text(sum(traffic.bytes_received for traffic in outcome.received))} received")
    if outcome.sent:
        parts.append(f"{size_text(sum(traffic.bytes_sent for traffic in outcome.sent))} sent")
    click.echo(f"{count_text(len(report.images), 'image')}: {'; '.join(parts)}")
    for name in report.replaced:
        click.echo(f"another image was called {safe(name)}; it is still there, without a name")
