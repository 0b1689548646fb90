"""The server as a program: ``python -m layerstore.mounting``. Clients start it; nobody types it."""

import argparse
import logging
import os
import shutil
import socket
import sys
from pathlib import Path

from layerstore.errors import LayerstoreError, MountUnavailableError
from layerstore.mounting.attaching import detach
from layerstore.mounting.messages import encode, error_message
from layerstore.mounting.mount_table import read_mounts
from layerstore.mounting.runtime import RuntimeFolder
from layerstore.mounting.server import Server
from layerstore.storage.layout import open_layout
from layerstore.storage.locks import FileLock
from layerstore.storage.opened import OpenedStore

_log = logging.getLogger(__name__)


def main() -> None:
    """Leave the starter's session, serve, and tell on stdout when that has begun, or why it cannot."""
    parser = argparse.ArgumentParser(prog="layerstore.mounting", description="The server of layerstore's mounts.")
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.add_argument("--folder", type=Path, required=True, help="where socket, locks and log are")
    parser.add_argument("--client", type=int, required=True, help="descriptor of a socket of the client who starts it")
    parser.add_argument("--single", type=Path, help="mount a single view here")
    arguments = parser.parse_args()
    folder = RuntimeFolder(arguments.folder)
    if os.fork():
        os._exit(0)  # so that the server is nobody's child
    os.setsid()
    logging.basicConfig(filename=folder.log, format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        _serve(arguments.store, folder, arguments.single, socket.socket(fileno=arguments.client))
    except LayerstoreError as error:
        _log.error("%s", error)
        _tell(encode(error_message(error)))
    except Exception as error:
        _log.exception("the server failed")
        _tell(encode(error_message(MountUnavailableError(f"the server of mounts failed: {error}; see {folder.log}"))))
    logging.shutdown()
    # Threads that still wait for the kernel have nothing to finish.
    os._exit(0)


def _serve(root: Path, folder: RuntimeFolder, single: Path | None, client: socket.socket) -> None:
    lock = FileLock.acquire(folder.lock, blocking=True, create=True)
    assert lock is not None, "it was waited for"
    folder.file_system.mkdir(mode=0o700, exist_ok=True)
    if single is None:
        _remove_dead_mounts(folder)
    layout, config = open_layout(root)
    store = OpenedStore(layout, config, read_only=True)
    client.set_inheritable(False)
    server = Server(store, folder, single or folder.file_system, client, single=single is not None)
    try:
        _tell(encode({}))
        server.run()
    finally:
        server.leave()
        lock.release()  # the next server may begin
        server.wait_for_users()
        server.close()
        store.close()
        if single is not None:
            shutil.rmtree(folder.path, ignore_errors=True)


def _remove_dead_mounts(folder: RuntimeFolder) -> None:
    """Take away what a server left mounted that was killed: as we have its lock, it is dead."""
    mounts = read_mounts()
    devices = {one.device for one in mounts if one.target == folder.file_system and one.is_view}
    inside = os.fsencode(folder.file_system) + b"/"
    for one in reversed(mounts):
        is_overlay = one.is_container and (one.option(b"lowerdir") or b"").startswith(inside)
        if is_overlay or (one.is_view and one.device in devices):
            detach(one.target)


def _tell(line: bytes) -> None:
    """The one line for the starter, who waits for it."""
    try:
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        return  # it was told already, or the starter has gone
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


if __name__ == "__main__":
    main()
