"""The client's end: finds the server of a store, or starts it, and asks it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from layerstore.errors import MountUnavailableError
from layerstore.mounting.messages import Message, decode, encode, raise_error
from layerstore.mounting.runtime import RuntimeFolder
from layerstore.storage.locks import FileLock

_PACKAGES = Path(__file__).parents[2]
_ATTEMPTS = 10


class Connection:
    """A connection to a server. As long as it is open, what it asked for stays."""

    def __init__(self, connection: socket.socket, folder: RuntimeFolder) -> None:
        self._socket = connection
        self._received = connection.makefile("rb")
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._received.close()
        self._socket.close()

    def ask(self, message: Message) -> Message:
        """The answer to a request. Raises the server's error, or `ServerGoneError`."""
        try:
            self._socket.sendall(encode(message))
            line = self._received.readline()
        except OSError:
            line = b""
        if not line:
            raise ServerGoneError(f"the server of mounts has ended; see {self._folder.log}")
        answer = decode(line)
        raise_error(answer)
        return answer


class ServerGoneError(MountUnavailableError):
    """The server ended before it answered."""


def find_server(folder: RuntimeFolder) -> Connection | None:
    """A connection to the server that has this folder; None if there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(folder.socket))
    except OSError:
        connection.close()
        return None
    return Connection(connection, folder)


def connect(folder: RuntimeFolder, store: Path, first: Message) -> tuple[Connection, Message]:
    """A connection to the server of a store, started if there is none, and the answer to a first request."""
    for _ in range(_ATTEMPTS):
        # Those who look and start take turns, so that one of them starts it and the others find it.
        lock = FileLock.acquire(folder.start_lock, blocking=True, create=True)
        assert lock is not None, "it was waited for"
        try:
            connection = find_server(folder) or _started(folder, store, None)
        finally:
            lock.release()
        try:
            return connection, connection.ask(first)
        except ServerGoneError:
            connection.close()  # it was about to end when we came
        except BaseException:
            connection.close()
            raise
    raise MountUnavailableError(f"no server of mounts stays; see {folder.log}")


def start_single(folder: RuntimeFolder, store: Path, mount_point: Path) -> Connection:
    """A connection to a new server that has one view, at ``mount_point``."""
    return _started(folder, store, mount_point)


def _started(folder: RuntimeFolder, store: Path, single: Path | None) -> Connection:
    # The server has one end from its first moment: it ends when nobody is connected and nothing is mounted.
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            _start(folder, store, single, theirs.fileno())
        except BaseException:
            ours.close()
            raise
    return Connection(ours, folder)


def _start(folder: RuntimeFolder, store: Path, single: Path | None, client: int) -> None:
    """Start a server and wait until it serves."""
    command = [sys.executable, "-m", "layerstore.mounting", "--store", str(store.resolve()), "--folder"]
    command += [str(folder.path), "--client", str(client), *(["--single", str(single)] if single is not None else [])]
    others = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(_PACKAGES), *([others] if others else [])])
    # Not in our directory: the server would keep it busy, and import what lies there.
    with (
        folder.log.open("ab") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=[client],
        ) as process,
    ):
        assert process.stdout is not None, "it is a pipe"
        line = process.stdout.readline()
    if not line:
        raise MountUnavailableError(f"the server of mounts did not start; see {folder.log}")
    raise_error(decode(line))
