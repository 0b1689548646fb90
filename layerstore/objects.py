"""Layers and images of an open store, and the mappings that find them. Objects hold their store."""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, overload

from layerstore.containers.adding import add_files
from layerstore.containers.disk import prepare_container
from layerstore.containers.files import ContainerFiles
from layerstore.containers.layer import change_blocks
from layerstore.digest import Digest
from layerstore.encodings.encoders import EncoderNumber
from layerstore.encodings.recipe import Method, Recipe
from layerstore.errors import (
    BlobNotFoundError,
    ImageNotFoundError,
    InvalidInputError,
    InvalidManifestError,
    NotFoundError,
    TagNotFoundError,
)
from layerstore.mounting.client import Mount, mount_container, mount_view
from layerstore.oci.config import HistoryEntry, ImageConfig, chain_ids, parse_config, rfc3339
from layerstore.oci.documents import Descriptor, Index, Manifest, Platform, parse_image, parse_manifest
from layerstore.oci.media_types import CONFIGS, INDEXES, MANIFESTS
from layerstore.operations import images as image_operations
from layerstore.operations.blob_reader import BlobReader, read_document
from layerstore.operations.closure import layers_of, stack_of, stored_closure
from layerstore.operations.compose import compose_image
from layerstore.operations.containers import create_container, remove_container
from layerstore.operations.keeping import images_of
from layerstore.operations.layer_reader import LayerReader
from layerstore.operations.leases import end_lease, renew_lease
from layerstore.operations.listing import layer_entries
from layerstore.operations.prove import queued_encodings
from layerstore.operations.pull import find_layer, layer_blocks
from layerstore.operations.pull_target import pull_to
from layerstore.operations.push import Decode, push
from layerstore.operations.source import open_source
from layerstore.operations.stats import encoding_class
from layerstore.operations.upload import Holder
from layerstore.progress import OnProgress
from layerstore.storage.containers import ContainerFolder, container_folder, container_folders
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import EncodingRecord
from layerstore.tar.entries import TarEntry
from layerstore.union.view import View

V = TypeVar("V")
D = TypeVar("D")


class Layer:
    """A layer in a store: an uncompressed tar (or any bytes), named by its DiffID."""

    __slots__ = ("_store", "diff_id")

    def __init__(self, store: OpenedStore, diff_id: Digest) -> None:
        self._store = store
        self.diff_id = diff_id

    @property
    def size(self) -> int:
        """Bytes of the layer, uncompressed."""
        return find_layer(self._store, self.diff_id).size

    @property
    def created(self) -> datetime:
        """When the layer came into the store."""
        return _moment(find_layer(self._store, self.diff_id).created)

    @property
    def images(self) -> list["Image"]:
        """The images that it is part of, without those in the trash."""
        number = find_layer(self._store, self.diff_id).number
        with self._store.index.read() as transaction:
            digests = [digest for digest in images_of(transaction, number) if digest in transaction.images]
        return [Image(self._store, digest) for digest in digests]

    def open(self) -> LayerReader:
        """A seekable binary file of the layer's bytes. Close it: it keeps the layer from collection."""
        return LayerReader(self._store, self.diff_id)

    def blocks(self) -> Iterator[bytes]:
        """The layer's bytes in order, in blocks of about 1 MiB, verified.

        From the first block on, the iterator keeps the layer from collection, until it is exhausted or closed
        (``contextlib.closing`` does that for one that is left early).
        """
        return layer_blocks(self._store, self.diff_id)

    def pull(self, target: "str | os.PathLike[str] | BinaryIO", *, on_progress: OnProgress | None = None) -> int:
        """Write the layer to a file; its size. A path gets the whole layer or stays as it was."""
        return pull_to(self._store, self.diff_id, target, on_progress)

    def entries(self) -> Iterator[TarEntry]:
        """The entries of the tar, read from its skeleton alone."""
        return layer_entries(self._store, self.diff_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layer) and other.diff_id == self.diff_id and other._store is self._store

    def __hash__(self) -> int:
        return hash(self.diff_id)

    def __repr__(self) -> str:
        return f"<Layer {self.diff_id}>"


