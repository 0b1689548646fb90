"""Where a pull puts its bytes: a file object, or a path that gets all of them or none."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from layerstore.digest import Digest
from layerstore.operations.pull import find_layer, layer_blocks
from layerstore.progress import OnProgress, Progress, Throttle
from layerstore.storage.layout import translate_os_errors
from layerstore.storage.opened import OpenedStore


def pull_to(
    store: OpenedStore,
    diff_id: Digest,
    target: "str | os.PathLike[str] | BinaryIO",
    on_progress: OnProgress | None = None,
) -> int:
    """Write a layer to ``target``; its size.

    A path is replaced in one step once all bytes are verified and written; until then it stays as it was. A file
    object may have been given a part when an error is raised.
    """
    if isinstance(target, (str, os.PathLike)):
        return _pull_to_path(store, diff_id, Path(target), on_progress)
    return _write(store, diff_id, target, on_progress)


def _pull_to_path(store: OpenedStore, diff_id: Digest, path: Path, on_progress: OnProgress | None) -> int:
    find_layer(store, diff_id)
    if path.exists() and not path.is_file():
        # A device or pipe can't be replaced; it is written to.
        with translate_os_errors(f"cannot write {path}"):
            device = path.open("wb", buffering=0)
        with device:
            return _write(store, diff_id, device, on_progress)
    with translate_os_errors(f"cannot write {path}"):
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        # Not from `tempfile`, whose files are for their owner alone. Here the system applies the umask, which a process
        # cannot even ask for without changing it for all its threads.
        with part.open("xb") as file:
            try:
                size = _write(store, diff_id, file, on_progress)
                file.flush()
                part.replace(path)
            except BaseException:
                with suppress(FileNotFoundError):
                    part.unlink()
                raise
    return size


def _write(store: OpenedStore, diff_id: Digest, file: BinaryIO, on_progress: OnProgress | None) -> int:
    total = find_layer(store, diff_id).size
    done = 0
    throttle = Throttle()
    told_done = -1
    for block in layer_blocks(store, diff_id):
        view = memoryview(block)
        while view:
            # Raw files may write less than they are given; None means a non-blocking file that is full.
            view = view[file.write(view) or 0 :]
        done += len(block)
        if on_progress is not None and throttle.is_due():
            told_done = done
            on_progress(Progress("pull", diff_id, done, total))
    if on_progress is not None and told_done != done:
        on_progress(Progress("pull", diff_id, done, total))
    return done
