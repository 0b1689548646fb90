"""A container that is mounted, runs, and is unmounted again."""

import os
import tempfile
from pathlib import Path
from typing import Any

from layerstore.objects import Container
from layerstore.running.options import RunOptions
from layerstore.running.runtime import find_runtime, run_root
from layerstore.running.specification import check_program, runtime_config


def run_container(container: Container, options: RunOptions | None = None, *, runtime: str | None = None) -> int:
    """Run a program in a container to its end; the exit code. What it wrote is in the container's changes.

    ``runtime`` is ``runc``, ``crun`` or ``bwrap``; by default the first that is there. Call it from the main thread:
    signals go to the container. Raises `RuntimeUnavailableError`, what `Container.mount` raises, and
    `InvalidOptionError` or `NotFoundError` for what the image cannot run.
    """
    chosen = find_runtime(runtime)
    document = runtime_config(container.config, container, options or RunOptions())
    check_program(document, container)
    _make_mount_points(container, document)
    container.close()
    with tempfile.TemporaryDirectory(prefix="layerstore-run-", ignore_cleanup_errors=True) as folder:
        # Whoever the program runs as must come through to its root; names in there are no secret.
        Path(folder).chmod(0o711)
        root = Path(folder, "rootfs")
        root.mkdir()
        with container.mount(root):
            return run_root(root, document, chosen)


def _make_mount_points(container: Container, document: dict[str, Any]) -> None:
    """Make what is mounted over, if it is not there: not every runtime could, as the user that it runs for."""
    for mount in document["mounts"]:
        target = os.fsencode(mount["destination"])
        if container.exists(target) or target.startswith(b"/dev/"):
            continue
        if mount["type"] == "bind" and not Path(mount["source"]).is_dir():
            container.mkdir(target.rpartition(b"/")[0] or b"/", parents=True, exist_ok=True)
            container.write_bytes(target, b"")
        else:
            container.mkdir(target, parents=True)
