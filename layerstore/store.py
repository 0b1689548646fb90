"""The store: the one object that a program opens. It is a thin facade over `layerstore.operations`."""

import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from layerstore.decoding import Encoding
from layerstore.digest import Digest, PromisedDigest, reads_as_digest
from layerstore.errors import InvalidOptionError
from layerstore.mounting.client import Mount, mount_view
from layerstore.objects import Containers, Encodings, Image, Images, Layer, Layers, Lease, Tags, Trash
from layerstore.oci.config import HistoryEntry
from layerstore.operations import blobs as blob_operations
from layerstore.operations import images as image_operations
from layerstore.operations.backup import BackupReport, backup
from layerstore.operations.blob_reader import BlobReader, blob_blocks, find_blob, read_document
from layerstore.operations.blobs import PushedBlob
from layerstore.operations.collect import CollectionPlan, CollectionReport, collect, plan_collection
from layerstore.operations.compare import ByteRange, compare_contents
from layerstore.operations.compose import compose_image
from layerstore.operations.difference import Difference, make_difference
from layerstore.operations.difference_apply import ReceivedDifference, push_difference
from layerstore.operations.layer_reader import LayerReader
from layerstore.operations.leases import make_lease
from layerstore.operations.prove import ProofReport, prove_encodings
from layerstore.operations.prune import PrunePlan, plan_prune, prune
from layerstore.operations.push import Decode, Pushed, push
from layerstore.operations.rebuild import RebuildReport, rebuild_index
from layerstore.operations.repair import RepairReport, repair
from layerstore.operations.source import LayerSource, open_source
from layerstore.operations.stats import ImageUsage, Stats, image_usage, store_stats
from layerstore.operations.upgrade import UpgradeReport, upgrade
from layerstore.operations.upload import Holder
from layerstore.operations.verify import VerifyReport, verify
from layerstore.operations.why import Why, why
from layerstore.progress import OnProgress
from layerstore.storage.layout import (
    StoreConfig,
    create_layout,
    make_missing_folders,
    new_config,
    open_layout,
    remove_layout,
    sync_layout,
    write_config,
)
from layerstore.storage.opened import OpenedStore
from layerstore.tar.tree import tree_blocks
from layerstore.union.changes import Change
from layerstore.union.file_system import FileSystem
from layerstore.union.stack_changes import diff_file_systems
from layerstore.union.view import View

SKIPPED_MAX = 100
"""How many of the paths that were left out a `PushResult` names."""


class PushResult:
    """What `Store.push_layer` and `Store.push_tree` return."""

    def __init__(self, store: OpenedStore, pushed: Pushed) -> None:
        self.layer = Layer(store, pushed.diff_id)
        self.size = pushed.size
        """Bytes of the layer, uncompressed."""
        self.already_present = pushed.already_present
        """Whether the store had exactly this layer."""
        self.encoding: Encoding | None = pushed.encoding
        """How the source was compressed, if it was decoded. The compressed bytes themselves are not kept."""
        self.undecodable = pushed.undecodable
        """Why a source that looked compressed is kept as the bytes it is; empty otherwise."""
        self.bytes_new = pushed.totals.bytes_new
        """Uncompressed bytes of chunks that the store did not have."""
        self.bytes_stored = pushed.totals.bytes_stored
        """Bytes added to packs, compressed."""
        self.chunks_new = pushed.totals.chunks_new
        self.chunks_reused = pushed.totals.chunks_reused
        self.skipped_count = 0
        """How many paths of a directory were left out: its sockets."""
        self.skipped: tuple[bytes, ...] = ()
        """The first of them, relative to the directory; at most `SKIPPED_MAX`."""

    def __repr__(self) -> str:
        state = "already present" if self.already_present else f"{self.bytes_new} bytes new"
        return f"<PushResult {self.layer.diff_id} {state}>"


