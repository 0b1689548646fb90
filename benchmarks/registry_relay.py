"""A relay on the loopback interface that counts what goes through it in both directions."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

BLOCK_SIZE = 256 << 10


class Relay:
    """Passes connections on to a server, until it is left."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.up_bytes = 0
        """From clients to the server."""
        self.down_bytes = 0

    @property
    def address(self) -> str:
        """Host and port, as in a reference."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def bytes(self) -> int:
        """In both directions, heads of requests and answers among them."""
        return self.up_bytes + self.down_bytes

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._open):
            one.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the relay is left
            server = socket.create_connection(("127.0.0.1", self._port))
            self._open += [client, server]
            self._start(self._pass_on, client, server, True)
            self._start(self._pass_on, server, client, False)

    def _pass_on(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        with suppress(OSError):
            while block := source.recv(BLOCK_SIZE):
                with self._lock:
                    if is_up:
                        self.up_bytes += len(block)
                    else:
                        self.down_bytes += len(block)
                target.sendall(block)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
