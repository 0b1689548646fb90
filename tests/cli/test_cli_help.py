import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from client_servers import docker_registry

import layerstore
from layerstore.cli.application import program
from layerstore.cli.settings import StoreCommand

Run = Callable[..., Any]

COMMANDS = sorted(program.commands)
# Those of run need programs in the image, and have a test of their own.
EXAMPLES = [
    (name, line.strip())
    for name in COMMANDS
    if name not in ("login", "logout", "run", "serve")  # tests/running and tests/registry have them
    for line in program.commands[name].examples.strip().splitlines()
]
EXPECTED = (
    "backup cat commit completion container copy cp diff encodings export find gc history images import init inspect "
    "layers login logout ls mount prune pull push rebuild-index recognise repair rm run serve stats tag trash tree "
    "umount undelete unpack untag upgrade verify why"
)


def test_the_commands() -> None:
    assert " ".join(COMMANDS) == EXPECTED
    assert all(isinstance(one, StoreCommand) for one in program.commands.values())


def test_main_help(bare: Run) -> None:
    text = bare("--help").stdout
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*[.)]$", text, re.MULTILINE), name
    assert not re.search(r"\.\.\.$", text.replace("[ARGS]...", ""), re.MULTILINE)
    assert "Exit codes:" in text and "  6    stored data is damaged" in text and "LAYERSTORE_PATH" in text
    result = bare()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == text


@pytest.mark.parametrize("name", [*COMMANDS, "encodings prove", "container create", "container ls", "container rm"])
def test_help_of_a_command(bare: Run, name: str) -> None:
    result = bare(*name.split(), "--help")
    assert result.exit_code == 0
    for part in (f"Usage: layerstore {name} ", "Common options:", "With --json:", "Examples:\n  "):
        assert part in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_version(bare: Run) -> None:
    assert bare("--version").stdout == f"layerstore {layerstore.__version__}\n"


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_examples_work(
    run: Run,
    bare: Run,
    output: Run,
    path: Path,
    tmp_path: Path,
    base: Path,
    shop: str,
    name: str,
    line: str,
) -> None:
    (tmp_path / "patch.tar").write_bytes(base.read_bytes())
    (tmp_path / "layer.tar.gz").write_bytes(gzip.compress(base.read_bytes()))
    (tmp_path / "rootfs").mkdir()
    output("push", "rootfs", "--base", "shop:1.0", "--tag", "shop:latest", "--tag", "shop:1.1")
    if name in ("import", "copy"):
        output("export", "shop:1.0", "shop.tar")
        output("export", "shop:1.0", "layout")
    line = line.replace("docker save shop:1.0", "cat shop.tar").replace("docker load", "tar -t")
    line = line.replace("--platform linux/arm64", "--platform linux/amd64")  # it is no index, so any will do
    if "container:web" in line or (name in ("commit", "container") and "create" not in line):
        output("container", "create", "shop:1.0", "--name", "web")
        output("container", "create", "shop:1.0", "--name", "worker")
    (tmp_path / "there").mkdir()
    if "--reuse" in line:
        output("unpack", "shop:1.0", "root")
    if name in ("mount", "umount"):
        line = _with_mounts(line, tmp_path, output)
    if name == "repair":
        output("backup", "backup")
    if name == "undelete":
        output("rm", "shop:1.0")
    if "--all-tags" not in line and "untag" not in line:
        output("untag", "shop:latest")
    layers = [layer[7:19] for layer in output("layers", "-q", "--no-trunc").split()]
    digest = shop[7:19] if name in ("tag", "rm") else layers[0]
    line = line.replace("4f2e9b0c1d3a", digest).replace("9d1c0a7be246", layers[1])
    line = line.replace("/var/lib/layers", str(tmp_path / "new")).replace("/mnt/backup/layers", "backup")
    if re.search(r"[|$>]", line):
        scripts = tmp_path / "bin"
        scripts.mkdir()
        (scripts / "layerstore").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m layerstore "$@"\n')
        (scripts / "layerstore").chmod(0o755)
        (tmp_path / ".config/fish/completions").mkdir(parents=True)
        line = line.replace('eval "$(layerstore completion zsh)"', "layerstore completion zsh")  # not bash's language
        variables = {"PATH": f"{scripts}:{os.environ['PATH']}", "HOME": str(tmp_path), "LAYERSTORE_PATH": str(path)}
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], env={**os.environ, **variables}, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return
    words = shlex.split(line)
    assert words.pop(0) == "layerstore"
    with ExitStack() as stack:
        if "localhost:5000" in line:
            host = stack.enter_context(docker_registry(tmp_path / "registry"))
            output("push", f"{host}/team/shop:1.0", "--from", "shop:1.0")
            words = [word.replace("localhost:5000", host) for word in words]
        result = bare(*words) if "--store" in words else run(*words)
        assert result.exit_code == 0, result.output


