"""Child processes for the crash tests: forked from a server that has imported everything, so that each costs little."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Server:
    """`crash_server`, which runs one child at a time."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("crash_server.py")
        modules = ["crash_scenarios", "crash_kills"]
        self._process = subprocess.Popen(
            [sys.executable, str(script), *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, function: Callable[..., None], *arguments: Any) -> int:
        """Start a function of a module in a child; its process id."""
        request = {"module": function.__module__, "name": function.__name__, "arguments": arguments}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self) -> bool:
        """Whether the child came to its end. Otherwise it was killed, as was meant."""
        status = self._read()
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
        return status == 0

    def run(self, function: Callable[..., None], *arguments: Any) -> bool:
        """`start` and `wait`."""
        self.start(function, *arguments)
        return self.wait()

    def close(self) -> None:
        """End the server."""
        self._process.communicate()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Runs children."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL takes nothing that was written, synced or not."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="layerstore-test-") as folder:
        yield Path(folder)
