"""The whole API against a model of dicts: whatever is done in whatever order, the store does what the model says."""

import gzip
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from samples import Pipe, make_tar, noise, packs_on_disk, pulled, sha256, text

from layerstore import Digest, LayerstoreError, Lease, Store
from layerstore._zstd import zstd
from layerstore.errors import (
    ImageNotFoundError,
    LayerInUseError,
    LayerNotFoundError,
    LeaseEndedError,
    StoreClosedError,
    TagNotFoundError,
)
from layerstore.oci.documents import Descriptor, image_manifest, serialize
from layerstore.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from layerstore.operations import batch, verify

FILES = {f"f{i}": noise(1500 + 1999 * i, i) if i % 3 else text(2500 * i + 90, i) for i in range(12)}
TAGS = ("shop:1.0", "shop:1.1", "base:latest", "other/name:x")
TTL = 1000.0
NANOSECONDS = 10**9


def contents() -> st.SearchStrategy[bytes]:
    """Tars that share files, and some content that is no tar."""
    names = st.lists(st.sampled_from(sorted(FILES)), min_size=1, max_size=6, unique=True)
    tars = names.map(lambda chosen: make_tar({name: FILES[name] for name in chosen}))
    return st.one_of(tars, tars, tars, st.sampled_from([b"", b"x", noise(30_000, 99), bytes(50_000)]))


@dataclass
class ModelImage:
    layers: list[Digest]
    tags: set[str] = field(default_factory=set)
    expires: int | None = None
    """When it leaves the trash; None while it is not in there."""
    blobs: tuple[Digest, ...] = ()
    """Encodings that its manifest names."""
    tags_in_trash: tuple[str, ...] = ()
    deleted: int = 0


@dataclass
class ModelLayer:
    data: bytes
    held: bool = False
    """Kept for whoever pushed it, until it is released or becomes part of an image."""
    leases: dict[bytes, int] = field(default_factory=dict)


@dataclass
class ModelEncoding:
    blob: bytes
    diff_id: Digest
    held: bool = False
    leases: dict[bytes, int] = field(default_factory=dict)
    is_raw: bool = True


