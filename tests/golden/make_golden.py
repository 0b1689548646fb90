"""Makes what the golden tests compare with: ``python tests/golden/make_golden.py``.

Only for a new format version. What a released version wrote is never made anew: it has to be read for ever.
"""

import gzip
import io
import json
import shutil
import sys
import tarfile
import tempfile
from array import array
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from samples import gnu_sparse, make_tar, noise, pax_sparse, text

from layerstore import Digest, Store
from layerstore._zstd import zstd
from layerstore.chunking import Chunker
from layerstore.oci import media_types
from layerstore.storage import tables
from layerstore.storage.frames import EncodedFrame, encode_frame
from layerstore.storage.journal import (
    Event,
    drop_image_event,
    drop_layer_event,
    encode_event,
    image_event,
    tag_event,
    trash_event,
    untag_event,
)
from layerstore.storage.layout import FORMAT_VERSION
from layerstore.storage.packs import RecordKind, encode_pack_header, encode_record
from layerstore.storage.recipe import Run, Segment, encode_segment
from layerstore.storage.records import (
    BlobRecord,
    CountsRecord,
    EncodingRecord,
    EncodingState,
    FrameRecord,
    ImageRecord,
    LayerRecord,
    LeaseRecord,
    PackRecord,
    Place,
    SegmentRecord,
    TrashRecord,
    seal,
)

FOLDER = Path(__file__).parent
STORE_ID = "00112233445566778899aabbccddeeff"
PLACE = Place(3, 0x1122334455, 0x667788)
DIGEST = Digest.of(b"golden")
LONG_DIGEST = Digest.of(b"golden", "sha512")
CHUNK = bytes(range(32))
IMAGE = ImageRecord(7, 1_700_000_000_000_000_001, DIGEST, 2)
TRASH = TrashRecord(IMAGE, 1_700_000_000_000_000_002, 1_700_000_000_000_000_003, ("a:1", "b/c:2"))
ENCODING = EncodingRecord(6, PLACE, DIGEST, 1 << 33, EncodingState.RAW, 3, b"recipe")
SEGMENT = Segment(70_000, [Run(1, 0, 3)], [Run(2, 5, 1), Run(1 << 40, 7, 9)], array("I", [512, 9, 503, 68_976]))

# For each table a key and a value.
ROWS: dict[str, tuple[Any, Any]] = {
    "meta": ("next_layer", 4097),
    "chunks": (CHUNK, (1 << 40, 17)),
    "lost": (CHUNK, (1 << 40, 17)),
    "frames": (9, FrameRecord(PLACE, 1, CHUNK, array("I", [1, 70_000, 3]), b"\0\1\2")),
    "counts": (9, CountsRecord(1000, array("I", [0, 1, 1 << 31]))),
    "touched_frames": (9, None),
    "packs": (3, PackRecord(1 << 33, 4096)),
    "open_packs": (3, None),
    "touched_packs": (3, None),
    "dead_packs": (3, 1 << 33),
    "layers": (DIGEST, LayerRecord(5, PLACE, 1 << 34, 12_345, 678, 1_700_000_000_000_000_000)),
    "recipes": ((5, 1 << 25), SegmentRecord(PLACE, b"segment")),
    "uploads": (5, bytes(range(16))),
    "dropped": (5, None),
    "graves": ((3, 5), None),
    "encodings": (LONG_DIGEST, ENCODING),
    "layer_encodings": ((5, LONG_DIGEST), None),
    "holds": ((5, bytes(range(16))), 0),
    "lease_layers": ((bytes(range(16)), 5), DIGEST),
    "layer_images": ((5, LONG_DIGEST), None),
    "loose_layers": (5, DIGEST),
    "images": (DIGEST, IMAGE),
    "trash": (LONG_DIGEST, TRASH),
    "blobs": (DIGEST, BlobRecord(PLACE, 3, b"{}")),
    "tags": ("shop:1.0", DIGEST),
    "image_tags": ((DIGEST, "shop:1.0"), None),
    "leases": (bytes(range(16)), LeaseRecord(1, 2)),
}

EVENTS: dict[str, Event] = {
    "image": image_event(DIGEST, IMAGE),
    "trash": trash_event(DIGEST, TRASH),
    "tag": tag_event("shop:1.0", DIGEST),
    "untag": untag_event("shop:1.0"),
    "drop-image": drop_image_event(DIGEST),
    "drop-layer": drop_layer_event(5),
}

CONTENTS: dict[str, bytes] = {
    "noise": noise(1 << 20, 1),
    "text": text(300_000, 2),
    "zeros": bytes(200_000),
    "repeats": noise(10_000, 3) * 30,
}


def cuts(data: bytes) -> list[int]:
    """The lengths of the chunks."""
    return [len(chunk) for chunk in Chunker().feed(memoryview(data), last=True)]


def row_bytes(name: str) -> tuple[bytes, bytes]:
    """Key and sealed value of a table's example, as the index has them."""
    spec = next(one for one in tables.TABLES if one.name == name)
    key = spec.key.encode(ROWS[name][0])
    return key, seal(key, spec.value.encode(ROWS[name][1]))


def stored_frame() -> EncodedFrame:
    """A frame whose contents are stored as they are: its bytes do not depend on a version of zstd."""
    chunks = [b"golden", b"bytes"]
    return encode_frame(chunks, [bytes([i]) * 32 for i in range(2)], 3)


