"""The server: one FUSE file system with all views of a store that are in use, and the requests of clients.

What is in use is read from the system's mounts, so that a plain ``umount`` counts like ours. Besides, a view stays as
long as the connection of the client that asked for it: it is about to mount it. With nothing left the server ends.
"""

import contextlib
import logging
import os
import secrets
import select
import socket
from dataclasses import dataclass, field
from pathlib import Path

from layerstore.digest import Digest
from layerstore.errors import ContainerInUseError, InvalidInputError, LayerstoreError
from layerstore.mounting.answers import Answers
from layerstore.mounting.attaching import detach, mount_fuse, raise_read_ahead
from layerstore.mounting.device import Device
from layerstore.mounting.inodes import ROOT_NUMBER, NumberedView, Numbers
from layerstore.mounting.messages import MESSAGE_SIZE_MAX, Message, decode, encode, error_message, peer_user
from layerstore.mounting.mount_table import MountEntry, open_table, read_mounts
from layerstore.mounting.runtime import RuntimeFolder
from layerstore.storage.containers import lock_container
from layerstore.storage.locks import FileLock
from layerstore.storage.opened import OpenedStore
from layerstore.union.view import View

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Shown:
    """A view that the file system has."""

    name: bytes
    view: NumberedView
    is_kept: bool = False
    """It was unmounted while somebody used it: it stays to the end of the server."""


@dataclass(slots=True, eq=False)
class _Client:
    """A connection, and what is kept for it."""

    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    views: list[_Shown] = field(default_factory=list)
    containers: list[bytes] = field(default_factory=list)


