"""What a request is for, in the words of who wanted it: messages speak of pulls and pushes, not of HTTP."""

import re

_PATH = re.compile(r"/v2/(?P<name>[^?]+)/(?P<kind>manifests|blobs|referrers|tags)/(?P<rest>[^?]*)")
_EXCHANGE = re.compile(r"/v2/(?P<name>[^?]+)/_layerstore/")
_LOOKED_AT_MAX = 1024
"""Characters. What a registry gave may be far longer, and is to be shown."""
_READS = frozenset({"GET", "HEAD"})


def purpose(method: str, target: str) -> str:
    """What is asked for, for example ``the pull of shop:1.0``. ``target`` is a path, or a URL of the registry's."""
    target = target[:_LOOKED_AT_MAX]
    exchange = _EXCHANGE.search(target)
    if exchange is not None:
        return f"changed chunks of {exchange['name']}"
    match = _PATH.search(target)
    if match is None:
        return "a login" if target.startswith("/v2/") else _read_or_written(method, "a blob")
    name, kind, rest = match["name"], match["kind"], match["rest"]
    if kind == "tags":
        return f"the tags of {name}"
    if kind == "referrers":
        return f"what refers to {rest} in {name}"
    if kind == "manifests":
        return _read_or_written(method, f"{name}@{rest}" if ":" in rest else f"{name}:{rest}")
    if rest.startswith("uploads"):
        return f"the push of a blob to {name}"
    return _read_or_written(method, f"blob {rest} of {name}")


def _read_or_written(method: str, what: str) -> str:
    return f"the {'pull' if method in _READS else 'push'} of {what}"
