"""A registry for the clients, and clients with storage of their own."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client_images import client_layout
from places_samples import LayoutMaker, needs
from server_process import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("registry") / "store") as running:
        yield running


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> LayoutMaker:
    return client_layout(tmp_path_factory.mktemp("layout") / "shop")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name: sockets lie in it, and podman wants less than 50 characters."""
    folder = Path(tempfile.mkdtemp(prefix="ls", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def podman(short_folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """Command lines of podman, each name with a storage of its own."""
    needs("podman")
    made: list[list[str]] = []

    def storage(name: str) -> list[str]:
        folders = ["--root", f"{short_folder}/{name}", "--runroot", f"{short_folder}/{name}-run"]
        command = ["podman", *folders, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
        info = subprocess.run([*command, "info"], capture_output=True, text=True, timeout=60, check=False)
        if info.returncode:
            pytest.skip(f"podman does not work here: {info.stderr[-300:]}")
        made.append(command)
        return command

    yield storage
    for command in made:
        subprocess.run([*command, "rm", "-af"], capture_output=True, timeout=60, check=False)
        subprocess.run([*command, "rmi", "-af"], capture_output=True, timeout=60, check=False)


@pytest.fixture
def buildah(short_folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """Command lines of buildah, each name with a storage of its own."""
    needs("buildah")
    made: list[list[str]] = []

    def storage(name: str) -> list[str]:
        folders = ["--root", f"{short_folder}/{name}", "--runroot", f"{short_folder}/{name}-run"]
        command = ["buildah", *folders, "--storage-driver", "vfs"]
        info = subprocess.run([*command, "info"], capture_output=True, text=True, timeout=60, check=False)
        if info.returncode:
            pytest.skip(f"buildah does not work here: {info.stderr[-300:]}")
        made.append(command)
        return command

    yield storage
    for command in made:
        subprocess.run([*command, "rm", "-a"], capture_output=True, timeout=60, check=False)
        subprocess.run([*command, "rmi", "-af"], capture_output=True, timeout=60, check=False)


@pytest.fixture
def docker(short_folder: Path) -> Iterator[list[str]]:
    """The command line of a client whose daemon, and login, are in a folder of their own."""
    needs("dockerd")
    needs("docker")
    host = f"unix://{short_folder}/s"
    folders = ["--data-root", f"{short_folder}/data", "--exec-root", f"{short_folder}/exec"]
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    pid = ["--pidfile", f"{short_folder}/pid"]
    daemon = ["dockerd", *folders, *network, *pid, "--host", host, "--storage-driver=vfs"]
    client = ["docker", "--config", f"{short_folder}/config", "--host", host]
    yield from _daemon(daemon, [*client, "info"], short_folder / "log", client)


@pytest.fixture
def ctr(short_folder: Path) -> Iterator[list[str]]:
    """The command line of containerd's client; the daemon has everything in a folder of its own."""
    needs("containerd")
    needs("ctr")
    configuration = short_folder / "config.toml"
    snapshotters = [f'"io.containerd.snapshotter.v1.{name}"' for name in ("aufs", "btrfs", "devmapper", "zfs")]
    configuration.write_text(
        f"""version = 2
root = "{short_folder}/root"
state = "{short_folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", {", ".join(snapshotters)}]
[grpc]
address = "{short_folder}/s"
[ttrpc]
address = "{short_folder}/t"
"""
    )
    client = ["ctr", "--address", f"{short_folder}/s"]
    daemon = ["containerd", "--config", str(configuration)]
    yield from _daemon(daemon, [*client, "version"], short_folder / "log", client)


def _daemon(command: list[str], probe: list[str], log: Path, client: list[str]) -> Iterator[list[str]]:
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        if not _answers(daemon, probe):
            pytest.skip(f"{command[0]} does not start here: {log.read_text(errors='replace')[-300:]}")
        yield client
    finally:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _answers(daemon: subprocess.Popen[bytes], probe: list[str]) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end and daemon.poll() is None:
        if not subprocess.run(probe, capture_output=True, timeout=20, check=False).returncode:
            return True
        time.sleep(0.1)
    return False
