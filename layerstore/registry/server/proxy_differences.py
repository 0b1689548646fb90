"""A blob from an upstream layerstore as its difference to layers that are here: only what has changed comes.

Nobody gets anything of it before it is whole, so this is for blobs that are made in the time that a client waits for.
What upstream sends may copy only from layers of the same repository: of others it could be told to copy what the
repository does not have.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from layerstore.digest import Digest
from layerstore.errors import InvalidInputError, LayerstoreError, RegistryError
from layerstore.os_errors import translate_os_errors
from layerstore.registry.protocol import HAVE_MAX
from layerstore.registry.server.logs import log
from layerstore.registry.server.proxy_fetches import Pace
from layerstore.registry.server.proxy_upstream import UpstreamRegistry
from layerstore.registry.server.repositories import Repositories
from layerstore.registry.server.uploads import Uploads

_SIZE_MIN = 64 << 10
_SIZE_MAX = 64 << 20
_BLOCK_SIZE = 1 << 20
_FREE_SIZE = 64 << 20
_LITERALS_RATIO_MAX = 200
_COPIES_MAX = 4
"""How often a difference may take all of its bases."""


class UpstreamDifferences:
    """Fetches differences, for all repositories. Its methods may be called from several threads at once."""

    def __init__(self, repositories: Repositories, uploads: Uploads, folder: Path) -> None:
        """``folder`` is where what comes waits until it is whole."""
        self._repositories = repositories
        self._uploads = uploads
        self._folder = folder

    def fetch(self, upstream: UpstreamRegistry, repository: str, path: str, digest: Digest, size: int) -> bool:
        """Get a blob, which upstream has as ``path``, for a repository; False if it is rather to be had as it is."""
        if not _SIZE_MIN <= size <= _SIZE_MAX:
            return False
        try:
            have = self._layers_of(repository) if upstream.gives_differences else []
            return bool(have) and self._fetched(upstream, repository, path, digest, size, have)
        except LayerstoreError as error:
            # The blob itself tells whether anything is wrong.
            log(logging.INFO, f"no difference came from upstream: {error}", repository=repository, digest=digest)
            return False

    def _fetched(
        self, upstream: UpstreamRegistry, repository: str, path: str, digest: Digest, size: int, have: Sequence[Digest]
    ) -> bool:
        store = self._repositories.store
        with translate_os_errors(f"cannot write to {self._folder}"), TemporaryFile(dir=self._folder) as file:
            with upstream.fetch_turns, upstream.difference(path, digest, size, have) as blocks:
                if blocks is None:
                    return False
                received = _spooled(blocks, file, size)
            with self._uploads.turns.turn():
                difference = store.open_difference(_blocks_of(file))
                if not set(difference.bases).issubset(have):
                    raise InvalidInputError("it copies from layers that were not offered")
                copied = sum(store.layers[one].size for one in difference.bases)
                if difference.size > _FREE_SIZE + _LITERALS_RATIO_MAX * received + _COPIES_MAX * copied:
                    raise InvalidInputError(f"a layer of {difference.size} bytes is not made of so little")
                _, expires = self._repositories.under_lease(
                    lambda lease: store.push_difference(difference, digest=digest, lease=lease)
                )
        self._repositories.add_blob(repository, digest, expires)
        log(logging.INFO, "fetched a difference", repository=repository, digest=digest, bytes=received, instead_of=size)
        return True

    def _layers_of(self, repository: str) -> list[Digest]:
        """Layers of its images, those of the last ones first."""
        found: dict[Digest, None] = {}
        for root in reversed(self._repositories.roots(repository)):
            found.update(dict.fromkeys(self._repositories.contents(root).layers))
            if len(found) >= HAVE_MAX:
                break
        return list(found)[:HAVE_MAX]


def _spooled(blocks: Iterator[bytes], file: BinaryIO, size_max: int) -> int:
    size = 0
    for block in Pace().watched(blocks):
        size += len(block)
        if size > size_max:
            raise RegistryError(f"it has more bytes than the blob, which has {size_max}")
        file.write(block)
    file.seek(0)
    return size


def _blocks_of(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_SIZE):
        yield block
