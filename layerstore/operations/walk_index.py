"""Reads every record of an index: ``python -m layerstore.operations.walk_index INDEX``, run by `verify` as a child.

A damaged page of a memory map can crash the process that reads it; here it crashes nobody else. Prints a line for
each damaged record, and exits with 1 if there was one.
"""

import sys
from pathlib import Path

from layerstore.errors import LayerstoreError
from layerstore.storage.index import Index
from layerstore.storage.records import unseal
from layerstore.storage.tables import TABLES

_PROBLEMS_MAX = 100


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


def main() -> int:
    """Walk the index named on the command line."""
    try:
        problems = walk(Path(sys.argv[1]))
    except LayerstoreError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
