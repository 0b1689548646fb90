"""Answers that say no, as errors of ours (spec.md, "Error Codes")."""

import json
from typing import Any

from layerstore.errors import DeniedError, OversizedError, RegistryError
from layerstore.registry.client.addresses import origin_of
from layerstore.registry.client.problems import BrokenConnectionError
from layerstore.registry.client.transport import Response

_ERROR_SIZE_MAX = 64 << 10
_SHOWN_ERRORS_MAX = 3
_SHOWN_LENGTH_MAX = 200


def failure(response: Response, what: str) -> RegistryError:
    """The error for an answer that was not hoped for; ``what`` was asked for. The body is read."""
    host = origin_of(response.url)
    detail = _detail(response)
    if response.status == 403:
        return DeniedError(f"{host} does not allow {what}: {detail}")
    return RegistryError(f"{host} answers {response.status} to {what}: {detail}")


def _detail(response: Response) -> str:
    try:
        document = json.loads(response.read(_ERROR_SIZE_MAX))
    except (ValueError, RecursionError, OversizedError, BrokenConnectionError):
        document = None
    errors = document.get("errors") if isinstance(document, dict) else None
    shown = [_shown(error) for error in errors[:_SHOWN_ERRORS_MAX]] if isinstance(errors, list) else []
    return "; ".join(shown) or "it does not say why"


def _shown(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)[:_SHOWN_LENGTH_MAX]
    code, message = str(error.get("code", ""))[:_SHOWN_LENGTH_MAX], str(error.get("message", ""))[:_SHOWN_LENGTH_MAX]
    return f"{code}: {message}" if code and message else code or message
