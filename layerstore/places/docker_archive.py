"""What ``docker save`` writes and ``docker load`` reads (moby, image/tarexport).

Up to Docker 24 the archive has ``manifest.json`` with the paths of configs and layers. From 25 on it is an OCI layout
as well, whose blobs ``manifest.json`` points to. Both are read; the latter is written, which all versions can load.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.decoding import Encoding, detect
from layerstore.digest import Digest, hasher
from layerstore.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    InvalidInputError,
    InvalidManifestError,
)
from layerstore.oci import media_types
from layerstore.oci.config import parse_config
from layerstore.oci.documents import (
    CONFIG_SIZE_MAX,
    DOCUMENT_SIZE_MAX,
    Descriptor,
    image_manifest,
    parse_index,
    serialize,
)
from layerstore.places.archive import blob_blocks_in, blob_size_in, layout_files_in
from layerstore.places.closure import Walker
from layerstore.places.content import verified_document
from layerstore.places.docker_documents import (
    MANIFEST_NAME,
    DockerEntry,
    configs_of,
    docker_root,
    entry_bytes,
    familiar,
    parse_entries,
)
from layerstore.places.index_file import (
    CONTAINERD_NAME,
    EMPTY_INDEX,
    INDEX_NAME,
    LAYOUT_NAME,
    index_roots,
    read_index,
)
from layerstore.places.names import full_name, is_tag, repository_of
from layerstore.places.place import LayoutFiles, Root, Writer, named_roots
from layerstore.places.platforms import WantedPlatform
from layerstore.places.tar_reader import LazyTarReader, Member, TarReader
from layerstore.places.tar_writer import TarWriter, blob_path, new_file

_LAYER_TYPES = {
    None: media_types.OCI_LAYER,
    Encoding.GZIP: media_types.OCI_LAYER_GZIP,
    Encoding.ZSTD: media_types.OCI_LAYER_ZSTD,
}


class DockerArchive:
    """A `Source`, of an archive that may be compressed with gzip or zstd, and a `Sink`, of a new archive.

    In the old form there are no manifests. They are made from the configs and layers, always the same ones from the
    same archive.
    """

    names_are_references = True
    blobs_are_verified = False
    jobs = 4

    def __init__(self, path: str | os.PathLike[str], *, platform: str | None = None) -> None:
        """``platform`` says which image of an index old programs load; without it, that for this machine."""
        self.path = Path(path)
        self.name = str(self.path)
        self.repository = repository_of(self.path.name)
        self._platform = WantedPlatform.of_this_machine() if platform is None else WantedPlatform.parse(platform)
        self._tar = LazyTarReader(self.path)
        self._lock = threading.Lock()
        self._old: _OldImages | None = None

    def roots(self) -> list[Root]:
        """The images of the archive. Raises `InvalidInputError` if the file is none."""
        with self._tar.opened() as tar:
            if _is_layout(tar):
                return self._layout_roots(tar)
            return self._old_images(tar).roots

    def layout_files(self) -> LayoutFiles | None:
        """See `Source`: None, since names and files of a Docker archive are its own."""
        return None

    def read_document(self, descriptor: Descriptor) -> bytes:
        """See `Source`."""
        with self.read_blob(descriptor) as blocks:
            return verified_document(descriptor, blocks)

    def blob_size(self, digest: Digest) -> int | None:
        """See `Source`. Raises `InvalidInputError` for a blob that is no regular file, or is cut."""
        with self._tar.opened() as tar:
            if _is_layout(tar):
                return blob_size_in(tar, digest)
            old = self._old_images(tar)
            if digest in old.documents:
                return len(old.documents[digest])
            return old.layers[digest].size if digest in old.layers else None

    @contextmanager
    def read_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        with self._tar.opened() as tar:
            if _is_layout(tar):
                yield blob_blocks_in(tar, descriptor)
                return
            old = self._old_images(tar)
            if descriptor.digest in old.documents:
                yield iter([old.documents[descriptor.digest]])
            elif descriptor.digest in old.layers:
                yield tar.blocks(old.layers[descriptor.digest], descriptor.size + 1)
            else:
                raise BlobNotFoundError(f"there is no blob {descriptor.digest} in {self.name}")

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """See `Sink`. Raises `ConflictError` if the file exists."""
        with new_file(self.path) as file:
            writer = TarWriter(file, self.name)
            yield writer
            entries = tuple(docker_root(root).descriptor for root in _each_once(writer.roots))
            writer.finish(
                parse_index(EMPTY_INDEX).model_copy(update={"manifests": entries}),
                {MANIFEST_NAME: entry_bytes(writer.roots, writer.documents, self._platform)},
            )

    def _old_images(self, tar: TarReader) -> "_OldImages":
        with self._lock:
            if self._old is None:
                self._old = _OldImages(tar, self.name)
            return self._old

    def _layout_roots(self, tar: TarReader) -> list[Root]:
        listed: dict[str, list[str]] = {}
        for entry in _entries(tar, self.name) if MANIFEST_NAME in tar else ():
            listed.setdefault(entry.Config, []).extend(entry.RepoTags)
        walker = Walker(self)
        roots = index_roots(read_index(layout_files_in(tar, self.name).index, self.name))
        annotated = [root.descriptor.annotations.get(CONTAINERD_NAME) for root in roots]
        # What a root is annotated with is its alone, even if others have the same config.
        taken = {familiar(name, self.name) for name in annotated if name}
        result = []
        for root, name in zip(roots, annotated, strict=True):
            if name:
                names = [familiar(name, self.name)]
            else:
                names = [one for one in self._listed_names(root, listed, walker) if one not in taken]
            result += named_roots(root.descriptor, names)
        return _each_once(result)

    def _listed_names(self, root: Root, listed: dict[str, list[str]], walker: Walker) -> list[str]:
        """The names of a root in ``listed``, which has names by paths of configs."""
        try:
            configs = configs_of(root.descriptor, walker.closure(root.descriptor).documents)
        except (BlobNotFoundError, InvalidManifestError):
            configs = set()  # whoever asks for this root is told
        names = [name for digest in sorted(configs) for name in listed.get(blob_path(digest), ())]
        if names or root.name is None:
            return [familiar(name, self.name) for name in names]
        return [full_name(self, root.name) if is_tag(root.name) else familiar(root.name, self.name)]


class _OldImages:
    """The images of an archive without manifests. Each layer is read once, for its digest."""

    def __init__(self, tar: TarReader, place: str) -> None:
        self._tar = tar
        self._place = place
        self._described: dict[Member, Descriptor] = {}
        self.documents: dict[Digest, bytes] = {}
        self.layers: dict[Digest, Member] = {}
        self.roots: list[Root] = []
        for entry in _entries(tar, place):
            manifest = self._manifest(entry)
            self.roots += named_roots(manifest, [familiar(name, place) for name in entry.RepoTags])
        self.roots = _each_once(self.roots)

    def _manifest(self, entry: DockerEntry) -> Descriptor:
        config = self._config(entry)
        diff_ids = parse_config(config).diff_ids
        if len(diff_ids) != len(entry.Layers):
            raise InvalidManifestError(
                f"{self._place}: an image has {len(entry.Layers)} layers, but its config names {len(diff_ids)}"
            )
        layers = [self._layer(name) for name in entry.Layers]
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if layer.media_type == media_types.OCI_LAYER and layer.digest != diff_id:
                raise DigestMismatchError(diff_id, layer.digest)
        manifest = serialize(image_manifest(self._document(config, media_types.OCI_CONFIG), layers))
        return self._document(manifest, media_types.OCI_MANIFEST)

    def _config(self, entry: DockerEntry) -> bytes:
        try:
            member = self._tar.member(entry.Config)
        except BlobNotFoundError as error:
            raise BlobNotFoundError(f"{error}, where {MANIFEST_NAME} says the config of an image is") from None
        if member.size > CONFIG_SIZE_MAX:
            raise InvalidManifestError(f"{self._place}: a config of {member.size} bytes is not accepted")
        return b"".join(self._tar.blocks(member, member.size))

    def _layer(self, name: str) -> Descriptor:
        try:
            member = self._tar.member(name)
        except BlobNotFoundError as error:
            raise BlobNotFoundError(f"{error}, where {MANIFEST_NAME} says a layer is") from None
        known = self._described.get(member)
        if known is None:
            state = hasher("sha256")
            head = b""
            for block in self._tar.blocks(member, member.size):
                head = head or block[:4]
                state.update(block)
            digest = Digest.from_raw("sha256", state.digest())
            known = Descriptor(media_type=_LAYER_TYPES[detect(head)], digest=digest, size=member.size)
            self._described[member] = known
            self.layers[digest] = member
        return known

    def _document(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        self.documents[descriptor.digest] = data
        return descriptor


def _is_layout(tar: TarReader) -> bool:
    return LAYOUT_NAME in tar and INDEX_NAME in tar


def _entries(tar: TarReader, place: str) -> tuple[DockerEntry, ...]:
    try:
        return parse_entries(tar.small(MANIFEST_NAME, DOCUMENT_SIZE_MAX), place)
    except BlobNotFoundError as error:
        raise InvalidInputError(f"{place} is no archive of Docker 1.10 or later, or it is cut: {error}") from None


def _each_once(roots: list[Root]) -> list[Root]:
    first: dict[tuple[str | None, Digest], Root] = {}
    for root in roots:
        first.setdefault((root.name, root.descriptor.digest), root)
    return list(first.values())
