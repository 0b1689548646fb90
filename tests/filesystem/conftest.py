"""An image in a store, and its file system for fsspec."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from filesystem_samples import FILES, tar_of

from layerstore import Store

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from layerstore.filesystem import LayerstoreFileSystem  # noqa: E402  # only where fsspec is


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The protocol as its entry point registers it, and nothing kept from one test to the next."""
    monkeypatch.delenv("LAYERSTORE_PATH", raising=False)
    fsspec.register_implementation("layerstore", LayerstoreFileSystem, clobber=True)
    yield
    LayerstoreFileSystem.clear_instance_cache()


@pytest.fixture
def push(store: Store) -> Callable[..., str]:
    """Makes an image of files; its digest."""

    def make(tag: str, files: list[tuple[str, bytes, dict[str, Any]]]) -> str:
        return str(store.create_image([store.push_layer(tar_of(files)).layer], tag=tag).digest)

    return make


@pytest.fixture
def image(push: Callable[..., str]) -> str:
    """The digest of ``shop:1.0``."""
    return push("shop:1.0", FILES)


@pytest.fixture
def files(store: Store, image: str) -> LayerstoreFileSystem:
    return LayerstoreFileSystem(store=str(store.path), image="shop:1.0")
