"""A registry in memory, which tests make misbehave by answering some requests themselves."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from client_samples import sha256
from client_servers import Answer, Request

Misbehave = Callable[[Request], Answer | None]

_PATH = re.compile(r"/v2/(.+)/(blobs|manifests|referrers|tags)/(.*)")


class MemoryRegistry:
    """Answers as a registry does, unless ``misbehave`` answers first."""

    def __init__(self, misbehave: Misbehave = lambda request: None) -> None:
        self.misbehave = misbehave
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.ranges = True

    def hold(self, data: bytes) -> str:
        self.blobs[sha256(data)] = data
        return sha256(data)

    def hold_manifest(self, tag: str, media_type: str, data: bytes) -> str:
        self.manifests[tag] = self.manifests[sha256(data)] = (media_type, data)
        return sha256(data)

    def __call__(self, request: Request) -> Answer:
        own = self.misbehave(request)
        if own is not None:
            return own
        url = urlsplit(request.path)
        if url.path == "/v2/":
            return Answer()
        match = _PATH.fullmatch(url.path)
        if match is None:
            return Answer(404)
        _, kind, rest = match.groups()
        if kind == "manifests":
            return self._manifest(request, rest)
        if kind == "blobs" and rest.startswith("uploads/"):
            return self._upload(request, url.path, parse_qs(url.query))
        if kind == "blobs":
            return self._blob(request, rest)
        return Answer(404)

    def _manifest(self, request: Request, reference: str) -> Answer:
        if request.method == "PUT":
            digest = self.hold_manifest(reference, request.headers["Content-Type"], request.body)
            return Answer(201, {"Docker-Content-Digest": digest})
        found = self.manifests.get(reference)
        if found is None:
            return Answer(404)
        return Answer(200, {"Content-Type": found[0], "Docker-Content-Digest": sha256(found[1])}, found[1])

    def _blob(self, request: Request, digest: str) -> Answer:
        data = self.blobs.get(digest)
        if data is None:
            return Answer(404)
        begin = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if begin is not None and self.ranges:
            offset = int(begin[1])
            return Answer(206, {"Content-Range": f"bytes {offset}-{len(data) - 1}/{len(data)}"}, data[offset:])
        return Answer(200, {}, data)

    def _upload(self, request: Request, path: str, query: dict[str, list[str]]) -> Answer:
        if request.method == "POST":
            location = f"{path}{len(self.uploads)}"
            self.uploads[location] = b""
            return Answer(202, {"Location": location})
        if path not in self.uploads:
            return Answer(404)
        if request.method == "DELETE":
            del self.uploads[path]
            return Answer(204)
        self.uploads[path] += request.body
        told = {"Location": path, "Range": f"0-{max(0, len(self.uploads[path]) - 1)}"}
        if request.method == "PUT":
            data = self.uploads.pop(path)
            if query["digest"] != [sha256(data)]:
                return Answer(400, {}, b'{"errors": [{"code": "DIGEST_INVALID", "message": "it is another"}]}')
            self.hold(data)
            return Answer(201, {"Location": path})
        return Answer(202 if request.method == "PATCH" else 204, told)


def first(count: int, then: Callable[[Request], bool], answer: Callable[[Request], Answer]) -> Misbehave:
    """Answers the first requests for which ``then`` is true."""
    left = [count]

    def misbehave(request: Request) -> Answer | None:
        if left[0] and then(request):
            left[0] -= 1
            return answer(request)
        return None

    return misbehave
