"""OCI runtime bundles on the disk: config.json beside the root file system."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from layerstore.errors import ConflictError
from layerstore.oci.config import ImageConfig
from layerstore.os_errors import os_error
from layerstore.progress import OnProgress
from layerstore.running.options import RunOptions
from layerstore.running.specification import for_user, runtime_config
from layerstore.union.file_system import FileSystem
from layerstore.unpacking import UnpackReport, unpack

CONFIG_NAME = "config.json"
ROOT_NAME = "rootfs"
_ON_FULL_DISK = "Free space on the disk, then try again"


def unpack_bundle(
    files: FileSystem,
    config: ImageConfig,
    target: str | os.PathLike[str],
    *,
    options: RunOptions | None = None,
    owner: tuple[int, int] | None = None,
    rootless: bool | None = None,
    on_progress: OnProgress | None = None,
) -> UnpackReport:
    """Write files into ``rootfs`` of a new or empty directory, and a config.json beside it: ``runc run`` takes both.

    ``options`` say how it is to be run, the others are as for `layerstore.unpack`. If it fails, nothing is left.
    Raises what `unpack` and `runtime_config` raise.
    """
    path = Path(target)
    document = runtime_config(config, files, options or RunOptions())
    if rootless or (rootless is None and os.geteuid() != 0):
        document = for_user(document)
    try:
        is_new = not path.exists()
        path.mkdir(exist_ok=True)
        if any(path.iterdir()):
            raise ConflictError(f"{path} is not empty; choose a new or empty directory")
    except OSError as error:
        raise os_error(error, f"cannot write {path}", on_full_disk=_ON_FULL_DISK) from error
    try:
        # The small file first: if there is no room for it, there is no tree to be taken back.
        write_config(path, document)
        report = unpack(files, path / ROOT_NAME, owner=owner, rootless=rootless, on_progress=on_progress)
    except BaseException:
        shutil.rmtree(path if is_new else path / ROOT_NAME, ignore_errors=True)
        (path / CONFIG_NAME).unlink(missing_ok=True)
        raise
    return report


def write_config(folder: Path, document: dict[str, Any]) -> None:
    """Write config.json."""
    try:
        (folder / CONFIG_NAME).write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise os_error(error, f"cannot write {folder / CONFIG_NAME}", on_full_disk=_ON_FULL_DISK) from error
