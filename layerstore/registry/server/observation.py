"""What is noticed about a request on its way, for the log, the audit log and the metrics."""

from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

_KEY: Final = "layerstore.observation"


@dataclass(slots=True)
class Observation:
    """One request."""

    request_id: str
    account: str | None = None
    failed_login: str | None = None
    """The name that came with a wrong password, or with a token that does not hold."""
    status: int = 0
    received: int = 0
    sent: int = 0

    def attach(self, scope: Scope) -> None:
        """Let whoever answers the request find it."""
        scope[_KEY] = self


def observation_of(scope: Scope) -> Observation:
    """That of a request; one that nobody looks at if nothing observes the request."""
    found = scope.get(_KEY)
    return found if isinstance(found, Observation) else Observation("")
