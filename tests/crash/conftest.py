"""What the crash tests share: children that may be killed, and a place in memory."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Runs children."""
    running = ForkServer(["crash_scenarios", "crash_kills"])
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
