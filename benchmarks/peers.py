"""What layerstore costs beside restic, borg, casync and gzip, on the same layers in the same run.

Every round runs every tool, one after another and each time another one first: it stores all distinct layers in order
of publication, restores them all (and compares their digests), then drops the layers that only the older half of the
images has and frees their space. Command-line tools take one command per layer; layerstore takes one process for all
layers, as a program that uses it would. Shown are medians over the rounds, with the smallest and the largest.

Bytes on disk are those of the repositories alone: not of the caches that restic and borg keep elsewhere.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file, from anywhere

from benchmarks.console import BenchmarkError, megabytes, tell
from benchmarks.corpus import add_input_options, load_corpus
from benchmarks.images import Corpus, disk_bytes, sha256_of
from benchmarks.peer_tools import TOOLS, Task, Tool, base_environment, usable, version
from benchmarks.process_cost import Cost, run_all
from benchmarks.report import table, write_document

FORMAT = 1
STEPS = ("store", "restore", "collect")
LAYERSTORE = "layerstore"
COLUMNS = {
    "stored_bytes": "stored, MB",
    "stored_bytes_after_collect": "after collecting, MB",
} | {
    f"{step}_{key}": title
    for step in STEPS
    for key, title in {"cpu_seconds": "CPU, s", "wall_seconds": "wall, s", "peak_memory_bytes": "memory, MB"}.items()
}
TABLES = {
    "Bytes on disk": ["stored_bytes", "stored_bytes_after_collect"],
    "Storing every layer": ["store_cpu_seconds", "store_wall_seconds", "store_peak_memory_bytes"],
    "Restoring every layer": ["restore_cpu_seconds", "restore_wall_seconds", "restore_peak_memory_bytes"],
    "Dropping the older half of the images and freeing their space": [
        "collect_cpu_seconds",
        "collect_wall_seconds",
        "collect_peak_memory_bytes",
    ],
}
EXAMPLES = """examples:
  python benchmarks/peers.py                         the default corpus, three rounds
  python benchmarks/peers.py --rounds 5 --oci DIR    the images of an OCI image layout
  python benchmarks/peers.py --tools layerstore borg only these tools
"""


@dataclass(slots=True)
class Samples:
    """What one tool gave, a value a round."""

    costs: dict[str, list[Cost]] = field(default_factory=lambda: {step: [] for step in STEPS})
    disk_bytes: list[int] = field(default_factory=list)
    """Stored bytes after storing everything."""
    disk_bytes_collected: list[int] = field(default_factory=list)
    """Stored bytes after the collection."""
    mismatches: list[str] = field(default_factory=list)
    """Digests of layers that were not restored bit for bit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        corpus = load_corpus(options)
        tools = [tool for tool in TOOLS if tool.name.split()[0] in options.tools]
        for tool in tools:
            if not usable(tool):
                tell(f"{tool.name} is not installed and is left out (apt-get install restic borgbackup casync)")
        samples = compare(corpus, [tool for tool in tools if usable(tool)], options.rounds, options.work)
    except BenchmarkError as error:
        tell(f"error: {error}")
        return 2
    print(as_text(corpus, samples))
    results: Path = options.work / "peers.json"
    write_document(results, as_document(corpus, samples))
    print(f"\nwritten: {results}")
    return 1 if any(sample.mismatches for sample in samples.values()) else 0


def compare(corpus: Corpus, tools: Sequence[Tool], rounds: int, work: Path) -> dict[str, Samples]:
    """Run every tool in every round and return what each gave, by name."""
    samples = {tool.name: Samples() for tool in tools}
    for number in range(rounds):
        first = number % len(tools)
        for tool in (*tools[first:], *tools[:first]):
            tell(f"peers: round {number + 1} of {rounds}, {tool.name}")
            _run_tool(tool, corpus, work / "peers", samples[tool.name])
    return samples