class Store:
    """A store of layers and images in a folder. Use it as a context manager, or call `close`.

    Threads may share it; other processes may use the same folder at the same time.
    """

    def __init__(self, opened: OpenedStore) -> None:
        self._opened = opened
        self.layers = Layers(opened)
        """All layers, by DiffID."""
        self.encodings = Encodings(opened)
        """All compressed blobs, by the digest of their bytes."""
        self.images = Images(opened)
        """All images, by tag or digest."""
        self.trash = Trash(opened)
        """Deleted images that can still be brought back, by digest."""
        self.containers = Containers(opened)
        """All containers, by name."""
        self.tags = Tags(opened)
        """All tags, as a mutable mapping to image digests."""

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        frame_size: int | None = None,
        pack_size_max: int | None = None,
        compression_level: int | None = None,
        trash_ttl: float | None = None,
        encoding_cache_max: int | None = None,
    ) -> Self:
        """Make a store in a new or empty folder, and open it.

        ``frame_size`` (bytes, 2 MiB by default) is how much is compressed together, ``pack_size_max`` (bytes, 64 MiB)
        when a pack is full, ``compression_level`` (5) that of zstd, ``trash_ttl`` (seconds, one day) how long a
        deleted image can be brought back, ``encoding_cache_max`` (bytes, 1 GiB) how much of compressed blobs that were
        made again is kept for the next who asks. Raises `StoreExistsError`, `UnsupportedPlaceError`,
        `InvalidOptionError`.
        """
        config = new_config(
            frame_size=frame_size,
            pack_size_max=pack_size_max,
            compression_level=compression_level,
            encoding_cache_max=encoding_cache_max,
            trash_ttl_seconds=None if trash_ttl is None else round(trash_ttl),
        )
        layout = create_layout(Path(path), config)
        try:
            opened = OpenedStore(layout, config, create=True)
            opened.journal.sync()  # makes the file: its name becomes durable with the others
            sync_layout(layout)
            write_config(layout, config)
        except BaseException:
            remove_layout(layout)  # so that the folder is as it was, and creating can be tried again
            raise
        return cls(opened)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, read_only: bool = False, compression_level: int | None = None
    ) -> Self:
        """Open a store that is there. Raises `StoreNotFoundError`; it never makes one.

        ``compression_level`` is that of zstd for what is pushed through this object, instead of the store's own: lower
        ones are faster. Raises `InvalidOptionError`.
        """
        layout, config = open_layout(Path(path))
        if compression_level is not None:
            new_config(compression_level=compression_level)  # which checks it
        if not read_only:
            make_missing_folders(layout)
        opened = OpenedStore(layout, config, read_only=read_only, compression_level=compression_level)
        try:
            if not read_only:
                opened.journal.check(opened.index)
        except BaseException:
            opened.close()
            raise
        return cls(opened)

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self._opened.layout.root

    @property
    def config(self) -> StoreConfig:
        """What was fixed when the store was created."""
        return self._opened.config

    def __repr__(self) -> str:
        return f"<Store {str(self.path)!r}{', read-only' if self._opened.read_only else ''}>"

    def close(self) -> None:
        """Close the store. A second call does nothing."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def push_layer(
        self,
        source: LayerSource | Iterable[bytes],
        *,
        decode: Literal["auto", "never"] = "auto",
        expected: str | None = None,
        lease: Lease | None = None,
        on_progress: OnProgress | None = None,
    ) -> PushResult:
        """Store a layer from a path, a binary file object (no seek needed), bytes or an iterable of blocks.

        With ``decode="auto"`` gzip and zstd are recognised by content and decoded, so that the layer is the tar; what
        cannot be decoded, and everything with ``decode="never"``, is kept as the bytes it is. ``expected`` is the
        digest that the source's bytes must have (`DigestMismatchError`). When this returns, the layer survives a
        power cut; it is kept until an image takes it over, it is released, or ``lease`` ends.
        """
        if decode not in tuple(Decode):
            raise InvalidOptionError(f"decode is one of {', '.join(Decode)}, not {decode!r}")
        with open_source(source) as opened:
            return self._push(opened, Decode(decode), expected, lease, on_progress)

    def push_tree(
        self,
        root: str | os.PathLike[str],
        *,
        mtime_max: int | None = None,
        lease: Lease | None = None,
        on_progress: OnProgress | None = None,
    ) -> PushResult:
        """Store a directory as a layer. The same tree gives the same layer.

        ``mtime_max`` (seconds since 1970) limits modification times, as ``SOURCE_DATE_EPOCH`` does elsewhere. Sockets
        are left out, since a tar cannot have them; the result names them.
        """
        skipped: list[bytes] = []
        blocks = tree_blocks(Path(root), mtime_max=mtime_max, on_skipped=skipped.append)
        with open_source(blocks, str(root)) as opened:
            result = self._push(opened, Decode.NEVER, None, lease, on_progress)
        result.skipped_count, result.skipped = len(skipped), tuple(skipped[:SKIPPED_MAX])
        return result

    def pull_layer(
        self,
        layer: Layer | str,
        target: "str | os.PathLike[str] | BinaryIO",
        *,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Write a layer to a path (all of it or nothing) or a file object; its size. Every byte is verified."""
        return self._layer(layer).pull(target, on_progress=on_progress)

    def open_layer(self, layer: Layer | str) -> LayerReader:
        """A layer as a seekable binary file."""
        return self._layer(layer).open()

    def view(self, layers: Sequence[Layer | str]) -> View:
        """A stack of layers, the lowest first, as one read-only file system. Close it: it keeps them from collection.

        Raises `InvalidInputError` for a stack that no tool could unpack: a hard link to nothing, a whiteout without a
        name, a path through a loop of symbolic links.
        """
        return View(self._opened, [self._layer(layer).diff_id for layer in layers])

    def mount(self, what: Image | Layer | str, target: str | os.PathLike[str]) -> Mount:
        """Mount an image, or a layer alone, read-only at a directory. `Image.mount` and `Container.mount` say more."""
        return mount_view(self.path, self.config.store_id, self._stack(what), Path(target))

    def release_layer(self, layer: Layer | str) -> None:
        """Keep a pushed layer no longer; collection takes it. Raises `LayerInUseError` if an image uses it."""
        image_operations.release_layer(self._opened, self._layer(layer).diff_id)

    def create_image(
        self,
        layers: Sequence[Layer | str],
        *,
        base: Image | str | None = None,
        tag: str | None = None,
        config: Mapping[str, Any] | None = None,
        architecture: str | None = None,
        operating_system: str = "linux",
        created: datetime | None = None,
        author: str | None = None,
        history: Sequence[HistoryEntry] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Image:
        """Make an image of layers that are in the store, the lowest first, on top of those of ``base``.

        ``config`` has the execution parameters under their OCI names (``Env``, ``Cmd``, …), merged over the base's;
        None removes one. ``architecture`` is this machine's by default. The same arguments give the same digest:
        ``created`` is left out unless given. When this returns, the image survives a power cut.
        """
        if architecture == "":
            raise InvalidOptionError("the architecture is empty; leave it out for this machine's")
        diff_ids = [self._layer(layer).diff_id for layer in layers]
        with self._opened.index.read() as transaction:
            sizes = {diff_id: image_operations.layer_record(transaction, diff_id).size for diff_id in diff_ids}
        documents = compose_image(
            sizes,
            diff_ids,
            base=None if base is None else self._image_or_part(base).documents,
            architecture=architecture or _ARCHITECTURES.get(platform.machine(), platform.machine()),
            operating_system=operating_system,
            created=created,
            author=author,
            config=config,
            history=history,
            annotations=annotations,
        )
        put = image_operations.put_image(self._opened, documents.manifest, [documents.config], tag=tag)
        return Image(self._opened, put)

    def put_image(
        self,
        manifest: bytes,
        config: bytes | None = None,
        *,
        documents: Iterable[bytes] = (),
        digest: str | None = None,
        tag: str | None = None,
        believe_blobs: bool = False,
    ) -> Image:
        """Store an image, index or artifact from its documents, byte for byte; its blobs must be in the store.

        ``manifest`` may be an index; ``config`` and ``documents`` are what else hangs on it and is not in the store
        yet: manifests of an index, configs. ``digest`` is its digest, sha256 unless given. An image that lies in the
        trash comes back, but without the tags it had; `undelete_image` brings those back, too. With ``believe_blobs``
        the config may say of its layers what it wants, as in a registry. Raises `InvalidManifestError`, and
        `LayerNotFoundError` if a blob is missing: then nothing was changed.
        """
        others = [*(() if config is None else (config,)), *documents]
        expected = None if digest is None else Digest(digest)
        put = image_operations.put_image(
            self._opened, manifest, others, digest=expected, tag=tag, believe_blobs=believe_blobs
        )
        return Image(self._opened, put)

    def push_blob(
        self,
        source: LayerSource | Iterable[bytes],
        *,
        digest: str | PromisedDigest,
        lease: Lease | None = None,
        give_file: bool | Path = False,
        on_progress: OnProgress | None = None,
    ) -> PushedBlob:
        """Store a blob of an image under ``digest``, which its bytes must have; it will be given back bit for bit.

        gzip and zstd are decoded, so that the layer is deduplicated; any other blob is a layer as it is. The source is
        not read if the store has the blob, unless its digest is only promised. What is pushed is kept as `push_layer`
        says. With ``give_file`` the source is the path of a file that nobody changes any more: where it can be, it is
        kept under a second name, and not copied. A path there is that of the file which has all bytes of the source
        when it has ended. Raises `DigestMismatchError`, and `OversizedError` for a decompression bomb.
        """
        self._opened.check_usable()
        given = give_file if isinstance(give_file, Path) else None
        if give_file is True and isinstance(source, (str, os.PathLike)):
            given = Path(source)
        with open_source(source) as opened:
            return blob_operations.push_blob(
                self._opened,
                opened,
                digest if isinstance(digest, PromisedDigest) else Digest(digest),
                holder=self._holder(lease),
                given=given,
                on_progress=on_progress,
            )

    def difference(self, digest: str, have: Iterable[str]) -> Difference | None:
        """A blob as what is needed to make it out of layers that another store has.

        ``have`` are DiffIDs; those that this store does not have are no help. None if the blob cannot be made of its
        layer (it is kept raw), or has too little in common with them. Close it. Raises `BlobNotFoundError`.
        """
        return make_difference(self._opened, Digest(digest), [Digest(one) for one in have])

    @staticmethod
    def open_difference(blocks: Iterable[bytes]) -> ReceivedDifference:
        """A difference that comes from another store, its head read: what it is of, and which layers it needs.

        Raises `UndecodableError` if it is none.
        """
        return ReceivedDifference(blocks)

    def push_difference(
        self,
        difference: ReceivedDifference,
        *,
        digest: str,
        lease: Lease | None = None,
        on_progress: OnProgress | None = None,
    ) -> PushedBlob:
        """Store the blob that a difference makes out of layers of this store, as `push_blob` would.

        Raises `UndecodableError` for what makes no sense, `LayerNotFoundError` if a base is missing, and
        `DigestMismatchError` if something else comes of it: then nothing was changed.
        """
        return push_difference(
            self._opened, difference, Digest(digest), holder=self._holder(lease), on_progress=on_progress
        )

    def has_blob(self, digest: str) -> bool:
        """Whether the store can give a blob back: a layer, or an encoding of one."""
        return blob_operations.has_blob(self._opened, Digest(digest))

    def keep_blob(self, digest: str, *, lease: Lease | None = None) -> bool:
        """Whether the store has a blob whole; if so, it is kept from now on as if it had just been pushed."""
        return blob_operations.keep_blob(self._opened, Digest(digest), self._holder(lease))

    def release_blob(self, digest: str) -> None:
        """Keep a pushed encoding no longer. Raises `LayerInUseError` if an image uses it."""
        blob_operations.release_blob(self._opened, Digest(digest))

    def blob_size(self, digest: str) -> int:
        """The bytes of a blob or document. Raises `BlobNotFoundError`."""
        return find_blob(self._opened, Digest(digest)).size

    def blob_blocks(self, digest: str, *, start: int = 0, threads: int = 1) -> Iterator[bytes]:
        """The exact bytes of a blob from byte ``start`` on, verified.

        ``threads`` is how many may make parts of it at once. Raises `BlobNotFoundError`, and `EncoderUnavailableError`
        for a blob that this installation has no encoder for.
        """
        return blob_blocks(self._opened, Digest(digest), start, threads)

    def open_blob(self, digest: str) -> BlobReader:
        """A blob as a seekable binary file. Raises `BlobNotFoundError`."""
        return BlobReader(self._opened, Digest(digest))

    def read_document(self, digest: str) -> bytes:
        """The exact bytes of a manifest, index or config. Raises `BlobNotFoundError`."""
        return read_document(self._opened, Digest(digest))

    def prove_encodings(
        self, digests: Iterable[str] | None = None, *, on_progress: OnProgress | None = None
    ) -> ProofReport:
        """Find out how blobs that are kept raw are made again, and keep the recipe in place of the bytes.

        Works off the queue of all that the encoders of this version were not tried on, or ``digests`` of it. A raw blob
        goes only when all of it was made again and compared. Raises `EncoderUnavailableError` where layerstore was
        installed without a compiler.
        """
        wanted = None if digests is None else [Digest(one) for one in digests]
        return prove_encodings(self._opened, wanted, on_progress)

    def delete_image(
        self, image: Image | str, *, ttl: float | None = None, only_tags: Collection[str] | None = None
    ) -> list[str]:
        """Move an image with all its tags into the trash; the tags.

        It stays there for ``ttl`` seconds, by default the store's ``trash_ttl``; 0 lets the next collection take it.
        With ``only_tags`` it loses those of them that it has, and stays where it is if it has any other, all in one
        step. To remove one tag of several, delete it from `tags`.
        """
        seconds = self.config.trash_ttl_seconds if ttl is None else ttl
        return image_operations.delete_image(self._opened, self._image(image).digest, seconds, only_tags)

    def undelete_image(self, reference: str) -> Image:
        """Bring an image back from the trash by its digest or a tag it had, with those of its tags that are free."""
        return Image(self._opened, image_operations.undelete_image(self._opened, reference))

    def lease(self, ttl: float) -> Lease:
        """A dated lease of ``ttl`` seconds, to be given to `push_layer`; it survives this process."""
        return Lease(self._opened, make_lease(self._opened, ttl))

    def plan_collection(self, *, empty_trash: bool = False) -> CollectionPlan:
        """What a collection would free now. ``empty_trash`` takes images out of the trash before their time."""
        return plan_collection(self._opened, empty_trash=empty_trash)

    def collect_garbage(
        self, plan: CollectionPlan | None = None, *, on_progress: OnProgress | None = None
    ) -> CollectionReport:
        """Carry out a plan, by default the one of this moment. Others may push, pull and delete meanwhile."""
        return collect(self._opened, plan or self.plan_collection(), on_progress)

    def plan_prune(
        self,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        max_size: int | None = None,
    ) -> PrunePlan:
        """Which images the rules would delete. All rules given must agree, except that ``max_size`` stands alone.

        ``keep_last``: of each repository (a tag's name before the colon), all but so many of the newest images.
        ``older_than``: images that came into the store longer ago. ``max_size``: the oldest images, until what the
        store's packs hold is at most so many bytes.
        """
        return plan_prune(self._opened, keep_last=keep_last, older_than=older_than, max_size=max_size)

    def prune(
        self,
        plan: PrunePlan | None = None,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        max_size: int | None = None,
    ) -> PrunePlan:
        """Delete images by rule or by a plan of `plan_prune`, not both; they go into the trash. What was deleted."""
        if plan is not None and (keep_last, older_than, max_size) != (None, None, None):
            raise InvalidOptionError("prune takes a plan or rules, not both: the plan was made by rules")
        if plan is None:
            plan = self.plan_prune(keep_last=keep_last, older_than=older_than, max_size=max_size)
        return prune(self._opened, plan)

    def verify(self, *, full: bool = True, on_progress: OnProgress | None = None) -> VerifyReport:
        """Recompute and report; nothing is changed. ``full`` reads every frame from disk, else records and counts."""
        return verify(self._opened, full=full, on_progress=on_progress)

    def repair(self, from_: "Store | None" = None, *, on_progress: OnProgress | None = None) -> RepairReport:
        """Heal what `verify` reports, with missing chunks from another store.

        Without one, damaged chunks are marked as lost, so that a push of the same content heals them.
        """
        return repair(self._opened, None if from_ is None else from_._opened, on_progress)

    def stats(self) -> Stats:
        """Sizes, counts and ratios of the whole store."""
        return store_stats(self._opened)

    def image_usage(self, image: Image | str) -> ImageUsage:
        """What an image occupies, shares, and has for itself."""
        return image_usage(self._opened, self._image(image).digest)

    def why(self, digest: str) -> Why:
        """What keeps a layer, an encoding or an image."""
        return why(self._opened, digest)

    def diff(self, old: "FileSystem | Image | Layer | str", new: "FileSystem | Image | Layer | str") -> list[Change]:
        """Which paths differ between what two images, layers, views or containers show, each directory first.

        Of images and layers no contents are read.
        """
        with ExitStack() as stack:
            before, after = (
                one if isinstance(one, FileSystem) else stack.enter_context(View(self._opened, self._stack(one)))
                for one in (old, new)
            )
            return diff_file_systems(self._opened, before, after)

    @staticmethod
    def diff_file(old: FileSystem, new: FileSystem, path: str | bytes) -> list[ByteRange]:
        """Which bytes differ between a file of two views or containers. What moved within it does not count as such."""
        with old.open(path) as before, new.open(path) as after:
            return compare_contents(before, after)

    def backup(self, target: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> BackupReport:
        """Copy the store, which may be in use, to another folder; only what changed since the last backup there."""
        return backup(self._opened, Path(target), on_progress)

    @staticmethod
    def rebuild_index(path: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> RebuildReport:
        """Make the index of a store anew from its packs and journal. No process may have the store open."""
        return rebuild_index(Path(path), on_progress)

    @staticmethod
    def upgrade(path: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> UpgradeReport:
        """Bring a store of an older format up to this version's. No process may have the store open."""
        return upgrade(Path(path), on_progress)

    def _push(
        self, source: Any, decode: Decode, expected: str | None, lease: Lease | None, on_progress: OnProgress | None
    ) -> PushResult:
        self._opened.check_usable()
        pushed = push(
            self._opened,
            source,
            holder=self._holder(lease),
            decode_mode=decode,
            expected=None if expected is None else Digest(expected),
            on_progress=on_progress,
        )
        return PushResult(self._opened, pushed)

    def _holder(self, lease: Lease | None) -> Holder:
        return Holder(self._opened.session.name, False) if lease is None else Holder(lease.name, True)

    def _layer(self, layer: Layer | str) -> Layer:
        return self.layers[layer.diff_id if isinstance(layer, Layer) else layer]

    def _image(self, image: Image | str) -> Image:
        return self.images[image.digest if isinstance(image, Image) else image]

    def _image_or_part(self, image: Image | str) -> Image:
        """An image of the store, or one that an index of it lists."""
        return Image(self._opened, image.digest) if isinstance(image, Image) else self.images[image]

    def _stack(self, what: "Image | Layer | str") -> list[Digest]:
        if isinstance(what, Layer):
            return [what.diff_id]
        if isinstance(what, str) and reads_as_digest(what):
            digest = Digest(what)
            if digest in self.layers:
                return [digest]
        return [layer.diff_id for layer in self._image_or_part(what).layers]


# The names that Go, and with it OCI, has for what `uname -m` prints.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
