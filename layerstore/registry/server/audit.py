"""The audit log: who changed what, and who was refused; a JSON object a line, written before the answer leaves."""

import json
import os
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

from starlette.types import Scope

from layerstore.os_errors import translate_os_errors
from layerstore.registry.server.observation import Observation

_TEXT_MAX = 512
_EVENTS = {
    ("PUT", "/manifests/{reference}"): "push-manifest",
    ("DELETE", "/manifests/{reference}"): "delete-manifest",
    ("PUT", "/blobs/uploads/{upload}"): "push-blob",
    ("DELETE", "/blobs/uploads/{upload}"): "cancel-upload",
    ("DELETE", "/blobs/{digest}"): "delete-blob",
    ("PUT", "/_layerstore/blobs/{digest}"): "push-blob",
}
_READING = ("GET", "HEAD", "OPTIONS")
_NAMES = ("repository", "reference", "digest", "upload")


class AuditLog:
    """The file, which is only appended to. It is opened again when it was moved away, as logrotate does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def check(self) -> None:
        """Raise `StorageError` if nothing can be recorded."""
        with self._lock, translate_os_errors(f"cannot write the audit log {self._path}"):
            self._opened()

    def write(self, record: dict[str, object]) -> None:
        """Append a record. Raises `StorageError` if that cannot be done, for whoever made the request."""
        # JSON escapes every character that could end the line or reach a terminal.
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        with self._lock, translate_os_errors("the server cannot record changes now"):
            descriptor = self._opened()
            # One call, so that the lines of several workers do not mix.
            written = os.write(descriptor, line)
            if written != len(line):
                os.write(descriptor, line[written:])

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is not None:
            mine = os.fstat(self._descriptor)
            try:
                there = self._path.stat()
                if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                    return self._descriptor
            except FileNotFoundError:
                pass
            descriptor, self._descriptor = self._descriptor, None  # its number is somebody else's from now on
            os.close(descriptor)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o640)
        return self._descriptor


def audit_record(scope: Scope, template: str, observation: Observation) -> dict[str, object] | None:
    """What is recorded of a request that is about to be answered; None if nothing is."""
    query = _query(scope)
    parameters = scope.get("path_params", {})
    event = _event(scope["method"], template, observation, query, str(parameters.get("reference", "")))
    if event is None:
        return None
    record: dict[str, object] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": event,
        "account": observation.account or observation.failed_login,
        "client": scope["client"][0] if scope.get("client") else None,
        "repository": parameters.get("name", parameters.get("repository")),
        "status": observation.status,
        "request": observation.request_id,
    }
    record |= {name: str(parameters[name])[:_TEXT_MAX] for name in _NAMES if name in parameters}
    if event == "mount":
        record |= {"digest": query.get("mount"), "from": query.get("from")}
    elif "digest" in query:
        record["digest"] = query["digest"]
    if event in ("denied", "login-failed"):
        record |= {"method": scope["method"], "path": scope["path"][:_TEXT_MAX]}
    return record


def _event(method: str, template: str, observation: Observation, query: dict[str, str], reference: str) -> str | None:
    if observation.failed_login is not None:
        return "login-failed"
    if observation.status == 403:
        return "denied"
    if method in _READING or observation.status == 401:
        return None
    place = template.removeprefix("/v2/{name}")
    if place == template:
        return None
    if method == "POST" and place.rstrip("/") == "/blobs/uploads":
        if observation.status != 201:
            return None
        return "mount" if "mount" in query else "push-blob"
    if method == "PATCH":
        return None  # an upload goes on; its end is recorded
    if method == "POST" and place.startswith("/_layerstore/"):
        return None  # questions, and reads that have a body
    event = _EVENTS.get((method, place), "change")
    return "delete-tag" if event == "delete-manifest" and ":" not in reference else event


def _query(scope: Scope) -> dict[str, str]:
    try:
        found = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=50)
    except ValueError:
        return {}
    return {name: values[0][:_TEXT_MAX] for name, values in found.items()}
