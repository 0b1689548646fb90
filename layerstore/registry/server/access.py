"""Who may do what."""

from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request


class Action(StrEnum):
    """What rights are given for, in a repository."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request."""

    name: str | None
    """None: nobody has said who they are."""


class Access:
    """Decides what requests may do."""

    def authorize(self, request: Request, repository: str | None, *actions: Action) -> Identity:
        """Who makes the request, if they may do all actions there. Raises `ProblemError` with 401 or 403 otherwise.

        Without a repository they only have to be who they say. It may take a while: call it on a thread.
        """
        return Identity(None)

    def allows(self, identity: Identity, repository: str, action: Action) -> bool:
        """Whether somebody may do something in a repository."""
        return True
