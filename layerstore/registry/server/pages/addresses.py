"""The URLs of pages, and what they say."""

from urllib.parse import parse_qs, quote, urlencode

from starlette.requests import Request

_FIELDS_MAX = 20
_PAGE_MAX = 10**9


def repository_address(repository: str) -> str:
    """The page of a repository."""
    return f"/repositories/{quote(repository)}"


def image_address(repository: str, digest: str) -> str:
    """The page of an image, as it is in a repository."""
    return f"/images/{quote(repository)}@{quote(digest, safe=':')}"


def files_address(repository: str, digest: str, path: bytes = b"", *, page: int = 1) -> str:
    """The page of a directory or file of an image."""
    more = f"&page={page}" if page > 1 else ""
    return f"{image_address(repository, digest)}/files?path=/{quote(path)}{more}"


def download_address(repository: str, digest: str, path: bytes) -> str:
    """The contents of a file of an image."""
    return f"{image_address(repository, digest)}/download?path=/{quote(path)}"


def address_with(path: str, **fields: str | int) -> str:
    """A page with what a form asks it for; what is empty is left out."""
    present = {name: value for name, value in fields.items() if value != ""}
    return f"{path}?{urlencode(present)}" if present else path


def asked(request: Request, name: str) -> str:
    """What a form's field says; empty if it does not. Bytes that are no UTF-8 are kept by ``surrogateescape``."""
    query: bytes = request.scope["query_string"]
    try:
        fields = parse_qs(query.decode("ascii"), errors="surrogateescape", max_num_fields=_FIELDS_MAX)
    except ValueError:
        return ""
    return fields.get(name, [""])[0]


def asked_page(request: Request) -> int:
    """Which page of a long list is asked for, from 1."""
    text = asked(request, "page")
    return min(max(1, int(text)), _PAGE_MAX) if text.isascii() and text.isdigit() and len(text) < 12 else 1
