"""Containers in the store: created, listed, removed. A lease without end keeps the layers that one stands on.

The lease is there before the container, and gone after it. Both are changed under one lock, so that who holds it knows
a lease without a container to be the rest of a process that was killed.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from layerstore.digest import Digest
from layerstore.errors import (
    ContainerExistsError,
    ContainerInUseError,
    ContainerNotFoundError,
    DamagedError,
    LayerNotFoundError,
    LayerstoreError,
)
from layerstore.operations.leases import end_lease
from layerstore.operations.upload import Holder, hold_layer
from layerstore.storage.containers import (
    ContainerDescription,
    ContainerFolder,
    NewContainer,
    container_folder,
    container_folders,
    container_leases,
    damaged_containers,
    new_container_folder,
    remove_container_folder,
    remove_container_leftovers,
)
from layerstore.storage.index import Transaction
from layerstore.storage.leases import LiveLeases
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import NEVER, LeaseRecord

_LOCK = "containers"


def create_container(
    store: OpenedStore,
    name: str | None,
    image: Digest,
    layers: tuple[Digest, ...],
    documents: tuple[bytes, bytes],
    *,
    owners_kept: bool,
    prepare: Callable[[ContainerFolder], None],
    is_temporary: bool = False,
) -> ContainerFolder:
    """Make a container of layers that are in the store; durable when it returns.

    ``documents`` are the image's manifest and config, ``prepare`` is given the folder before it can be seen. One that
    ``is_temporary`` is removed by the next collection when the store is closed, or its process has ended. Raises
    `ContainerExistsError`, `InvalidReferenceError`, `LayerNotFoundError`.
    """
    store.check_writable()
    root = store.layout.root
    if name is not None:
        container_folder(root, name)
    session = store.session.name.hex() if is_temporary else None
    with store.lock(_LOCK):
        new = new_container_folder(root, image, layers, owners_kept=owners_kept, session=session)
        try:
            target = container_folder(root, name if name is not None else new.description.id[:12])
            new.fill(*documents)
            prepare(new.folder)
            _install(store, new, target)
        except BaseException:
            new.discard()
            raise
    return target


def _install(store: OpenedStore, new: NewContainer, target: ContainerFolder) -> None:
    if target.path.exists():
        raise ContainerExistsError(
            f"the store has a container {target.name}; choose another name, or remove it with "
            f"`layerstore container rm {target.name}`"
        )
    store.index.write(partial(_hold, description=new.description))
    try:
        new.install(target)
    except BaseException:
        end_lease(store, new.description.lease)
        raise


def remove_container(store: OpenedStore, name: str) -> None:
    """Remove a container with its changes, be it damaged. Raises `ContainerNotFoundError`, `ContainerInUseError`."""
    store.check_writable()
    folder = container_folder(store.layout.root, name)
    lock = folder.lock()
    try:
        with store.lock(_LOCK):
            try:
                lease = folder.read().lease
            except DamagedError:
                lease = None  # nobody can tell any more: it is what is left over
            remove_container_folder(folder)
            leases = _left_over(store) if lease is None else [lease]
            for one in leases:
                end_lease(store, one)
    finally:
        lock.release()


def end_leases_of_no_container(store: OpenedStore) -> None:
    """End the leases, and remove the folders, of processes that were killed while they made or removed a container.

    Temporary containers go with their session.
    """
    for name in _abandoned(store).values():
        with suppress(ContainerNotFoundError, ContainerInUseError):  # a program may still run in it
            remove_container(store, name)
    with store.lock(_LOCK):
        remove_container_leftovers(store.layout.root)
        for lease in _left_over(store):
            end_lease(store, lease)


def _left_over(store: OpenedStore) -> list[bytes]:
    with store.index.read() as transaction:
        return _leases_left_over(transaction, store)


def _leases_left_over(transaction: Transaction, store: OpenedStore) -> list[bytes]:
    """The leases without end that belong to nothing, or to a container that is being made at this moment."""
    leases = [name for name, record in transaction.leases.items() if record.expires == NEVER]
    root = store.layout.root
    if not leases or damaged_containers(root):
        return []  # one of them may be a damaged container's
    living = container_leases(root)
    return [lease for lease in leases if lease not in living]


def leases_of_no_container(transaction: Transaction, store: OpenedStore) -> list[bytes]:
    """The leases without end that collection ends: those that are left over, and of temporary containers."""
    return [*_leases_left_over(transaction, store), *_abandoned(store)]


def _abandoned(store: OpenedStore) -> dict[bytes, str]:
    """The temporary containers that nobody uses and whose session is over: their leases, and their names."""
    found = []
    for folder in container_folders(store.layout.root):
        with suppress(LayerstoreError):  # damaged, or removed meanwhile
            description = folder.read()
            if description.session is not None:
                found.append((folder, description))
    # A session is there before its containers, so this look comes after the one at them.
    live = LiveLeases.look(store.layout.leases).sessions if found else set()
    return {
        description.lease: folder.name
        for folder, description in found
        if bytes.fromhex(description.session or "") not in live and not folder.is_locked
    }


def hold_for_containers(store: OpenedStore) -> None:
    """Let the containers keep what there is of their layers, in an index that was made anew."""
    for folder in container_folders(store.layout.root):
        with suppress(LayerstoreError):  # a damaged description keeps nothing
            store.index.write(partial(_hold, description=folder.read(), may_lack=True))


def _hold(transaction: Transaction, description: ContainerDescription, *, may_lack: bool = False) -> None:
    transaction.leases.put(description.lease, LeaseRecord(time.time_ns(), NEVER))
    for diff_id in dict.fromkeys(description.layers):
        record = transaction.layers.get(diff_id)
        if record is not None:
            hold_layer(transaction, diff_id, record.number, Holder(description.lease, True))
        elif not may_lack:
            raise LayerNotFoundError(f"the store has no layer {diff_id}")
