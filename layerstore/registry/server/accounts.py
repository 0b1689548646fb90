"""Accounts: an htpasswd file with bcrypt hashes. Passwords are checked, never kept."""

import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from pathlib import Path

import bcrypt

from layerstore.errors import InvalidOptionError, LayerstoreError
from layerstore.os_errors import translate_os_errors
from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.buckets import Buckets
from layerstore.registry.server.logs import log
from layerstore.registry.server.problems import ProblemError

_FILE_SIZE_MAX = 16 << 20
_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_NAME = re.compile(r"[^\s:@\x00-\x1f\x7f][^:\x00-\x1f\x7f]{0,254}")
_COST_MAX = 16
"""One check at this cost takes seconds."""
_COST_UNKNOWN = 10
_PASSWORD_SIZE_MAX = 72
"""bcrypt looks at no more bytes."""
_REMEMBERED_SECONDS = 60.0
_REMEMBERED_MAX = 10_000
_WAIT_SECONDS = 5.0

Stamp = tuple[int, int, int]


class Accounts:
    """The accounts of a server. Its methods may be called from several threads, and take as long as bcrypt takes."""

    def __init__(self, path: Path, failures: Buckets) -> None:
        """Raises `InvalidOptionError` if the file has what is no account with a bcrypt hash."""
        self._path = path
        self._failures = failures
        self._lock = threading.Lock()
        # Work for all cores but one, however many requests want it: the rest has to go on.
        self._turns = threading.BoundedSemaphore(max(1, (os.cpu_count() or 2) - 1))
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._stamp = _stamp(path)
        self._hashes = read_htpasswd(path)

    def hash_of(self, name: str) -> str | None:
        """The bcrypt hash of an account; None if there is no such account."""
        self._read_again()
        return self._hashes.get(name)

    def verify(self, name: str, password: str, client: str) -> bool:
        """Whether an account has a password. Raises `ProblemError` if the client has tried too many wrong ones."""
        known = self.hash_of(name)
        key = self._remembered_key(name, password, known)
        if known is not None and self._is_remembered(key):
            return True
        wait = self._failures.wait(client)
        if wait:
            raise _too_many("too many wrong passwords came from your address", wait)
        if not self._turns.acquire(timeout=_WAIT_SECONDS):
            raise _too_many("too many passwords are to be checked", _WAIT_SECONDS)
        try:
            wait = self._failures.wait(client)  # others of the same client have failed while this one waited
            if wait:
                raise _too_many("too many wrong passwords came from your address", wait)
            is_right = _check(password, known or self._unknown_hash())
        finally:
            self._turns.release()
        if known is None or not is_right:
            self._failures.take(client)
            return False
        self._remember(key)
        return True

    def _read_again(self) -> None:
        with self._lock:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._hashes = read_htpasswd(self._path)
            except LayerstoreError as error:
                log(logging.ERROR, "the accounts stay as they were", reason=str(error))

    def _unknown_hash(self) -> str:
        # What an unknown name costs must not tell that it is unknown.
        costs = [int(one[4:6]) for one in self._hashes.values()]
        return f"$2b${max(costs, default=_COST_UNKNOWN):02d}${'.' * 53}"

    def _remembered_key(self, name: str, password: str, known: str | None) -> bytes:
        text = "\0".join((name, known or "", password)).encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, hashlib.sha256)

    def _is_remembered(self, key: bytes) -> bool:
        with self._lock:
            return self._remembered.get(key, 0.0) > time.monotonic()

    def _remember(self, key: bytes) -> None:
        with self._lock:
            self._remembered.pop(key, None)
            self._remembered[key] = time.monotonic() + _REMEMBERED_SECONDS
            while len(self._remembered) > _REMEMBERED_MAX:
                self._remembered.popitem(last=False)


def read_htpasswd(path: Path) -> dict[str, str]:
    """The accounts of a file and their hashes. Raises `InvalidOptionError` with the number of a line that is none."""
    with translate_os_errors(f"cannot read {path}"), path.open("rb") as file:
        data = file.read(_FILE_SIZE_MAX + 1)
    if len(data) > _FILE_SIZE_MAX:
        raise InvalidOptionError(f"{path} is too large for a file of accounts")
    hashes: dict[str, str] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode().strip("\r")
        except UnicodeDecodeError:
            raise InvalidOptionError(f"{path}, line {number}: it is not UTF-8") from None
        if not text.strip() or text.startswith("#"):
            continue
        name, _, found = text.partition(":")
        problem = _problem_of(name, found, hashes)
        if problem is not None:
            raise InvalidOptionError(f"{path}, line {number}: {problem}")
        hashes[name] = found
    return hashes


def _problem_of(name: str, found: str, hashes: dict[str, str]) -> str | None:
    match = _HASH.fullmatch(found)
    if not _NAME.fullmatch(name):
        return "an account cannot have this name"
    if name in hashes:
        return f"{name} has an account already"
    if match is None:
        return f"the password of {name} has no bcrypt hash; set it with `htpasswd -B`"
    if not 4 <= int(match[1]) <= _COST_MAX:
        return f"the bcrypt cost of {name} is not from 4 to {_COST_MAX}"
    return None


def _check(password: str, known: str) -> bool:
    data = password.encode("utf-8", "surrogatepass")
    is_right = bcrypt.checkpw(data.replace(b"\0", b"?")[:_PASSWORD_SIZE_MAX], known.encode())
    # bcrypt would end at a zero byte, and so take a prefix of a password for the whole.
    return is_right and b"\0" not in data


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None  # reading it will say why
    return found.st_mtime_ns, found.st_size, found.st_ino


def _too_many(message: str, wait: float) -> ProblemError:
    return ProblemError(
        429, ErrorCode.TOOMANYREQUESTS, f"{message}; try again later", headers={"Retry-After": str(int(wait) + 1)}
    )