class Server:
    """Serves one store, to begin with for the client that started it.

    With ``single``, one view is the whole file system, as for users other than root.
    """

    def __init__(
        self, store: OpenedStore, folder: RuntimeFolder, mount_point: Path, starter: socket.socket, *, single: bool
    ) -> None:
        self._store = store
        self._folder = folder
        self._mount_point = mount_point
        self._single = single
        self._numbers = Numbers()
        self._answers = Answers(self._numbers)
        self._views: dict[tuple[Digest, ...], _Shown] = {}
        self._locks: dict[bytes, FileLock] = {}
        """Of the containers that are mounted, by their upper folders."""
        self._overlay_target: Path | None = None
        self._kept_locks: set[bytes] = set()
        self._is_used = True
        self._clients = {starter.fileno(): _Client(starter)}
        self._is_attached = False
        self._ended = os.eventfd(0)
        self._table = open_table()
        self._listener = _listen(folder.socket)

        if not single:
            self._attach()

    # --- the file system ----------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        device = mount_fuse(self._mount_point)
        self._is_attached = True
        Device(device, self._answers, lambda: os.eventfd_write(self._ended, 1)).start()
        raise_read_ahead(self._mount_point)

    def _show(self, diff_ids: tuple[Digest, ...]) -> _Shown:
        shown = self._views.get(diff_ids)
        if shown is None:
            if self._single and self._views:
                raise InvalidInputError("this server has its view already")
            view = View(self._store, diff_ids)
            numbered = self._numbers.add(view, ROOT_NUMBER if self._single else None)
            # Never used again: so what is mounted from a server that died is never taken for a view of the next one.
            shown = _Shown(secrets.token_hex(8).encode(), numbered)
            self._answers.show(shown.name, numbered)
            self._views[diff_ids] = shown
            if self._single:
                self._attach()  # only now it has a root
        return shown

    # --- what is in use -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until nothing is in use any more."""
        poll = select.poll()
        poll.register(self._table, select.POLLPRI | select.POLLERR)
        poll.register(self._ended, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        for starter in self._clients:
            poll.register(starter, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._ended:
                    self._is_attached = False
                    return
                if descriptor == self._table:
                    self._sweep()
                elif descriptor == self._listener.fileno():
                    client = self._accept()
                    if client is not None:
                        poll.register(client.connection, select.POLLIN)
                elif not self._receive(self._clients[descriptor]):
                    poll.unregister(descriptor)
                    self._clients.pop(descriptor).connection.close()
                    self._sweep()
            if not self._is_used:
                return

    def leave(self) -> None:
        """Take the file system away. Who connects from now on finds no server, and starts one."""
        with contextlib.suppress(FileNotFoundError):
            self._folder.socket.unlink()
        self._listener.close()
        for client in self._clients.values():
            client.connection.close()
        if self._is_attached:
            detach(self._mount_point)

    def wait_for_users(self) -> None:
        """Go on to answer those who still use what was unmounted lazily, or see it in another mount namespace."""
        if self._is_attached:
            os.eventfd_read(self._ended)

    def close(self) -> None:
        """Let go of everything."""
        for lock in self._locks.values():
            lock.release()
        for shown in self._views.values():
            self._numbers.drop(shown.view)

    def _sweep(self) -> None:
        """Drop the views and the locks of containers that are neither mounted nor about to be."""
        mounts = read_mounts()
        clients = self._clients.values()
        containers = {upper for client in clients for upper in client.containers} | self._mounted_containers(mounts)
        for upper in self._locks.keys() - containers - self._kept_locks:
            self._locks.pop(upper).release()
        views = {shown.name for client in clients for shown in client.views} | self._mounted_views(mounts)
        self._is_used = bool(self._clients or views)
        if not self._is_used:
            return  # the last views stay until nobody has a file of theirs open
        for diff_ids, shown in list(self._views.items()):
            if shown.name not in views and not shown.is_kept:
                del self._views[diff_ids]
                self._answers.hide(shown.name)
                self._numbers.drop(shown.view)

    def _keep(self, target: Path) -> None:
        """What is mounted at a target is about to be unmounted lazily: go on to answer those who use it."""
        mounts = read_mounts()
        for one in mounts:
            if one.target == target:
                name = self._view_of(one, mounts)
                for shown in self._views.values():
                    shown.is_kept = shown.is_kept or shown.name == name
                if one.is_container and name is not None:
                    self._kept_locks |= self._locks.keys() & {one.option(b"upperdir") or b""}

    def _mounted_views(self, mounts: list[MountEntry]) -> set[bytes]:
        return {name for one in mounts if (name := self._view_of(one, mounts)) is not None}

    def _view_of(self, mount: MountEntry, mounts: list[MountEntry]) -> bytes | None:
        """The view that a mount shows, of this server; None for all other mounts."""
        if self._single:
            return self._single_view_of(mount)
        folder = os.fsencode(self._mount_point) + b"/"
        if mount.is_container:
            lower = mount.option(b"lowerdir") or b""
            return lower.removeprefix(folder) if lower.startswith(folder) else None
        device = next((one.device for one in reversed(mounts) if one.target == self._mount_point), None)
        if mount.is_view and mount.device == device:
            return mount.root.split(b"/")[1] or None
        return None

    def _single_view_of(self, mount: MountEntry) -> bytes | None:
        if self._overlay_target is None:
            is_ours = mount.target == self._mount_point and mount.is_view
        else:
            is_ours = mount.target == self._overlay_target and mount.is_user_overlay
        return next(iter(self._views.values())).name if is_ours and self._views else None

    def _listed(self, mounts: list[MountEntry]) -> list[Message]:
        """The targets and what is mounted there."""
        layers = {shown.name: [str(one) for one in diff_ids] for diff_ids, shown in self._views.items()}
        found = []
        for one in mounts:
            name = self._view_of(one, mounts)
            if name in layers and one.target != self._folder.file_system:
                kind = "view" if one.is_view else "container"
                found.append({"target": str(one.target), "kind": kind, "layers": layers[name]})
        return found

    def _mounted_containers(self, mounts: list[MountEntry]) -> set[bytes]:
        if self._single:
            return set(self._locks) if self._mounted_views(mounts) else set()
        return {upper for one in mounts if one.is_container and (upper := one.option(b"upperdir")) is not None}

    # --- clients ------------------------------------------------------------------------------------------------------

    def _accept(self) -> _Client | None:
        connection, _ = self._listener.accept()
        if peer_user(connection) not in (0, os.geteuid()):
            connection.close()
            return None
        client = self._clients[connection.fileno()] = _Client(connection)
        return client

    def _receive(self, client: _Client) -> bool:
        """Answer what a client sends; false at its end."""
        try:
            data = client.connection.recv(1 << 16)
            client.received += data
            if not data or len(client.received) > MESSAGE_SIZE_MAX:
                return False
            while b"\n" in client.received:
                line, _, rest = client.received.partition(b"\n")
                client.received = rest
                client.connection.sendall(encode(self._answer(client, bytes(line))))
        except OSError:
            return False
        return True

    def _answer(self, client: _Client, line: bytes) -> Message:
        try:
            return self._do(client, decode(line))
        except LayerstoreError as error:
            return error_message(error)
        except (OSError, RecursionError, MemoryError) as error:
            _log.exception("a request failed")
            return error_message(InvalidInputError(str(error)))

    def _do(self, client: _Client, message: Message) -> Message:
        match message:
            case {"do": "show", "layers": list(layers)}:
                shown = self._show(tuple(Digest(one) for one in layers))
                client.views.append(shown)
                path = self._mount_point if self._single else self._mount_point / os.fsdecode(shown.name)
                return {"path": str(path)}
            case {"do": "hold", "lock": str(lock), "upper": str(upper), "target": str(target)}:
                self._hold(client, Path(lock), os.fsencode(upper))
                self._overlay_target = Path(target)
                return {}
            case {"do": "keep", "target": str(target)}:
                self._keep(Path(target))
                return {}
            case {"do": "release"}:
                client.views.clear()
                client.containers.clear()
                self._sweep()
                return {}
            case {"do": "sweep"}:
                self._sweep()
                return {}
            case {"do": "list"}:
                return {"store": str(self._store.layout.root), "mounts": self._listed(read_mounts())}
            case {"do": "statistics"}:
                return {"process": os.getpid(), "views": len(self._views), "requests": dict(self._answers.counts)}
        raise InvalidInputError("not a request that is known")

    def _hold(self, client: _Client, path: Path, upper: bytes) -> None:
        self._sweep()  # it may have been unmounted this very moment
        if upper in self._locks:
            raise ContainerInUseError(f"container {path.parent.name} is mounted")
        self._locks[upper] = lock_container(path)
        client.containers.append(upper)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(64)
    return listener
