"""Layers for tests of the union view, and what a view shows as plain data."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from layerstore import Store, View
from layerstore.tar.entries import EntryKind


@dataclass(frozen=True)
class Member:
    """An entry of a layer."""

    name: bytes
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    uid: int = 0
    mtime: int = 0
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, str] = field(default_factory=dict, hash=False)


def file(name: bytes, data: bytes = b"", mode: int = 0o644, **more: object) -> Member:
    return Member(name, data=data, mode=mode, **more)  # type: ignore[arg-type]


def folder(name: bytes, mode: int = 0o755, **more: object) -> Member:
    return Member(name, tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> Member:
    return Member(name, tarfile.SYMTYPE, target=target, mode=0o777)


def hardlink(name: bytes, target: bytes) -> Member:
    return Member(name, tarfile.LNKTYPE, target=target)


def whiteout(path: bytes) -> Member:
    above, _, name = path.rpartition(b"/")
    return file((above + b"/" if above else b"") + b".wh." + name)


def opaque(path: bytes) -> Member:
    return file((path + b"/" if path else b"") + b".wh..wh..opq")


def layer(*members: Member) -> bytes:
    """A tar of the members, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for member in members:
            info = tarfile.TarInfo(_text(member.name))
            info.type, info.mode, info.uid, info.mtime = member.kind, member.mode, member.uid, member.mtime
            info.size, info.linkname = len(member.data), _text(member.target)
            info.devmajor, info.devminor = member.device
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in member.xattrs.items()}
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def view_of(store: Store, *layers: bytes) -> View:
    """A view of the layers, the lowest first."""
    return store.view([store.push_layer(data).layer for data in layers])


def shown(view: View) -> dict[bytes, object]:
    """What a view shows: of each path its contents, its target in brackets, or None for a directory."""
    found: dict[bytes, object] = {}
    for node in view.nodes():
        if node.is_dir:
            found[node.path] = None
        elif node.is_symlink:
            found[node.path] = [node.link_target]
        elif node.is_file:
            with view.open_node(node) as opened:
                found[node.path] = opened.read()
        else:
            found[node.path] = EntryKind(node.kind).name
    return found


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
