"""What the tests of real tools share: an image for them, the blobs they leave, and a private Docker with a registry."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from go_cases import make_input

_SMALLEST_LAYER = 100_000  # smaller gzip blobs are layers that the tools add of themselves


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> bytes:
    """Run a tool and return what it printed."""
    result = subprocess.run(command, capture_output=True, check=False, cwd=cwd, env=os.environ | environment)
    if result.returncode:
        raise RuntimeError(f"{command} failed: {result.stderr.decode(errors='replace')}")
    return result.stdout


def make_rootfs_tar() -> bytes:
    """The tar of a small root file system: text, programs, pictures, empty and sparse files, links."""
    source = random.Random(2026)
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for index in range(110):
            kind = source.choice(["text", "text", "tar", "mixed", "random", "sparse"])
            size = source.choice([0, source.randrange(500), source.randrange(20_000), source.randrange(150_000)])
            entry = tarfile.TarInfo(f"usr/share/{kind}-{index}")
            entry.size, entry.mtime, entry.mode = size, 1_700_000_000 + index, 0o644
            archive.addfile(entry, BytesIO(make_input(kind, size, index)))
            if index % 20 == 0:
                link = tarfile.TarInfo(f"usr/share/link-{index}")
                link.type, link.linkname = tarfile.SYMTYPE, f"{kind}-{index}"
                archive.addfile(link)
    return file.getvalue()


def write_layout(root: Path, layer: bytes) -> None:
    """An OCI layout with one image, ``latest``, of one layer that is not compressed."""
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    layers = [put(layer, "layer.v1.tar")]
    rootfs = {"type": "layers", "diff_ids": [layers[0]["digest"]]}
    config = put(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), "config.v1+json")
    manifest = put(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode(), "manifest.v1+json")
    name = {"org.opencontainers.image.ref.name": "latest"}
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest | {"annotations": name}]}))
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def gzip_blobs(folder: Path) -> list[bytes]:
    """The compressed layers that lie in a folder."""
    contents = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    return [content for content in contents if content[:2] == b"\x1f\x8b" and len(content) >= _SMALLEST_LAYER]


def missing(*tools: str) -> str:
    """Which of these are not installed, as the reason to skip a test; empty: none."""
    absent = [tool for tool in tools if not shutil.which(tool)]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _running(log: Path, *command: str | Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(attempt: tuple[str | Path, ...], log: Path) -> None:
    for _ in range(100):
        if subprocess.run(attempt, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{attempt} does not succeed: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def private_docker(root: Path) -> Iterator[tuple[tuple[str, ...], str, Path]]:
    """A Docker daemon and a registry of our own: the docker command, the registry's name, the folder of its blobs."""
    port = _free_port()
    config, daemon_log, registry_log = root / "registry.json", root / "daemon.log", root / "registry.log"
    storage = {"filesystem": {"rootdirectory": str(root / "registry")}}
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}))
    address = f"unix://{root}/docker.sock"
    daemon = ("dockerd", "-H", address, "--iptables=false", "--bridge=none", "--storage-driver=vfs")
    folders = ("--data-root", root / "data", "--exec-root", root / "exec", "--pidfile", root / "pid")
    with (
        _running(registry_log, "docker-registry", "serve", config),
        _running(daemon_log, *daemon, *folders),
    ):
        docker = ("docker", "-H", address)
        _wait_for((*docker, "version"), daemon_log)
        yield docker, f"127.0.0.1:{port}", root / "registry"
