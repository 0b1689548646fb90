"""The raw files of a backup. They never change, and each is named by its digest: one that is there is the right one.

What is compared on the way is the size. A file that the store has lost stays as the earlier backup has it.
"""

from contextlib import suppress

from layerstore.digest import Digest
from layerstore.operations.raw_files import file_blocks, file_name, new_file, raw_path
from layerstore.storage.index import Transaction
from layerstore.storage.layout import Layout
from layerstore.storage.records import EncodingState


def raw_encodings(transaction: Transaction) -> dict[Digest, int]:
    """The encodings that are kept raw, and their bytes."""
    return {
        digest: record.size for digest, record in transaction.encodings.items() if record.state is EncodingState.RAW
    }


def bring_raw(raw: dict[Digest, int], source: Layout, target: Layout) -> int:
    """Copy the files that the target lacks; how many bytes that took."""
    copied = 0
    for digest, size in raw.items():
        path = raw_path(target, digest)
        if path.exists() and path.stat().st_size == size:
            continue
        with suppress(FileNotFoundError), new_file(target.raw) as file:
            for block in file_blocks(raw_path(source, digest)):
                file.write(block)
            file.sync()
            file.install(path)
            copied += file.size
    return copied


def remove_other_raw(raw: dict[Digest, int], target: Layout) -> None:
    """Remove the files that no record of the backup needs."""
    needed = {file_name(digest) for digest in raw}
    for path in target.raw.iterdir():
        if path.name not in needed:
            path.unlink()
