"""The images that a benchmark runs on: the default corpus, or what the command line names instead."""

import argparse
from pathlib import Path

from benchmarks.console import megabytes, tell
from benchmarks.debian_input import debian_corpus
from benchmarks.images import Corpus
from benchmarks.oci_input import oci_corpus, tar_corpus
from benchmarks.python_corpus import python_corpus

WORK = Path(__file__).resolve().parent / "out"


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the input and the folder for everything that is made."""
    parser.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR", help="downloads, layers, stores and results (%(default)s)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--oci", type=Path, metavar="DIR", help="take the images of an OCI image layout")
    source.add_argument("--tar", type=Path, nargs="+", metavar="FILE", help="take each file as an image of one layer")
    source.add_argument("--debian", action="store_true", help="make Debian images with mmdebstrap (as root)")


def load_corpus(options: argparse.Namespace) -> Corpus:
    """Make or read the images that the options ask for."""
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    if options.oci is not None:
        corpus = oci_corpus(options.oci, work)
    elif options.tar is not None:
        corpus = tar_corpus(options.tar, work)
    elif options.debian:
        corpus = debian_corpus(work)
    else:
        corpus = python_corpus(work)
    tell(
        f"corpus: {len(corpus.images)} images, {len(corpus.layers)} distinct layers; "
        f"{megabytes(corpus.logical_bytes)} MB as images, {megabytes(corpus.unique_bytes)} MB as distinct layers"
    )
    return corpus
