"""The raw files of a backup. They never change, and each is named by its digest: one that is there is the right one.

A file that the target has is not read again, as its packs are not. One that the store has lost stays as it is there.
"""

from contextlib import suppress

from layerstore.digest import Digest, compared
from layerstore.errors import DigestMismatchError
from layerstore.operations.raw_files import digest_of_file, file_blocks, new_file, raw_path
from layerstore.storage.index import Transaction
from layerstore.storage.layout import Layout
from layerstore.storage.records import EncodingState


class RawCopier:
    """Brings raw files to the target, as ``transaction``, one of the copied index, has them."""

    def __init__(self, transaction: Transaction, source: Layout, target: Layout) -> None:
        self._source, self._target = source, target
        self._sizes = {
            digest: record.size for digest, record in transaction.encodings.items() if record.state is EncodingState.RAW
        }
        self.bytes_copied = 0
        self.damaged: list[Digest] = []
        """Encodings whose file is whole neither in the store nor in the target."""

    @property
    def bytes_total(self) -> int:
        """Bytes of all raw files."""
        return sum(self._sizes.values())

    def bring(self) -> None:
        """Copy the files that the target lacks, those that are whole."""
        for digest, size in self._sizes.items():
            path = raw_path(self._target, digest)
            if not (path.exists() and path.stat().st_size == size) and not self._copy(digest):
                self.damaged.append(digest)

    def _copy(self, digest: Digest) -> bool:
        with suppress(FileNotFoundError, DigestMismatchError), new_file(self._target.raw) as file:
            for block in compared(file_blocks(raw_path(self._source, digest)), digest):
                file.write(block)
            file.sync()
            file.install(raw_path(self._target, digest))
            self.bytes_copied += file.size
            return True
        return False

    def remove_others(self) -> None:
        """Remove the files that no record of the backup needs."""
        for path in self._target.raw.iterdir():
            digest = digest_of_file(path)
            if digest is not None and digest not in self._sizes:
                path.unlink()
