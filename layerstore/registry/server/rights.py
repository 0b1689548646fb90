"""The rights that the configuration gives, answered for one account, repository and action."""

import re
from collections.abc import Iterable

from layerstore.registry.server.settings import ACCOUNTS, EVERYONE, Anonymous, Right, ServerSettings

_ANONYMOUS_ACTIONS: dict[Anonymous, frozenset[str]] = {
    Anonymous.NONE: frozenset(),
    Anonymous.READ: frozenset({"read"}),
    Anonymous.WRITE: frozenset({"read", "write"}),
    Anonymous.ALL: frozenset({"read", "write", "delete"}),
}


class Rights:
    """All rights. They add up: what one of them gives, none takes away."""

    def __init__(self, settings: ServerSettings) -> None:
        rights: list[Right] = list(settings.rights)
        actions = _ANONYMOUS_ACTIONS[settings.anonymous]
        if actions:
            rights.append(Right(who=frozenset({EVERYONE}), repositories=("**",), actions=actions))
        self._rights = [(one.who, one.actions, _pattern(one.repositories)) for one in rights]
        self.has_anonymous = any(EVERYONE in who for who, _, _ in self._rights)
        """Whether anything may be done without an account."""

    def allow(self, account: str | None, repository: str, action: str) -> bool:
        """Whether an account, or somebody without one, may do something in a repository."""
        return any(
            action in actions and _is_one_of(account, who) and pattern.fullmatch(repository) is not None
            for who, actions, pattern in self._rights
        )


def _is_one_of(account: str | None, who: frozenset[str]) -> bool:
    if EVERYONE in who:
        return True
    return account is not None and (ACCOUNTS in who or account in who)


def _pattern(patterns: Iterable[str]) -> re.Pattern[str]:
    parts = []
    for pattern in patterns:
        pieces = re.split(r"(\*\*+|\*)", pattern)
        parts.append(
            "".join("[^/]*" if one == "*" else ".*" if one.startswith("**") else re.escape(one) for one in pieces)
        )
    return re.compile("|".join(parts))
