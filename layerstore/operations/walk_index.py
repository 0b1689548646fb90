"""Reads every record of an index; run by `verify` in a child process.

A damaged page of a memory map can crash the process that reads it; here it crashes nobody else.
"""

import os
import sys
from pathlib import Path

from layerstore.storage.index import Index
from layerstore.storage.records import unseal
from layerstore.storage.tables import TABLES

STARTED = "layerstore reads the index"
"""The first line that the child prints. Without it, what ended was not this program."""

EXIT_DAMAGED = 3
"""Not 1, with which an interpreter ends that does not come to run this."""

_PROBLEMS_MAX = 100


def command(index: Path) -> list[str]:
    """The command of a child that walks the index at ``index``.

    It imports from where this process does: layerstore may be known to this interpreter's path alone.
    """
    path = [one for one in sys.path if isinstance(one, str)]
    program = f"import sys; sys.path[:] = {path!a}; from {__name__} import main; sys.exit(main(sys.argv[1]))"
    return [sys.executable, "-c", program, os.fspath(index)]


def walk(path: Path) -> list[str]:
    """What is wrong with the records of the index at ``path``, each taken for itself."""
    problems: list[str] = []
    index = Index(path, read_only=True)
    try:
        with index.read() as transaction:
            for spec in TABLES:
                for key, value in transaction.table(spec.name).raw_items():
                    try:
                        spec.key.decode(key)
                        spec.value.decode(unseal(key, value))
                    except Exception as error:  # whatever a damaged record provokes is what we are here to report
                        problems.append(f"table {spec.name}, key {key[:40].hex()}: {error}")
                        if len(problems) >= _PROBLEMS_MAX:
                            return problems
        index.check_pages()
    finally:
        index.close()
    return problems


def main(path: str) -> int:
    """Walk the index at ``path``. Prints a line for each damaged record, and ends with 3 if there was one."""
    print(STARTED, flush=True)
    try:
        problems = walk(Path(path))
    except Exception as error:  # the same: damage may show as anything
        problems = [str(error) or type(error).__name__]
    for problem in problems:
        sys.stdout.buffer.write(" ".join(problem.splitlines()).encode(errors="replace") + b"\n")
    return EXIT_DAMAGED if problems else 0
