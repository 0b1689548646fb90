"""Containers that really run, through each runtime that is there."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from layerstore import Image, Store
from layerstore.cli.application import program
from layerstore.errors import InvalidOptionError, RuntimeUnavailableError
from layerstore.mounting.mount_table import read_mounts
from layerstore.running import RunOptions, run_container, unpack_bundle
from layerstore.running.options import Volume
from layerstore.running.runtime import find_runtime

pytestmark = pytest.mark.usefixtures("mounts")

RUNTIMES = ["runc", "bwrap"]


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    return name


def layerstore(path: Path, *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "layerstore", "--store", path, *arguments]
    return subprocess.run([str(one) for one in command], input=stdin, capture_output=True, check=False)


def mounted_of(store: Store) -> list[Path]:
    """Where containers of the store are mounted."""
    upper = os.fsencode(store.path.resolve())
    return [
        one.target for one in read_mounts() if one.is_container and (one.option(b"upperdir") or b"").startswith(upper)
    ]


def test_what_a_program_sees_and_leaves(store: Store, image: Image, runtime: str) -> None:
    """Its environment, its exit code; what it wrote is in the changes, in an image of them, and seen by the next."""
    script = "id -u > id; env > env; pwd > pwd; hostname > name; rm /etc/group; exit 3"
    container = image.container("web")
    options = RunOptions(command=("sh", "-c", script), environment={"B": "2"}, hostname="box")
    assert run_container(container, options, runtime=runtime) == 3
    assert container.read_bytes("/tmp/id") == b"0\n"
    assert container.read_bytes("/tmp/pwd") == b"/tmp\n"
    assert container.read_bytes("/tmp/name") == b"box\n"
    variables = set(container.read_bytes("/tmp/env").decode().splitlines())
    assert {"A=1", "B=2", "PATH=/bin", "HOME=/root"} <= variables
    changes = {(change.kind, change.path) for change in container.changes()}
    assert ("deleted", b"etc/group") in changes and ("added", b"tmp/id") in changes
    assert not any(path.startswith((b"bin", b"proc", b"dev", b"sys")) for _, path in changes)
    committed = container.commit("busybox:2")
    container.remove()
    following = committed.container("next")
    check = RunOptions(command=("sh", "-c", "cat /tmp/id && ls /etc/group"))
    assert run_container(following, check, runtime=runtime) == 1, "ls finds no group"
    assert [change.kind for change in following.changes()] == []
    following.close()


def test_nothing_is_left_mounted(store: Store, image: Image, runtime: str) -> None:
    assert run_container(image.container("web"), RunOptions(command=("id",)), runtime=runtime) == 0
    assert mounted_of(store) == []


def test_the_command_line(store: Store, image: Image, runtime: str) -> None:
    path = store.path
    done = layerstore(path, "run", "--runtime", runtime, "busybox:1", "cat", stdin=b"hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    assert layerstore(path, "run", "--runtime", runtime, "busybox:1").stdout == b"default\n"
    assert layerstore(path, "run", "--runtime", runtime, "busybox:1", "sh", "-c", "exit 7").returncode == 7
    assert list(store.containers) == [], "unnamed containers are removed"
    assert layerstore(path, "run", "--name", "web", "--runtime", runtime, "busybox:1", "touch", "/new").returncode == 0
    done = layerstore(path, "run", "--runtime", runtime, "container:web", "ls", "/new")
    assert (done.returncode, done.stdout) == (0, b"/new\n")
    missing = layerstore(path, "run", "--runtime", runtime, "busybox:1", "no-such-program")
    assert missing.returncode == 127 and b"no-such-program" in missing.stderr
    assert list(store.containers) == ["web"]


def test_users_volumes_and_read_only(store: Store, image: Image, runtime: str, open_folder: Path) -> None:
    shared, fixed = open_folder / "shared", open_folder / "fixed"
    shared.mkdir()
    shared.chmod(0o777)
    fixed.write_text("fixed\n")
    script = "id -u > /shared/id; id -g >> /shared/id; cat /fixed >> /shared/id; "
    script += "touch /fixed || touch /x || echo refused >> /shared/id"
    options = RunOptions(
        command=("sh", "-c", script),
        user="app",
        read_only=True,
        volumes=(Volume(shared, "/shared"), Volume(fixed, "/fixed", True)),
    )
    container = image.container("web")
    assert run_container(container, options, runtime=runtime) == 0
    assert (shared / "id").read_text() == "1000\n1000\nfixed\nrefused\n"
    container.close()


def test_signals_go_to_the_program(store: Store, image: Image, runtime: str) -> None:
    """A run that is told to end ends its program, unmounts, and removes the temporary container."""
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    command = ["run", "--runtime", runtime, "busybox:1", "sh", "-c", script]
    process = subprocess.Popen(
        [sys.executable, "-m", "layerstore", "--store", str(store.path), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    timer = threading.Timer(60, process.kill)
    timer.start()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    timer.cancel()
    assert process.returncode in (9, 143)
    assert list(store.containers) == []
    assert mounted_of(store) == []


def test_a_container_that_runs_is_in_use(store: Store, image: Image) -> None:
    container = image.container("web")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "layerstore",
            "--store",
            store.path,
            "run",
            "container:web",
            "cat",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x" * 100_000)
    process.stdin.flush()
    assert process.stdout.read(1) == b"x"
    assert container.is_in_use
    assert layerstore(store.path, "container", "rm", "web").returncode == 4
    assert layerstore(store.path, "run", "container:web", "id").returncode == 125
    process.communicate()
    assert process.returncode == 0
    container.remove()


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_that_is_missing(store: Store, image: Image, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeUnavailableError, match="install"):
        find_runtime(name)
    with pytest.raises(RuntimeUnavailableError, match="runc, crun or bubblewrap"):
        run_container(image.container("web"))


def test_a_runtime_that_is_none() -> None:
    with pytest.raises(InvalidOptionError):
        find_runtime("docker")


def test_a_bundle_runs(store: Store, image: Image, tmp_path: Path) -> None:
    if shutil.which("runc") is None:
        pytest.skip("there is no runc")
    with image.view() as view:
        unpack_bundle(view, image.config, tmp_path / "bundle")
    name = f"layerstore-test-{os.getpid()}"
    done = subprocess.run(
        ["runc", "run", "--bundle", tmp_path / "bundle", name],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"default\n"), done.stderr


def test_a_bundle_that_fails_leaves_nothing(store: Store, image: Image, tmp_path: Path) -> None:
    with image.view() as view:
        with pytest.raises(InvalidOptionError):
            unpack_bundle(view, image.config, tmp_path / "bundle", options=RunOptions(user="nobody-here"))
        assert not (tmp_path / "bundle").exists()
        (tmp_path / "full").mkdir()
        (tmp_path / "full/file").write_text("kept")
        with pytest.raises(Exception, match="not empty"):
            unpack_bundle(view, image.config, tmp_path / "full")
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["file"]


def test_the_examples_of_the_help(store: Store, image: Image, tmp_path: Path) -> None:
    """Each line, with an image that has the programs."""
    (tmp_path / "more/etc").mkdir(parents=True)
    (tmp_path / "more/etc/os").write_text("os\n")
    (tmp_path / "more/bin").mkdir()
    (tmp_path / "more/bin/serve").write_text("#!/bin/sh\nmkdir /data\n")
    (tmp_path / "more/bin/serve").chmod(0o755)
    store.create_image([store.push_tree(tmp_path / "more").layer], base=image, tag="shop:1.0")
    for line in program.commands["run"].examples.strip().splitlines():
        words = shlex.split(line.strip())
        done = layerstore(store.path, *words[1:])
        assert (done.returncode, done.stderr) == (0, b""), line


def test_exit_codes_are_dockers(store: Store, image: Image, runtime: str, tmp_path: Path) -> None:
    """Those of layerstore's own would be taken for the program's."""
    (tmp_path / "more/bin").mkdir(parents=True)
    (tmp_path / "more/bin/plain").write_text("#!/bin/sh\n")
    (tmp_path / "more/bin/script").write_text("#!/bin/none\n")
    (tmp_path / "more/bin/script").chmod(0o755)
    store.create_image([store.push_tree(tmp_path / "more").layer], base=image, tag="more:1")

    def code(*arguments: str) -> int:
        return layerstore(store.path, "run", "--runtime", runtime, *arguments).returncode

    assert code("more:1", "no-such-program") == 127
    assert code("more:1", "script") == 127
    assert code("more:1", "plain") == 126
    assert code("more:1", "/etc") == 126
    assert code("missing:1") == 125
    assert code("--bad-option", "more:1") == 125
    assert code("--volume", "/nowhere:/x", "more:1") == 125
    assert code("container:missing", "id") == 125
    assert code("more:1", "sh", "-c", "exit 3") == 3
    assert code("more:1", "sh", "-c", "exit 125") == 125
    assert code("more:1", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?") == 143
    failed = layerstore(store.path, "--json", "run", "more:1", "no-such-program")
    assert failed.returncode == 127 and b'"not-found"' in failed.stderr
    assert list(store.containers) == []


def test_a_bundle_may_be_told_a_command(store: Store, image: Image, tmp_path: Path) -> None:
    if shutil.which("runc") is None:
        pytest.skip("there is no runc")
    bundle = tmp_path / "bundle"
    made = layerstore(store.path, "unpack", "busybox:1", bundle, "--bundle", "--", "sh", "-c", "echo told; exit 5")
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        ["runc", "run", "--bundle", bundle, f"layerstore-test-{os.getpid()}"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, b"told\n"), done.stderr
    assert layerstore(store.path, "unpack", "busybox:1", tmp_path / "root", "id").returncode == 2
