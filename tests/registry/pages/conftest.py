"""The samples and servers of the tests of pages. None of these tests changes the store."""

from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from pages_samples import Samples
from pages_server import RunningServer, serving

from layerstore.registry.server.settings import Anonymous, Right, ServerSettings


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples(tmp_path_factory.mktemp("pages") / "store")


@pytest.fixture(scope="session")
def server(samples: Samples) -> Iterator[RunningServer]:
    """Everybody may do everything."""
    with serving(ServerSettings(store=samples.path, collection_interval=0)) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Everybody may read ``team/*``, ann all but ``private/*``, and root all; bob nothing more than everybody."""
    accounts = tmp_path_factory.mktemp("accounts") / "htpasswd"
    _write_accounts(accounts, "ann", "bob", "root")
    settings = ServerSettings(
        store=samples.path,
        collection_interval=0,
        htpasswd=accounts,
        anonymous=Anonymous.NONE,
        rights=(
            Right(who=frozenset({"@everyone"}), repositories=("team/*",), actions=frozenset({"read"})),
            Right(who=frozenset({"ann"}), repositories=("mirror/*", "base", "odd"), actions=frozenset({"read"})),
            Right(who=frozenset({"root"}), repositories=("**",), actions=frozenset({"read"})),
        ),
    )
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="session")
def closed(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Nobody may do anything without an account; bob has one, and no right."""
    accounts = tmp_path_factory.mktemp("accounts") / "htpasswd"
    _write_accounts(accounts, "bob")
    settings = ServerSettings(
        store=samples.path, collection_interval=0, htpasswd=accounts, anonymous=Anonymous.NONE, rights=()
    )
    with serving(settings) as running:
        yield running


def _write_accounts(path: Path, *names: str) -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    path.write_text("".join(f"{name}:{hashed}\n" for name in names))
