"""How much of OCI layouts that real tools compressed the store keeps, and what import and export cost.

Makes two layouts: twelve images of one product line on Debian, and four families of three releases each. Their layers
are compressed by skopeo, umoci and Go. Imports each into a store, works the proofs off, and compares the bytes on disk;
then times the import of the first beside skopeo copy and zlib, and the export of its blobs. Tables go to standard
output, progress to standard error. The status is 1 when a blob did not come back bit for bit, 2 when there is no input.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.console import BenchmarkError, tell
from benchmarks.corpus import WORK
from benchmarks.image_builder import build_images
from benchmarks.image_measure import Imports, Stored, measure_exports, measure_imports, measure_store
from benchmarks.image_plans import FAMILIES, LINE, ImagePlan
from benchmarks.image_report import Outcome, as_document, as_text
from benchmarks.image_tools import compress_layers, write_layout
from benchmarks.report import write_document

TOOLS = "skopeo and umoci (pgzip) and Go's compress/gzip at its default level (docker push, BuildKit)"
LINE_NAME, FAMILIES_NAME = "product line", "families"
EXAMPLES = """examples:
  sudo python -m benchmarks.image_store                          all of it; downloads 900 MB, takes 8 GB of disk
  sudo python -m benchmarks.image_store --families node go       only these families, together and each alone
  sudo python -m benchmarks.image_store --rounds 0               what is stored, nothing timed
  python -m benchmarks.image_store --oci ~/layout                a layout that is there
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
    if options.output_json is not None:
        write_document(options.output_json, as_document(outcome))
    return 1 if outcome.mismatches else 0


def layouts_of(plans: Mapping[str, Sequence[ImagePlan]], line: Sequence[ImagePlan]) -> dict[str, list[ImagePlan]]:
    """Return the images of each layout: the product line, the families together, and each of them alone."""
    layouts = {LINE_NAME: list(line)}
    if plans:
        together = [plan for family in plans.values() for plan in family]
        layouts[FAMILIES_NAME] = together
        layouts |= {f"  {name}": list(family) for name, family in plans.items()}
    return layouts


def _run(options: argparse.Namespace) -> Outcome:
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    if options.oci is not None:
        layouts = {options.oci.name: options.oci.resolve()}
        tools = "whoever made the layout"
    else:
        chosen = {name: FAMILIES[name] for name in FAMILIES if name in options.families}
        layouts = {name: _layout(name, plans, work) for name, plans in layouts_of(chosen, LINE).items()}
        tools = TOOLS
    first = next(iter(layouts))
    stored = []
    for name, layout in layouts.items():
        tell(f"images: {name.strip()} goes into a store")
        stored.append(_stored(name, layout, _root(work, name), keep=name == first))
    imports, exports = Imports(), []
    if options.rounds:
        imports = measure_imports(layouts[first], work, options.rounds)
        exports = measure_exports(_root(work, first), work, options.rounds)
    return Outcome(tools, stored, first if options.rounds else "", imports, exports, options.rounds)


def _layout(name: str, plans: Sequence[ImagePlan], work: Path) -> Path:
    built = build_images(plans, name, work)
    blobs = compress_layers(built.corpus.layers, built.tools, work)
    return write_layout(built.corpus.images, blobs, work / f"image-layout-{name.strip().replace(' ', '-')}")


def _stored(name: str, layout: Path, root: Path, *, keep: bool) -> Stored:
    result = measure_store(name, layout, root)
    if not keep:
        shutil.rmtree(root)
    return result


def _root(work: Path, name: str) -> Path:
    return work / f"image-store-{name.strip().replace(' ', '-')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR", help="downloads, layers, layouts and stores (%(default)s)"
    )
    parser.add_argument("--oci", type=Path, metavar="DIR", help="measure the images of an OCI image layout instead")
    parser.add_argument(
        "--families",
        nargs="*",
        choices=list(FAMILIES),
        default=list(FAMILIES),
        help="which families the second layout has (all)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of what is timed (%(default)s)")
    parser.add_argument("--output-json", type=Path, metavar="FILE", help="write the figures to this file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
