"""What must be in a store after a crash, from what its writer reported; and the check that it is.

The writer appends a line of JSON to a file *before* it begins something (what that may take away or move), and one
*after* the call has returned (what is there now, durably).
"""

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerstore import Digest, Store
from layerstore.errors import LayerNotFoundError, StoreNotFoundError
from layerstore.operations import verify as verify_module
from layerstore.storage.frames import read_frame_meta
from layerstore.storage.opened import OpenedStore
from layerstore.storage.packs import PACK_HEADER
from layerstore.storage.records import EncodingState, FrameState, unseal
from layerstore.storage.tables import TABLES


class Acknowledgements:
    """The writer's side: lines of JSON in a file, each in one `write`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def begin(
        self,
        what: str,
        *,
        layers: Iterable[str] = (),
        images: Iterable[str] = (),
        tags: Iterable[str] = (),
        blobs: Iterable[str] = (),
    ):
        """From here on these may be gone, or stay."""
        event = {"layers": list(layers), "images": list(images), "tags": list(tags), "blobs": list(blobs)}
        self._write("begin", what, event)

    def done(
        self,
        what: str,
        *,
        layers: Iterable[str] = (),
        images: dict[str, list[str]] | None = None,
        tags: dict[str, str] | None = None,
        gone_images: Iterable[str] = (),
        gone_tags: Iterable[str] = (),
        blobs: Iterable[str] = (),
    ) -> None:
        """From here on these are there, or gone, for good."""
        event = {"layers": list(layers), "images": images or {}, "tags": tags or {}, "blobs": list(blobs)}
        self._write("done", what, event | {"gone_images": list(gone_images), "gone_tags": list(gone_tags)})

    def _write(self, kind: str, what: str, event: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps({"kind": kind, "what": what, **event}).encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass
class Expected:
    """What must be there and what must not."""

    created: bool = False
    layers: set[str] = field(default_factory=set)
    images: dict[str, list[str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)
    gone_images: set[str] = field(default_factory=set)
    gone_tags: set[str] = field(default_factory=set)
    last: str = ""

    @classmethod
    def of(cls, lines: bytes | Path) -> "Expected":
        """From what the writer wrote; a line that was cut does not count."""
        data = lines if isinstance(lines, bytes) else (lines.read_bytes() if lines.exists() else b"")
        expected = cls()
        for line in data.split(b"\n")[:-1]:
            expected.take(json.loads(line))
        return expected

    def take(self, event: dict[str, Any]) -> None:
        self.last = f"{event['kind']} {event['what']}"
        if event["kind"] == "begin":
            self.layers -= set(event["layers"])
            self.blobs -= set(event["blobs"])
            self.gone_images -= set(event["images"])
            self.gone_tags -= set(event["tags"])
            for name in event["images"]:
                self.images.pop(name, None)
            for name in event["tags"]:
                self.tags.pop(name, None)
            return
        self.created = True
        self.layers |= set(event["layers"])
        self.blobs |= set(event["blobs"])
        self.images |= event["images"]
        self.tags |= event["tags"]
        self.gone_images |= set(event["gone_images"])
        self.gone_tags |= set(event["gone_tags"])


def walk_in_process(store: OpenedStore) -> list[verify_module.Problem]:
    """What `verify` otherwise starts a process for. Thousands of checks need not pay for that: a few tests do."""
    problems = []
    with store.index.read() as transaction:
        for spec in TABLES:
            for key, value in transaction.table(spec.name).raw_items():
                try:
                    spec.key.decode(key)
                    spec.value.decode(unseal(key, value))
                except Exception as error:
                    problems.append(verify_module.Problem("index", f"{spec.name} {key.hex()}: {error}"))
    return problems


@contextmanager
def quick_verify() -> Iterator[None]:
    """Let `verify` walk the index in this process."""
    before = verify_module._walk_in_child
    verify_module._walk_in_child = walk_in_process
    try:
        yield
    finally:
        verify_module._walk_in_child = before


def assert_clean(store: Store) -> None:
    report = store.verify(full=True)
    assert report.is_clean, [f"{problem.kind}: {problem.text}" for problem in report.problems]


def pull(store: Store, layer: str) -> bytes:
    buffer = io.BytesIO()
    store.pull_layer(layer, buffer)
    return buffer.getvalue()


def assert_stored_once(store: Store) -> None:
    """No two positions that are present have the same ChunkID."""
    opened = store._opened
    with opened.index.read() as transaction:
        records = dict(transaction.frames.items())
    seen: dict[bytes, tuple[int, int]] = {}
    for number, record in records.items():
        meta = read_frame_meta(opened.packs, number, record)
        for position, (identity, state) in enumerate(zip(meta.ids, record.states, strict=True)):
            if state == FrameState.PRESENT:
                where = (number, position)
                assert identity not in seen, f"{identity.hex()} is at {seen[identity]} and at {where}"
                seen[identity] = where


def assert_disk_is_index(store: Store) -> None:
    """The files of packs and raw encodings are those that the index knows, and have the bytes that it vouches for."""
    with store._opened.index.read() as transaction:
        known = {f"{number:08d}.pack": record.size for number, record in transaction.packs.items()}
        assert not dict(transaction.dead_packs.items())
        encodings = dict(transaction.encodings.items())
    on_disk = {path.name: path.stat().st_size for path in (store.path / "packs").iterdir()}
    assert on_disk == known
    raw = {path.name: path.stat().st_size for path in (store.path / "raw").iterdir()}
    assert raw == {
        digest.replace(":", "-"): record.size
        for digest, record in encodings.items()
        if record.state is EncodingState.RAW
    }


def assert_nothing_left_behind(store: Store) -> None:
    """No marks of dead processes, no temporary files."""
    session = store._opened._session
    own = {f"session-{session.name.hex()}"} if session is not None else set()
    # One that was still being made, with a leading dot, may belong to someone for an hour.
    leases = {path.name for path in (store.path / "leases").iterdir() if not path.name.startswith(".")}
    assert leases <= own, leases
    assert not list((store.path / "tmp").iterdir())
    assert not [*(store.path / "raw").glob("new-*"), *(store.path / "cache").glob("new-*")]


def assert_expected(store: Store, expected: Expected, contents: dict[str, bytes]) -> None:
    """Everything acknowledged is there and comes back byte for byte; so does everything else that can be seen."""
    layers = set(map(str, store.layers))
    assert expected.layers <= layers, f"lost layers: {expected.layers - layers}"
    for layer in layers:
        assert pull(store, layer) == contents[layer], layer
    encodings = set(map(str, store.encodings))
    assert expected.blobs <= encodings, f"lost blobs: {expected.blobs - encodings}"
    for blob in encodings:
        assert Digest.of(b"".join(store.blob_blocks(blob)), blob.partition(":")[0]) == blob
    images = set(map(str, store.images))
    assert set(expected.images) <= images, f"lost images: {set(expected.images) - images}"
    for image in images:
        assert {str(layer.diff_id) for layer in store.images[image].layers} <= layers
    for image, its_layers in expected.images.items():
        assert [str(layer.diff_id) for layer in store.images[image].layers] == its_layers
    tags = {tag: str(digest) for tag, digest in store.tags.items()}
    assert {tag: tags.get(tag) for tag in expected.tags} == expected.tags
    assert not expected.gone_images & images
    assert not expected.gone_tags & set(tags)


def check_after_crash(path: Path, expected: Expected, contents: dict[str, bytes], *, thorough: bool = True) -> None:
    """All that must hold for a store whose writer is dead. ``thorough`` changes the store."""
    try:
        store = Store.open(path)
    except StoreNotFoundError:
        assert not expected.created, "an acknowledged store is not there"
        return
    with quick_verify(), store:
        assert_clean(store)
        assert_expected(store, expected, contents)
        store.collect_garbage()
        assert_clean(store)
        assert_expected(store, expected, contents)
        assert_disk_is_index(store)
        assert_nothing_left_behind(store)
        if not thorough:
            return
        for layer, data in contents.items():
            there = layer in store.layers
            result = store.push_layer(data, decode="never")
            assert str(result.layer.diff_id) == layer
            assert result.already_present == there
        assert_clean(store)
        assert_stored_once(store)
        assert_disk_is_index(store)
        if remove_everything(store):
            # A writer that died right after it had made a pack leaves it empty; the next one goes on with it.
            assert {path.stat().st_size for path in (store.path / "packs").iterdir()} <= {PACK_HEADER.size}
        assert_clean(store)


def remove_everything(store: Store) -> bool:
    """Delete and release all, and collect. False if a lease still keeps something."""
    for image in list(store.images):
        store.delete_image(image, ttl=0)
    store.collect_garbage(store.plan_collection(empty_trash=True))
    for blob in list(store.encodings):
        store.release_blob(blob)
    for layer in list(store.layers):
        try:
            store.release_layer(layer)
        except LayerNotFoundError:
            continue
    store.collect_garbage()
    with store._opened.index.read() as transaction:
        return not len(transaction.leases)
