"""Input from Debian: minimal systems and sets of packages over them, made with mmdebstrap, and their rebuilds."""

import os
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

from benchmarks.console import BenchmarkError, tell
from benchmarks.images import Corpus, LayerFile, make_image

SUITE = "bookworm"
SETS = {
    "python": ("python3", "python3-django"),
    "web": ("nginx",),
    "database": ("postgresql",),
    "build": ("build-essential", "git"),
}
BUILDS = {"1.0": 1_735_732_800, "1.1": 1_738_411_200}
"""Versions and the time (seconds since the epoch) that generated files get; 1.1 is a rebuild of 1.0."""
SOURCE_FILES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
COPY_SIZE = 1 << 20


def debian_corpus(work: Path) -> Corpus:
    """Make the systems that are not in ``work`` yet; an image is the minimal system and what its packages changed."""
    if shutil.which("mmdebstrap") is None:
        raise BenchmarkError("mmdebstrap is missing: install it (apt-get install mmdebstrap), or use other input")
    if os.geteuid() != 0:
        raise BenchmarkError("--debian runs mmdebstrap as root: start the benchmark as root, or use other input")
    folder = work / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    plans: list[tuple[str, tuple[str, ...], str]] = []
    for version in BUILDS:
        plans += [("debian", (), version), *((name, packages, version) for name, packages in SETS.items())]
    with ThreadPoolExecutor(2) as pool:
        systems = list(pool.map(lambda plan: _system(folder, *plan), plans))
    known: dict[Path, LayerFile] = {}
    images = []
    base = systems[0]
    for (family, packages, version), system in zip(plans, systems, strict=True):
        if not packages:
            base = system
        layers = [difference(base, system)] if packages else []
        images.append(make_image(f"{family}:{version}", family, [base, *layers], known))
    return Corpus(tuple(images), f"Debian {SUITE}: a minimal system, sets of packages over it, and a rebuild of each")


def _system(folder: Path, family: str, packages: tuple[str, ...], version: str) -> Path:
    """Run mmdebstrap once for a set of packages and return the tar of the whole file system."""
    path = folder / f"{family}-{version}.full.tar"
    if not path.exists():
        tell(f"corpus: mmdebstrap makes {family}:{version}")
        partial = path.with_suffix(".partial.tar")
        command = ["mmdebstrap", "--variant=minbase", "--mode=root", "--quiet"]
        command += [f"--include={','.join(packages)}"] if packages else []
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(BUILDS[version])}
        done = subprocess.run(
            [*command, SUITE, str(partial), *_sources()], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BenchmarkError(f"mmdebstrap failed for {family}:{version}:\n{done.stderr.strip()[-2000:]}")
        partial.replace(path)
    return path


def _sources() -> list[str]:
    """Return the machine's own apt sources that serve the suite, as mirror arguments."""
    files = [path for entry in SOURCE_FILES for path in (sorted(entry.iterdir()) if entry.is_dir() else [entry])]
    return [
        str(path)
        for path in files
        if path.suffix in (".list", ".sources") and path.is_file() and f"Suites: {SUITE}" in _text(path)
    ] or [
        line
        for path in files
        if path.is_file()
        for line in _text(path).splitlines()
        if line.startswith("deb ") and f" {SUITE}" in line
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def difference(base: Path, system: Path) -> Path:
    """Return the layer between two systems: entries that are new or differ, and whiteouts for those that are gone."""
    path = system.with_name(system.name.replace(".full.tar", ".layer.tar"))
    if path.exists():
        return path
    partial = path.with_suffix(".partial.tar")
    with tarfile.open(base) as below:
        before = {member.name: _identity(below, member) for member in below}
    with tarfile.open(system) as above, tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as layer:
        present = set()
        for member in above:
            present.add(member.name)
            if before.get(member.name) != _identity(above, member):
                layer.addfile(member, above.extractfile(member) if member.isreg() else None)
        for name in sorted(before.keys() - present):
            folder, _, last = name.rpartition("/")
            layer.addfile(tarfile.TarInfo(f"{folder}/.wh.{last}"))
    partial.replace(path)
    return path


def _identity(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    """Return all that makes two entries the same."""
    source = tar.extractfile(member) if member.isreg() else None
    content = source.read() if source is not None else b""
    return member.type, member.mode, member.uid, member.gid, member.mtime, member.linkname, blake3(content).digest()
