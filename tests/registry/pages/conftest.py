"""The samples and servers of the tests of pages. None of these tests changes the store."""

from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from pages_samples import Samples
from pages_server import RunningServer, serving


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples(tmp_path_factory.mktemp("pages") / "store")


@pytest.fixture(scope="session")
def server(samples: Samples) -> Iterator[RunningServer]:
    """Everybody may do everything."""
    with serving(samples.path) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Everybody may read ``team/*``, ann some more, and root all; bob has no right of his own."""
    accounts = tmp_path_factory.mktemp("accounts") / "htpasswd"
    _write_accounts(accounts, "ann", "bob", "root")
    rights = [
        {"who": ["@everyone"], "repositories": ["team/*"], "actions": ["read"]},
        {"who": ["ann"], "repositories": ["mirror/*", "base", "odd"], "actions": ["read"]},
        {"who": ["root"], "repositories": ["**"], "actions": ["read"]},
    ]
    with serving(samples.path, {"accounts": {"htpasswd": str(accounts)}, "rights": rights}) as running:
        yield running


@pytest.fixture(scope="session")
def closed(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Nobody may do anything without an account; bob has one, and no right."""
    accounts = tmp_path_factory.mktemp("accounts") / "htpasswd"
    _write_accounts(accounts, "bob", "root")
    rights = [{"who": ["root"], "repositories": ["**"], "actions": ["read"]}]
    with serving(samples.path, {"accounts": {"htpasswd": str(accounts)}, "rights": rights}) as running:
        yield running


def _write_accounts(path: Path, *names: str) -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    path.write_text("".join(f"{name}:{hashed}\n" for name in names))
