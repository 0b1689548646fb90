"""The outcome of the deduplication benchmark: figures per image and in total, as text and as JSON."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.baselines import GZIP, WAYS, Way
from benchmarks.console import megabytes
from benchmarks.images import Corpus, new_layers

FORMAT = 1
"""Version of the JSON document; goes up when a field changes its meaning."""
LAYERSTORE = Way("layerstore", "layerstore", "all that the store's folder takes on disk: packs, index, records, tags")
ALL_WAYS = (*WAYS, LAYERSTORE)


@dataclass(frozen=True, slots=True)
class StoreRun:
    """What running layerstore over the corpus gave."""

    disk_bytes: list[int]
    """What the store's folder took on disk after each image; the last one after the store was closed."""
    push_seconds: float
    push_cpu_seconds: float
    pull_seconds: float
    pull_cpu_seconds: float
    mismatches: list[str]
    """Digests of layers that did not come back bit for bit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the report shows."""

    corpus: Corpus
    stored: dict[str, list[int]]
    """For each way, by key, the bytes stored after each image."""
    run: StoreRun
    seconds: dict[str, float]
    """How long each part of the benchmark took."""

    @classmethod
    def of(
        cls, corpus: Corpus, added: Mapping[str, Sequence[int]], run: StoreRun, seconds: dict[str, float]
    ) -> "Outcome":
        """Join what each way adds per layer with what layerstore took per image."""
        stored = {key: stored_by_image(corpus, layers) for key, layers in added.items()}
        stored[LAYERSTORE.key] = run.disk_bytes
        return cls(corpus, stored, run, seconds)


def stored_by_image(corpus: Corpus, added: Iterable[int]) -> list[int]:
    """Return the bytes stored after each image, from the bytes that each distinct layer adds."""
    rest = iter(added)
    return list(accumulate(sum(next(rest) for _ in group) for group in new_layers(corpus.images)))


def ratio(logical: int, stored: int) -> float | None:
    """Return how many times smaller ``stored`` is; None where nothing was stored."""
    return logical / stored if stored > 0 else None


def as_document(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as JSON values, sizes in bytes and times in seconds."""
    corpus = outcome.corpus
    gzip_bytes = outcome.stored[GZIP.key][-1]
    totals = []
    for way in ALL_WAYS:
        stored = outcome.stored[way.key][-1]
        totals.append(
            {
                "key": way.key,
                "name": way.name,
                "counts": way.counts,
                "stored_bytes": stored,
                "ratio_to_images": ratio(corpus.logical_bytes, stored),
                "ratio_to_distinct_layers": ratio(corpus.unique_bytes, stored),
                "ratio_to_gzip": ratio(gzip_bytes, stored),
            }
        )
    run = outcome.run
    return {
        "format": FORMAT,
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "corpus": {
            "description": corpus.description,
            "images": len(corpus.images),
            "families": len({image.family for image in corpus.images}),
            "distinct_layers": len(corpus.layers),
            "logical_bytes": corpus.logical_bytes,
            "distinct_layer_bytes": corpus.unique_bytes,
        },
        "totals": totals,
        "images": [_image_document(outcome, number) for number in range(len(corpus.images))],
        "layerstore": {
            "push_seconds": run.push_seconds,
            "push_cpu_seconds": run.push_cpu_seconds,
            "pull_seconds": run.pull_seconds,
            "pull_cpu_seconds": run.pull_cpu_seconds,
            "mismatches": run.mismatches,
        },
        "seconds": outcome.seconds,
    }


def _image_document(outcome: Outcome, number: int) -> dict[str, Any]:
    image = outcome.corpus.images[number]
    added = {way.key: _added(outcome.stored[way.key], number) for way in ALL_WAYS}
    return {
        "name": image.name,
        "family": image.family,
        "layers": [{"diff_id": layer.digest, "bytes": layer.size} for layer in image.layers],
        "logical_bytes": image.logical_bytes,
        "stored_bytes_after": {way.key: outcome.stored[way.key][number] for way in ALL_WAYS},
        "added_bytes": added,
        "ratio": {key: ratio(image.logical_bytes, value) for key, value in added.items()},
    }


def _added(stored: Sequence[int], number: int) -> int:
    return stored[number] - (stored[number - 1] if number else 0)


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document for people and programs."""
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def as_text(outcome: Outcome) -> str:
    """Return the outcome as tables: what each image adds, its ratio, and the totals."""
    corpus = outcome.corpus
    run = outcome.run
    document = as_document(outcome)
    names = [way.name for way in ALL_WAYS]
    added_rows, ratio_rows = [], []
    for image in document["images"]:
        start = [image["name"], megabytes(image["logical_bytes"])]
        added_rows.append([*start, *(megabytes(image["added_bytes"][way.key]) for way in ALL_WAYS)])
        ratio_rows.append([*start, *(_times(image["ratio"][way.key]) for way in ALL_WAYS)])
    total_rows = [
        [
            total["name"],
            megabytes(total["stored_bytes"]),
            _times(total["ratio_to_images"]),
            _times(total["ratio_to_distinct_layers"]),
            _times(total["ratio_to_gzip"]),
            total["counts"],
        ]
        for total in document["totals"]
    ]
    pulled = len(corpus.layers)
    wrong = len(run.mismatches)
    return "\n".join(
        [
            f"{len(corpus.images)} images of {document['corpus']['families']} families, {corpus.description}.",
            f"{megabytes(corpus.logical_bytes)} MB as images; {pulled} distinct layers, "
            f"{megabytes(corpus.unique_bytes)} MB.",
            "",
            "What each image adds, in MB (10^6 bytes), in order of publication",
            table(["image", "size", *names], added_rows),
            "",
            "Ratio of each image: its size / what it adds",
            table(["image", "size", *names], ratio_rows),
            "",
            "In total: size of all images, of all distinct layers, and of all gzip blobs / what is stored",
            table(["way", "stored MB", "images", "layers", "gzip", "counts"], total_rows, left=(0, 5)),
            "",
            f"layerstore pushed {_rate(corpus.logical_bytes, run.push_seconds, run.push_cpu_seconds)}; "
            f"it pulled every layer {_rate(corpus.unique_bytes, run.pull_seconds, run.pull_cpu_seconds)}.",
            f"{pulled} of {pulled} layers came back bit for bit."
            if not wrong
            else f"{wrong} of {pulled} LAYERS DID NOT COME BACK BIT FOR BIT: {', '.join(run.mismatches)}",
        ]
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Return rows aligned under their header: columns in ``left`` to the left, all others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}x" if value < 1000 else f"{value:,.0f}x"


def _rate(size: int, seconds: float, cpu_seconds: float) -> str:
    speed = size / 1e6 / seconds if seconds else 0.0
    return f"{megabytes(size)} MB in {seconds:.1f} s ({speed:,.0f} MB/s, {cpu_seconds:.1f} CPU s)"
