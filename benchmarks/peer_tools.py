"""How each tool stores layers, gives them back, and drops some of them: as command lines."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.images import LayerFile
from benchmarks.process_cost import Command
from benchmarks.store_plan import Plan

ROOT = Path(__file__).resolve().parents[1]


class Task:
    """What every tool is given: the layers in order, where to put them back, and what is to be dropped."""

    def __init__(
        self,
        layers: Sequence[LayerFile],
        images: Mapping[str, list[int]],
        deleted: Sequence[str],
        restored: Path,
    ) -> None:
        self.layers = list(layers)
        self.images = dict(images)
        self.deleted = list(deleted)
        self.targets = [restored / f"{number:04}.tar" for number in range(len(layers))]
        kept = {number for name, numbers in images.items() if name not in self.deleted for number in numbers}
        self.kept_layers = sorted(kept)
        self.dropped_layers = [number for number in range(len(layers)) if number not in kept]


class Tool(Protocol):
    """One way of storing layers. ``folder`` is empty at first; what counts as stored lies in ``folder / "data"``."""

    name: str
    program: str

    def environment(self, folder: Path) -> dict[str, str]:
        """Return what its environment has beside the usual."""

    def prepare(self, folder: Path, task: Task) -> list[Command]:
        """Return the commands that make an empty repository; they are not measured."""

    def store(self, folder: Path, task: Task) -> list[Command]:
        """Return the commands that store every layer, in order."""

    def restore(self, folder: Path, task: Task) -> list[Command]:
        """Return the commands that write every layer to its target."""

    def collect(self, folder: Path, task: Task) -> list[Command]:
        """Return the commands that drop layers and free their space."""


class Layerstore:
    """This library, in one process for all layers, as a program that uses it would be."""

    name = "layerstore"
    program = sys.executable

    def environment(self, folder: Path) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}

    def prepare(self, folder: Path, task: Task) -> list[Command]:
        Plan(
            store=str(folder / "data"),
            layers=[str(layer.path) for layer in task.layers],
            diff_ids=[layer.digest for layer in task.layers],
            targets=[str(target) for target in task.targets],
            images=task.images,
            deleted=task.deleted,
        ).write(folder / "plan.json")
        return []

    def store(self, folder: Path, task: Task) -> list[Command]:
        return [self._step("store", folder)]

    def restore(self, folder: Path, task: Task) -> list[Command]:
        return [self._step("restore", folder)]

    def collect(self, folder: Path, task: Task) -> list[Command]:
        return [self._step("collect", folder)]

    def _step(self, step: str, folder: Path) -> Command:
        return Command((sys.executable, "-m", "benchmarks.store_driver", step, str(folder / "plan.json")))


class Restic:
    """A repository of backups; each layer is one, read from standard input."""

    name = "restic"
    program = "restic"

    def environment(self, folder: Path) -> dict[str, str]:
        return {
            "RESTIC_REPOSITORY": str(folder / "data"),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(folder / "cache"),
        }

    def prepare(self, folder: Path, task: Task) -> list[Command]:
        return [Command(("restic", "init"))]

    def store(self, folder: Path, task: Task) -> list[Command]:
        options = ("--quiet", "--host", "benchmark", "--stdin", "--stdin-filename", "layer.tar")
        return [
            Command(("restic", "backup", *options, "--tag", f"layer-{number}"), stdin=layer.path)
            for number, layer in enumerate(task.layers)
        ]

    def restore(self, folder: Path, task: Task) -> list[Command]:
        return [
            Command(("restic", "dump", "--tag", f"layer-{number}", "latest", "layer.tar"), stdout=target)
            for number, target in enumerate(task.targets)
        ]

    def collect(self, folder: Path, task: Task) -> list[Command]:
        kept = [option for number in task.kept_layers for option in ("--keep-tag", f"layer-{number}")]
        return [Command(("restic", "forget", "--quiet", "--prune", "--group-by", "host", *kept))]


class Borg:
    """A repository of archives; each layer is one, read from standard input. Not encrypted."""

    name = "borg"
    program = "borg"

    def environment(self, folder: Path) -> dict[str, str]:
        return {
            "BORG_BASE_DIR": str(folder / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def prepare(self, folder: Path, task: Task) -> list[Command]:
        return [Command(("borg", "init", "--encryption", "none", str(folder / "data")))]

    def store(self, folder: Path, task: Task) -> list[Command]:
        options = ("--compression", "zstd,3", "--stdin-name", "layer.tar")
        return [
            Command(("borg", "create", *options, f"{folder / 'data'}::layer-{number}", "-"), stdin=layer.path)
            for number, layer in enumerate(task.layers)
        ]

    def restore(self, folder: Path, task: Task) -> list[Command]:
        return [
            Command(("borg", "extract", "--stdout", f"{folder / 'data'}::layer-{number}"), stdout=target)
            for number, target in enumerate(task.targets)
        ]

    def collect(self, folder: Path, task: Task) -> list[Command]:
        dropped = [f"layer-{number}" for number in task.dropped_layers]
        drop = [Command(("borg", "delete", str(folder / "data"), *dropped))] if dropped else []
        return [*drop, Command(("borg", "compact", str(folder / "data")))]


class Casync:
    """A folder of chunks, and an index file for each layer."""

    name = "casync"
    program = "casync"

    def environment(self, folder: Path) -> dict[str, str]:
        return {}

    def prepare(self, folder: Path, task: Task) -> list[Command]:
        (folder / "data").mkdir()
        return []

    def store(self, folder: Path, task: Task) -> list[Command]:
        return [
            Command(("casync", "make", self._chunks(folder), self._index(folder, number), str(layer.path)))
            for number, layer in enumerate(task.layers)
        ]

    def restore(self, folder: Path, task: Task) -> list[Command]:
        return [
            Command(("casync", "extract", self._chunks(folder), self._index(folder, number), str(target)))
            for number, target in enumerate(task.targets)
        ]

    def collect(self, folder: Path, task: Task) -> list[Command]:
        kept = [self._index(folder, number) for number in task.kept_layers]
        dropped = [self._index(folder, number) for number in task.dropped_layers]
        return [Command(("rm", "-f", *dropped)), Command(("casync", "gc", self._chunks(folder), *kept))]

    def _chunks(self, folder: Path) -> str:
        return f"--store={folder / 'data' / 'chunks.castr'}"

    def _index(self, folder: Path, number: int) -> str:
        return str(folder / "data" / f"{number:04}.caibx")


class Gzip:
    """A gzip file for each layer, as registries keep them."""

    name = "gzip -6"
    program = "gzip"

    def environment(self, folder: Path) -> dict[str, str]:
        return {}

    def prepare(self, folder: Path, task: Task) -> list[Command]:
        (folder / "data").mkdir()
        return []

    def store(self, folder: Path, task: Task) -> list[Command]:
        return [
            Command(("gzip", "-6", "-n"), stdin=layer.path, stdout=self._blob(folder, number))
            for number, layer in enumerate(task.layers)
        ]

    def restore(self, folder: Path, task: Task) -> list[Command]:
        return [
            Command(("gzip", "-d"), stdin=self._blob(folder, number), stdout=target)
            for number, target in enumerate(task.targets)
        ]

    def collect(self, folder: Path, task: Task) -> list[Command]:
        return [Command(("rm", "-f", *(str(self._blob(folder, number)) for number in task.dropped_layers)))]

    def _blob(self, folder: Path, number: int) -> Path:
        return folder / "data" / f"{number:04}.gz"


TOOLS: tuple[Tool, ...] = (Layerstore(), Restic(), Borg(), Casync(), Gzip())


def version(tool: Tool) -> str:
    """Return the first line that a tool says about its version; for layerstore, the Python that runs it."""
    done = subprocess.run([tool.program, "--version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        done = subprocess.run([tool.program, "version"], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0] if lines else ""


def usable(tool: Tool) -> bool:
    """Whether the tool's program is installed."""
    return shutil.which(tool.program) is not None


def base_environment() -> dict[str, str]:
    """Return the environment of every tool: this process's own, with nothing that steers a tool."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RESTIC_", "BORG_", "CASYNC_"))}