def check_without_child(store: Store) -> None:
    """`verify` in full, but for the walk through the index in a process of its own: that takes longer than the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_walk_in_child", lambda _: [])
        report = store.verify(full=True)
    assert report.is_clean, [problem.text for problem in report.problems]


def raw_on_disk(store: Store) -> int:
    return sum(path.stat().st_size for path in (store.path / "raw").iterdir())


class StoreMachine(RuleBasedStateMachine):
    """Time is the model's: it stands still between steps, and `wait` moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="layerstore-machine-"))
        self.patch = pytest.MonkeyPatch()
        self.now = time.time_ns()
        self.patch.setattr(time, "time_ns", lambda: self.now)
        self.patch.setattr(batch, "BATCH_SIZE_MAX", 16_000)
        self.store: Store = Store.create(self.folder / "store", frame_size=1 << 13, pack_size_max=1 << 15)
        self.layers: dict[Digest, ModelLayer] = {}
        self.encodings: dict[Digest, ModelEncoding] = {}
        self.images: dict[Digest, ModelImage] = {}
        self.leases: dict[bytes, tuple[Lease, int]] = {}
        self.plan: Any = None

    # --- what the model knows -------------------------------------------------------------------------------------

    def live_images(self) -> list[Digest]:
        return [digest for digest, image in self.images.items() if image.expires is None]

    def trashed(self) -> list[Digest]:
        return [digest for digest, image in self.images.items() if image.expires is not None]

    def live_leases(self) -> list[bytes]:
        return [name for name, (_, end) in self.leases.items() if end > self.now]

    def is_encoding_kept(self, digest: Digest, without: frozenset[Digest] = frozenset()) -> bool:
        encoding = self.encodings[digest]
        if encoding.held or any(end > self.now for end in encoding.leases.values()):
            return True
        return any(digest in image.blobs for one, image in self.images.items() if one not in without)

    def is_kept(self, diff_id: Digest, without: frozenset[Digest] = frozenset()) -> bool:
        layer = self.layers[diff_id]
        if layer.held or any(end > self.now for end in layer.leases.values()):
            return True
        if any(one.diff_id == diff_id and self.is_encoding_kept(it, without) for it, one in self.encodings.items()):
            return True
        return any(diff_id in image.layers for digest, image in self.images.items() if digest not in without)

    def tick(self) -> None:
        self.now += 1

    # --- rules ----------------------------------------------------------------------------------------------------

    @initialize(data=contents())
    def begin(self, data: bytes) -> None:
        self.push(data, "bytes", None)

    @rule(
        data=contents(),
        source=st.sampled_from(["bytes", "pipe", "file"]),
        lease=st.one_of(st.none(), st.none(), st.integers(0, 9)),
    )
    def push(self, data: bytes, source: str, lease: int | None) -> None:
        makers: dict[str, Callable[[bytes], Any]] = {"bytes": bytes, "pipe": Pipe, "file": io.BytesIO}
        names = self.live_leases()
        name = names[lease % len(names)] if lease is not None and names else None
        diff_id = sha256(data)
        result = self.store.push_layer(
            makers[source](data), lease=None if name is None else self.leases[name][0], decode="never"
        )
        assert result.layer.diff_id == diff_id
        assert result.already_present is (diff_id in self.layers)
        layer = self.layers.setdefault(diff_id, ModelLayer(data))
        if name is None:
            layer.held = True
        else:
            layer.leases[name] = self.leases[name][1]

    @rule(names=st.lists(st.sampled_from(sorted(FILES)[:5]), min_size=1, max_size=3, unique=True))
    def push_tree(self, names: list[str]) -> None:
        tree = self.folder / "tree"
        tree.mkdir()
        for name in names:
            (tree / name).write_bytes(FILES[name])
        layer = self.store.push_tree(tree, mtime_max=0).layer
        shutil.rmtree(tree)
        assert {entry.path.decode() for entry in layer.entries()} == set(names)
        self.layers.setdefault(layer.diff_id, ModelLayer(pulled(layer))).held = True

    @rule(data=contents())
    def push_with_a_wrong_digest(self, data: bytes) -> None:
        with pytest.raises(LayerstoreError, match="expected"):
            self.store.push_layer(data, expected=sha256(b"something else"), decode="never")

    @rule(
        data=contents(),
        form=st.sampled_from(["gzip", "gzip", "zstd", "blake3"]),
        lease=st.one_of(st.none(), st.integers(0, 9)),
    )
    def push_blob(self, data: bytes, form: str, lease: int | None) -> None:
        blob = {"gzip": lambda: gzip.compress(data, 6, mtime=0), "zstd": lambda: zstd.compress(data, 3)}.get(
            form, lambda: data
        )()
        digest = Digest.of(blob, "blake3" if form == "blake3" else "sha256")
        names = self.live_leases()
        name = names[lease % len(names)] if lease is not None and names else None
        result = self.store.push_blob(blob, digest=digest, lease=None if name is None else self.leases[name][0])
        diff_id = sha256(data)
        assert (result.diff_id, result.size) == (diff_id, len(blob))
        assert result.already_present == (digest in self.encodings or (form == "blake3" and diff_id in self.layers))
        is_new = digest not in self.encodings
        encoding = self.encodings.setdefault(digest, ModelEncoding(blob, diff_id, is_raw=form != "blake3"))
        layer = self.layers.setdefault(diff_id, ModelLayer(data))
        if name is None:
            encoding.held = True
        else:
            for one in (encoding, layer) if is_new else (encoding,):
                one.leases[name] = self.leases[name][1]

    @precondition(lambda self: self.encodings)
    @rule(number=st.integers(0, 99))
    def release_blob(self, number: int) -> None:
        known = sorted(self.encodings)
        digest = known[number % len(known)]
        if any(digest in image.blobs for image in self.images.values()):
            with pytest.raises(LayerInUseError):
                self.store.release_blob(digest)
            return
        self.store.release_blob(digest)
        self.encodings[digest].held = False

    @rule()
    def prove(self) -> None:
        report = self.store.prove_encodings()
        assert not report.damaged
        for digest, encoding in self.encodings.items():
            kept_as = self.store.encodings[digest].kept_as
            if encoding.is_raw:
                encoding.is_raw = encoding.blob[:2] != b"\x1f\x8b"
                assert kept_as == ("raw" if encoding.is_raw else "recipe")

    @precondition(lambda self: self.encodings)
    @rule(number=st.integers(0, 99), start=st.integers(0, 60_000))
    def read_a_blob(self, number: int, start: int) -> None:
        known = sorted(self.encodings)
        digest = known[number % len(known)]
        blob = self.encodings[digest].blob
        start %= len(blob) + 1
        assert b"".join(self.store.blob_blocks(digest, start=start)) == blob[start:]

    @precondition(lambda self: self.encodings)
    @rule(
        chosen=st.lists(st.integers(0, 99), min_size=1, max_size=3),
        tag=st.one_of(st.none(), st.sampled_from(TAGS)),
        in_index=st.booleans(),
    )
    def put_image_of_blobs(self, chosen: list[int], tag: str | None, in_index: bool) -> None:
        self.tick()
        known = sorted(self.encodings)
        digests = [known[number % len(known)] for number in chosen]
        diff_ids = [self.encodings[digest].diff_id for digest in digests]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        layers = [
            Descriptor(media_type=OCI_LAYER_GZIP, digest=one, size=len(self.encodings[one].blob)) for one in digests
        ]
        named = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
        root, documents = serialize(image_manifest(named, layers)), [config]
        if in_index:
            child = {"mediaType": OCI_MANIFEST, "digest": sha256(root), "size": len(root)}
            documents.append(root)
            root = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
            diff_ids = list(dict.fromkeys(diff_ids))
        image = self.store.put_image(root, documents=documents, tag=tag)
        assert image.is_index == in_index
        model = self.images.setdefault(image.digest, ModelImage(diff_ids, blobs=tuple(dict.fromkeys(digests))))
        if model.expires is not None:
            self._restore(model, with_tags=False)
        for digest in model.blobs:
            self.encodings[digest].held = self.layers[self.encodings[digest].diff_id].held = False
        if tag is not None:
            self._set_tag(tag, image.digest)

    @precondition(lambda self: self.layers)
    @rule(
        chosen=st.lists(st.integers(0, 99), min_size=1, max_size=3),
        base=st.one_of(st.none(), st.integers(0, 99)),
        tag=st.one_of(st.none(), st.sampled_from(TAGS)),
    )
    def create_image(self, chosen: list[int], base: int | None, tag: str | None) -> None:
        self.tick()
        known = sorted(self.layers)
        diff_ids = [known[number % len(known)] for number in chosen]
        live = self.live_images()
        live = [one for one in live if not self.store.images[one].is_index]
        base_digest = live[base % len(live)] if base is not None and live else None
        below = self.images[base_digest].layers if base_digest is not None else []
        assume(len(below) < 9)
        image = self.store.create_image(diff_ids, base=base_digest, tag=tag, architecture="amd64")
        blobs = () if base_digest is None else self.images[base_digest].blobs
        # A layer may be an encoding, too, whose digest is that of another algorithm: none of these is named here.
        model = self.images.setdefault(image.digest, ModelImage([*below, *diff_ids], blobs=blobs))
        assert model.layers == [*below, *diff_ids]
        if model.expires is not None:
            self._restore(model, with_tags=False)
        for diff_id in model.layers:
            self.layers[diff_id].held = False
        for digest in model.blobs:
            self.encodings[digest].held = False
        if tag is not None:
            self._set_tag(tag, image.digest)

    @precondition(lambda self: self.live_images())
    @rule(tag=st.sampled_from(TAGS), image=st.integers(0, 99))
    def set_tag(self, tag: str, image: int) -> None:
        live = self.live_images()
        digest = live[image % len(live)]
        self.store.tags[tag] = digest
        self._set_tag(tag, digest)

    @rule(tag=st.sampled_from(TAGS))
    def remove_tag(self, tag: str) -> None:
        owner = self._owner(tag)
        if owner is None:
            with pytest.raises(TagNotFoundError):
                del self.store.tags[tag]
        else:
            del self.store.tags[tag]
            owner.tags.discard(tag)

    @precondition(lambda self: self.live_images())
    @rule(image=st.integers(0, 99), ttl=st.sampled_from([0.0, TTL]))
    def delete_image(self, image: int, ttl: float) -> None:
        self.tick()
        live = self.live_images()
        digest = live[image % len(live)]
        model = self.images[digest]
        assert self.store.delete_image(digest, ttl=ttl) == sorted(model.tags)
        model.tags_in_trash, model.tags = tuple(sorted(model.tags)), set()
        model.deleted, model.expires = self.now, self.now + int(ttl * NANOSECONDS)
        with pytest.raises(ImageNotFoundError):
            self.store.images[digest]

    @precondition(lambda self: self.trashed())
    @rule(image=st.integers(0, 99))
    def undelete(self, image: int) -> None:
        trashed = self.trashed()
        digest = trashed[image % len(trashed)]
        assert self.store.undelete_image(digest).digest == digest
        self._restore(self.images[digest])

    @rule(tag=st.sampled_from(TAGS))
    def undelete_by_tag(self, tag: str) -> None:
        found = [(self.images[one].deleted, one) for one in self.trashed() if tag in self.images[one].tags_in_trash]
        if not found:
            with pytest.raises(ImageNotFoundError):
                self.store.undelete_image(tag)
            return
        digest = max(found)[1]
        assert self.store.undelete_image(tag).digest == digest
        self._restore(self.images[digest])

    @precondition(lambda self: self.layers)
    @rule(number=st.integers(0, 99))
    def release(self, number: int) -> None:
        known = sorted(self.layers)
        diff_id = known[number % len(known)]
        if any(diff_id in image.layers for image in self.images.values()):
            with pytest.raises(LayerInUseError):
                self.store.release_layer(diff_id)
            return
        self.store.release_layer(diff_id)
        self.layers[diff_id].held = False

    @precondition(lambda self: len(self.leases) < 4)
    @rule()
    def make_lease(self) -> None:
        lease = self.store.lease(TTL)
        self.leases[lease.name] = (lease, self.now + int(TTL * NANOSECONDS))

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 9))
    def renew_lease(self, number: int) -> None:
        name = list(self.leases)[number % len(self.leases)]
        lease, end = self.leases[name]
        if end <= self.now:
            with pytest.raises(LeaseEndedError):
                lease.renew(TTL)
            return
        lease.renew(TTL)
        end = self.now + int(TTL * NANOSECONDS)
        self.leases[name] = (lease, end)
        for layer in [*self.layers.values(), *self.encodings.values()]:
            if name in layer.leases:
                layer.leases[name] = end

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 9))
    def end_lease(self, number: int) -> None:
        name = list(self.leases)[number % len(self.leases)]
        lease, _ = self.leases.pop(name)
        lease.end()
        for layer in [*self.layers.values(), *self.encodings.values()]:
            layer.leases.pop(name, None)
        with pytest.raises(LeaseEndedError):
            self.store.push_layer(b"too late", lease=lease)

    @rule(part=st.sampled_from([0.6, 1.1]))
    def wait(self, part: float) -> None:
        self.now += int(part * TTL * NANOSECONDS)

    @rule(empty_trash=st.booleans())
    def make_plan(self, empty_trash: bool) -> None:
        """A plan that may be carried out much later."""
        self.plan = self.store.plan_collection(empty_trash=empty_trash)

    @precondition(lambda self: self.plan is not None)
    @rule()
    def collect_an_old_plan(self) -> None:
        plan, self.plan = self.plan, None
        self.store.collect_garbage(plan)
        # Of what the plan names, that goes which nothing has come to keep since.
        self._forget_images([digest for digest in plan.images if digest in self.trashed()])
        for digest in plan.encodings:
            if digest in self.encodings and not self.is_encoding_kept(digest):
                del self.encodings[digest]
        for diff_id in plan.layers:
            if diff_id in self.layers and not self.is_kept(diff_id):
                del self.layers[diff_id]

    @rule(empty_trash=st.booleans())
    def collect(self, empty_trash: bool) -> None:
        due = [one for one in self.trashed() if empty_trash or (self.images[one].expires or 0) <= self.now]
        going = {diff_id for diff_id in self.layers if not self.is_kept(diff_id, frozenset(due))}
        blobs = {digest for digest in self.encodings if not self.is_encoding_kept(digest, frozenset(due))}
        plan = self.store.plan_collection(empty_trash=empty_trash)
        assert (set(plan.images), set(plan.layers), set(plan.encodings)) == (set(due), going, blobs)
        before = packs_on_disk(self.store) + raw_on_disk(self.store)
        report = self.store.collect_garbage(plan)
        assert (report.images, report.layers, report.postponed) == (len(due), len(going), 0)
        assert report.encodings == len(blobs)
        assert report.bytes_freed == plan.bytes_freed
        freed = before - packs_on_disk(self.store) - raw_on_disk(self.store)
        assert freed == report.bytes_freed + report.bytes_freed_by_rewriting
        self._forget_images(due)
        for digest in blobs:
            del self.encodings[digest]
        for diff_id in going:
            del self.layers[diff_id]
            with pytest.raises(LayerNotFoundError):
                self.store.layers[diff_id]
        again = self.store.collect_garbage()
        assert (again.images, again.layers, again.chunks, again.packs, again.frames) == (0, 0, 0, 0, 0)

    @rule(keep=st.integers(1, 2))
    def prune(self, keep: int) -> None:
        self.tick()
        plan = self.store.plan_prune(keep_last=keep, older_than=timedelta(0))
        done = self.store.prune(plan)
        assert done.images == plan.images
        for item in plan.images:
            model = self.images[item.digest]
            assert sorted(model.tags) == list(item.tags)
            model.tags_in_trash, model.tags = item.tags, set()
            model.deleted, model.expires = self.now, self.now + self.store.config.trash_ttl_seconds * NANOSECONDS

    @rule(read_only=st.booleans())
    def reopen(self, read_only: bool) -> None:
        self.store.close()
        with pytest.raises(StoreClosedError):
            self.store.stats()
        if read_only:
            with Store.open(self.folder / "store", read_only=True) as store:
                self.store = store
                self.everything_is_there()
        self.store = Store.open(self.folder / "store")
        self.leases = {name: (Lease(self.store._opened, name), end) for name, (_, end) in self.leases.items()}

    @rule()
    def repair_changes_nothing(self) -> None:
        before = self.store.stats()
        report = self.store.repair()
        assert (report.healed, report.lost, report.records_rewritten) == (0, 0, 0)
        after = self.store.stats()
        assert (after.chunks, after.frames, after.stored_bytes) == (before.chunks, before.frames, before.stored_bytes)

    @precondition(lambda self: self.layers)
    @rule(number=st.integers(0, 99), start=st.integers(0, 60_000), size=st.integers(0, 9000))
    def read_a_part(self, number: int, start: int, size: int) -> None:
        known = sorted(self.layers)
        diff_id = known[number % len(known)]
        with self.store.open_layer(diff_id) as reader:
            reader.seek(start)
            got = b""
            while more := reader.read(size - len(got)):
                got += more
        assert got == self.layers[diff_id].data[start : start + size]

    # --- helpers of the rules -------------------------------------------------------------------------------------

    def _owner(self, tag: str) -> ModelImage | None:
        return next((image for image in self.images.values() if tag in image.tags), None)

    def _set_tag(self, tag: str, digest: Digest) -> None:
        owner = self._owner(tag)
        if owner is not None:
            owner.tags.discard(tag)
        self.images[digest].tags.add(tag)

    def _restore(self, model: ModelImage, *, with_tags: bool = True) -> None:
        model.expires = None
        model.tags = {tag for tag in model.tags_in_trash if with_tags and self._owner(tag) is None}
        model.tags_in_trash = ()

    def _forget_images(self, digests: list[Digest]) -> None:
        for digest in digests:
            del self.images[digest]

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def names_agree(self) -> None:
        store = self.store
        assert set(store.layers) == set(self.layers)
        assert set(store.images) == set(self.live_images())
        assert set(store.encodings) == set(self.encodings)
        tags = {tag: digest for digest, image in self.images.items() for tag in image.tags}
        assert dict(store.tags) == tags
        assert all(store.images[tag].digest == digest for tag, digest in tags.items())

    @invariant()
    def figures_agree(self) -> None:
        stats = self.store.stats()
        assert (stats.images, stats.trash_images) == (len(self.live_images()), len(self.trashed()))
        assert stats.layers == len(self.layers)
        assert stats.unique_bytes == sum(len(layer.data) for layer in self.layers.values())
        assert stats.stored_bytes == packs_on_disk(self.store)
        assert 0 <= stats.dead_bytes <= stats.stored_bytes
        assert not list((self.folder / "store" / "tmp").iterdir())
        assert stats.raw_bytes == raw_on_disk(self.store)
        assert stats.raw_bytes == sum(len(one.blob) for one in self.encodings.values() if one.is_raw)

    @invariant()
    def everything_is_there(self) -> None:
        for diff_id, layer in self.layers.items():
            assert pulled(self.store.layers[diff_id]) == layer.data
        for digest in self.live_images():
            image, model = self.store.images[digest], self.images[digest]
            assert [layer.diff_id for layer in image.layers] == model.layers
            assert image.tags == sorted(model.tags)
            assert image.size == sum(len(self.layers[diff_id].data) for diff_id in model.layers)
        for digest, encoding in self.encodings.items():
            assert b"".join(self.store.blob_blocks(digest)) == encoding.blob

    @invariant()
    def verify_is_clean(self) -> None:
        check_without_child(self.store)

    def teardown(self) -> None:
        try:
            assert self.store.verify().is_clean
            for digest in self.live_images():
                self.store.delete_image(digest, ttl=0)
            self.store.collect_garbage(self.store.plan_collection(empty_trash=True))
            for lease, _ in self.leases.values():
                lease.end()
            for digest in self.store.encodings:
                self.store.release_blob(digest)
            for diff_id in self.store.layers:
                self.store.release_layer(diff_id)
            self.store.collect_garbage()
            assert (len(self.store.layers), len(self.store.images), self.store.stats().chunks) == (0, 0, 0)
            assert packs_on_disk(self.store) == 48 * len(list((self.store.path / "packs").iterdir()))
            assert self.store.verify(full=False).is_clean
        finally:
            self.store.close()
            self.patch.undo()
            shutil.rmtree(self.folder)


TestStoreMachine = StoreMachine.TestCase
if settings.get_current_profile_name() == "default":
    TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=30)
