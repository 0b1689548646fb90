"""A registry as users run one: ``layerstore serve`` in a process of its own."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_START_SECONDS = 60
_STOP_SECONDS = 60


class ServerProcess:
    """A server on a store. It may be stopped or killed, and started again under the same address."""

    def __init__(self, store: Path, *options: str, port: int = 0) -> None:
        """``options`` come behind ``serve``. A store that is not there yet is made. Port 0: a free one."""
        self.store = store
        self.options = options
        self.port = port
        self.log = store.with_name(f"{store.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        if not store.exists():
            subprocess.run([*_LAYERSTORE, "--store", str(store), "init"], check=True, capture_output=True, timeout=60)

    @property
    def address(self) -> str:
        """Host and port, as they stand in names of images."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://{self.address}"

    @property
    def process_id(self) -> int:
        """The process that was started; worker processes are its children."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until the server listens."""
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        command = [*_LAYERSTORE, "--json", "--store", str(self.store), "serve", *where, *self.options]
        with self.log.open("ab") as log:
            # A session of its own, so that a kill reaches the workers as well.
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        line = self._first_line(self._process)
        self.port = int(json.loads(line)["address"].rpartition(":")[2])
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Ask the server to end, as an operator does, and wait for it."""
        process = self._process
        if process is None:
            return
        self._process = None
        process.terminate()
        try:
            status = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            _close(process)
        assert status in (0, -signal.SIGTERM), f"the server ended with {status}: {self.log_text()}"

    def kill(self) -> None:
        """End the server and its workers at once, whatever they are doing."""
        process = self._process
        assert process is not None
        self._process = None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _close(process)

    def kill_worker(self) -> None:
        """End one of several worker processes at once. The others go on, and it is replaced."""
        parent = self.process_id
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in map(int, children):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
                return

    def log_text(self) -> str:
        """The end of what the server wrote to standard error."""
        return self.log.read_text(errors="replace")[-4000:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line:
            self.kill()
            raise RuntimeError(f"the server does not start: {self.log_text()}")
        return line

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if connection.recv(5) == b"HTTP/":
                        return
            except OSError:
                pass
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"the server does not answer: {self.log_text()}")
            time.sleep(0.02)


_LAYERSTORE = (sys.executable, "-m", "layerstore")


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is not None:
        process.stdout.close()
