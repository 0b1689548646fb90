"""What a request can end with instead of an answer: errors as JSON (spec.md, "Error Codes")."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from layerstore.errors import (
    BlobNotFoundError,
    ConflictError,
    DamagedError,
    DigestMismatchError,
    EncoderUnavailableError,
    ImageNotFoundError,
    InvalidDigestError,
    InvalidInputError,
    InvalidManifestError,
    InvalidReferenceError,
    LayerNotFoundError,
    LayerstoreError,
    LeaseEndedError,
    NoSpaceError,
    OversizedError,
    UnavailableError,
)
from layerstore.registry.protocol import ErrorCode

_KINDS: tuple[tuple[type[LayerstoreError], int, ErrorCode], ...] = (
    (DigestMismatchError, 400, ErrorCode.DIGEST_INVALID),
    (InvalidDigestError, 400, ErrorCode.DIGEST_INVALID),
    (InvalidManifestError, 400, ErrorCode.MANIFEST_INVALID),
    (InvalidReferenceError, 400, ErrorCode.NAME_INVALID),
    (OversizedError, 413, ErrorCode.SIZE_INVALID),
    (InvalidInputError, 400, ErrorCode.UNSUPPORTED),
    (LayerNotFoundError, 404, ErrorCode.BLOB_UNKNOWN),
    (BlobNotFoundError, 404, ErrorCode.BLOB_UNKNOWN),
    (ImageNotFoundError, 404, ErrorCode.MANIFEST_UNKNOWN),
    (LeaseEndedError, 503, ErrorCode.UNAVAILABLE),
    (ConflictError, 409, ErrorCode.UNSUPPORTED),
    (NoSpaceError, 507, ErrorCode.UNAVAILABLE),
    (EncoderUnavailableError, 501, ErrorCode.UNSUPPORTED),
    (UnavailableError, 503, ErrorCode.UNAVAILABLE),
    (DamagedError, 500, ErrorCode.UNKNOWN),
)


class ProblemError(Exception):
    """Ends a request with an error of the specification."""

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        error = {"code": self.code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail  # type: ignore[assignment]
        return JSONResponse({"errors": [error]}, self.status, self.headers)


def problem_of(error: LayerstoreError) -> ProblemError:
    """What a store's error means to whoever made the request."""
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            return ProblemError(status, code, str(error))
    return ProblemError(500, ErrorCode.UNKNOWN, str(error))


def answer_problem(request: Request, error: Exception) -> Response:
    """The exception handler of `ProblemError`."""
    assert isinstance(error, ProblemError)
    return error.response()


def answer_store_error(request: Request, error: Exception) -> Response:
    """The exception handler of `LayerstoreError`."""
    assert isinstance(error, LayerstoreError)
    return problem_of(error).response()


def manifest_unknown(reference: str) -> ProblemError:
    """There is no such manifest in the repository."""
    return ProblemError(404, ErrorCode.MANIFEST_UNKNOWN, f"there is no manifest {reference} in this repository")


def blob_unknown(digest: str) -> ProblemError:
    """There is no such blob in the repository."""
    return ProblemError(404, ErrorCode.BLOB_UNKNOWN, f"there is no blob {digest} in this repository")


def upload_unknown() -> ProblemError:
    """There is no such upload in the repository."""
    return ProblemError(404, ErrorCode.BLOB_UPLOAD_UNKNOWN, "there is no such upload; begin a new one")
