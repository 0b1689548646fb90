"""The cache: encodings that were made again, kept as files for the next who asks, up to a budget.

It is no part of what the store vouches for: every file in it can go at any time, and is compared with its digest
before a byte of it leaves.
"""

import os
from contextlib import suppress
from pathlib import Path

from layerstore.digest import Digest
from layerstore.operations.raw_files import NewFile, file_name
from layerstore.storage.layout import translate_os_errors
from layerstore.storage.opened import OpenedStore


def cached(store: OpenedStore, digest: Digest, size: int) -> Path | None:
    """The file of an encoding, if the cache has it; it counts as used now."""
    path = store.layout.cache / file_name(digest)
    try:
        if path.stat().st_size == size:
            with suppress(OSError):  # a store on a read-only disk
                os.utime(path)
            return path
    except FileNotFoundError:
        pass
    return None


def is_cacheable(store: OpenedStore, size: int) -> bool:
    """Whether an encoding of ``size`` bytes may be put into the cache."""
    return not store.read_only and size <= store.config.encoding_cache_max


def add_to_cache(store: OpenedStore, digest: Digest, file: NewFile) -> None:
    """Put a whole, compared file into the cache; those that were not used for longest make room for it."""
    path = store.layout.cache / file_name(digest)
    with translate_os_errors(f"cannot write {path}"):
        file.path.replace(path)
        file.path = path
    trim_cache(store)


def trim_cache(store: OpenedStore) -> None:
    """Remove the files that were not used for longest, until the rest is within the budget."""
    files = sorted(_files(store))
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= store.config.encoding_cache_max:
            return
        path.unlink(missing_ok=True)
        total -= size


def cache_size(store: OpenedStore) -> int:
    """The bytes of all files in the cache."""
    return sum(size for _, size, _ in _files(store))


def forget_cached(store: OpenedStore, digest: Digest) -> None:
    """Remove a file that turned out to be damaged."""
    (store.layout.cache / file_name(digest)).unlink(missing_ok=True)


def _files(store: OpenedStore) -> list[tuple[int, int, Path]]:
    found = []
    with translate_os_errors(f"cannot read {store.layout.cache}"):
        for path in store.layout.cache.iterdir():
            if path.name.startswith("new-"):
                continue
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    return found
