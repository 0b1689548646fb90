"""What a request needs to be allowed, as token servers are asked for it (Docker, "Token Scope Documentation")."""


def repository_scopes(path: str, *, push: bool = False) -> tuple[str, ...]:
    """The scopes for reading one repository, or for writing it as well."""
    return (f"repository:{path}:{'pull,push' if push else 'pull'}",)


def wanted_access(scopes: tuple[str, ...]) -> str:
    """What these scopes are for, in words."""
    names = dict.fromkeys(scope.split(":")[1] for scope in scopes)
    return f"access to {' and '.join(names)}" if names else "a login"
