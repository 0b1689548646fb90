"""What all tests share: Hypothesis profiles, a small store, a place in memory."""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from layerstore import Store

# Shared by the crash and the concurrency tests, whichever is collected first.
pytest.register_assert_rewrite("crash_model")

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("default", deadline=None, derandomize=True, max_examples=60, suppress_health_check=_SLOW)
settings.register_profile(
    "long", deadline=None, max_examples=1000, stateful_step_count=80, suppress_health_check=_SLOW, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store whose frames and packs are small, so that little content fills many."""
    with Store.create(tmp_path / "store", frame_size=1 << 15, pack_size_max=1 << 17) as opened:
        yield opened


def pytest_collection_finish() -> None:
    """Let Python's collector leave alone what was loaded: each look at all of it takes a third of a second."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--crash-thorough", action="store_true", help="crash and concurrency tests at their full length")


@pytest.fixture(scope="session")
def crash_thorough(request: pytest.FixtureRequest) -> bool:
    """Whether crash and concurrency tests run at their full length."""
    return bool(request.config.getoption("--crash-thorough"))


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL takes nothing that was written, synced or not."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="layerstore-test-") as folder:
        yield Path(folder)
