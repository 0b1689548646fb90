"""The middleware that notices requests: a line in the log, a record in the audit log, and figures for each."""

import logging
import re
import time
from functools import lru_cache
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerstore.errors import LayerstoreError
from layerstore.registry.server.audit import AuditLog, audit_record
from layerstore.registry.server.logs import REQUESTS_LOGGER, log
from layerstore.registry.server.measures import (
    LOGIN_FAILURES,
    RECEIVED_BYTES,
    REQUEST_SECONDS,
    REQUESTS,
    REQUESTS_RUNNING,
    SENT_BYTES,
)
from layerstore.registry.server.observation import Observation
from layerstore.registry.server.problems import ProblemError, problem_of
from layerstore.registry.server.settings import ServerSettings
from layerstore.registry.server.streaming import in_thread

_REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PARAMETER = re.compile(r"\{(\w+):[^}]*\}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_STATUS_GONE = 499
"""The client went away before it was answered; nginx writes the same."""
_TEXT_MAX = 512


class Observing:
    """The outermost middleware, so that what others refuse is noticed, too."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._audit = None if settings.audit is None else AuditLog(settings.audit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and notice what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        observation = Observation(_request_id(scope))
        observation.attach(scope)
        begun = time.monotonic()
        REQUESTS_RUNNING.inc()
        try:
            await self._watched(scope, receive, send, observation)
        except ClientDisconnect:
            observation.status = observation.status or _STATUS_GONE
        except BaseException:
            observation.status = observation.status or 500
            raise
        finally:
            REQUESTS_RUNNING.dec()
            _tell(scope, observation, time.monotonic() - begun)

    async def _watched(self, scope: Scope, receive: Receive, send: Send, observation: Observation) -> None:
        is_replaced = False

        async def counted_receive() -> Message:
            message = await receive()
            size = len(message.get("body", b""))
            observation.received += size
            return message

        async def counted_send(message: Message) -> None:
            nonlocal is_replaced
            if is_replaced:
                return
            if message["type"] == "http.response.start":
                observation.status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (_REQUEST_ID_HEADER, observation.request_id.encode()),
                ]
                error = await self._recorded(scope, observation)
                if error is not None:
                    is_replaced = True
                    observation.status = error.status
                    await error.response()(scope, receive, send)
                    return
            else:
                observation.sent += len(message.get("body", b""))
            await send(message)

        await self._app(scope, counted_receive, counted_send)

    async def _recorded(self, scope: Scope, observation: Observation) -> ProblemError | None:
        if self._audit is None:
            return None
        record = audit_record(scope, _template(scope), observation)
        if record is None:
            return None
        try:
            await in_thread(self._audit.write, record)
        except LayerstoreError as error:
            log(logging.ERROR, "a change was not recorded", reason=str(error), record=record)
            return problem_of(error)
        return None


def _tell(scope: Scope, observation: Observation, seconds: float) -> None:
    template = _template(scope)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    REQUESTS.labels(method, template, str(observation.status)).inc()
    REQUEST_SECONDS.labels(method, template).observe(seconds)
    RECEIVED_BYTES.inc(observation.received)
    SENT_BYTES.inc(observation.sent)
    if observation.failed_login is not None:
        LOGIN_FAILURES.inc()
    if template in _QUIET and observation.status < 400:
        return
    log(
        logging.INFO,
        f"{scope['method']} {scope['path'][:_TEXT_MAX]}",
        logger=REQUESTS_LOGGER,
        status=observation.status,
        received=observation.received,
        sent=observation.sent,
        seconds=round(seconds, 4),
        client=scope["client"][0] if scope.get("client") else None,
        account=observation.account,
        request=observation.request_id,
    )


def _template(scope: Scope) -> str:
    route = scope.get("route")
    return _without_kinds(route.path) if isinstance(route, Route) else "other"


@lru_cache(maxsize=256)
def _without_kinds(path: str) -> str:
    return _PARAMETER.sub(r"{\1}", path)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid4().hex
