"""The outcome of the image benchmark, as text and as JSON."""

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.console import megabytes
from benchmarks.image_measure import Export, Imports, Stored
from benchmarks.process_cost import Cost
from benchmarks.report import table

CLASSES = ("recipe", "raw", "plain", "queued")
FORMAT = 1
"""Version of the JSON document; goes up when a field changes its meaning."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the report shows."""

    tools: str
    """What compressed the layers."""
    stored: Sequence[Stored]
    imported: str
    """The name of the layout that imports and exports are of; empty if nothing was timed."""
    imports: Imports
    exports: Sequence[Export]
    rounds: int

    @property
    def mismatches(self) -> list[str]:
        """Digests of blobs that did not come back bit for bit."""
        return [digest for one in self.stored for digest in one.mismatches]


def as_document(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as JSON values, sizes in bytes and times in seconds."""
    return {
        "format": FORMAT,
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "tools": outcome.tools,
        "rounds": outcome.rounds,
        "stored": [asdict(one) | {"share": one.share, "other_bytes": one.other_bytes} for one in outcome.stored],
        "imported": outcome.imported,
        "imports": asdict(outcome.imports)
        | {"wall_ratios": outcome.imports.wall_ratios, "cpu_ratios": outcome.imports.cpu_ratios},
        "exports": [asdict(one) for one in outcome.exports],
    }


def as_text(outcome: Outcome) -> str:
    """Return the outcome as tables."""
    parts = [
        f"Layers compressed by {outcome.tools}.",
        "",
        "What is stored, in MB (10^6 bytes) on disk, proofs worked off, no cache",
        _stored_table(outcome.stored),
        "",
        "How the compressed blobs are kept: recipe, raw, plain (a layer by another digest), queued (raw, not tried)",
        _encoding_table(outcome.stored),
    ]
    if outcome.imported:
        parts += [
            "",
            f"Import of {outcome.imported}, {outcome.rounds} rounds: median (smallest-largest)",
            _import_table(outcome.imports),
            f"import / (skopeo copy + zlib): wall {spread(outcome.imports.wall_ratios)}, "
            f"CPU {spread(outcome.imports.cpu_ratios)}",
            "",
            f"Export of {outcome.imported}, blobs to files, {outcome.rounds} rounds: median (smallest-largest)",
            _export_table(outcome.exports),
        ]
    blobs = sum(one.encodings for stored in outcome.stored for one in stored.encodings)
    wrong = outcome.mismatches
    parts += [
        "",
        f"{len(wrong)} BLOBS DID NOT COME BACK BIT FOR BIT: {', '.join(wrong)}"
        if wrong
        else f"All blobs came back bit for bit, {blobs} compressed ones among them.",
    ]
    return "\n".join(parts)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, and the smallest and the largest value in parentheses."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def _stored_table(stored: Sequence[Stored]) -> str:
    header = ["layout", "images", "layers", "tars", "layout", "store", "store / layout"]
    header += ["packs", "index", "raw", "other", "before proofs"]
    rows = [
        [
            one.name,
            str(one.images),
            str(one.layers),
            megabytes(one.tar_bytes),
            megabytes(one.layout_bytes),
            megabytes(one.store_bytes),
            f"{one.share:.1%}",
            megabytes(one.pack_bytes),
            megabytes(one.index_bytes),
            megabytes(one.raw_bytes),
            megabytes(one.other_bytes),
            megabytes(one.queued_bytes),
        ]
        for one in stored
    ]
    return table(header, rows)


def _encoding_table(stored: Sequence[Stored]) -> str:
    header = ["layout", "blobs", "MB", "recipes, bytes"]
    header += [f"{name}, {what}" for name in CLASSES for what in ("blobs", "bytes")]
    rows = []
    for one in stored:
        blobs = sum(group.encodings for group in one.encodings)
        size = sum(group.blob_bytes for group in one.encodings)
        groups = {group.name: group for group in one.encodings}
        row = [one.name, str(blobs), megabytes(size), f"{groups['recipe'].kept_bytes:,}"]
        for name in CLASSES:
            row += [_part(groups[name].encodings, blobs), _part(groups[name].blob_bytes, size)]
        rows.append(row)
    return table(header, rows)


def _part(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _import_table(imports: Imports) -> str:
    steps: dict[str, list[Cost]] = {
        "skopeo copy": imports.copies,
        "zlib decompression": imports.inflations,
        "(gzip -dc)": imports.gunzips,
        "layerstore import": imports.imports,
        "layerstore prove": imports.proofs,
    }
    rows = [
        [
            name,
            spread([cost.wall_seconds for cost in costs]),
            spread([cost.cpu_seconds for cost in costs]),
            f"{max(cost.peak_memory_bytes for cost in costs) / 1e6:,.0f}",
        ]
        for name, costs in steps.items()
    ]
    return table(["step", "wall, s", "CPU, s", "peak memory, MB"], rows)


def _export_table(exports: Sequence[Export]) -> str:
    def rate(values: Callable[[Export], list[float]], export: Export) -> str:
        return spread([value / 1e6 for value in values(export)], 0)

    rows = [
        [
            export.name,
            str(export.threads),
            str(export.blobs),
            megabytes(export.blob_bytes),
            megabytes(export.tar_bytes),
            rate(lambda one: one.tar_rates, export),
            rate(lambda one: one.tar_rates_per_core, export),
            rate(lambda one: one.blob_rates, export),
        ]
        for export in exports
    ]
    header = ["made by", "threads", "blobs", "MB", "MB of tar", "tar MB/s", "tar MB/CPU s", "blob MB/s"]
    return table(header, rows)
