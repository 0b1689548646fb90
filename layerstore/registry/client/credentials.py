"""Credentials, and Docker's file of them (``config.json``), which may leave them to credential helpers."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerstore.errors import InvalidInputError
from layerstore.registry.client.credential_helpers import (
    ask_helper,
    erase_with_helper,
    helper_program,
    store_with_helper,
)
from layerstore.registry.client.login_files import (
    changed_login_file,
    entry_of,
    host_of,
    is_same_host,
    read_login_file,
    table,
)

HUB_DOMAIN = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
"""What Docker calls its own registry in its file."""
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_IDENTITY_USER = "<token>"
"""The user name with which a helper says that its secret is an identity token."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who somebody is at a registry."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Takes the place of a password at the token server (OAuth 2 "refresh token")."""
    registry_token: str = field(default="", repr=False)
    """A token that the registry takes as it is."""


class DockerConfig:
    """A ``config.json`` as `docker login` writes it. A file that is not there knows nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def credentials(self, domain: str) -> Credentials | None:
        """The credentials for a registry, named as in references; None if there are none.

        Raises `InvalidInputError` for a file that is malformed, and `AuthenticationError` if a helper fails.
        """
        config = read_login_file(self.path)
        key = _key(domain)
        helper = _helper(config, key)
        found = kept_by_helper(helper, key) if helper else None
        return found or kept_in_entry(entry_of(table(config, "auths"), key), self.path)

    def domains(self) -> list[str]:
        """The registries, as they stand in references, that the file says somebody logged in at."""
        hosts = map(host_of, table(read_login_file(self.path), "auths"))
        return list(dict.fromkeys(HUB_DOMAIN if host in _HUB_HOSTS else host for host in hosts))

    def store(self, domain: str, credentials: Credentials) -> str:
        """Keep a name and a password for a registry, as `docker login` does; who keeps them: a helper, or the file.

        All else in the file stays as it is. Raises as `credentials`, and `StorageError` if the file cannot be written.
        """
        if not credentials.username or ":" in credentials.username:
            raise InvalidInputError(f"{credentials.username!r} is no user name: it is empty, or has a colon")
        key = _key(domain)
        with changed_login_file(self.path) as config:
            auths = _writable_table(config, "auths", self.path)
            helper = _helper(config, key)
            if helper:
                store_with_helper(helper, key, credentials.username, credentials.password)
                auths[key] = {}  # so that it is known who logged in; nothing of it stays in the file
                return helper_program(helper)
            text = f"{credentials.username}:{credentials.password}"
            auths[key] = {"auth": base64.b64encode(text.encode()).decode()}
        return str(self.path)

    def erase(self, domain: str) -> bool:
        """Forget the credentials for a registry, as `docker logout` does; whether there were any.

        Raises as `store`.
        """
        key = _key(domain)
        if not self.path.exists():
            return False
        with changed_login_file(self.path) as config:
            auths = _writable_table(config, "auths", self.path)
            helper = _helper(config, key)
            had = False
            if helper:
                had = kept_by_helper(helper, key) is not None
                erase_with_helper(helper, key)
            for name in [one for one in auths if is_same_host(one, key)]:
                del auths[name]
                had = True
        return had


def _key(domain: str) -> str:
    return HUB_KEY if domain in _HUB_HOSTS else domain


def _helper(config: Mapping[str, Any], key: str) -> Any:
    return entry_of(table(config, "credHelpers"), key) or config.get("credsStore")


def _writable_table(config: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = config.setdefault(name, {})
    if not isinstance(value, dict):
        raise InvalidInputError(f"{path}: {name!r} is no JSON object; mend the file")
    return value


def kept_by_helper(helper: object, key: str) -> Credentials | None:
    """The credentials that a helper has. Raises `CredentialHelperError` if it fails."""
    found = ask_helper(helper, key)
    if found is None:
        return None
    user, secret = found
    return Credentials(identity_token=secret) if user == _IDENTITY_USER else Credentials(user, secret)


def kept_in_entry(entry: Any, path: Path) -> Credentials | None:
    """The credentials in an entry of a file. Raises `InvalidInputError` for one that makes no sense."""
    if not isinstance(entry, Mapping):
        return None
    username, password = _text(entry, "username"), _text(entry, "password")
    encoded = _text(entry, "auth")
    if encoded:
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, ValueError):
            raise InvalidInputError(f"{path}: an 'auth' is not Base 64 of a text; log in again") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise InvalidInputError(f"{path}: an 'auth' is not of the form user:password; log in again")
        password = password.rstrip("\0")
    found = Credentials(username, password, _text(entry, "identitytoken"), _text(entry, "registrytoken"))
    return None if found == Credentials() else found


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