def task_of(corpus: Corpus, restored: Path) -> Task:
    """Return the common task: the distinct layers, and the older half of the images to be dropped."""
    places = {layer.digest: number for number, layer in enumerate(corpus.layers)}
    images = {
        f"benchmark:{number}": [places[layer.digest] for layer in image.layers]
        for number, image in enumerate(corpus.images)
    }
    return Task(corpus.layers, images, list(images)[: len(images) // 2], restored)


def _run_tool(tool: Tool, corpus: Corpus, folder: Path, samples: Samples) -> None:
    """Run one tool once, in an empty folder that is removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    restored = folder / "restored"
    restored.mkdir(parents=True)
    task = task_of(corpus, restored)
    environment = {**base_environment(), **tool.environment(folder)}
    run_all(tool.prepare(folder, task), environment, folder)
    for step, commands in (("store", tool.store), ("restore", tool.restore), ("collect", tool.collect)):
        os.sync()  # what an earlier step left to be written is not this step's cost
        samples.costs[step].append(run_all(commands(folder, task), environment, folder))
        if step == "store":
            samples.disk_bytes.append(disk_bytes(folder / "data"))
        elif step == "restore":
            for layer, target in zip(task.layers, task.targets, strict=True):
                if sha256_of(target) != layer.digest:
                    samples.mismatches.append(layer.digest)
            shutil.rmtree(restored)
        else:
            samples.disk_bytes_collected.append(disk_bytes(folder / "data"))
    shutil.rmtree(folder)


def figures(samples: Samples) -> dict[str, list[float]]:
    """Return every figure of a tool by its key, a value a round; units stand last in the keys."""
    values: dict[str, list[float]] = {
        "stored_bytes": [float(value) for value in samples.disk_bytes],
        "stored_bytes_after_collect": [float(value) for value in samples.disk_bytes_collected],
    }
    for step, costs in samples.costs.items():
        values[f"{step}_cpu_seconds"] = [cost.cpu_seconds for cost in costs]
        values[f"{step}_wall_seconds"] = [cost.wall_seconds for cost in costs]
        values[f"{step}_peak_memory_bytes"] = [float(cost.peak_memory_bytes) for cost in costs]
    return values


def as_document(corpus: Corpus, samples: Mapping[str, Samples]) -> dict[str, Any]:
    """Return everything as JSON values."""
    tools = {}
    for name, sample in samples.items():
        tools[name] = {
            key: {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": values}
            for key, values in figures(sample).items()
        } | {"mismatches": sample.mismatches}
    return {
        "format": FORMAT,
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "corpus": {
            "description": corpus.description,
            "images": len(corpus.images),
            "distinct_layers": len(corpus.layers),
            "distinct_layer_bytes": corpus.unique_bytes,
        },
        "versions": {tool.name: version(tool) for tool in TOOLS if tool.name in samples},
        "tools": tools,
        "layerstore_relative_to": _relative(samples),
    }


def _relative(samples: Mapping[str, Samples]) -> dict[str, dict[str, float | None]]:
    """Return for each peer layerstore's medians divided by the peer's."""
    if LAYERSTORE not in samples:
        return {}
    own = {key: statistics.median(values) for key, values in figures(samples[LAYERSTORE]).items()}
    relative: dict[str, dict[str, float | None]] = {}
    for name, sample in samples.items():
        if name != LAYERSTORE:
            theirs = {key: statistics.median(values) for key, values in figures(sample).items()}
            relative[name] = {key: own[key] / theirs[key] if theirs[key] else None for key in own}
    return relative


def as_text(corpus: Corpus, samples: Mapping[str, Samples]) -> str:
    """Return the figures as tables, and layerstore's relative to each peer."""
    rounds = max(len(sample.disk_bytes) for sample in samples.values())
    parts = [
        f"{len(corpus.layers)} distinct layers, {megabytes(corpus.unique_bytes)} MB, of {len(corpus.images)} images: "
        f"{corpus.description}.",
        f"Medians of {rounds} rounds (smallest-largest). MB are 10^6 bytes.",
    ]
    for title, keys in TABLES.items():
        rows = [[name, *(_spread(figures(sample)[key], key) for key in keys)] for name, sample in samples.items()]
        parts += ["", title, table(["tool", *(COLUMNS[key] for key in keys)], rows)]
    relative = _relative(samples)
    if relative:
        keys = [key for keys in TABLES.values() for key in keys]
        titles = [f"{key.split('_')[0]} {COLUMNS[key].split(',')[0]}" for key in keys]
        rows = [[name, *(_quotient(values[key]) for key in keys)] for name, values in relative.items()]
        parts += ["", "layerstore's median / the tool's median", table(["tool", *titles], rows)]
    for name, sample in samples.items():
        if sample.mismatches:
            parts.append(f"{name}: {len(sample.mismatches)} LAYERS WERE NOT RESTORED BIT FOR BIT")
    return "\n".join(parts)


def _spread(values: Sequence[float], key: str) -> str:
    scale = 1e6 if key.split("_after")[0].endswith("bytes") else 1.0
    low, middle, high = (value / scale for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:,.1f} ({low:,.1f}-{high:,.1f})"


def _quotient(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_input_options(parser)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often every tool runs (%(default)s)")
    names = [tool.name.split()[0] for tool in TOOLS]
    parser.add_argument("--tools", nargs="+", choices=names, default=names, help="only these (all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
