"""A small client over http.client, for what skopeo has no command for."""

import hashlib
import http.client
import json
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from benchmarks.console import BenchmarkError
from benchmarks.image_tools import CONFIG_TYPE, MANIFEST_TYPE, TAR_TYPE

SECONDS_MAX = 600
OCTETS = {"Content-Type": "application/octet-stream"}


def digest_of(data: bytes) -> str:
    """``sha256:`` and the hex digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Client:
    """One connection to a server. An answer of another status than expected is a `BenchmarkError`."""

    def __init__(self, address: str, repository: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=SECONDS_MAX)
        self._path = f"/v2/{repository}"

    def begin(self) -> str:
        """Begin an upload; where it goes on."""
        return self._request("POST", f"{self._path}/blobs/uploads/", (202,))

    def add(self, location: str, blocks: Iterable[bytes]) -> str:
        """Send bytes in chunks, as they are made; where the upload goes on."""
        return self._request("PATCH", location, (202,), blocks, OCTETS)

    def finish(self, location: str, digest: str, data: bytes = b"") -> None:
        """Send the rest, and make a blob of it."""
        separator = "&" if "?" in location else "?"
        self._request("PUT", f"{location}{separator}digest={digest}", (201,), data, OCTETS)

    def put_blob(self, data: bytes) -> str:
        """Push a blob in two requests; its digest."""
        digest = digest_of(data)
        self.finish(self.begin(), digest, data)
        return digest

    def put_manifest(self, document: Mapping[str, object], tag: str) -> str:
        """Push a manifest; its digest."""
        data = json.dumps(document).encode()
        self._request("PUT", f"{self._path}/manifests/{tag}", (201,), data, {"Content-Type": MANIFEST_TYPE})
        return digest_of(data)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _request(
        self,
        method: str,
        target: str,
        expected: tuple[int, ...],
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Make a request; the location in the answer."""
        try:
            self._connection.request(method, target, body, dict(headers or {}))
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchmarkError(f"{method} {target}: {error!r}") from error
        if response.status not in expected:
            raise BenchmarkError(f"{method} {target}: {response.status} {text[:500].decode(errors='replace')}")
        return response.headers.get("Location", "")


def image_documents(layer: str, size: int, diff_id: str) -> tuple[bytes, dict[str, object]]:
    """The config and the manifest of an image of one gzip layer."""
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": f"{TAR_TYPE}+gzip", "digest": layer, "size": size}],
    }
    return config, manifest


def first_byte_seconds(address: str, prefix: str, layers: Mapping[str, str]) -> list[float]:
    """How long it is from a request for each blob to its first byte; the rest is not read."""
    found = []
    for digest, name in layers.items():
        connection = http.client.HTTPConnection(address, timeout=SECONDS_MAX)
        connection.connect()
        try:
            started = time.perf_counter()
            connection.request("GET", f"/v2/{prefix}/{name.partition(':')[0]}/blobs/{digest}")
            response = connection.getresponse()
            response.read(1)
            found.append(time.perf_counter() - started)
            if response.status != http.HTTPStatus.OK:
                raise BenchmarkError(f"{digest} from {address}: {response.status}")
        finally:
            connection.close()
    return found
