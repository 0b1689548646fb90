"""Starts one command and writes what it cost to a file: ``spawner.py REPORT COMMAND...``.

The report is one line: status, CPU seconds, wall seconds, peak memory in bytes, of the command and all processes that
it waited for. This runs as a process of its own and imports next to nothing, because its memory is the floor of what
it measures.
"""

import os
import sys
import time


def main(report: str, command: list[str]) -> None:
    """Run the command with this process's streams."""
    start = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    with open(report, "w") as file:  # noqa: PTH123  # pathlib would double this process's memory
        file.write(
            f"{os.waitstatus_to_exitcode(status)} {usage.ru_utime + usage.ru_stime} {wall} {usage.ru_maxrss * unit}"
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