def _with_mounts(line: str, tmp_path: Path, output: Run) -> str:
    """An example of mounting, with folders that are there and things that are mounted."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting needs root and /dev/fuse")
    mounts = tmp_path / "mnt"
    for folder in ("shop", "web", "base"):
        (mounts / folder).mkdir(parents=True)
    for folder in ("shop", "base") if line.startswith("layerstore umount") else ():
        output("mount", "shop:1.0", mounts / folder)
    return line.replace("/mnt/", f"{mounts}/")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(output: Run, document: Run, shell: str) -> None:
    assert "_LAYERSTORE_COMPLETE" in output("completion", shell)
    assert document("completion", shell)["shell"] == shell


def complete(text: str, path: Path | None) -> list[str]:
    variables = {
        "_LAYERSTORE_COMPLETE": "bash_complete",
        "COMP_LINE": text,
        "LAYERSTORE_PATH": None if path is None else str(path),
    }
    result = CliRunner().invoke(program, [], env=variables)
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_completion_offers_what_the_store_has(path: Path, shop: str, document: Run) -> None:
    assert "verify" in complete("layerstore ver", path)
    assert complete("layerstore inspect sho", path) == ["shop:1.0"]
    assert complete("layerstore rm sha256:", path) == [shop, *(row["diff_id"] for row in document("layers"))]
    assert complete("layerstore untag ", path) == ["shop:1.0"]
    assert complete("layerstore push x --base sho", path) == ["shop:1.0"]
    assert complete("layerstore export sho", path) == ["shop:1.0", "sho"]  # the last one stands for files
    assert complete("layerstore import lay", path) == complete("layerstore copy lay", path) == ["lay"]
    assert complete("layerstore import x --format oci-", path) == ["oci-archive"]
    assert complete(f"layerstore --store {path} inspect sho", None) == ["shop:1.0"]
    assert complete("layerstore inspect sho", path / "none") == []
    assert complete("layerstore inspect sho", None) == []


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("layerstore inspect sho", "shop:1.0"),
        ("layerstore inspect shop:", "1.0"),
        ("layerstore inspect shop:1", "1.0"),
        ("layerstore untag a:b shop:1", "1.0"),
        ("layerstore completion z", "zsh"),
        ("layerstore upg", "upgrade"),
    ],
)
def test_bash_completes_behind_a_colon(output: Run, path: Path, shop: str, line: str, reply: str) -> None:
    (path.parent / "layerstore").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m layerstore "$@"\n')
    (path.parent / "layerstore").chmod(0o755)
    # As bash itself calls the function at the Tab key. It has broken the words at the colons.
    script = f"""
        {output("completion", "bash")}
        COMP_LINE='{line}' COMP_POINT={len(line)}
        _layerstore_completion ./layerstore
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "LAYERSTORE_PATH": str(path)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout.decode()) == (0, b"", f"{reply}\n")


def test_json_everywhere(run: Run, shop: str, base: Path, path: Path, tmp_path: Path) -> None:
    arguments = {
        "backup": [tmp_path / "copy"],
        "cat": [shop, "etc/os"],
        "commit": ["web"],
        "completion": ["bash"],
        "copy": [f"store:{path}", "oci:other"],
        "cp": [f"{shop}:/etc/os", "."],
        "diff": [shop, shop],
        "export": [shop, "layout"],
        "find": [shop],
        "history": [shop],
        "import": ["layout"],
        "init": ["--store", tmp_path / "new"],
        "inspect": [shop],
        "ls": [shop],
        "prune": ["--keep-last", "9"],
        "pull": [json.loads(run("inspect", shop).stdout)["layers"][0]["diff_id"], "out.tar"],
        "push": [base],
        "recognise": [tmp_path / "layer.gz"],
        "rm": [shop],
        "tag": [shop, "x"],
        "tree": [shop],
        "undelete": [shop],
        "unpack": [shop, "root"],
        "untag": ["x"],
        "why": [shop],
    }
    (tmp_path / "layer.gz").write_bytes(gzip.compress(b"contents"))
    run("container", "create", shop, "--name", "web")
    # One has no output of its own, one nothing to unmount, one ends when somebody ends it, two need a registry.
    without = ["run", "umount", "serve", "login", "logout"]
    # Those that change something come in an order in which they succeed.
    last = ["tag", "untag", "rm", "undelete"]
    for name in [*(name for name in COMMANDS if name not in last + without), *last]:
        result = run("--json", name, *arguments.get(name, []))
        assert (result.exit_code, result.stderr) == (0, ""), name
        json.loads(result.stdout)