class LayerEncoding:
    """A compressed blob in a store: a layer in another form, given back bit for bit under its own digest."""

    __slots__ = ("_store", "digest")

    def __init__(self, store: OpenedStore, digest: Digest) -> None:
        self._store = store
        self.digest = digest

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self._record.size

    @property
    def layer(self) -> Layer:
        """The layer that it decodes to."""
        return Layer(self._store, self._record.diff_id)

    @property
    def kept_as(self) -> str:
        """``recipe``, ``queued``, ``raw`` or ``plain``: the class that `Store.stats` counts it in."""
        return encoding_class(self._record)

    @property
    def encoders(self) -> list[str]:
        """What makes it again, for example ``klauspost_1_18_2 level 5 in blocks of 1048576``; empty if it is raw."""
        recipe = self._record.recipe
        return [_describe(method) for method in Recipe.from_bytes(recipe).encoders] if recipe else []

    @property
    def is_available(self) -> bool:
        """Whether this installation can give it back."""
        recipe = self._record.recipe
        return not recipe or Recipe.from_bytes(recipe).is_available

    @property
    def images(self) -> list["Image"]:
        """The images whose manifests name it, without those in the trash."""
        with self._store.index.read() as transaction:
            digests = [one for one in images_of(transaction, self._record.number) if one in transaction.images]
        return [Image(self._store, digest) for digest in digests]

    def open(self) -> BlobReader:
        """A seekable binary file of the blob's bytes."""
        return BlobReader(self._store, self.digest)

    @property
    def _record(self) -> EncodingRecord:
        with self._store.index.read() as transaction:
            record = transaction.encodings.get(self.digest)
        if record is None:
            raise BlobNotFoundError(f"the store has no encoding {self.digest}")
        return record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerEncoding) and other.digest == self.digest and other._store is self._store

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<LayerEncoding {self.digest}>"


