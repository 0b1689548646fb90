"""A registry client that goes on through kills of the server: it asks again until it has an answer."""

import http.client
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from soak_contents import Blob, Document

_PATIENCE_SECONDS = 120


class WrongAnswerError(Exception):
    """The server did what it must not do."""


@dataclass(frozen=True)
class Answer:
    """What a request was answered with."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_retried: bool
    """Whether an earlier try, of which nobody knows what it did, may have done it already."""

    def expect(self, *statuses: int) -> "Answer":
        """Raise `WrongAnswerError` unless the status is one of these."""
        if self.status not in statuses:
            raise WrongAnswerError(f"{self.status} instead of {statuses}: {self.body[:300]!r}")
        return self


class BrokenOffError(Exception):
    """The connection ended before the answer was there."""


class RegistryClient:
    """What one thread does with a registry."""

    def __init__(self, address: str, chooser: random.Random, stopped: threading.Event) -> None:
        self._address = address
        self._chooser = chooser
        self._stopped = stopped
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def try_once(self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> Answer:
        """One request. Raises `BrokenOffError`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._address, timeout=60)
            self._connection.request(method, path, body, sent, encode_chunked=isinstance(body, Iterator))
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise BrokenOffError(repr(error)) from None
        if answer.status >= 500:
            raise WrongAnswerError(f"{method} {path[:200]}: {answer.status} {data[:300]!r}")
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, data, is_retried=False)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """A request that may be made twice, made until it is answered."""
        end = time.monotonic() + _PATIENCE_SECONDS
        is_retried = False
        while True:
            try:
                answer = self.try_once(method, path, body, **headers)
                return Answer(answer.status, answer.headers, answer.body, is_retried)
            except BrokenOffError as error:
                if time.monotonic() > end or self._stopped.is_set():
                    raise WrongAnswerError(f"no answer to {method} {path}: {error}") from None
                is_retried = True
                time.sleep(0.05)

    def put_manifest(self, repository: str, reference: str, document: Document) -> Answer:
        """Push a document by tag or digest."""
        path = f"/v2/{repository}/manifests/{reference}"
        return self.ask("PUT", path, document.data, Content_Type=document.media_type).expect(201)

    def push_blob(self, repository: str, blob: Blob, other_repositories: list[str]) -> None:
        """Push a blob in one of the ways that there are, unless the repository has it."""
        if self.ask("HEAD", f"/v2/{repository}/blobs/{blob.digest}").expect(200, 404).status == 200:
            return
        way = self._chooser.choice(("post", "put", "chunks", "stream", "mount"))
        if way == "post":
            path = f"/v2/{repository}/blobs/uploads/?digest={blob.digest}"
            self.ask("POST", path, blob.data, Content_Type="application/octet-stream").expect(201)
            return
        location = self._begin(repository, blob, self._chooser.choice(other_repositories) if way == "mount" else None)
        if location is None:
            return
        sizes = [len(blob.data)] if way in ("put", "mount") else self._cuts(len(blob.data))
        self._send(repository, blob, location, sizes, is_stream=way == "stream")

    def abandon_upload(self, repository: str, blob: Blob) -> str:
        """Begin an upload, send some of it in a body that breaks off, and leave it; where it is."""
        location = self._begin(repository, blob, None)
        assert location is not None

        def broken() -> Iterator[bytes]:
            yield blob.data[: len(blob.data) // 2]
            raise ConnectionResetError("on purpose")

        try:
            self.try_once("PATCH", location, broken(), Transfer_Encoding="chunked")
        except BrokenOffError:
            return location
        raise WrongAnswerError("a body that breaks off was answered")

    def _begin(self, repository: str, blob: Blob, source: str | None) -> str | None:
        query = "" if source is None else f"?mount={blob.digest}&from={source}"
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/{query}")
        answer.expect(*((202,) if source is None else (201, 202)))
        return None if answer.status == 201 else _path(answer.headers["location"])

    def _cuts(self, size: int) -> list[int]:
        """Where chunks end."""
        # A Range header says the same of one byte as of none.
        return sorted({size, *(self._chooser.randrange(2, size + 1) for _ in range(2))})

    def _send(self, repository: str, blob: Blob, location: str, ends: list[int], *, is_stream: bool) -> None:
        """Send the bytes up to each end, the last ones with PUT. What breaks off goes on from where the server is."""
        start = 0
        is_resumed = False
        while start < len(blob.data):
            end = next(one for one in ends if one > start)
            chunk = blob.data[start:end]
            # After an interruption ranges are given: what came then may still be being written.
            ranges = {"Content_Range": f"{start}-{end - 1}"} if is_resumed or not is_stream else {}
            try:
                if end == len(blob.data):
                    self._finish(location, blob, chunk, ranges if is_resumed else {})
                    return
                start = self._patch(location, chunk, ranges)
            except BrokenOffError:
                known = self._known(repository, location, blob)
                if known is None:
                    return
                if known < start:
                    raise WrongAnswerError(f"{start} bytes were acknowledged, {known} are there") from None
                start, is_resumed = known, True
        self._finish_all(repository, location, blob)

    def _known(self, repository: str, location: str, blob: Blob) -> int | None:
        """How many bytes of an upload have come; None if it is a blob already, which nobody could say any more."""
        status = self.ask("GET", location).expect(204, 404)
        if status.status == 204:
            return _received(status.headers["range"])
        self.ask("HEAD", f"/v2/{repository}/blobs/{blob.digest}").expect(200)
        return None

    def _patch(self, location: str, data: bytes, ranges: dict[str, str]) -> int:
        if ranges:
            answer = self.try_once("PATCH", location, data, **ranges)
        else:
            answer = self.try_once("PATCH", location, iter([data]), Transfer_Encoding="chunked")
        _check_order(answer)
        return _received(answer.expect(202).headers["range"])

    def _finish(self, location: str, blob: Blob, rest: bytes, ranges: dict[str, str]) -> None:
        kind = {"Content_Type": "application/octet-stream"}
        answer = self.try_once("PUT", f"{location}?digest={blob.digest}", rest, **kind, **ranges)
        _check_order(answer)
        answer.expect(201)

    def _finish_all(self, repository: str, location: str, blob: Blob) -> None:
        """All bytes are there already; only the digest is to be said."""
        while True:
            answer = self.ask("PUT", f"{location}?digest={blob.digest}").expect(201, 404, 409)
            if answer.status == 404:
                self.ask("HEAD", f"/v2/{repository}/blobs/{blob.digest}").expect(200)
            if answer.status != 409:
                return
            time.sleep(0.05)


def json_of(answer: Answer) -> dict[str, object]:
    """The object that an answer is."""
    value = json.loads(answer.body)
    assert isinstance(value, dict)
    return value


def _path(location: str) -> str:
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _check_order(answer: Answer) -> None:
    """Another request, of which we do not know how it ended, is still at work on the upload."""
    if answer.status in (409, 416):
        time.sleep(0.02)
        raise BrokenOffError("an earlier request has not ended yet")


def _received(text: str) -> int:
    """How many bytes a Range header speaks of. That of one byte is that of none."""
    last = int(text.rpartition("-")[2])
    return last + 1 if last else 0
