"""Images for the clients, and what a registry has of them, asked without any client."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import pytest
from places_samples import INDEX, MANIFEST, Json, LayoutMaker, layer_tar, noise, platform_of

ACCEPT = ", ".join(
    (
        MANIFEST,
        INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
GREETING = b"hello from the registry\n"
FILES = {"app/greeting": GREETING, "app/noise": noise(7, 150_000), "app/empty": b""}


def client_layout(path: Path) -> LayoutMaker:
    """An image that runs, named 1.0; one of zstd layers, named zstd; and an index of two platforms, named multi."""
    maker = LayoutMaker(path)
    base, app = busybox_layer(), layer_tar(FILES)
    maker.list_root(maker.image([base, app]), "1.0")
    maker.list_root(maker.image([app, layer_tar({"app/more": b"x"})], "zstd"), "zstd")
    children = []
    for name in ("linux/amd64", "linux/arm64"):
        child = maker.image([app, layer_tar({"arch": name.encode()})], platform=name)
        children.append(child | {"platform": platform_of(name)})
    maker.list_root(maker.index(children), "multi")
    return maker


def busybox_layer() -> bytes:
    """A root file system that runs."""
    busybox = shutil.which("busybox")
    # ldd fails for what is linked statically.
    if busybox is None or subprocess.run(["ldd", busybox], capture_output=True, check=False).returncode == 0:
        pytest.skip("there is no static busybox (Debian: busybox-static)")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "root"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        program = tar.gettarinfo(busybox, "bin/busybox")
        with Path(busybox).open("rb") as file:
            tar.addfile(program, file)
        for name in ("cat", "sh", "rm"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        users = tarfile.TarInfo("etc/passwd")
        users.size = len(line := b"root:x:0:0::/root:/bin/sh\n")
        tar.addfile(users, io.BytesIO(line))
    return buffer.getvalue()


def get(url: str, **headers: str) -> bytes:
    """What a URL has, without any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        body = answer.read()
    assert isinstance(body, bytes)
    return body


def served(url: str, repository: str, reference: str) -> dict[str, bytes]:
    """All that hangs on an image of a registry, by digest: documents and blobs. Each has the bytes that it is named by.

    The image itself is the first.
    """
    manifest = get(f"{url}/v2/{repository}/manifests/{reference}", Accept=ACCEPT)
    found = {digest_of(manifest): manifest}
    document: Json = json.loads(manifest)
    for child in document.get("manifests", []):
        found |= served(url, repository, child["digest"])
    for blob in [*document.get("layers", []), *([document["config"]] if "config" in document else [])]:
        data = get(f"{url}/v2/{repository}/blobs/{blob['digest']}")
        assert (digest_of(data), len(data)) == (blob["digest"], blob["size"])
        found[blob["digest"]] = data
    return found


def closure(maker: LayoutMaker, name: str) -> dict[str, bytes]:
    """All that hangs on an image of a layout, as `served` has it."""
    (root,) = [one for one in maker.roots if name in one["annotations"].values()]
    return _closure(maker, root["digest"])


def _closure(maker: LayoutMaker, digest: str) -> dict[str, bytes]:
    data = maker.blob_path(digest).read_bytes()
    found = {digest: data}
    document: Json = json.loads(data)
    for child in document.get("manifests", []):
        found |= _closure(maker, child["digest"])
    for blob in [*document.get("layers", []), *([document["config"]] if "config" in document else [])]:
        found[blob["digest"]] = maker.blob_path(blob["digest"]).read_bytes()
    return found


def digest_of(data: bytes) -> str:
    """The digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layers_of(contents: dict[str, bytes]) -> list[str]:
    """The digests of the layers of an image that `served` or `closure` gave."""
    manifest = json.loads(next(iter(contents.values())))
    return [layer["digest"] for layer in manifest["layers"]]
