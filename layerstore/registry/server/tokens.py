"""``/v2/`` and ``/v2/token``: where clients find out that they need a token, and get one (Docker's token flow)."""

import time
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from layerstore.registry.protocol import VERSION, VERSION_HEADER, ErrorCode
from layerstore.registry.server.access import Access
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.registry import registry_of
from layerstore.registry.server.signing import moment_text
from layerstore.registry.server.streaming import body_of, in_thread

_FORM_SIZE_MAX = 16 << 10
_SCOPES_MAX = 100


def _greet(request: Request) -> Response:
    registry_of(request).access.greet(request)
    return Response(b"{}", media_type="application/json", headers={VERSION_HEADER: VERSION})


def _get_token(request: Request) -> Response:
    access = registry_of(request).access
    _check_accounts(access)
    account = access.account_of(request)
    if account is None and not access.has_anonymous():
        raise access.challenge(request, None)
    scopes = " ".join(request.query_params.getlist("scope")).split()
    return _answer(access, account, scopes, "token", "access_token")


async def _post_token(request: Request) -> Response:
    access = registry_of(request).access
    _check_accounts(access)
    data = await body_of(request, _FORM_SIZE_MAX)
    try:
        form = parse_qs(data.decode(), max_num_fields=50)
    except ValueError:
        raise ProblemError(400, ErrorCode.UNSUPPORTED, "the body is no form") from None
    return await in_thread(_from_form, access, request, form)


def _from_form(access: Access, request: Request, form: dict[str, list[str]]) -> Response:
    def value(name: str) -> str:
        return form.get(name, [""])[0]

    if value("grant_type") != "password":
        raise ProblemError(
            400,
            ErrorCode.UNSUPPORTED,
            "tokens are given for a name and a password: grant_type=password",
            detail="oauth2",
        )
    account = access.log_in(request, value("username"), value("password"))
    return _answer(access, account, " ".join(form.get("scope", [])).split(), "access_token")


def _answer(access: Access, account: str | None, scopes: list[str], *names: str) -> Response:
    if len(scopes) > _SCOPES_MAX:
        raise ProblemError(400, ErrorCode.UNSUPPORTED, f"more than {_SCOPES_MAX} scopes at once")
    issued = moment_text(time.time())
    token = access.token_for(account, scopes)
    document = dict.fromkeys(names, token) | {"expires_in": access.signer.lifetime, "issued_at": issued}
    if len(names) == 1:
        document |= {"scope": " ".join(scopes), "token_type": "Bearer"}
    return JSONResponse(document, headers={"Cache-Control": "no-store"})


def _check_accounts(access: Access) -> None:
    if not access.has_accounts:
        raise ProblemError(404, ErrorCode.UNSUPPORTED, "this server has no accounts, and gives no tokens")


routes = [
    Route("/v2/", _greet, methods=["GET"]),
    Route("/v2", _greet, methods=["GET"]),
    Route("/v2/token", _get_token, methods=["GET"]),
    Route("/v2/token", _post_token, methods=["POST"]),
]
