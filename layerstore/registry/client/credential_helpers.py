"""Programs that keep credentials for Docker and others: ``docker-credential-NAME get``, ``store`` and ``erase``."""

import json
import re
import subprocess

from layerstore.errors import InvalidInputError
from layerstore.registry.client.problems import CredentialHelperError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SECONDS_MAX = 60
_ANSWER_SIZE_MAX = 4 << 20
_NOT_FOUND = "credentials not found"


def helper_program(name: object) -> str:
    """The program of a helper. Raises `InvalidInputError` for what is no name of one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(f"{str(name)[:80]!r} is no name of a credential helper")
    return f"docker-credential-{name}"


def ask_helper(name: object, key: str) -> tuple[str, str] | None:
    """The user and the secret that a helper has for a registry, None if it has none.

    Raises `CredentialHelperError` if it fails.
    """
    program = helper_program(name)
    said = _run(program, "get", key)
    if said is None:
        return None
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise CredentialHelperError(f"the credential helper {program} did not answer with a JSON object")
    user, secret = (value if isinstance(value := answer.get(one), str) else "" for one in ("Username", "Secret"))
    return (user, secret) if user or secret else None


def store_with_helper(name: object, key: str, user: str, secret: str) -> None:
    """Give a helper credentials to keep. Raises `CredentialHelperError` if it fails."""
    program = helper_program(name)
    document = {"ServerURL": key, "Username": user, "Secret": secret}
    if _run(program, "store", json.dumps(document, ensure_ascii=False)) is None:
        raise CredentialHelperError(f"the credential helper {program} did not store the credentials")


def erase_with_helper(name: object, key: str) -> None:
    """Have a helper forget credentials, if it has them. Raises `CredentialHelperError` if it fails."""
    _run(helper_program(name), "erase", key)


def _run(program: str, action: str, given: str) -> str | None:
    """What a helper says; None if it knows nothing of what it was asked for."""
    try:
        done = subprocess.run(
            [program, action],
            input=given.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=_SECONDS_MAX,
            check=False,
        )
    except FileNotFoundError:
        raise CredentialHelperError(
            f"the credential helper {program} is not installed; install it, or give credentials"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialHelperError(f"the credential helper {program} failed: {error}") from error
    said = done.stdout[:_ANSWER_SIZE_MAX].decode(errors="replace")
    if not done.returncode:
        return said
    if _NOT_FOUND in said:
        return None
    reason = said.strip() or done.stderr[:_ANSWER_SIZE_MAX].decode(errors="replace").strip()
    raise CredentialHelperError(f"the credential helper {program} failed: {reason[:200]}")
