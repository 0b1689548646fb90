"""Child processes for the crash tests: forked from a server that has imported everything, so that each costs little."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("crash_model")

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["crash_scenarios", "crash_kills", "concurrency_workers"])


@pytest.fixture(scope="session")
def start_child() -> Callable[..., Any]:
    """Start a function of a module in a child process."""

    def start(function: Callable[..., None], *arguments: Any) -> Any:
        process = CONTEXT.Process(target=function, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture(scope="session")
def run_child(start_child: Callable[..., Any]) -> Callable[..., bool]:
    """Run a function in a child process; whether it came to its end. Otherwise it was killed, as was meant."""

    def run(function: Callable[..., None], *arguments: Any) -> bool:
        process = start_child(function, *arguments)
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL), f"the child ended with {process.exitcode}"
        return process.exitcode == 0

    return run


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL takes nothing that was written, synced or not."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="layerstore-test-") as folder:
        yield Path(folder)
