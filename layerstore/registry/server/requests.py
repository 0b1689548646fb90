"""What requests say: names, digests, tags, ranges and numbers, each checked before anything is done with it."""

import re
from dataclasses import dataclass

from starlette.requests import Request

from layerstore.digest import Digest, is_algorithm
from layerstore.errors import InvalidDigestError
from layerstore.registry.protocol import ErrorCode, is_repository_name, is_tag_name
from layerstore.registry.server.problems import ProblemError, manifest_unknown

_CONTENT_RANGE = re.compile(r"(?:bytes )?([0-9]{1,19})-([0-9]{1,19})(?:/(?:\*|[0-9]{1,19}))?")
_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")
_NUMBER = re.compile(r"[0-9]{1,9}")


def repository_of(request: Request) -> str:
    """The repository in a request's path."""
    name = request.path_params["name"]
    assert isinstance(name, str)
    if not is_repository_name(name):
        raise ProblemError(400, ErrorCode.NAME_INVALID, f"{name[:80]!r} is not the name of a repository")
    return name


def digest_of(text: str) -> Digest:
    """A digest."""
    try:
        return Digest(text)
    except InvalidDigestError as error:
        raise ProblemError(400, ErrorCode.DIGEST_INVALID, str(error)) from None


def reference_of(request: Request) -> Digest | str:
    """The tag or digest in a request's path."""
    text = request.path_params["reference"]
    assert isinstance(text, str)
    if ":" in text:
        return digest_of(text)
    if not is_tag_name(text) and request.method != "PUT":
        raise manifest_unknown(text[:80])  # nothing can ever be there
    check_tag(text)
    return text


def check_tag(text: str) -> None:
    """Refuse what is no tag."""
    if not is_tag_name(text):
        raise ProblemError(400, ErrorCode.TAG_INVALID, f"{text[:80]!r} is no tag")


def algorithm_of(request: Request) -> str:
    """The digest algorithm that an upload is begun with."""
    name = request.query_params.get("digest-algorithm", "sha256")
    if not is_algorithm(name):
        raise ProblemError(400, ErrorCode.DIGEST_INVALID, f"digests of {name[:40]!r} are not computed here")
    return name


def number_of(request: Request) -> int | None:
    """The query parameter ``n``; None if there is none."""
    text = request.query_params.get("n")
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise ProblemError(400, ErrorCode.PAGINATION_NUMBER_INVALID, f"{text[:40]!r} is no number of results")
    return int(text)


@dataclass(frozen=True, slots=True)
class ByteSpan:
    """A part of a blob."""

    start: int
    length: int


def content_range_of(request: Request) -> ByteSpan | None:
    """Which bytes of an upload the body is (spec.md, "Pushing a blob in chunks"); None if the request does not say."""
    text = request.headers.get("content-range")
    if text is None:
        return None
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise ProblemError(416, ErrorCode.BLOB_UPLOAD_INVALID, f"{text[:80]!r} is no range of bytes")
    return ByteSpan(int(match[1]), int(match[2]) - int(match[1]) + 1)


def range_of(request: Request, size: int, entity_tag: str) -> ByteSpan | None:
    """Which bytes of a blob are asked for (RFC 9110, section 14.2); None for all of them.

    Several ranges, units other than bytes and malformed headers are ignored, as servers may.
    """
    text = request.headers.get("range")
    condition = request.headers.get("if-range")
    if text is None or (condition is not None and condition != entity_tag):
        return None
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size - 1
        is_empty = int(match[2]) == 0 or not size
    else:
        start = int(match[1])
        end = min(int(match[2]) if match[2] else size - 1, size - 1)
        is_empty = start > end
    if is_empty:
        raise ProblemError(
            416,
            ErrorCode.RANGE_INVALID,
            f"the blob has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return ByteSpan(start, end - start + 1)


def is_unchanged(request: Request, entity_tag: str) -> bool:
    """Whether the client says that it has what it asks for (RFC 9110, section 13.1.2)."""
    text = request.headers.get("if-none-match")
    if text is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in text.split(",")]
    return "*" in tags or entity_tag in tags
