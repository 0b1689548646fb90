"""Real packages from the registry: wheels downloaded with pip once, and what they would install as a tree."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.console import tell
from benchmarks.layer_tar import Node

PYTHON = "3.11"
"""The Python that the packages are for. It doesn't depend on the interpreter that runs the benchmark."""
PLATFORM = "manylinux2014_x86_64"
SITE_PACKAGES = f"usr/local/lib/python{PYTHON}/site-packages"
FAILURES_MAX = 3
"""After so many failures in a row without one success the registry is taken to be out of reach."""


class WheelCache:
    """A folder of wheels, found by pinned requirement (``name==version``)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, requirements: Iterable[str]) -> dict[str, Path]:
        """Return the wheel of each requirement; what can't be had is told on standard error and left out."""
        wanted = list(dict.fromkeys(requirements))
        missing = [requirement for requirement in wanted if requirement not in self._present()]
        if missing:
            tell(f"corpus: downloading {len(missing)} wheels into {self._folder}")
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self._download, _rounds(missing)))
            self._fetch_singly([requirement for requirement in missing if requirement not in self._present()])
        present = self._present()
        return {requirement: present[requirement] for requirement in wanted if requirement in present}

    def _fetch_singly(self, requirements: Sequence[str]) -> None:
        """Try again one by one what no round brought, so that one lost wheel costs only itself."""
        failures = 0
        succeeded = bool(self._present())
        for requirement in requirements:
            error = self._download([requirement])
            if not error:
                succeeded = True
                continue
            failures += 1
            tell(f"corpus: {requirement} can't be had, the images go on without it: {error}")
            if failures == FAILURES_MAX and not succeeded:
                tell("corpus: the registry of Python packages seems to be out of reach; no more wheels are tried")
                return

    def _download(self, requirements: Sequence[str]) -> str:
        """Run pip for distinct packages; return why it failed, or nothing."""
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--platform", PLATFORM, "--python-version", PYTHON, "--retries", "2", "--dest", str(self._folder)]
        done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return ""
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else f"pip ended with status {done.returncode}"

    def _present(self) -> dict[str, Path]:
        """Return the wheels in the folder by requirement."""
        found = {}
        for path in sorted(self._folder.glob("*.whl")):
            name, version = path.name.split("-")[:2]
            found[f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"] = path
        return found


def _rounds(requirements: Iterable[str]) -> list[list[str]]:
    """Group requirements so that no group asks for two versions of one package, which pip refuses."""
    rounds: list[dict[str, str]] = []
    for requirement in requirements:
        package = requirement.split("==")[0]
        for group in rounds:
            if package not in group:
                group[package] = requirement
                break
        else:
            rounds.append({package: requirement})
    return [list(group.values()) for group in rounds]


def wheel_tree(wheel: Path) -> dict[str, Node]:
    """Return what installing the wheel would put under the root; bytes are read from the wheel when asked for."""
    archive = zipfile.ZipFile(wheel)  # stays open as long as a node of the tree does
    tree: dict[str, Node] = {}
    for member in archive.infolist():
        if not member.is_dir():
            mode = 0o755 if (member.external_attr >> 16) & 0o111 else 0o644
            tree[_installed_name(member.filename)] = Node(mode, partial(archive.read, member))
    return tree


def _installed_name(name: str) -> str:
    """Map a name inside a wheel to where an installer puts it."""
    match = re.match(r"[^/]+\.data/(scripts|data|purelib|platlib|headers)/(.+)", name)
    if match is None or match[1] in ("purelib", "platlib"):
        return f"{SITE_PACKAGES}/{match[2] if match else name}"
    folder = {"scripts": "usr/local/bin", "data": "usr/local", "headers": "usr/local/include"}[match[1]]
    return f"{folder}/{match[2]}"
