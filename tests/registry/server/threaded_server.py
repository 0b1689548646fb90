"""A whole server in a thread of the test: the real application on the real connections, made of settings."""

import base64
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
from registry_requests import Answer, Registry
from uvicorn.server import Server

from layerstore.registry.server.application import create_application
from layerstore.registry.server.connections import BoundedConnection
from layerstore.registry.server.settings import ServerSettings
from layerstore.registry.server.uvicorn_config import ServerConfig

_START_SECONDS = 30
_COST = 4
"""The lowest of bcrypt: tests check many passwords."""


@contextmanager
def served(settings: ServerSettings) -> Iterator[Registry]:
    """A server that is running; it is stopped at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    application = create_application(settings)
    server = Server(ServerConfig(lambda: application, settings, BoundedConnection, None))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield Registry(f"127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)
        listener.close()
        assert not thread.is_alive()


def htpasswd(path: Path, **passwords: str) -> Path:
    """A file of accounts."""
    lines = [
        f"{name}:{bcrypt.hashpw(text.encode(), bcrypt.gensalt(_COST)).decode()}" for name, text in passwords.items()
    ]
    path.write_text("# accounts\n\n" + "\n".join(lines) + "\n")
    return path


def basic(name: str, password: str) -> dict[str, str]:
    """The header of a name and a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {token}"}


def token_of(registry: Registry, scope: str, headers: Mapping[str, str] | None = None) -> str:
    """A token, as clients get one."""
    answer = registry.ask("GET", f"/v2/token?service=layerstore&scope={scope}", headers=headers)
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.json
    return str(document["token"])


def challenge_of(answer: Answer) -> str:
    """What a 401 asks for."""
    assert answer.status == 401, answer
    return answer.headers["www-authenticate"]
