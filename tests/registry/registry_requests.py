"""Requests to a registry, and images to push, for tests that speak HTTP themselves."""

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from layerstore import Digest

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"


@dataclass(frozen=True)
class Answer:
    """What a request was answered with; the names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The document that the body is."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The specification's code of the error that this is."""
        return str(self.json["errors"][0]["code"])


class Registry:
    """A server, by its address. Each request has a connection of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            is_stream = body is not None and not isinstance(body, bytes)
            more = {"Transfer-Encoding": "chunked"} if is_stream else {}
            connection.request(method, path, body, {**(headers or {}), **more}, encode_chunked=is_stream)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def begin(self, repository: str) -> str:
        """Begin an upload; where it goes on."""
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.headers["location"]

    def push_blob(self, repository: str, data: bytes, digest: str | None = None) -> Answer:
        """Push a blob in one request."""
        digest = digest or Digest.of(data)
        headers = {"Content-Type": "application/octet-stream"}
        return self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data, headers)

    def push_image(self, repository: str, tag: str, *layers: bytes) -> str:
        """Push an image of layers; its digest."""
        manifest, config = image_of(*layers)
        for blob in (config, *layers):
            answer = self.push_blob(repository, blob)
            assert answer.status == 201, answer
        answer = self.put(repository, tag, manifest)
        assert answer.status == 201, answer
        return str(Digest.of(manifest))

    def put(self, repository: str, reference: str, manifest: bytes, media_type: str = MANIFEST) -> Answer:
        """Put a manifest."""
        return self.ask("PUT", f"/v2/{repository}/manifests/{reference}", manifest, {"Content-Type": media_type})

    def manifest(self, repository: str, reference: str) -> Answer:
        """Get a manifest."""
        return self.ask("GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": f"{MANIFEST}, {INDEX}"})

    def blob(self, repository: str, data_or_digest: bytes | str, headers: Mapping[str, str] | None = None) -> Answer:
        """Get a blob."""
        digest = data_or_digest if isinstance(data_or_digest, str) else Digest.of(data_or_digest)
        return self.ask("GET", f"/v2/{repository}/blobs/{digest}", headers=headers)

    def delete(self, repository: str, reference: str) -> Answer:
        """Delete a tag or manifest."""
        return self.ask("DELETE", f"/v2/{repository}/manifests/{reference}")


def image_of(*layers: bytes) -> tuple[bytes, bytes]:
    """Manifest and config of an image of layers that are not compressed."""
    rootfs = {"type": "layers", "diff_ids": [Digest.of(layer) for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    return manifest_of(descriptor(config, f"{OCI}.config.v1+json"), *(descriptor(one) for one in layers)), config


def manifest_of(config: dict[str, Any], *layers: dict[str, Any], **more: Any) -> bytes:
    """A manifest."""
    fields = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **more}
    return json.dumps(fields).encode()


def index_of(*manifests: bytes) -> bytes:
    """An index."""
    entries = [descriptor(one, MANIFEST) for one in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def descriptor(data: bytes, media_type: str = f"{OCI}.layer.v1.tar") -> dict[str, Any]:
    """What a manifest says of bytes."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}
