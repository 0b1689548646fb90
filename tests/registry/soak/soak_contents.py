"""What the soak pushes: small layers that share files, images that share layers; the same bytes every time."""

import functools
import gzip
import hashlib
import json
import random
from dataclasses import dataclass

from samples import make_tar, noise

from layerstore._zstd import zstd

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"
_FILES = 40
_FRESH_FILE_SHARE = 0.2


@dataclass(frozen=True)
class Blob:
    """A blob with its name."""

    digest: str
    data: bytes
    media_type: str
    diff_id: str = ""

    @property
    def descriptor(self) -> dict[str, object]:
        """What a manifest says of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


@dataclass(frozen=True)
class Document:
    """A manifest or index with what it names."""

    digest: str
    data: bytes
    media_type: str
    blobs: tuple[Blob, ...] = ()
    children: tuple[str, ...] = ()
    subject: str | None = None


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@functools.lru_cache(maxsize=4000)
def layer(number: int) -> Blob:
    """A layer: a tar as it is, or compressed by gzip or zstd, or no tar at all."""
    chooser = random.Random(f"layer {number}")
    files = {}
    for _ in range(chooser.randrange(1, 4)):
        is_fresh = chooser.random() < _FRESH_FILE_SHARE
        seed = chooser.randrange(1 << 30) if is_fresh else chooser.randrange(_FILES)
        files[f"usr/file-{seed}"] = noise(random.Random(seed).choice((0, 700, 5000, 20_000, 60_000)), seed)
    tar = make_tar(files)
    kind = chooser.choice(("gzip", "gzip", "gzip", "zstd", "tar", "noise"))
    if kind == "gzip":
        data, suffix = gzip.compress(tar, chooser.choice((1, 6, 9)), mtime=0), ".tar+gzip"
    elif kind == "zstd":
        data, suffix = zstd.compress(tar, 3), ".tar+zstd"
    else:
        data, suffix = tar if kind == "tar" else noise(chooser.randrange(2, 9000), number), ".tar"
    diff_id = digest_of(data if kind == "noise" else tar)
    return Blob(digest_of(data), data, f"{OCI}.layer.v1{suffix}", diff_id)


@functools.lru_cache(maxsize=4000)
def image(number: int) -> Document:
    """An image of one to four layers, which it shares with those whose numbers are close."""
    chooser = random.Random(f"image {number}")
    layers = [layer(number // 2 + chooser.randrange(50)) for _ in range(chooser.randrange(1, 5))]
    rootfs = {"type": "layers", "diff_ids": [one.diff_id for one in layers]}
    text = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "author": f"image {number}"})
    config = Blob(digest_of(text.encode()), text.encode(), f"{OCI}.config.v1+json")
    return _document([config, *layers], None, {})


def index(children: list[Document]) -> Document:
    """An index of images, which have to be there."""
    manifests = [{"mediaType": one.media_type, "digest": one.digest, "size": len(one.data)} for one in children]
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    return Document(digest_of(data), data, INDEX, children=tuple(one.digest for one in children))


def artifact(number: int, subject: Document) -> Document:
    """An artifact that refers to another manifest."""
    empty = Blob(digest_of(b"{}"), b"{}", "application/vnd.oci.empty.v1+json")
    reference = {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.data)}
    more: dict[str, object] = {"artifactType": "application/vnd.example.signature", "subject": reference}
    return _document([empty, layer(number)], subject.digest, more)


def _document(blobs: list[Blob], subject: str | None, more: dict[str, object]) -> Document:
    config, *layers = [one.descriptor for one in blobs]
    fields = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **more}
    data = json.dumps(fields).encode()
    return Document(digest_of(data), data, MANIFEST, tuple(blobs), subject=subject)
