"""A registry for the tests of its pages: images that share layers, an index, an artifact, and hostile names."""

import gzip
import io
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samples import make_tar, text

from layerstore import Digest, Store
from layerstore.oci.documents import Descriptor, Index, Manifest, Platform, serialize
from layerstore.oci.media_types import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from layerstore.registry.server.links import Links

SIGNATURE = "application/vnd.example.signature"
HOSTILE = "<script>alert(1)</script>"
TURNED = "evil\u202egpj.sh"
"""Looks like evilhs.jpg where the character in the middle is obeyed."""


def descriptor(media_type: str, data: bytes, **more: Any) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data), **more)


def image_documents(
    layers: Sequence[bytes],
    *,
    architecture: str = "amd64",
    config: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    annotations: Mapping[str, str] | None = None,
) -> tuple[bytes, bytes]:
    """Manifest and config of an image of gzip blobs."""
    rootfs = {"type": "layers", "diff_ids": [Digest.of(gzip.decompress(one)) for one in layers]}
    document = {
        "created": "2026-03-04T05:06:07Z",
        "architecture": architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": rootfs,
        "history": list(history),
    }
    data = json.dumps(document).encode()
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        config=descriptor(OCI_CONFIG, data),
        layers=tuple(descriptor(OCI_LAYER_GZIP, one) for one in layers),
        annotations=dict(annotations or {}),
    )
    return serialize(manifest), data


def put(store: Store, layers: Sequence[bytes], tag: str | None = None, **more: Any) -> Digest:
    """An image of gzip blobs; its digest."""
    for layer in layers:
        store.push_blob(layer, digest=Digest.of(layer))
    manifest, config = image_documents(layers, **more)
    return store.put_image(manifest, config, tag=tag).digest


def put_index(store: Store, images: Mapping[str, Sequence[bytes]], tag: str) -> tuple[Digest, dict[str, Digest]]:
    """An index of images by architecture; its digest and theirs."""
    documents, listed, digests = [], [], {}
    for architecture, layers in images.items():
        for layer in layers:
            store.push_blob(layer, digest=Digest.of(layer))
        manifest, config = image_documents(layers, architecture=architecture)
        documents += [manifest, config]
        platform = Platform(architecture=architecture, os="linux")
        listed.append(descriptor(OCI_MANIFEST, manifest, platform=platform))
        digests[architecture] = Digest.of(manifest)
    index = serialize(Index(schema_version=2, media_type=OCI_INDEX, manifests=tuple(listed)))
    return store.put_image(index, documents=documents, tag=tag).digest, digests


def put_artifact(store: Store, subject: Digest, payload: bytes, title: str) -> Digest:
    """An artifact that refers to an image; its digest."""
    store.push_blob(payload, digest=Digest.of(payload))
    size = len(store.images[subject].manifest_bytes)
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        artifact_type=SIGNATURE,
        config=descriptor(OCI_EMPTY, b"{}"),
        layers=(descriptor("text/plain", payload, annotations={"org.opencontainers.image.title": title}),),
        subject=Descriptor(media_type=OCI_MANIFEST, digest=subject, size=size),
        annotations={"org.example.signer": "release <team>"},
    )
    return store.put_image(serialize(manifest), documents=[b"{}"]).digest


def odd_layer() -> bytes:
    """A layer with whatever names and kinds may be in one, as gzip."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {
            f"odd/{HOSTILE}": b"<img src=x onerror=alert(2)>\n",
            f"odd/{TURNED}": b"#!/bin/sh\n",
            "odd/\udcff\udcfe": b"not UTF-8\n",
            "odd/a\nline": b"",
            "odd/picture.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            "odd/turned.txt": f"a{TURNED}b\x1b[31mred\n".encode(),
            "odd/long.txt": "ä".encode() * 200_000,
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(data), 1_700_000_000, 0o640
            tar.addfile(entry, io.BytesIO(data))
        for name, target in {"odd/link": "turned.txt", "odd/broken": "/nowhere", "odd/out": "../../../etc"}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        device = tarfile.TarInfo("odd/null")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(device)
        empty = tarfile.TarInfo("empty")
        empty.type, empty.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(empty)
    return gzip.compress(buffer.getvalue(), mtime=0)


def layer(name: str, size: int = 20_000, seed: int = 0) -> bytes:
    """A layer of one file and its directory, as gzip."""
    return gzip.compress(make_tar({f"{name}/data.txt": text(size, seed), "etc/name": name.encode()}), mtime=0)


class Samples:
    """The store of the tests, and the names of what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        base, shop, site = layer("base", 60_000), layer("shop", seed=1), layer("site", seed=2)
        history = [
            {"created": "2026-03-01T00:00:00Z", "created_by": "base files"},
            {"created": "2026-03-02T00:00:00Z", "created_by": f"ENV NAME={HOSTILE}", "empty_layer": True},
            {"created": "2026-03-03T00:00:00Z", "created_by": "COPY shop /shop", "comment": "the shop"},
        ]
        run = {
            "User": "1000",
            "Env": ["PATH=/bin", f"NAME={HOSTILE}"],
            "Entrypoint": ["/bin/shop"],
            "Cmd": ["--serve", TURNED],
            "WorkingDir": "/shop",
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {"org.example.title": HOSTILE},
        }
        with Store.create(path) as store:
            self.shop = put(store, [base, shop], "team/shop:1.0", config=run, history=history)
            store.tags["team/shop:latest"] = self.shop
            store.tags["mirror/shop:1.0"] = self.shop
            self.site = put(store, [base, site], "team/site:1.0")
            self.secret = put(store, [base, layer("secret", seed=3)], "private/plans:1.0")
            self.index, self.parts = put_index(store, {"amd64": [base], "arm64": [layer("arm", seed=4)]}, "base:1")
            self.odd = put(store, [base, odd_layer()], "odd:1")
            self.signature = put_artifact(store, self.shop, b"signed\n", f"{HOSTILE}.sig")
        folder = path / "registry"
        folder.mkdir(mode=0o700, exist_ok=True)
        links = Links(folder / "links.sqlite")
        links.add_manifest("team/shop", self.signature)
        now = int(time.time())
        for day in range(30):
            links.add_history(now - (30 - day) * 86_400, (day + 1) * 1_000_000, 400_000 + day * 90_000)
        links.close()
