"""Stacks of layers for tests of unpacking, and all that can be said of a tree on disk."""

import hashlib
import io
import json
import os
import random
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samples import noise


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    """An entry for `layer_of`; ``values`` are fields of `tarfile.TarInfo`, ``xattrs`` is a mapping."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in values.pop("xattrs", {}).items():
        info.pax_headers[f"SCHILY.xattr.{key}"] = value
    for key, value in values.items():
        if key == "mtime_text":
            info.pax_headers["mtime"] = value
        else:
            setattr(info, key, value)
    return info, data


def layer_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A layer of these entries, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def directory(name: str, **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, **values)


def link(name: str, target: str, **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic link."""
    return entry(name, tarfile.SYMTYPE, linkname=target, **values)


def hard(name: str, target: str, **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A hard link."""
    return entry(name, tarfile.LNKTYPE, linkname=target, **values)


def write_layout(place: Path, layers: Sequence[bytes]) -> None:
    """An OCI layout of one image ``one`` with these layers, uncompressed."""
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    prefix = "application/vnd.oci.image."
    stored = [blob(layer, f"{prefix}layer.v1.tar") for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in stored]},
        "history": [],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{prefix}manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{prefix}config.v1+json"),
        "layers": stored,
    }
    descriptor = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": "one"}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Kind, mode, owner, time, device, target, attributes, contents and group of links of everything below ``root``."""
    base = os.fsencode(root)
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[int, bytes] = {}
    for folder, directories, files in os.walk(base):
        for name in sorted(directories + files):
            path = folder + b"/" + name
            status = os.lstat(path)
            inside = os.path.relpath(path, base)
            is_directory = stat.S_ISDIR(status.st_mode)
            found[inside] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                status.st_rdev,
                os.fsencode(Path(os.fsdecode(path)).readlink()) if stat.S_ISLNK(status.st_mode) else b"",
                tuple(sorted((key, os.getxattr(path, key, follow_symlinks=False)) for key in _xattrs(path))),
                hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest() if stat.S_ISREG(status.st_mode) else b"",
                b"" if is_directory else min(groups.setdefault(status.st_ino, inside), inside),
            )
    return found


def _xattrs(path: bytes) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


_PARTS = ("a", "b", "c", "d")
_KINDS = (
    tarfile.REGTYPE,
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
)


def random_stack(seed: int) -> list[bytes]:
    """One to four layers that agree with what lies below them: no name in what is no directory, no link to nothing."""
    chooser = random.Random(seed)
    below: dict[str, bytes] = {}
    return [_random_layer(chooser, below) for _ in range(chooser.randint(1, 4))]


def _random_layer(chooser: random.Random, tree: dict[str, bytes]) -> bytes:
    """A layer over ``tree``, the kinds of what is there by name, which becomes what is there then."""
    entries = _random_whiteouts(chooser, tree)
    new: set[str] = set()
    for _ in range(chooser.randint(1, 10)):
        folders = ["", *(name for name, kind in tree.items() if kind == tarfile.DIRTYPE)]
        name = f"{chooser.choice(folders)}/{chooser.choice(_PARTS)}".lstrip("/")
        kind = chooser.choice(_KINDS)
        files = sorted(one for one, what in tree.items() if what == tarfile.REGTYPE and f"{one}/".find(f"{name}/") != 0)
        if name in new or (kind == tarfile.LNKTYPE and not files):
            continue
        if not tree.get(name) == kind == tarfile.DIRTYPE:
            for other in [one for one in tree if one.startswith(f"{name}/")]:
                del tree[other]
                new.discard(other)
        entries.append(_random_entry(chooser, name, kind, files))
        tree[name] = tarfile.REGTYPE if kind == tarfile.LNKTYPE else kind
        new.add(name)
    return layer_of(*entries)


def _random_whiteouts(chooser: random.Random, tree: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    entries = []
    for name in chooser.sample(sorted(tree), min(len(tree), chooser.randint(0, 2))):
        if name not in tree:
            continue  # it lay in the one before
        folder, _, last = name.rpartition("/")
        is_opaque = tree[name] == tarfile.DIRTYPE and chooser.random() < 0.4
        entries.append(entry(f"{name}/.wh..wh..opq" if is_opaque else f"{folder}/.wh.{last}".lstrip("/")))
        for other in [one for one in tree if one.startswith(f"{name}/") or (one == name and not is_opaque)]:
            del tree[other]
    return entries


def _random_entry(chooser: random.Random, name: str, kind: bytes, files: list[str]) -> tuple[tarfile.TarInfo, bytes]:
    if kind == tarfile.LNKTYPE:
        return hard(name, chooser.choice(files))
    data = b""
    values: dict[str, Any] = {
        "mode": chooser.choice((0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o000, 0o600)),
        "uid": chooser.choice((0, 1, 1000, 65_534, 100_000)),
        "gid": chooser.choice((0, 5, 1000)),
        "mtime_text": f"{chooser.randint(0, 2 * 10**9)}.{chooser.randint(0, 999_999_999):09d}",
    }
    if kind == tarfile.REGTYPE:
        data = noise(chooser.choice((0, 1, 700, 70_000)), chooser.randint(0, 99))
        if chooser.random() < 0.3:
            values["xattrs"] = {"user.note": f"value {chooser.randint(0, 9)}"}
    elif kind == tarfile.SYMTYPE:
        values["linkname"] = chooser.choice(("a", "../b", "/c", "nowhere", "a/b"))
    elif kind == tarfile.CHRTYPE:
        values |= {"devmajor": 1, "devminor": chooser.randint(3, 9)}
    return entry(name, kind, data, **values)
