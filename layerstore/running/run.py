"""A container that is mounted, runs, and is unmounted again."""

from contextlib import suppress
from typing import Any

from layerstore.errors import MountBusyError, NotMountedError
from layerstore.mounting.client import unmount
from layerstore.objects import Container
from layerstore.running.folders import remove_dead_runs, run_folder
from layerstore.running.mount_points import MountPoints
from layerstore.running.options import RunOptions
from layerstore.running.runtime import find_runtime, run_root
from layerstore.running.specification import check_program, runtime_config


def run_container(container: Container, options: RunOptions | None = None, *, runtime: str | None = None) -> int:
    """Run a program in a container to its end; the exit code. What it wrote is in the container's changes.

    ``runtime`` is ``runc``, ``crun`` or ``bwrap``; by default the first that is there. Call it from the main thread:
    signals go to the container. As with Docker the exit code is 125 if the runtime fails, 126 if it cannot execute the
    program, 127 if it does not find it, and 128 + n if signal n ends it. Raises `RuntimeUnavailableError`, what
    `Container.mount` raises, `InvalidOptionError`, and `ProgramNotFoundError` or `ProgramNotExecutableError` where that
    is seen before.
    """
    chosen = find_runtime(runtime)
    document = runtime_config(container.config, container, options or RunOptions())
    check_program(document, container)
    remove_dead_runs()
    points = MountPoints(container)
    try:
        document = points.make(document)
        container.close()
        return _run_mounted(container, document, chosen)
    finally:
        points.remove()


def _run_mounted(container: Container, document: dict[str, Any], runtime: str) -> int:
    with run_folder() as folder:
        try:
            container.mount(folder.root)
            with container.running() as in_use:
                return run_root(folder, document, runtime, inherited=[folder.lock, in_use])
        finally:
            # A signal may have come when it was mounted and `mount` had not returned.
            with suppress(NotMountedError):
                try:
                    unmount(folder.root)
                except MountBusyError:  # by a stranger who looks into it
                    unmount(folder.root, lazy=True)
