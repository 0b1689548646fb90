"""The whole API against a model of dicts: whatever is done in whatever order, the store does what the model says."""

import io
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
from layerstore.errors import (
    ImageNotFoundError,
    LayerInUseError,
    LayerNotFoundError,
    LeaseEndedError,
    StoreClosedError,
    TagNotFoundError,
)
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
    tags_in_trash: tuple[str, ...] = ()
    deleted: int = 0


@dataclass
class ModelLayer:
    data: bytes
    held: bool = False
    """Kept for whoever pushed it, until it is released or becomes part of an image."""
    leases: dict[bytes, int] = field(default_factory=dict)


def check_without_child(store: Store) -> None:
    """`verify` in full, but for the walk through the index in a process of its own: that takes longer than the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_walk_in_child", lambda _: [])
        report = store.verify(full=True)
    assert report.is_clean, [problem.text for problem in report.problems]


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

    def is_kept(self, diff_id: Digest, without: frozenset[Digest] = frozenset()) -> bool:
        layer = self.layers[diff_id]
        if layer.held or any(end > self.now for end in layer.leases.values()):
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
        base_digest = live[base % len(live)] if base is not None and live else None
        below = self.images[base_digest].layers if base_digest is not None else []
        assume(len(below) < 9)
        image = self.store.create_image(diff_ids, base=base_digest, tag=tag, architecture="amd64")
        model = self.images.setdefault(image.digest, ModelImage([*below, *diff_ids]))
        assert model.layers == [*below, *diff_ids]
        if model.expires is not None:
            self._restore(model)
        for diff_id in model.layers:
            self.layers[diff_id].held = False
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
        for layer in self.layers.values():
            if name in layer.leases:
                layer.leases[name] = end

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 9))
    def end_lease(self, number: int) -> None:
        name = list(self.leases)[number % len(self.leases)]
        lease, _ = self.leases.pop(name)
        lease.end()
        for layer in self.layers.values():
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
        for diff_id in plan.layers:
            if diff_id in self.layers and not self.is_kept(diff_id):
                del self.layers[diff_id]

    @rule(empty_trash=st.booleans())
    def collect(self, empty_trash: bool) -> None:
        due = [one for one in self.trashed() if empty_trash or (self.images[one].expires or 0) <= self.now]
        going = {diff_id for diff_id in self.layers if not self.is_kept(diff_id, frozenset(due))}
        plan = self.store.plan_collection(empty_trash=empty_trash)
        assert (set(plan.images), set(plan.layers)) == (set(due), going)
        before = packs_on_disk(self.store)
        report = self.store.collect_garbage(plan)
        assert (report.images, report.layers, report.postponed) == (len(due), len(going), 0)
        assert report.bytes_freed == plan.bytes_freed
        assert before - packs_on_disk(self.store) == report.bytes_freed + report.bytes_freed_by_rewriting
        self._forget_images(due)
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

    def _restore(self, model: ModelImage) -> None:
        model.expires = None
        model.tags = {tag for tag in model.tags_in_trash if self._owner(tag) is None}
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

    @invariant()
    def everything_is_there(self) -> None:
        for diff_id, layer in self.layers.items():
            assert pulled(self.store.layers[diff_id]) == layer.data
        for digest in self.live_images():
            image, model = self.store.images[digest], self.images[digest]
            assert [layer.diff_id for layer in image.layers] == model.layers
            assert image.tags == sorted(model.tags)
            assert image.size == sum(len(self.layers[diff_id].data) for diff_id in model.layers)

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
