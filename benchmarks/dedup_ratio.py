"""How much smaller layerstore keeps real images than other ways of keeping them.

Makes a corpus, pushes it in order of publication, pulls every layer back and compares its digest, and shows the ratio
of each image and in total beside gzip per layer, whole-layer and whole-file deduplication, fixed-size chunks and
FastCDC over the plain stream. Tables go to standard output, progress to standard error; results.json and the plots go
into the work folder. The status is 1 when a layer did not come back bit for bit, 2 when there is no input.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file, from anywhere

from benchmarks.baselines import measure
from benchmarks.console import BenchmarkError, tell
from benchmarks.corpus import add_input_options, load_corpus
from benchmarks.plots import write_plots
from benchmarks.report import Outcome, as_document, as_text, write_document
from benchmarks.store_run import run_store

EXAMPLES = """examples:
  python benchmarks/dedup_ratio.py                        releases of Python packages, downloaded once
  python benchmarks/dedup_ratio.py --oci ~/layout         the images of an OCI image layout
  python benchmarks/dedup_ratio.py --tar a.tar b.tar.gz   each file as an image of one layer
  sudo python benchmarks/dedup_ratio.py --debian          Debian images, made with mmdebstrap
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        outcome = _run(options)
    except BenchmarkError as error:
        tell(f"error: {error}")
        return 2
    print(as_text(outcome))
    results: Path = options.work / "results.json"
    write_document(results, as_document(outcome))
    plots = write_plots(outcome, options.work)
    if not plots:
        tell("no plots: matplotlib is not installed (pip install 'layerstore[benchmark]')")
    print(f"\nwritten: {', '.join(str(path) for path in (results, *plots))}")
    return 1 if outcome.run.mismatches else 0


def _run(options: argparse.Namespace) -> Outcome:
    """Make the corpus, measure the other ways, then run layerstore with the machine to itself."""
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    corpus = load_corpus(options)
    seconds["corpus"] = time.perf_counter() - start
    start = time.perf_counter()
    added = measure(corpus.layers, options.jobs)
    seconds["baselines"] = time.perf_counter() - start
    start = time.perf_counter()
    run = run_store(corpus.images, options.work)
    seconds["layerstore"] = time.perf_counter() - start
    return Outcome.of(corpus, added, run, seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_input_options(parser)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes for the baselines (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
