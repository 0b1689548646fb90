"""What a mounted image costs, beside a kernel overlayfs over unpacked directories, and what a commit stores.

Makes an image of many small files in four layers and one large file, mounts it through layerstore and its directories
through overlayfs, and looks at both in turn: find with stat, reading the large file, memory for containers on one base.
Each round begins with empty caches of the kernel, so it needs root, and a machine on which nothing else runs. Tables go
to standard output, progress to standard error.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.console import BenchmarkError, megabytes, tell
from benchmarks.file_tree import LARGE_FILE, add_options, write_layers, write_text
from benchmarks.report import write_document
from benchmarks.speed import measure
from layerstore import Container, Image, Store

CONTAINERS = 8
READ_SIZE = 1 << 20
EXAMPLES = """examples:
  sudo python -m benchmarks.mounts
  sudo python -m benchmarks.mounts --rounds 9 --output-json mounts.json
"""


@dataclass
class Series:
    """One thing measured on layerstore's mount and on what it is compared with, round by round, in turn."""

    name: str
    unit: str
    reach: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [one / other for one, other in zip(self.ours, self.theirs, strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if os.geteuid() != 0:
            raise BenchmarkError("mounting and dropping caches takes root; try again with sudo")
        work: Path = options.work / "mounts"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        series, memory, commit = _run(work, options)
    except BenchmarkError as error:
        tell(f"error: {error}")
        return 2
    print(_text(series, memory, commit))
    if options.output_json is not None:
        document = {
            "series": [{**vars(one), "ratios": one.ratios} for one in series],
            "memory": memory,
            "commit": commit,
        }
        write_document(options.output_json, document)
    shutil.rmtree(work)
    return 0


def _run(work: Path, options: argparse.Namespace) -> tuple[list[Series], dict[str, float], dict[str, float]]:
    tell(f"making an image of {options.files:,} files and one of {options.large:,} MB")
    folders = write_layers(work, options.files, options.large * 10**6)
    with Store.create(work / "store") as store:
        layers = [store.push_tree(folder).layer for folder in folders]
        image = store.create_image(layers, tag="tree:1")
        series = _compare(store, image, folders, work, options.rounds)
        memory = _memory(image, work)
        commit = _commit(store, work, options.large_commit)
    return series, memory, commit


def _compare(store: Store, image: Image, folders: list[Path], work: Path, rounds: int) -> list[Series]:
    find_cold = Series("find with stat, cold", "s", "at most 5")
    find_warm = Series("find with stat, warm", "s", "at most 1.5")
    read_warm = Series("read of the large file, page cache warm", "s", "at most 1.2")
    read_cold = Series("read of the large file, cold, against a pull of its layer", "MB/s", "at least 0.6")
    layer = image.layers[0]
    with _mounted(image, work / "ours") as ours, _overlay(folders, work / "theirs") as theirs:
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for path, cold, warm in (
                (theirs, find_cold.theirs, find_warm.theirs),
                (ours, find_cold.ours, find_warm.ours),
            ):
                _drop_caches()
                cold.append(_seconds(partial(_find, path)))
                warm.append(min(_seconds(partial(_find, path)) for _ in range(4)))
            for path, results in ((theirs, read_warm.theirs), (ours, read_warm.ours)):
                _read(path / LARGE_FILE)
                results.append(min(_seconds(partial(_read, path / LARGE_FILE)) for _ in range(3)))
            _drop_caches()
            size = (ours / LARGE_FILE).stat().st_size
            read_cold.ours.append(size / 1e6 / _seconds(partial(_read, ours / LARGE_FILE)))
            _drop_caches()
            with Path(os.devnull).open("wb") as sink:
                read_cold.theirs.append(layer.size / 1e6 / _seconds(partial(store.pull_layer, layer, sink)))
    return [find_cold, find_warm, read_cold, read_warm]


def _memory(image: Image, work: Path) -> dict[str, float]:
    """Page cache of all files of the base, read by one container and by several."""
    results: dict[str, float] = {}
    for count in (1, CONTAINERS):
        with ExitStack() as stack:
            paths = []
            for number in range(count):
                container = image.container(f"memory-{count}-{number}")
                target = work / f"container-{count}-{number}"
                target.mkdir()
                stack.callback(container.remove)
                stack.enter_context(container.mount(target))
                paths.append(target)
            _drop_caches()
            before = _cached()
            for path in paths:
                command = ["find", str(path), "-type", "f", "-exec", "cat", "{}", "+"]
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            results[f"{count} containers"] = _cached() - before
    return results


def _commit(store: Store, work: Path, size: int) -> dict[str, float]:
    """What the commit of one byte in a large file stores."""
    tell(f"commit of one byte in a file of {size:,} MB")
    tree = work / "one-file"
    tree.mkdir()
    write_text(tree / "data", size * 10**6, 2)
    image = store.create_image([store.push_tree(tree).layer], tag="large:1")
    with image.container("commit") as container:
        changed = _seconds(partial(_change_a_byte, container))
        before = store.stats()
        committed = _seconds(partial(container.commit, "large:2"))
        after = store.stats()
    return {
        "size": size * 1e6,
        "stored_bytes": after.stored_bytes - before.stored_bytes,
        "index_bytes": after.index_bytes - before.index_bytes,
        "seconds_of_the_first_write": changed,
        "seconds_of_the_commit": committed,
    }


def _change_a_byte(container: Container) -> None:
    with container.open("data", "r+b") as file:
        file.seek(500_000)
        file.write(b"#")
    container.sync()


@contextmanager
def _mounted(image: Image, target: Path) -> Iterator[Path]:
    target.mkdir()
    with image.mount(target):
        yield target


@contextmanager
def _overlay(folders: list[Path], target: Path) -> Iterator[Path]:
    target.mkdir()
    lower = ":".join(str(folder) for folder in reversed(folders))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower}", target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def _find(path: Path) -> None:
    subprocess.run(["find", path, "-printf", "%s %m %T@\n"], stdout=subprocess.DEVNULL, check=True)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(READ_SIZE)
        while file.readinto(buffer):
            pass


def _seconds(work: Callable[[], object]) -> float:
    return measure(work).wall


def _drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _cached() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Cached:"))


def _text(series: list[Series], memory: dict[str, float], commit: dict[str, float]) -> str:
    lines = [f"{'what':<60}{'layerstore':>12}{'beside':>10}{'ratio':>8}  {'spread':<14}reach"]
    for one in series:
        ratios = sorted(one.ratios)
        ours, theirs, ratio = (statistics.median(values) for values in (one.ours, one.theirs, ratios))
        spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        digits = 0 if one.unit == "MB/s" else 3
        unit = f" {one.unit}"
        lines.append(
            f"{one.name:<60}{f'{ours:.{digits}f}{unit}':>12}{f'{theirs:.{digits}f}{unit}':>10}{ratio:>8.2f}  "
            f"{spread:<14}{one.reach}"
        )
    first, several = memory.values()
    lines.append("")
    lines.append(f"page cache after reading the whole base, MB: {megabytes(first)} by one container, ")
    lines[-1] += f"{megabytes(several)} by {CONTAINERS} ({several / first:.3f} times; reach: within 5 %)"
    lines.append(
        f"commit of one byte in {megabytes(commit['size'])} MB: {commit['stored_bytes']:,.0f} bytes into packs "
        f"(reach: under 100,000), {commit['seconds_of_the_commit']:.2f} s; the first write, which copies the file up, "
        f"{commit['seconds_of_the_first_write']:.2f} s"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--large", type=int, default=500, metavar="MB", help="the large file (%(default)s)")
    parser.add_argument("--large-commit", type=int, default=1000, metavar="MB", help="the committed file (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
