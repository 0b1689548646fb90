"""How fast the files of an image are found, opened, and unpacked.

Makes an image of many small files in four layers, or takes the images of an OCI layout, and looks at it through
`Image.view`. Unpacking is compared with umoci, in turn. Tables go to standard output, progress to standard error.
"""

import argparse
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.console import BenchmarkError, tell
from benchmarks.file_tree import add_options, write_layers
from benchmarks.report import write_document
from benchmarks.speed import measure
from layerstore import Image, OCILayout, Store, View, copy, unpack

TAG = "tree:1"
OPENS = 300
EXAMPLES = """examples:
  python -m benchmarks.files
  sudo python -m benchmarks.files --oci ~/layout --image science:1.0     a real image, unpacked beside umoci
"""
_NEW_PROCESS = """
import sys, time
from layerstore import Store
with Store.open(sys.argv[1], read_only=True) as store:
    started = time.perf_counter()
    with store.images[sys.argv[2]].view():
        print(time.perf_counter() - started)
"""


@dataclass
class Figure:
    """Something measured in milliseconds, or a ratio, once a round."""

    name: str
    reach: str
    unit: str = "ms"
    values: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = _parser().parse_args(arguments)
    work: Path = options.work / "files"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        figures = _run(work, options)
    except BenchmarkError as error:
        tell(f"error: {error}")
        return 2
    for one in figures:
        values = sorted(one.values)
        print(
            f"{one.name:<64}{statistics.median(values):>9.2f} {one.unit:<6}"
            f"{f'({values[0]:.2f}-{values[-1]:.2f})':<18}{one.reach}"
        )
    if options.output_json is not None:
        write_document(options.output_json, {"figures": [vars(one) for one in figures]})
    shutil.rmtree(work)
    return 0


def _run(work: Path, options: argparse.Namespace) -> list[Figure]:
    with Store.create(work / "store") as store:
        if options.oci is None:
            tell(f"making an image of {options.files:,} files")
            folders = write_layers(work, options.files, 1_000_000)
            image = store.create_image([store.push_tree(folder).layer for folder in folders], tag=TAG)
            layout, name = work / "layout", "1"
            copy(store, OCILayout(layout), [TAG], compression="gzip")
        else:
            layout, name = options.oci, options.image
            copied = copy(OCILayout(layout), store, [name])
            image = store.images[copied.images[0].digest]
        return [*_views(store, image, options.rounds), *_unpacking(image, layout, name, work, options.rounds)]


def _views(store: Store, image: Image, rounds: int) -> list[Figure]:
    in_new = Figure("making the view in a new process", "")
    again = Figure("making it again", "")
    walk = Figure("walk with stat", "under 200")
    first = Figure("first open and read of a small file", "under 5")
    later = Figure("later ones, anywhere in the image", "under 1.5")
    cached = Figure("later ones, their frame decoded already", "under 0.3")
    for number in range(rounds):
        tell(f"view: round {number + 1} of {rounds}")
        command = [sys.executable, "-c", _NEW_PROCESS, str(store.path), image.digest]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        in_new.values.append(float(done.stdout) * 1000)
        with Store.open(store.path, read_only=True) as opened, opened.images[image.digest].view() as view:
            paths = [node.path for node in view.nodes() if node.is_file and 0 < node.size < 50_000]
            random.Random(number).shuffle(paths)
            first.values.append(_milliseconds(partial(view.read_bytes, paths[0])))
            later.values.append(_milliseconds(partial(_read_all, view, paths[1 : 1 + OPENS])) / OPENS)
            view.read_bytes(paths[-1])
            cached.values.append(_milliseconds(partial(_read_all, view, paths[-1:] * OPENS)) / OPENS)
            again.values.append(_milliseconds(lambda: image.view().close()))
            walk.values.append(_milliseconds(partial(_walk, view)))
    return [in_new, again, walk, first, later, cached]


def _unpacking(image: Image, layout: Path, name: str, work: Path, rounds: int) -> list[Figure]:
    if shutil.which("umoci") is None:
        tell("there is no umoci: unpacking is not compared")
        return []
    ours = Figure("unpack", "", "s")
    theirs = Figure("umoci unpack", "", "s")
    ratio = Figure("umoci's time against ours", "at least 2", "times")
    for number in range(rounds):
        tell(f"unpack: round {number + 1} of {rounds}")
        # Nothing is removed meanwhile: ext4 is slow to give out inodes again that were freed a moment ago.
        command = ["umoci", "unpack", "--image", f"{layout}:{name}", str(work / f"umoci{number}")]
        theirs.values.append(_milliseconds(partial(subprocess.run, command, check=True, capture_output=True)) / 1000)
        ours.values.append(_milliseconds(partial(_unpack, image, work / f"ours{number}")) / 1000)
        ratio.values.append(theirs.values[-1] / ours.values[-1])
    return [ours, theirs, ratio]


def _unpack(image: Image, target: Path) -> None:
    with image.view() as view:
        unpack(view, target)


def _read_all(view: View, paths: list[bytes]) -> None:
    for path in paths:
        with view.open(path) as file:
            file.read()


def _walk(view: View) -> None:
    for _, directories, others in view.walk():
        for node in (*directories, *others):
            assert node.mtime_ns >= 0


def _milliseconds(work: Callable[[], object]) -> float:
    return measure(work).wall * 1000


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--oci", type=Path, metavar="DIR", help="measure an image of this OCI layout instead")
    parser.add_argument("--image", metavar="REFERENCE", help="which image of the layout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
