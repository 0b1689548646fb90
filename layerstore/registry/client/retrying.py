"""When to try again, and how long to wait until then."""

import random
import time
from email.utils import parsedate_to_datetime

from layerstore.errors import RegistryError
from layerstore.registry.client.options import ConnectionOptions
from layerstore.registry.client.transport import Response

PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others the next time."""
_WAIT_SECONDS_MAX = 20.0
_ASKED_SECONDS_MAX = 60.0
"""How long a registry may ask us to wait ("Retry-After")."""


class Patience:
    """Counts the failures of one undertaking. Each success that brings it on begins the count anew."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._failures = 0

    def progress(self) -> None:
        """Something came through."""
        self._failures = 0

    def wait(self, error: RegistryError, *, asked_seconds: float = 0) -> None:
        """Wait until the next try; raises ``error`` if it was the last."""
        self._failures += 1
        if self._failures >= self._options.tries:
            raise error
        if asked_seconds > _ASKED_SECONDS_MAX:
            raise RegistryError(f"{error}; it asks us to wait for {asked_seconds:.0f} s: try again later") from error
        # Spread out, so that many clients do not all come back at once.
        grown = self._options.back_off_seconds * 2.0 ** (self._failures - 1) * random.uniform(0.75, 1.25)
        time.sleep(max(asked_seconds, min(grown, _WAIT_SECONDS_MAX)))


def asked_seconds(response: Response) -> float:
    """How long the registry wants us to wait, 0 if it does not say so."""
    text = (response.header("Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
