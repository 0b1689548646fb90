"""OCI layouts made by hand, as other tools make them."""

import gzip
import hashlib
import json
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samples import make_tar

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
SIGNATURE = "application/vnd.example.signature"

Json = dict[str, Any]


def tar_of(files: Mapping[str, bytes]) -> bytes:
    return make_tar(files, tarfile.GNU_FORMAT)


def words(seed: int, count: int) -> bytes:
    """A text that an encoder has something to do with."""
    return b"".join(random.Random(seed).choices([b"layer ", b"image ", b"index ", b"blob\n", b"x"], k=count))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """A layout that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.roots: list[Json] = []
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._write()

    def blob(self, data: bytes, media_type: str, **more: Any) -> Json:
        digest = digest_of(data)
        self.file(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def file(self, digest: str) -> Path:
        return self.path / "blobs" / "sha256" / digest.partition(":")[2]

    def document(self, value: Json, **more: Any) -> Json:
        return self.blob(json.dumps(value).encode(), value["mediaType"], **more)

    def image(self, *tars: bytes, platform: str = "linux/amd64", level: int = 9, **more: Any) -> Json:
        system, architecture = platform.split("/")
        config = {
            "architecture": architecture,
            "os": system,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            "history": [{"created_by": f"step {number}"} for number in range(len(tars))],
        }
        layers = [self.blob(gzip.compress(tar, level, mtime=0), f"{LAYER}+gzip") for tar in tars]
        config_descriptor = self.blob(json.dumps(config).encode(), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": layers}
        return self.document(manifest, **more)

    def index(self, children: Mapping[str, Json]) -> Json:
        manifests = []
        for platform, child in children.items():
            system, architecture = platform.split("/")
            manifests.append({**child, "platform": {"architecture": architecture, "os": system}})
        return self.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})

    def artifact(self, data: bytes, subject: Json | None = None) -> Json:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SIGNATURE,
            "config": self.blob(b"{}", EMPTY),
            "layers": [self.blob(data, "text/plain")],
        }
        if subject is not None:
            manifest["subject"] = {key: subject[key] for key in ("mediaType", "digest", "size")}
        return self.document(manifest)

    def add(self, root: Json, name: str | None) -> str:
        """List a root; its digest."""
        annotations = {} if name is None else {"annotations": {"org.opencontainers.image.ref.name": name}}
        self.roots.append({**root, **annotations})
        self._write()
        return str(root["digest"])

    def _write(self) -> None:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.roots}
        (self.path / "index.json").write_text(json.dumps(index))


def tree(path: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
