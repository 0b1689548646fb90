"""Forks children that run a function, one at a time: ``python crash_server.py MODULE...`` imports the modules first.

A fork of a process that has imported everything takes milliseconds, where a new interpreter takes half a second, and
this process, unlike pytest's, has one thread only. It reads a line of JSON for each child, and answers with the
child's process id, and with its exit status when it has ended.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def run(module: str, name: str, arguments: list[Any]) -> None:
    """In the child."""
    status = 1
    try:
        getattr(importlib.import_module(module), name)(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve until the input ends."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            run(request["module"], request["name"], request["arguments"])
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
