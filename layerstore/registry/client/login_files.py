"""The JSON files in which tools keep who is logged in where: read as hostile input, and replaced as a whole."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerstore.errors import InvalidInputError
from layerstore.os_errors import translate_os_errors

_SIZE_MAX = 4 << 20
_MODE = 0o600
_FOLDER_MODE = 0o700
_OTHERS = 0o077


def read_login_file(path: Path) -> dict[str, Any]:
    """What a file has, nothing if it is not there. Raises `InvalidInputError` for one that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _SIZE_MAX:
        raise InvalidInputError(f"{path} has more than {_SIZE_MAX} bytes, which is refused")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path} is no file of logins: it has no JSON object")
    return config


@contextmanager
def changed_login_file(path: Path) -> Iterator[dict[str, Any]]:
    """What a file has, to be changed; what it is when the block ends replaces the file in one step, for its owner only.

    Others that change it so wait meanwhile. A symbolic link stays, and what it leads to is replaced.
    """
    with translate_os_errors(f"cannot write {path}"):
        target = Path(os.path.realpath(path))  # `Path.resolve` has no error of the system's for a loop
        target.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with translate_os_errors(f"cannot write {path}"):
            fcntl.flock(folder, fcntl.LOCK_EX)  # there is no file of its own to lock: it is another after each change
        config = read_login_file(target)
        before = json.dumps(config)
        yield config
        if json.dumps(config) != before or (target.exists() and target.stat().st_mode & _OTHERS):
            with translate_os_errors(f"cannot write {path}"):
                _replace(target, config, folder)
    finally:
        os.close(folder)


def _replace(target: Path, config: Mapping[str, Any], folder: int) -> None:
    # As Docker writes it. Escapes for all that is not ASCII, as some of it could not be encoded.
    data = json.dumps(config, indent="\t").encode() + b"\n"
    aside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    os.fsync(folder)


def table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of it that is an object, an empty one if it is not."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def entry_of(entries: Mapping[str, Any], key: str) -> Any:
    """The entry of a registry; keys may be URLs with a path, as old versions of Docker wrote them."""
    if key in entries:
        return entries[key]
    return next((value for name, value in entries.items() if is_same_host(name, key)), None)


def is_same_host(one: str, other: str) -> bool:
    """Whether two keys, each a host or a URL, mean the same registry."""
    return host_of(one) == host_of(other)


def host_of(key: str) -> str:
    """The host of a key, with its port if it has one."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]
