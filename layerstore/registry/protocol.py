"""What client and server of OCI distribution specification 1.1.1 have in common: names, headers, codes of errors."""

import re
from enum import StrEnum
from typing import Final

DIGEST_HEADER: Final = "Docker-Content-Digest"
UPLOAD_HEADER: Final = "Docker-Upload-UUID"
SUBJECT_HEADER: Final = "OCI-Subject"
FILTERS_HEADER: Final = "OCI-Filters-Applied"
TAG_HEADER: Final = "OCI-Tag"
VERSION_HEADER: Final = "Docker-Distribution-API-Version"
VERSION: Final = "registry/2.0"

EXCHANGE_HEADER: Final = "Layerstore-Exchange"
"""In every answer of a server that takes and gives differences; its value is `EXCHANGE_VERSION`."""
EXCHANGE_VERSION: Final = "1"
DIFFERENCE_TYPE: Final = "application/vnd.layerstore.difference.v1"
HAVE_MAX: Final = 256
"""Layers that one side says it has, at most."""

NAME_LENGTH_MAX: Final = 255
NAME_PATTERN: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
"""The name of a repository (spec.md, "Pulling manifests")."""
TAG_PATTERN: Final = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"

_NAME = re.compile(NAME_PATTERN)
_TAG = re.compile(TAG_PATTERN)


class ErrorCode(StrEnum):
    """The codes of errors (spec.md, "Error Codes"), and those that Docker's registry added."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    RANGE_INVALID = "RANGE_INVALID"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"
    TAG_INVALID = "TAG_INVALID"
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN = "UNKNOWN"


def is_repository_name(text: str) -> bool:
    """Whether a text is the name of a repository, as it stands in a URL."""
    return len(text) <= NAME_LENGTH_MAX and _NAME.fullmatch(text) is not None


def is_tag_name(text: str) -> bool:
    """Whether a text is a tag, the part of a reference behind the colon."""
    return _TAG.fullmatch(text) is not None