def records() -> dict[str, bytes]:
    """A whole record of each kind."""
    frame = stored_frame()
    parts = {
        RecordKind.FRAME: (frame.codec, 9, frame.meta, frame.body),
        RecordKind.SEGMENT: (0, 5, (1 << 25).to_bytes(8, "big"), b"segment"),
        RecordKind.LAYER: (0, 5, DIGEST.pack(), ROWS["layers"][1].encode()),
        RecordKind.ENCODING: (0, 6, LONG_DIGEST.pack(), ENCODING.encode()),
        RecordKind.BLOB: (0, 0, DIGEST.pack(), b"{}"),
    }
    return {kind.name: encode_record(kind, *part[:3], part[3]) + part[3] for kind, part in parts.items()}


def golden() -> dict[str, Any]:
    """All golden bytes."""
    return {
        "pack header": encode_pack_header(3, STORE_ID).hex(),
        "records": {name: data.hex() for name, data in records().items()},
        "segment": encode_segment(SEGMENT).hex(),
        "rows": {name: [part.hex() for part in row_bytes(name)] for name in ROWS},
        "events": {name: encode_event(event).decode() for name, event in EVENTS.items()},
        "cuts": {name: cuts(data) for name, data in CONTENTS.items()},
    }


def make_store(path: Path) -> dict[str, Any]:
    """A small store with something in every table that a closed store may fill; what must come out of it."""
    files = {f"usr/{i}": noise(2000 + 700 * i, i) if i % 2 else text(3000 * i, i) for i in range(8)}
    base = make_tar(files)
    app = make_tar({**dict(list(files.items())[3:]), "app/sparse": b"x"})
    sparse = (
        gnu_sparse(b"a", 1 << 33, [(1 << 20, b"a" * 600)]) + pax_sparse(b"b", 1 << 40, [(9, b"b" * 99)]) + bytes(1024)
    )
    loose, gone = noise(9000, 50), make_tar({"gone": noise(30_000, 51), **dict(list(files.items())[:2])})
    with Store.create(path, frame_size=1 << 13, pack_size_max=1 << 15) as store:
        layers = [store.push_layer(data).layer for data in (base, app, sparse, gone)]
        store.create_image(layers[:1], tag="base:1", architecture="amd64", config={"Env": ["A=b"]})
        store.create_image(layers[1:2], base="base:1", tag="shop:1.0", architecture="amd64")
        store.create_image(layers[2:3], tag="trash:1", architecture="arm64")
        store.create_image(layers[3:], tag="gone:1", architecture="amd64")
        store.tags["shop:latest"] = store.tags["shop:1.0"]
        store.delete_image("gone:1", ttl=0)
        store.collect_garbage()  # leaves holes and packs written anew
        store.delete_image("trash:1", ttl=10 * 365 * 24 * 3600)
        lease = store.lease(10 * 365 * 24 * 3600)
        store.push_layer(b"under a lease", lease=lease)
        store.push_layer(loose)
        blobs = push_blobs(store, base)
        assert store.verify().is_clean
        return {
            "layers": {diff_id: store.layers[diff_id].size for diff_id in sorted(store.layers)},
            "images": {one: [layer.diff_id for layer in store.images[one].layers] for one in sorted(store.images)},
            "tags": dict(store.tags),
            "trash": "trash:1",
            "blobs": blobs,
            "entries": {layer.diff_id: len(list(layer.entries())) for layer in layers[:3]},
        }


def push_blobs(store: Store, tar: bytes) -> dict[str, str]:
    """Encodings of every kind, an index and an artifact; the blobs and how each is kept."""
    proved, queued = gzip.compress(tar, 6, mtime=0), gzip.compress(tar + b"more", 6, mtime=0)
    unknown = zstd.compress(tar, 3)
    for blob in (proved, unknown, queued):
        store.push_blob(blob, digest=Digest.of(blob))
        if blob is not queued:
            assert not store.prove_encodings().damaged
    plain = Digest.of(tar, "sha512")
    store.push_blob(tar, digest=plain)
    manifests, documents = [], [b"{}"]
    for blob, architecture in ((proved, "amd64"), (unknown, "arm64")):
        rootfs = {"type": "layers", "diff_ids": [Digest.of(tar)]}
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs}).encode()
        kind = media_types.OCI_LAYER_GZIP if blob is proved else media_types.OCI_LAYER_ZSTD
        manifests.append(manifest([(blob, kind)], config, media_types.OCI_CONFIG))
        documents.append(config)
    manifests.append(manifest([(b"under a lease", "text/plain")], b"{}", media_types.OCI_EMPTY))
    children = [descriptor(data, media_types.OCI_MANIFEST) for data in manifests]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": children}
    store.put_image(json.dumps(index).encode(), documents=[*documents, *manifests], tag="index:1")
    store.put_image(manifests[2], tag="artifact:1")
    kept = {digest: store.encodings[digest].kept_as for digest in sorted(store.encodings)}
    assert set(kept.values()) == {"recipe", "raw", "queued", "plain"}
    return kept


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    """What names ``data``."""
    return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data)}


def manifest(blobs: list[tuple[bytes, str]], config: bytes, config_type: str) -> bytes:
    """A manifest of blobs and their media types."""
    layers = [descriptor(blob, kind) for blob, kind in blobs]
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST}
    return json.dumps(document | {"config": descriptor(config, config_type), "layers": layers}).encode()


def main() -> None:
    """Write everything."""
    (FOLDER / f"format-v{FORMAT_VERSION}.json").write_text(json.dumps(golden(), indent=1) + "\n")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "store"
        expected = make_store(path)
        (path / "index" / "lock.mdb").unlink()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=9) as tar:
            tar.add(path, "store")
        (FOLDER / f"store-v{FORMAT_VERSION}.tar.gz").write_bytes(buffer.getvalue())
        (FOLDER / f"store-v{FORMAT_VERSION}.json").write_text(json.dumps(expected, indent=1) + "\n")
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
