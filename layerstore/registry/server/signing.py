"""Bearer tokens: JSON Web Tokens that this server signs (HS256) and alone accepts."""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import jwt

from layerstore.errors import InvalidOptionError
from layerstore.os_errors import translate_os_errors

_ALGORITHM = "HS256"
_SECRET_SIZE_MIN = 32
_SECRET_SIZE_MAX = 4096
_TOKEN_SIZE_MAX = 32 << 10
_CLAIMS = ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "access", "account"]

CATALOG = "*"
"""As a repository in what a token is for: the list of repositories, and nothing in any of them."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says."""

    account: str | None
    fingerprint: str
    """Changes with the account's password, and ends its tokens by that."""
    grants: Mapping[str, frozenset[str]]
    """What it is for: repositories, or `CATALOG`, and actions there."""


class Signer:
    """Makes tokens and reads them."""

    def __init__(self, secret: bytes, service: str, lifetime: float) -> None:
        self._secret = secret
        self._service = service
        self.lifetime = int(lifetime)
        """Seconds for which a token holds."""

    def fingerprint(self, known: str | None) -> str:
        """What a token has of an account's bcrypt hash."""
        return hmac.digest(self._secret, f"account {known}".encode(), hashlib.sha256).hex()[:32]

    def sign(self, token: Token, now: float) -> str:
        """The token as text."""
        access = [
            {"type": "registry", "name": "catalog", "actions": ["*"]}
            if name == CATALOG
            else {"type": "repository", "name": name, "actions": sorted(actions)}
            for name, actions in token.grants.items()
        ]
        claims = {
            "iss": self._service,
            "aud": self._service,
            "sub": token.account or "",
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + self.lifetime,
            "jti": uuid4().hex,
            "access": access,
            "account": token.fingerprint,
        }
        return jwt.encode(claims, self._secret, _ALGORITHM)

    def read(self, text: str) -> Token | None:
        """What a token of this server says that has not ended; None for everything else."""
        if len(text) > _TOKEN_SIZE_MAX:
            return None
        try:
            claims = jwt.decode(
                text,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=self._service,
                issuer=self._service,
                # What is signed in this second holds at once, and clocks are stepped now and then.
                leeway=5,
                options={"require": _CLAIMS},
            )
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        grants = {
            CATALOG if one["type"] == "registry" else one["name"]: frozenset(one["actions"]) for one in claims["access"]
        }
        return Token(claims["sub"] or None, claims["account"], grants)


def read_secret(path: Path, *, is_own: bool) -> bytes:
    """The bytes of a file, which is made with random ones if it ``is_own`` and not there.

    Raises `InvalidOptionError` if others may read it, or if it is too short.
    """
    if is_own:
        _make_secret(path)
    with translate_os_errors(f"cannot read {path}"), path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o007:
            raise InvalidOptionError(f"everyone can read {path}, which is to be secret: chmod o= {path}")
        secret = file.read(_SECRET_SIZE_MAX + 1).strip()
    if not _SECRET_SIZE_MIN <= len(secret) <= _SECRET_SIZE_MAX:
        raise InvalidOptionError(f"{path} has to have {_SECRET_SIZE_MIN} to {_SECRET_SIZE_MAX} random characters")
    return secret


def _make_secret(path: Path) -> None:
    with translate_os_errors(f"cannot write {path}"):
        if path.exists():
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        made = path.with_name(f"{path.name}.{uuid4().hex}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, secrets.token_hex(32).encode())
        finally:
            os.close(descriptor)
        with suppress(FileExistsError):
            os.link(made, path)  # another worker may have been first; the whole secret or nothing is there
        made.unlink()


def moment_text(now: float) -> str:
    """A moment as the answer with a token has it (RFC 3339)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
