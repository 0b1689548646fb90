"""A filled store that is closed, copied for every test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filled_store import fill


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "store"
    fill(path)
    return path


@pytest.fixture
def copy(template: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a fresh copy of the filled store; a later one replaces it."""

    def make() -> Path:
        path = tmp_path / "store"
        if path.exists():
            shutil.rmtree(path)
        shutil.copytree(template, path)
        return path

    return make


@pytest.fixture
def filled(copy: Callable[[], Path]) -> Path:
    return copy()
