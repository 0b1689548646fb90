"""Linking: what was lost and came back belongs to the images that name it."""

from collections.abc import Iterable
from functools import partial

from layerstore.digest import Digest
from layerstore.oci.closure import Closure
from layerstore.operations.blobs import push_again
from layerstore.operations.closure import kept_by, stored_closure
from layerstore.operations.raw_files import raw_path
from layerstore.storage.index import Transaction
from layerstore.storage.opened import OpenedStore


def link_images(store: OpenedStore) -> None:
    """Let every image keep all of its layers and encodings that are there."""
    with store.index.read() as transaction:
        digests = [*transaction.images, *transaction.trash]
    for digest in digests:
        with store.index.read() as transaction:
            if digest not in transaction.images and digest not in transaction.trash:
                continue
            closure = stored_closure(transaction, digest)
            is_linked = all((number, digest) in transaction.layer_images for number in kept_by(transaction, closure))
        if not is_linked:
            store.index.write(partial(_link, closure=closure))


def named_blobs(store: OpenedStore) -> set[Digest]:
    """The blobs that images name, in the trash, too."""
    with store.index.read() as transaction:
        digests = [*transaction.images, *transaction.trash]
        return {blob for digest in digests for blob in stored_closure(transaction, digest).blob_digests}


def adopt_raw_files(store: OpenedStore, digests: Iterable[Digest]) -> None:
    """Make encodings of raw files that have no record. Such a file is a whole copy of its layer, so it is enough."""
    with store.index.read() as transaction:
        lacking = [digest for digest in digests if digest not in transaction.encodings]
    adopted = [digest for digest in lacking if raw_path(store.layout, digest).exists() and push_again(store, digest)]
    if adopted:
        link_images(store)


def _link(transaction: Transaction, closure: Closure) -> None:
    if closure.root not in transaction.images and closure.root not in transaction.trash:
        return  # collected meanwhile
    for number in kept_by(transaction, closure):
        if (number, closure.root) not in transaction.layer_images:
            transaction.layer_images.put((number, closure.root), None)
