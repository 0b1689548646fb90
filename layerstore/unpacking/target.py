"""The directory that is unpacked into: new or empty, and nobody else's business until it is complete."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.directories import Directories
from layerstore.errors import ConflictError, NotFoundError
from layerstore.os_errors import translate_os_errors
from layerstore.places.files import names_in_directory, opened_directory
from layerstore.union.node import Node

_PRIVATE = 0o700
_MODE_OF_NEW = 0o755


@contextmanager
def opened_target(path: Path) -> Iterator[int]:
    """A descriptor of the empty directory at ``path``, which is made if nothing is there.

    Only its owner can get into it while the block runs; at the end it has the mode that it had before, unless the block
    has given it another. If the block fails, a directory that was made is removed again, provided that it is empty.
    Raises `ConflictError` if something is there that is no empty directory.
    """
    is_new = False
    try:
        with translate_os_errors(f"cannot unpack into {path}"):
            is_new = _made(path)
            with opened_directory(path) as descriptor:
                if names_in_directory(descriptor):
                    raise ConflictError(f"{path} is not empty: choose a new or empty directory")
                mode = _MODE_OF_NEW if is_new else stat.S_IMODE(os.fstat(descriptor).st_mode)
                os.fchmod(descriptor, _PRIVATE)
                try:
                    yield descriptor
                finally:
                    if stat.S_IMODE(os.fstat(descriptor).st_mode) == _PRIVATE:
                        os.fchmod(descriptor, mode)
    except BaseException:
        if is_new:
            with suppress(OSError):
                path.rmdir()
        raise


def remove_all(descriptor: int, nodes: Sequence[Node]) -> None:
    """Remove what was written of the nodes, as far as possible; what else has come into the directory stays."""
    with Directories(descriptor) as directories:
        for node in nodes:  # some have got their modes by now, which need not let their owner in
            if node.is_dir:
                folder, _, name = node.path.rpartition(b"/")
                with suppress(OSError):
                    os.chmod(name, _PRIVATE, dir_fd=directories.open(folder))
        for node in reversed(nodes):
            folder, _, name = node.path.rpartition(b"/")
            with suppress(OSError):
                where = directories.open(folder)
                if node.is_dir:
                    os.rmdir(name, dir_fd=where)
                else:
                    os.unlink(name, dir_fd=where)


def _made(path: Path) -> bool:
    """Make the directory; whether it was not there."""
    try:
        path.mkdir(_PRIVATE)
    except FileExistsError:
        if not path.is_dir():
            raise ConflictError(f"{path} is no directory: choose a new or empty one") from None
        return False
    except FileNotFoundError:
        raise NotFoundError(f"there is no directory {path.parent} to make {path.name} in") from None
    return True
