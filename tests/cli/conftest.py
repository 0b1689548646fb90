import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cli_layouts import Layout, tar_of, words
from click.testing import CliRunner, Result

from layerstore.cli.application import program
from layerstore.mounting.client import mounts, unmount
from layerstore.places.platforms import WantedPlatform

Run = Callable[..., Result]

ARCHITECTURE = WantedPlatform.of_this_machine().architecture


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Mounts of a test have a folder of their own; what it leaves mounted is unmounted."""
    with tempfile.TemporaryDirectory(prefix="lsc", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("LAYERSTORE_RUNTIME_DIR", folder)
        yield
        for mounted in mounts():
            if mounted.store is not None and mounted.store.is_relative_to(Path.cwd()):
                unmount(mounted.target, lazy=True)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test has a folder of its own, and nothing of the caller's settings."""
    for name in ("LAYERSTORE_PATH", "SOURCE_DATE_EPOCH", "FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bare() -> Run:
    """Runs the command line in this process, without a store given."""

    def run(*arguments: object, input: bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(program, [str(one) for one in arguments], input=input, env=env)

    return run


@pytest.fixture
def path(bare: Run, tmp_path: Path) -> Path:
    """A new store."""
    where = tmp_path / "store"
    assert bare("--store", where, "init").exit_code == 0
    return where


@pytest.fixture
def run(bare: Run, path: Path) -> Run:
    """Runs the command line on the store."""

    def run_on_store(*arguments: object, input: bytes | None = None) -> Result:
        return bare("--store", path, *arguments, input=input)

    return run_on_store


@pytest.fixture
def output(run: Run) -> Callable[..., str]:
    """Runs a command that succeeds; what it printed."""

    def succeed(*arguments: object, input: bytes | None = None) -> str:
        result = run(*arguments, input=input)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        assert "\x1b" not in result.stdout
        return result.stdout

    return succeed


@pytest.fixture
def document(output: Callable[..., str]) -> Callable[..., Any]:
    """Runs a command that succeeds with ``--json``; the document that it printed."""

    def parse(*arguments: object) -> Any:
        return json.loads(output(*arguments, "--json"))

    return parse


@pytest.fixture
def process(path: Path) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Starts the real program on the store."""

    def start(*arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "layerstore", *(str(one) for one in arguments)]
        environment = {**os.environ, "LAYERSTORE_PATH": str(path), **options.pop("env", {})}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, env=environment, **pipes)

    return start


@pytest.fixture
def make_tar(tmp_path: Path) -> Callable[..., Path]:
    """Makes a tar of files given as path and contents."""

    def make(name: str, files: Mapping[str, bytes]) -> Path:
        target = tmp_path / name
        with tarfile.open(target, "w:gz" if name.endswith(".gz") else "w") as tar:
            for file, contents in files.items():
                member = tarfile.TarInfo(file)
                member.size = len(contents)
                tar.addfile(member, io.BytesIO(contents))
        return target

    return make


@pytest.fixture
def base(make_tar: Callable[..., Path]) -> Path:
    """A layer of some size."""
    return make_tar("base.tar", {"etc/os": b"one\n", "lib/data": bytes(range(256)) * 2000, "lib/old": b"old\n"})


@pytest.fixture
def app(make_tar: Callable[..., Path]) -> Path:
    """A compressed layer that shares contents with `base`."""
    return make_tar("app.tar.gz", {"etc/os": b"two\n", "app/data": bytes(range(256)) * 2000, "app/new": b"new\n"})


@pytest.fixture
def shop(output: Callable[..., str], base: Path, app: Path) -> str:
    """The digest of an image ``shop:1.0`` of both."""
    return output("push", base, app, "--tag", "shop:1.0", "--quiet").strip()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A layout with the images ``1.0`` and ``1.1``, an index ``multi`` of two platforms, and a signature of ``1.0``."""
    made = Layout(tmp_path / "shop")
    base = tar_of({"etc/os": b"one\n", "lib/data": words(1, 40_000)})
    first = made.image(base, tar_of({"app/data": words(2, 10_000)}))
    made.add(first, "1.0")
    made.add(made.image(base, tar_of({"app/data": words(3, 10_000)})), "1.1")
    children = {
        platform: made.image(base, tar_of({"arch": platform.encode()}), platform=platform)
        for platform in (f"linux/{ARCHITECTURE}", "linux/s390x")
    }
    made.add(made.index(children), "multi")
    made.add(made.artifact(b"signed", first), "signature")
    return made
