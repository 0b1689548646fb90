"""The cache: encodings that were made again, kept as files for the next who asks, up to a budget.

It is no part of what the store vouches for: every file in it can go at any time, is compared with its digest like any
other, and where it cannot be written, reading goes on without it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.operations.raw_files import NewFile, file_name, new_file
from layerstore.storage.opened import OpenedStore


def cached_file(store: OpenedStore, digest: Digest, size: int) -> Path | None:
    """The file of an encoding, if the cache has it; it counts as used now."""
    path = store.layout.cache / file_name(digest)
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_size != size:
        return None
    if not store.read_only:
        with suppress(OSError):
            # The time of its last change stays: it is part of what tells that the file was compared before.
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
    return path


def through_cache(store: OpenedStore, digest: Digest, size: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the blocks on, and put them into the cache if they come to their end. No room for that is no error."""
    if store.read_only or not _make_room(store, size):
        yield from blocks
        return
    with ExitStack() as stack:
        file: NewFile | None = None
        with suppress(LayerstoreError):
            file = stack.enter_context(new_file(store.layout.cache))
            file.reserve(size)  # so that others who look for room see what it is going to take
        for block in blocks:
            if file is not None:
                try:
                    file.write(block)
                except LayerstoreError:
                    file = None
            yield block
        if file is not None:
            with suppress(LayerstoreError):
                file.install(store.layout.cache / file_name(digest))


def _make_room(store: OpenedStore, size: int) -> bool:
    """Remove what was not used for longest until ``size`` more bytes are within the budget. False: they never are."""
    budget = store.config.encoding_cache_max
    if size > budget:
        return False
    files = sorted(_files(store))
    total = sum(used for _, used, _ in files) + size
    for _, used, path in files:
        if total <= budget:
            break
        if path.name.startswith("new-"):
            continue  # somebody fills it just now
        with suppress(OSError):
            path.unlink()
            total -= used
    return total <= budget


def cache_size(store: OpenedStore) -> int:
    """The bytes of all files in the cache."""
    return sum(size for _, size, _ in _files(store))


def forget_cached(store: OpenedStore, digest: Digest) -> None:
    """Remove a file that turned out to be damaged."""
    if not store.read_only:
        with suppress(OSError):
            (store.layout.cache / file_name(digest)).unlink()


def _files(store: OpenedStore) -> list[tuple[int, int, Path]]:
    """When each file was used last, its bytes, its path; those on their way in are among them."""
    found = []
    with suppress(OSError):
        for path in store.layout.cache.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_atime_ns, status.st_size, path))
    return found
