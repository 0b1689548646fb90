"""What a command costs: CPU, wall time and peak memory of its whole tree of processes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.console import BenchmarkError

SPAWNER = Path(__file__).with_name("spawner.py")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, with files for its standard input and output where it needs them."""

    arguments: tuple[str, ...]
    stdin: Path | None = None
    stdout: Path | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one command, or of several that ran one after another."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    """The largest resident set of any one process; no less than the 10 MB or so of the one that started it."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.cpu_seconds + other.cpu_seconds,
            self.wall_seconds + other.wall_seconds,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


def run_all(commands: Iterable[Command], environment: Mapping[str, str], folder: Path) -> Cost:
    """Run commands one after another in ``folder`` and return what they cost together."""
    return sum((run(command, environment, folder) for command in commands), Cost())


def run(command: Command, environment: Mapping[str, str], folder: Path) -> Cost:
    """Run one command and wait for it; a failure ends the benchmark with what the command said.

    A process's peak memory starts with that of the process that forked it, so a small one stands in between.
    """
    source = command.stdin if command.stdin is not None else Path(os.devnull)
    target = command.stdout if command.stdout is not None else Path(os.devnull)
    with (
        source.open("rb") as stdin,
        target.open("wb") as stdout,
        tempfile.TemporaryFile() as errors,
        tempfile.NamedTemporaryFile() as report,
    ):
        subprocess.run(
            [sys.executable, "-I", "-S", str(SPAWNER), report.name, *command.arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=errors,
            env=environment,
            cwd=folder,
            check=False,
        )
        words = report.read().decode().split()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()[-2000:]
    if not words or words[0] != "0":
        raise BenchmarkError(f"{' '.join(command.arguments)} ended with status {' '.join(words[:1])}: {said}")
    return Cost(float(words[1]), float(words[2]), int(words[3]))
