"""What the tests of containers share: the image that most of them change, and containers of it."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("union", "unpacking", "crash"))

from container_samples import everything

from layerstore import Image, Store


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: so many small changes would wait for a disk."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder, prefix="layerstore-containers-", ignore_cleanup_errors=True) as place:
        yield Path(place)


@pytest.fixture(scope="session")
def kept_store(memory: Path) -> Iterator[Store]:
    """One store for all tests that only make containers in it."""
    with Store.create(memory / "store") as opened:
        yield opened


@pytest.fixture(scope="session")
def image(kept_store: Store) -> Image:
    """An image of two layers with something of everything."""
    layers = [kept_store.push_layer(data).layer for data in everything()]
    return kept_store.create_image(layers, tag="shop:1")
