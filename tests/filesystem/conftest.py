"""An image in a store, and its file system for fsspec."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layerstore import Store

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from layerstore.filesystem import LayerstoreFileSystem  # noqa: E402  # only where fsspec is

LARGE = bytes(range(256)) * 1000
FILES: list[tuple[str, bytes, dict[str, Any]]] = [
    ("data", b"", {"type": tarfile.DIRTYPE, "mode": 0o750, "mtime": 86_400}),
    ("data/a.csv", b"x,y\n1,2\n3,4\n", {"mode": 0o640, "uid": 3, "gid": 4, "mtime": 1_700_000_000.25}),
    ("data/large", LARGE, {}),
    ("data/deep/b.csv", b"x,y\n5,6\n", {}),
    ("data/now.csv", b"", {"type": tarfile.SYMTYPE, "linkname": "a.csv"}),
    ("data/up", b"", {"type": tarfile.SYMTYPE, "linkname": ".."}),
    ("data/gone", b"", {"type": tarfile.SYMTYPE, "linkname": "/no/such"}),
    ("data/bang!/x", b"bang", {}),
    ("null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
    ("n\udcff", b"odd", {}),
    ("late", b"", {"mtime": 10**15}),
]


def tar_of(files: list[tuple[str, bytes, dict[str, Any]]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name, data, values in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in values.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


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
def push_tree(store: Store) -> Callable[[str, Path], str]:
    """Makes an image of a directory; its digest."""

    def make(tag: str, root: Path) -> str:
        return str(store.create_image([store.push_tree(root).layer], tag=tag).digest)

    return make


@pytest.fixture
def image(push: Callable[..., str]) -> str:
    """The digest of ``shop:1.0``."""
    return push("shop:1.0", FILES)


@pytest.fixture
def files(store: Store, image: str) -> LayerstoreFileSystem:
    return LayerstoreFileSystem(store=str(store.path), image="shop:1.0")
