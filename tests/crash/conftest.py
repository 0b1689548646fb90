"""What the crash tests share: children that may be killed."""

from collections.abc import Iterator

import pytest
from fork_server import ForkServer


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Runs children."""
    running = ForkServer(["crash_scenarios", "crash_kills"])
    yield running
    running.close()
