"""How layerstore serves images beside Debian's docker-registry: speed, bytes on disk, memory, updates, collection.

Starts a server of each kind on a free port of the loopback interface and has the same clients do the same to both, in
turn, in one run. Its images are those of ``benchmarks.image_store``, and what is missing of them is made. Tables go to
standard output, progress to standard error. The status is 1 when a push failed or something did not come back bit for
bit, 2 when there is no input or a tool is missing.
"""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.console import BenchmarkError, tell
from benchmarks.corpus import WORK
from benchmarks.registry_collection import measure_collection
from benchmarks.registry_disk import measure_disk
from benchmarks.registry_images import LINE_LAYOUT, PAIRS, PLANS, ImageSet, make_set
from benchmarks.registry_memory import measure_memory
from benchmarks.registry_report import Part
from benchmarks.registry_servers import require_tools
from benchmarks.registry_throughput import measure_throughput
from benchmarks.registry_update import measure_update
from benchmarks.report import write_document

FORMAT = 1
"""Version of the JSON document; goes up when a field changes its meaning."""
PARTS = ("throughput", "disk", "memory", "update", "collection")
EXAMPLES = """examples:
  sudo python -m benchmarks.registry                              all of it; takes 40 GB of disk
  python -m benchmarks.registry --parts throughput --rounds 5     one part
  python -m benchmarks.registry --parts memory --upload-size 100  smaller uploads
  python -m benchmarks.registry --parts update --oci ~/layout     each image of a layout after the one before it
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        require_tools()
        options.work.mkdir(parents=True, exist_ok=True)
        parts = [_run(name, options) for name in PARTS if name in options.parts]
    except BenchmarkError as error:
        tell(f"error: {error}")
        return 2
    print("\n\n".join(f"{part.name}: {part.text}" for part in parts))
    failures = [failure for part in parts for failure in part.failures]
    for failure in failures:
        print(f"FAILED: {failure}")
    if options.output_json is not None:
        machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
        documents = {part.name: {**part.document, "failures": list(part.failures)} for part in parts}
        write_document(options.output_json, {"format": FORMAT, "machine": machine, **documents})
    return 1 if failures else 0


def _run(name: str, options: argparse.Namespace) -> Part:
    work: Path = options.work.resolve()
    match name:
        case "throughput":
            return measure_throughput(_line(options, work), work, options.rounds)
        case "disk":
            sets = [_line(options, work)] if options.oci is not None else [make_set(one, work) for one in PLANS]
            return measure_disk(sets, work)
        case "memory":
            size = options.upload_size * 10**6
            return measure_memory(work, uploads=options.uploads, size=size, workers=options.workers)
        case "update":
            images = _line(options, work)
            return measure_update(images, PAIRS if options.oci is None else tuple(pairwise(images.names)), work)
    return measure_collection(work, rounds=options.rounds, seconds=options.seconds)


def _line(options: argparse.Namespace, work: Path) -> ImageSet:
    return make_set(LINE_LAYOUT, work) if options.oci is None else ImageSet.of(options.oci.resolve())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR", help="layers, layouts, and what servers keep (%(default)s)"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (all)")
    parser.add_argument("--oci", type=Path, metavar="DIR", help="use the images of an OCI image layout instead")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="rounds of throughput and collection (%(default)s)"
    )
    parser.add_argument("--uploads", type=int, default=8, metavar="N", help="uploads at the same time (%(default)s)")
    parser.add_argument(
        "--upload-size", type=int, default=1000, metavar="MB", help="compressed size of each of them (%(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes of layerstore in the memory part (%(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=30,
        metavar="S",
        help="pushes to each server in a round, at collection (%(default)s)",
    )
    parser.add_argument("--output-json", type=Path, metavar="FILE", help="write the figures to this file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
