"""Plots of the deduplication benchmark. They need matplotlib (the extra ``benchmark``); without it there are none."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.report import ALL_WAYS, LAYERSTORE, Outcome, ratio


def _optional(name: str) -> ModuleType | None:
    """Return a module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_figure = _optional("matplotlib.figure")

COLOURS = {
    "gzip": "#7f7f7f",
    "layer": "#c49c94",
    "file": "#2ca02c",
    "fixed": "#9467bd",
    "fastcdc": "#ff7f0e",
    "layerstore": "#1f77b4",
}
DPI = 130


def write_plots(outcome: Outcome, folder: Path) -> list[Path]:
    """Draw the plots into the folder and return their files; none without matplotlib."""
    if _figure is None:
        return []
    stored, ratios = folder / "stored_bytes.png", folder / "ratios.png"
    _plot_stored(_figure.Figure(figsize=(10, 5.5), layout="constrained"), outcome, stored)
    _plot_ratios(_figure.Figure(figsize=(8, 4), layout="constrained"), outcome, ratios)
    return [stored, ratios]


def _plot_stored(figure: Any, outcome: Outcome, path: Path) -> None:
    """Draw the bytes stored after each image, a line for each way."""
    axes = figure.subplots()
    names = [image.name for image in outcome.corpus.images]
    positions = list(range(len(names)))
    for way in sorted(ALL_WAYS, key=lambda way: -outcome.stored[way.key][-1]):
        values = [value / 1e6 for value in outcome.stored[way.key]]
        width = 2.8 if way is LAYERSTORE else 1.6
        axes.plot(
            positions,
            values,
            marker="o",
            markersize=3.5,
            linewidth=width,
            color=COLOURS[way.key],
            label=f"{way.name}: {values[-1]:,.0f} MB",
        )
    axes.set_xticks(positions, names, rotation=40, ha="right")
    axes.set_ylabel("stored, MB")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Bytes stored after each image ({outcome.corpus.logical_bytes / 1e6:,.0f} MB as images)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=DPI)


def _plot_ratios(figure: Any, outcome: Outcome, path: Path) -> None:
    """Draw the total ratio of each way as a bar."""
    axes = figure.subplots()
    ways = list(reversed(ALL_WAYS))
    ratios = [ratio(outcome.corpus.logical_bytes, outcome.stored[way.key][-1]) or 0.0 for way in ways]
    bars = axes.barh([way.name for way in ways], ratios, color=[COLOURS[way.key] for way in ways])
    axes.bar_label(bars, labels=[f"{value:.2f}x" for value in ratios], padding=4)
    axes.set_xlabel("size of all images / bytes stored")
    axes.set_title("Deduplication ratio")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=DPI)
