"""A filled store, what should come out of it, and ways to damage it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from samples import make_tar, noise, sha256, text

from layerstore import Digest, Store
from layerstore.operations import batch
from layerstore.storage.packs import PACK_HEADER, PackRecordHead, PackScan, RecordKind

BATCH_SIZE = 50_000
"""Of the batches that the store was filled with: each layer has several."""

FILES = {f"usr/{i}": (noise if i % 2 else text)(3000 + 2111 * i, i) for i in range(16)}
CONTENTS = {
    "base": make_tar({name: FILES[name] for name in list(FILES)[:10]}),
    "app": make_tar({**{name: FILES[name] for name in list(FILES)[8:]}, "app": noise(30_000, 77)}),
    "blob": noise(60_000, 78),
}
DIFF_IDS: dict[str, Digest] = {name: sha256(data) for name, data in CONTENTS.items()}


@dataclass(frozen=True)
class Region:
    """A part of a pack file that the store needs."""

    kind: str
    part: str
    start: int
    size: int


def fill(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "BATCH_SIZE_MAX", BATCH_SIZE)
        with Store.create(path, frame_size=1 << 13, pack_size_max=1 << 16) as store:
            base, app, blob = (store.push_layer(data).layer for data in CONTENTS.values())
            store.create_image([base, app], tag="shop:1.0")
            store.create_image([blob], base="shop:1.0", tag="shop:1.1")
            store.tags["shop:latest"] = store.tags["shop:1.1"]


def regions(pack: Path) -> Iterator[Region]:
    """The parts of a pack: its header, and head, meta and body of every record."""
    yield Region("pack", "header", 0, PACK_HEADER.size)
    with pack.open("rb") as file:
        heads: list[PackRecordHead] = list(PackScan.of(file.fileno(), 0).records())
    for head in heads:
        kind = RecordKind(head.kind).name.lower()
        meta = head.body_offset - len(head.meta)
        yield Region(kind, "head", head.place.offset, meta - head.place.offset)
        yield Region(kind, "meta", meta, len(head.meta))
        yield Region(kind, "body", head.body_offset, head.body_size)


def flip(path: Path, position: int, mask: int = 0x10) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ mask]))
