from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_requests import Registry
from threaded_server import htpasswd, served

from layerstore import Store
from layerstore.registry.server.settings import Anonymous, Right, ServerSettings


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """A new store."""
    Store.create(tmp_path / "store").close()
    return tmp_path / "store"


@pytest.fixture
def settings(store_path: Path) -> ServerSettings:
    """Those of a server that does nothing by itself."""
    return ServerSettings(store=store_path, collection_interval=0)


@pytest.fixture
def registry(settings: ServerSettings) -> Iterator[Registry]:
    """A server that runs."""
    with served(settings) as running:
        yield running


@pytest.fixture
def with_accounts(tmp_path: Path, store_path: Path) -> ServerSettings:
    """Everyone reads ``public/**``; alice does all in ``team/*``, bob reads it; robot reads and writes ``team/app``."""
    rights = (
        Right(who=frozenset({"@everyone"}), repositories=("public/**",), actions=frozenset({"read"})),
        Right(
            who=frozenset({"alice"}),
            repositories=("team/*", "public/**"),
            actions=frozenset({"read", "write", "delete"}),
        ),
        Right(who=frozenset({"bob"}), repositories=("team/*",), actions=frozenset({"read"})),
        Right(who=frozenset({"robot"}), repositories=("team/app",), actions=frozenset({"read", "write"})),
    )
    accounts = htpasswd(tmp_path / "htpasswd", alice="secret a", bob="secret b", robot="secret r")
    return ServerSettings(
        store=store_path, htpasswd=accounts, anonymous=Anonymous.NONE, rights=rights, collection_interval=0
    )
