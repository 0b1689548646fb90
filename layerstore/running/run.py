"""A container that is mounted, runs, and is unmounted again."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerstore.errors import InvalidInputError, MountBusyError
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
    document = _with_mount_points(container, document)
    container.close()
    folder = Path(tempfile.mkdtemp(prefix="layerstore-run-"))
    root = folder / "rootfs"
    try:
        # Whoever the program runs as must come through to its root; names in there are no secret.
        folder.chmod(0o711)
        root.mkdir()
        mount = container.mount(root)
        try:
            return run_root(root, document, chosen)
        finally:
            try:
                mount.unmount()
            except MountBusyError:  # by a stranger who looks into it
                mount.unmount(lazy=True)
    finally:
        # Directories alone, and empty ones: whatever is still mounted there are the container's files.
        for path in (root, folder):
            with suppress(OSError):
                path.rmdir()


def _with_mount_points(container: Container, document: dict[str, Any]) -> dict[str, Any]:
    """Make what is mounted over, if it is not there: not every runtime could, as the user that it runs for.

    The document that comes back names it by paths without symbolic links. Raises `InvalidInputError` if a link stands
    where the system's own directories belong.
    """
    mounts = []
    for mount in document["mounts"]:
        target = os.fsencode(mount["destination"])
        if target.startswith(b"/dev/"):
            mounts.append(mount)
            continue
        if not container.exists(target):
            _make_mount_point(container, target, is_file=_is_file(mount))
        found = b"/" + container.stat(target).path
        if mount["type"] != "bind" and found != target:
            raise InvalidInputError(f"{mount['destination']} of the container is a symbolic link: it cannot be run")
        mounts.append({**mount, "destination": os.fsdecode(found)})
    return {**document, "mounts": mounts}


def _is_file(mount: dict[str, Any]) -> bool:
    return mount["type"] == "bind" and not Path(mount["source"]).is_dir()


def _make_mount_point(container: Container, target: bytes, *, is_file: bool) -> None:
    if is_file:
        container.mkdir(target.rpartition(b"/")[0] or b"/", parents=True, exist_ok=True)
        container.write_bytes(target, b"")
    else:
        container.mkdir(target, parents=True)
