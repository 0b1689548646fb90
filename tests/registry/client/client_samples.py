"""Layouts with images to push, and what registries in memory answer about them."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samples import make_tar, noise

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"

Json = dict[str, Any]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Images:
    """An OCI layout that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.roots: list[Json] = []
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, media_type: str, **more: Any) -> Json:
        digest = sha256(data)
        self.path.joinpath("blobs", *digest.split(":")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def read(self, digest: str) -> bytes:
        return self.path.joinpath("blobs", *digest.split(":")).read_bytes()

    def document(self, value: Json, **more: Any) -> Json:
        return self.blob(json.dumps(value).encode(), value["mediaType"], **more)

    def image(self, *files: Mapping[str, bytes], platform: str = "linux/amd64", **more: Any) -> Json:
        tars = [make_tar(one) for one in files]
        system, architecture = platform.split("/")
        config = {
            "architecture": architecture,
            "os": system,
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        }
        layers = [self.blob(gzip.compress(tar, 1, mtime=0), LAYER) for tar in tars]
        return self.manifest(self.blob(json.dumps(config).encode(), CONFIG), layers, **more)

    def manifest(self, config: Json, layers: list[Json], **more: Any) -> Json:
        fields = ("subject", "artifactType", "annotations")
        value: Json = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        value |= {name: more.pop(name) for name in fields if name in more}
        return self.document(value, **more)

    def signature(self, subject: Json, data: bytes = b"signed") -> Json:
        layer = self.blob(data, "application/vnd.example.signature")
        plain = {name: subject[name] for name in ("mediaType", "digest", "size")}
        return self.manifest(
            self.blob(b"{}", EMPTY), [layer], subject=plain, artifactType="application/vnd.example.signature"
        )

    def index(self, *children: Json, **more: Any) -> Json:
        return self.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(children), **more})

    def add(self, descriptor: Json, name: str | None = None) -> str:
        """List a root; its digest."""
        named = {} if name is None else {"annotations": {"org.opencontainers.image.ref.name": name}}
        self.roots.append({**descriptor, **named})
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.roots}))
        digest: str = descriptor["digest"]
        return digest

    def layers_of(self, digest: str) -> list[Json]:
        layers: list[Json] = json.loads(self.read(digest))["layers"]
        return layers


def sample_images(path: Path) -> Images:
    """An image ``1.0`` of two layers, and an index ``multi`` of two platforms."""
    made = Images(path)
    base = {"etc/os": b"one\n", "lib/data": noise(3_000_000, 1)}
    made.add(made.image(base, {"app/main": noise(60_000, 2)}), "1.0")
    listed = []
    for name in ("linux/amd64", "linux/arm64"):
        child = made.image(base, {"arch": name.encode()}, platform=name)
        system, architecture = name.split("/")
        listed.append({**child, "platform": {"os": system, "architecture": architecture}})
    made.add(made.index(*listed), "multi")
    return made
