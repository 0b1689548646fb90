"""Credentials from a configuration file of Docker's (``config.json``) and from its credential helpers."""

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerstore.errors import AuthenticationError, InvalidInputError

HUB_DOMAIN = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker calls its own registry in the file."""
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_FILE_SIZE_MAX = 4 << 20
_HELPER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HELPER_SECONDS_MAX = 60
_IDENTITY_USER = "<token>"
"""The user name with which a helper says that its secret is an identity token."""
_NOT_FOUND = "credentials not found"


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
        config = self._read()
        key = _HUB_KEY if domain in _HUB_HOSTS else domain
        helper = _entry(_table(config, "credHelpers"), key) or config.get("credsStore")
        if helper:
            found = _ask_helper(helper, key)
            if found is not None:
                return found
        entry = _entry(_table(config, "auths"), key)
        return _from_entry(entry, self.path) if isinstance(entry, Mapping) else None

    def _read(self) -> Mapping[str, Any]:
        try:
            with self.path.open("rb") as file:
                data = file.read(_FILE_SIZE_MAX + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise InvalidInputError(f"cannot read {self.path}: {error.strerror}") from error
        try:
            config = json.loads(data[:_FILE_SIZE_MAX])
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{self.path} is not JSON: {error}") from None
        if not isinstance(config, dict):
            raise InvalidInputError(f"{self.path} is no configuration of Docker's: it has no JSON object")
        return config


def _table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _entry(table: Mapping[str, Any], key: str) -> Any:
    """The entry of a registry; keys may be URLs with a path, as old versions of Docker wrote them."""
    if key in table:
        return table[key]
    host = _host(key)
    return next((value for name, value in table.items() if _host(name) == host), None)


def _host(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _from_entry(entry: Mapping[str, Any], path: Path) -> Credentials | None:
    username, password = _text(entry, "username"), _text(entry, "password")
    encoded = _text(entry, "auth")
    if encoded:
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
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


def _ask_helper(helper: object, key: str) -> Credentials | None:
    """What ``docker-credential-HELPER get`` knows, None if it has no credentials."""
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        raise InvalidInputError(f"{str(helper)[:80]!r} is no name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, timeout=_HELPER_SECONDS_MAX, check=False
        )
    except FileNotFoundError:
        raise AuthenticationError(
            f"the credential helper {program} is not installed; install it, or use --username and --password-stdin"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuthenticationError(f"the credential helper {program} failed: {error}") from error
    said = done.stdout[:_FILE_SIZE_MAX].decode(errors="replace")
    if done.returncode:
        if _NOT_FOUND in said:
            return None
        reason = said.strip() or done.stderr.decode(errors="replace").strip()
        raise AuthenticationError(f"the credential helper {program} failed: {reason[:200]}")
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise AuthenticationError(f"the credential helper {program} did not answer with a JSON object")
    username, secret = _text(answer, "Username"), _text(answer, "Secret")
    if username == _IDENTITY_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret) if username or secret else None