class Image:
    """An image, index or artifact in a store: its documents, kept byte for byte, and its layers in order."""

    __slots__ = ("_store", "digest")

    def __init__(self, store: OpenedStore, digest: Digest) -> None:
        self._store = store
        self.digest = digest

    @property
    def manifest_bytes(self) -> bytes:
        """The exact bytes of the manifest or index; `digest` is their digest."""
        return read_document(self._store, self.digest)

    @property
    def is_index(self) -> bool:
        """Whether it is an index: images for several platforms under one digest."""
        return isinstance(parse_image(self.manifest_bytes), Index)

    @property
    def descriptor(self) -> Descriptor:
        """What names it in an index or a layout: media type, digest, size."""
        data = self.manifest_bytes
        document = parse_image(data)
        artifact_type = document.artifact_type
        if isinstance(document, Manifest) and artifact_type is None and document.config.media_type not in CONFIGS:
            artifact_type = document.config.media_type  # as manifest.md has it
        return Descriptor(
            media_type=document.media_type, digest=self.digest, size=len(data), artifact_type=artifact_type
        )

    @property
    def platforms(self) -> list[tuple[Platform | None, "Image"]]:
        """Of an index, its images with their platforms, as it lists them; empty for one image."""
        document = parse_image(self.manifest_bytes)
        if not isinstance(document, Index):
            return []
        return [
            (child.platform, Image(self._store, child.digest))
            for child in document.manifests
            if child.media_type in MANIFESTS | INDEXES
        ]

    @property
    def config_bytes(self) -> bytes:
        """The exact bytes of the config."""
        return self.documents.config

    @property
    def manifest(self) -> Manifest:
        """The parsed manifest. Raises `InvalidManifestError` for an index, as `config` does."""
        return parse_manifest(self.manifest_bytes)

    @property
    def config(self) -> ImageConfig:
        """The parsed config."""
        return parse_config(self.config_bytes)

    @property
    def config_digest(self) -> Digest:
        """The digest of the config: what Docker calls the image ID."""
        return Digest.of(self.config_bytes)

    @property
    def layers(self) -> list[Layer]:
        """The layers, the lowest first; of an index, those of all its images, each once.

        Where a config contradicts the blobs it is what the blobs decode to.
        """
        document = parse_image(self.manifest_bytes)
        has_config = isinstance(document, Manifest) and document.config.media_type in CONFIGS
        with self._store.index.read() as transaction:
            try:
                diff_ids = stack_of(transaction, self.digest) if has_config else layers_of(transaction, self.digest)
            except InvalidManifestError:
                diff_ids = layers_of(transaction, self.digest)
        return [Layer(self._store, diff_id) for diff_id in diff_ids]

    @property
    def _stack(self) -> list[Digest]:
        """The layers of its files. Raises `InvalidManifestError` if it has none, or contradicts itself."""
        with self._store.index.read() as transaction:
            return stack_of(transaction, self.digest)

    @property
    def chain_ids(self) -> list[Digest]:
        """The ChainID of each layer on those below it (OCI image specification, config.md, "Layer ChainID")."""
        return chain_ids(self.config.diff_ids)

    @property
    def size(self) -> int:
        """Bytes of all layers, uncompressed."""
        return sum(layer.size for layer in self.layers)

    @property
    def blobs(self) -> list[Digest]:
        """The blobs that its manifest names as layers, in order; of an index, those of all its images, each once."""
        with self._store.index.read() as transaction:
            return list(stored_closure(transaction, self.digest).blob_digests)

    @property
    def created(self) -> datetime:
        """When the image came into the store."""
        with self._store.index.read() as transaction:
            record = transaction.images.get(self.digest)
        if record is None:
            raise ImageNotFoundError(f"the store has no image {self.digest}")
        return _moment(record.created)

    @property
    def tags(self) -> list[str]:
        """The tags that name it, sorted."""
        with self._store.index.read() as transaction:
            return image_operations.tags_of(transaction, self.digest)

    @property
    def documents(self) -> image_operations.ImageDocuments:
        """Manifest and config as exact bytes. Raises `InvalidManifestError` for an index."""
        with self._store.index.read() as transaction:
            return image_operations.documents_of(transaction, self.digest)

    def view(self) -> View:
        """Its layers as one read-only file system. Close it: it keeps them from collection.

        Raises `InvalidManifestError` for an index (which of its `platforms` is meant?), and for an image whose config
        contradicts its blobs.
        """
        return View(self._store, self._stack)

    def mount(self, target: str | os.PathLike[str]) -> Mount:
        """Mount its files read-only at a directory. Use it as a context manager, or call `Mount.unmount`.

        The mount outlives this process. Raises `MountUnavailableError` where FUSE is missing.
        """
        layout, config = self._store.layout, self._store.config
        return mount_view(layout.root, config.store_id, self._stack, Path(target))

    def container(self, name: str | None = None, *, is_temporary: bool = False) -> "Container":
        """A new container of this image, named ``name`` or by its id; `Store.containers` finds it again.

        It keeps the layers, be the image deleted or not. One that ``is_temporary`` is removed by the next collection
        when this store is closed, or its process has ended, and nothing runs in it. Raises `ContainerExistsError`,
        `InvalidReferenceError`, and `UnsupportedPlaceError` where the disk cannot hold one.
        """
        layers = tuple(self._stack)
        documents = self.documents
        owners_kept = os.geteuid() != 0
        with View(self._store, layers) as view:
            folder = create_container(
                self._store,
                name,
                self.digest,
                layers,
                (documents.manifest, documents.config),
                owners_kept=owners_kept,
                prepare=partial(prepare_container, owners_kept=owners_kept, root=view.lstat(b"")),
                is_temporary=is_temporary,
            )
        return Container(self._store, folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and other.digest == self.digest and other._store is self._store

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Image {self.digest}>"


class Container(ContainerFiles):
    """An image's files under one writable layer. Reading needs nothing; `close` it, or use it as a context manager.

    What `ContainerFiles` has changes the layer; `changes` tells what was changed and `commit` makes an image of it.
    """

    def __init__(self, store: OpenedStore, folder: ContainerFolder) -> None:
        description = folder.read()
        super().__init__(folder, description, lambda: View(store, description.layers), store.check_writable)
        self._store = store

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self._folder.name

    @property
    def image(self) -> Digest:
        """The image that it was made of; the store may not have it any more."""
        return self.description.image

    @property
    def layers(self) -> list[Layer]:
        """The layers that it stands on, the lowest first."""
        return [Layer(self._store, diff_id) for diff_id in self.description.layers]

    @property
    def created(self) -> datetime:
        """When it was made."""
        return _moment(self.description.created)

    @property
    def documents(self) -> image_operations.ImageDocuments:
        """Manifest and config of its image as exact bytes."""
        return image_operations.ImageDocuments(*self._folder.read_documents())

    @property
    def config(self) -> ImageConfig:
        """The config of its image."""
        return parse_config(self.documents.config)

    @property
    def is_in_use(self) -> bool:
        """Whether it is mounted, or being changed, at this moment by someone else."""
        return self._lock is None and self._folder.is_locked

    def add(self, source: str | os.PathLike[str], target: str | bytes, *, keep_owners: bool = False) -> int:
        """Copy a file or directory of this machine to a path; how many files and directories.

        Of links only ``source`` itself is followed. Files are replaced and directories merged; owners come along with
        ``keep_owners`` only, else all is root's.
        """
        return add_files(self, source, target, keep_owners=keep_owners)

    def commit(
        self,
        tag: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        created: datetime | None = None,
        author: str | None = None,
        comment: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Image:
        """Make an image of what the container shows: its image's layers, and one of its changes if there are any.

        The same changes give the same layer and image. ``config`` is as for `Store.create_image`; ``author`` and
        ``comment`` stand in its history. The container stays as it is, also if the image is there. When this returns,
        the image survives a power cut.
        """
        self._store.check_writable()
        diff_ids, sizes = [], {}
        changes = self.changed()
        first = next(changes, None)
        if first is not None:
            with open_source(change_blocks(self, chain([first], changes)), f"container {self.name}") as source:
                holder = Holder(self._store.session.name, False)
                pushed = push(self._store, source, holder=holder, decode_mode=Decode.NEVER, on_progress=on_progress)
            diff_ids, sizes = [pushed.diff_id], {pushed.diff_id: pushed.size}
        entry = HistoryEntry(
            created=None if created is None else rfc3339(created),
            author=author,
            created_by="layerstore commit",
            comment=comment,
            empty_layer=not diff_ids,
        )
        documents = compose_image(
            sizes,
            diff_ids,
            base=self.documents,
            architecture="",
            operating_system="",
            created=created,
            author=author,
            config=config,
            history=[entry],
            annotations=None,
        )
        digest = image_operations.put_image(self._store, documents.manifest, [documents.config], tag=tag)
        return Image(self._store, digest)

    def mount(self, target: str | os.PathLike[str]) -> Mount:
        """Mount it at a directory, to be read and written there; until it is unmounted nobody else may change it.

        Raises `ContainerInUseError`, and what `Image.mount` raises. What was changed here is durable and seen there.
        """
        self.close()
        layout, config = self._store.layout, self._store.config
        folder = self._folder
        return mount_container(
            layout.root,
            config.store_id,
            self.description.layers,
            Path(target),
            upper=folder.upper,
            work=folder.work,
            lock=folder.lock_file,
            user_xattrs=self.description.owners_kept,
        )

    def remove(self) -> None:
        """Remove it with its changes. Raises `ContainerInUseError` while it is mounted, or changed elsewhere."""
        self.close()
        remove_container(self._store, self.name)

    def __repr__(self) -> str:
        return f"<Container {self.name}>"


class _NamedMapping(Mapping[str, V]):
    """A mapping that asks whether it has something without an error, as other mappings do, whatever it is asked for.

    What is no name at all cannot be there. Only ``mapping[name]`` says what is wrong with it.
    """

    def __init__(self, store: OpenedStore) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {str(self._store.layout.root)!r}>"

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    @overload
    def get(self, name: object, default: None = None, /) -> V | None: ...
    @overload
    def get(self, name: object, default: V | D, /) -> V | D: ...
    def get(self, name: object, default: object = None, /) -> object:
        """What is there under that name; ``default`` if nothing is, or if it is no name."""
        try:
            return self[name] if isinstance(name, str) else default
        except (NotFoundError, InvalidInputError):
            return default


class Layers(_NamedMapping[Layer]):
    """All layers of a store by DiffID."""

    def __getitem__(self, diff_id: str) -> Layer:
        digest = Digest(diff_id)
        find_layer(self._store, digest)
        return Layer(self._store, digest)

    def __iter__(self) -> Iterator[Digest]:
        with self._store.index.read() as transaction:
            return iter(list(transaction.layers))

    def __len__(self) -> int:
        with self._store.index.read() as transaction:
            return len(transaction.layers)


class Encodings(_NamedMapping[LayerEncoding]):
    """All encodings of layers, by the digest of the blob."""

    def __getitem__(self, digest: str) -> LayerEncoding:
        encoding = LayerEncoding(self._store, Digest(digest))
        _ = encoding.size  # raises if there is none
        return encoding

    def __iter__(self) -> Iterator[Digest]:
        with self._store.index.read() as transaction:
            return iter(list(transaction.encodings))

    def __len__(self) -> int:
        with self._store.index.read() as transaction:
            return len(transaction.encodings)

    def queued(self) -> list[Digest]:
        """Those that `Store.prove_encodings` has not looked at, the smallest blobs first."""
        return queued_encodings(self._store)


class Images(_NamedMapping[Image]):
    """All images of a store. A key is a tag, a digest, or a unique beginning of a digest's hex (12 digits or more)."""

    def __getitem__(self, reference: str) -> Image:
        with self._store.index.read() as transaction:
            return Image(self._store, image_operations.resolve(transaction, reference))

    def __iter__(self) -> Iterator[Digest]:
        """The digests, the oldest image first."""
        with self._store.index.read() as transaction:
            items = sorted((record.number, digest) for digest, record in transaction.images.items())
        return iter([digest for _, digest in items])

    def __len__(self) -> int:
        with self._store.index.read() as transaction:
            return len(transaction.images)


@dataclass(frozen=True, slots=True)
class DeletedImage:
    """An image in the trash."""

    digest: Digest
    tags: tuple[str, ...]
    """The tags that it had; `Store.undelete_image` gives it those back that are free then."""
    deleted: datetime
    expires: datetime
    """From then on collection may take it."""


class Trash(_NamedMapping[DeletedImage]):
    """The deleted images that can still be brought back, by digest."""

    def __getitem__(self, digest: str) -> DeletedImage:
        with self._store.index.read() as transaction:
            record = transaction.trash.get(Digest(digest))
        if record is None:
            raise ImageNotFoundError(f"the trash has no image {digest}")
        return DeletedImage(Digest(digest), record.tags, _moment(record.deleted), _moment(record.expires))

    def __iter__(self) -> Iterator[Digest]:
        with self._store.index.read() as transaction:
            return iter(list(transaction.trash))

    def __len__(self) -> int:
        with self._store.index.read() as transaction:
            return len(transaction.trash)


class Containers(_NamedMapping[Container]):
    """The containers of a store by name. `Image.container` makes one, `Container.remove` removes it."""

    def __getitem__(self, name: str) -> Container:
        return Container(self._store, container_folder(self._store.layout.root, name))

    def remove(self, name: str) -> None:
        """Remove one with its changes, be it damaged. Raises `ContainerNotFoundError`, `ContainerInUseError`."""
        remove_container(self._store, name)

    def __iter__(self) -> Iterator[str]:
        return iter([folder.name for folder in container_folders(self._store.layout.root)])

    def __len__(self) -> int:
        return len(list(iter(self)))


class Tags(_NamedMapping[Digest], MutableMapping[str, Digest]):
    """Tags and the digests of their images. Setting and deleting is durable when it returns."""

    def __getitem__(self, tag: str) -> Digest:
        name = image_operations.canonical_tag(tag)
        with self._store.index.read() as transaction:
            digest = transaction.tags.get(name)
        if digest is None:
            raise TagNotFoundError(f"the store has no tag {name}")
        return digest

    def __setitem__(self, tag: str, digest: str) -> None:
        image_operations.set_tag(self._store, tag, Digest(digest))

    def discard(self, tag: str, digest: str) -> bool:
        """Remove a tag if it names this image; whether it did. Nobody who sets it meanwhile loses it."""
        try:
            image_operations.remove_tag(self._store, tag, Digest(digest))
        except TagNotFoundError:
            return False
        return True

    def of_repository(self, name: str) -> dict[str, Digest]:
        """The tags of one repository, each without its name, and the digests of their images; in bytewise order."""
        prefix = f"{name}:"
        with self._store.index.read() as transaction:
            found = transaction.tags.items_with_prefix(prefix.encode())
            return {tag.removeprefix(prefix): digest for tag, digest in found}

    @staticmethod
    def check(tag: str) -> None:
        """Raise `InvalidReferenceError` if ``tag`` is a text that cannot be set."""
        image_operations.new_tag(tag)

    def __delitem__(self, tag: str) -> None:
        image_operations.remove_tag(self._store, tag)

    def __iter__(self) -> Iterator[str]:
        with self._store.index.read() as transaction:
            return iter(list(transaction.tags))

    def __len__(self) -> int:
        with self._store.index.read() as transaction:
            return len(transaction.tags)


class Lease:
    """A dated lease: what is pushed under it is kept until it ends, even if this process dies before.

    As a context manager it ends with the block. Layers that became part of an image by then stay with the image.
    """

    def __init__(self, store: OpenedStore, name: bytes) -> None:
        self._store = store
        self.name = name

    def renew(self, ttl: float) -> None:
        """Let it end ``ttl`` seconds from now. Raises `LeaseEndedError` if it has ended."""
        renew_lease(self._store, self.name, ttl)

    def end(self) -> None:
        """End it now."""
        end_lease(self._store, self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        return f"<Lease {self.name.hex()}>"


def _describe(method: Method) -> str:
    known = method.number in set(EncoderNumber)
    name = EncoderNumber(method.number).name.lower() if known else f"encoder {method.number}"
    return f"{name} level {method.level}" + (f" in blocks of {method.block_size}" if method.block_size else "")


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
