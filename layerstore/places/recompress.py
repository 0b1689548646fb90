"""Images whose layers are compressed otherwise: new layers, and so new manifests and indexes, always the same ones.

Layers that are compressed as is wanted, configs, and artifacts stay as they are.
"""

import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from typing import Protocol

from layerstore._zstd import zstd
from layerstore.decoding import decode, detect
from layerstore.digest import Digest, compared, hasher
from layerstore.encodings.encoders import EncoderNumber, create_encoder
from layerstore.errors import InvalidManifestError, OversizedError
from layerstore.oci import media_types
from layerstore.oci.closure import Blob, Closure
from layerstore.oci.config import parse_config
from layerstore.oci.documents import Descriptor, Index, Manifest, parse_index, parse_manifest, serialize
from layerstore.os_errors import translate_os_errors
from layerstore.places.files import file_blocks, write_all
from layerstore.places.place import LayoutFiles, Root, Source
from layerstore.places.transfer import transfer
from layerstore.progress import OnProgress

ZSTD_LEVEL = 3
"""What containerd and BuildKit use. The bytes are those of the version of zstd that is installed."""

GZIP_LEVEL = 5
GZIP_BLOCK_SIZE = 1 << 20
"""As Podman and BuildKit compress: klauspost/pgzip with its defaults."""

DECODED_RATIO_MAX = 1100
DECODED_SIZE_FREE = 1 << 30
"""A layer may become so many times as large as its blob, or so many bytes, whichever is more. DEFLATE can do 1032."""

# BuildKit's attestations name the manifest of their image.
_REFERENCE_DIGEST = "vnd.docker.reference.digest"
# What describes one exact compressed form.
_ENCODING_ANNOTATIONS = ("io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz/")

_FAMILIES = (
    (media_types.OCI_LAYER, media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER_ZSTD),
    (media_types.DOCKER_LAYER, media_types.DOCKER_LAYER_GZIP, media_types.DOCKER_LAYER_ZSTD),
)


class Compression(StrEnum):
    """How layers are to be compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Recompressed:
    """What there is to copy in place of the original."""

    source: Source
    roots: list[Root]
    closures: list[Closure]


@contextmanager
def recompressed(
    source: Source,
    roots: Sequence[Root],
    closures: Sequence[Closure],
    compression: Compression,
    *,
    jobs: int,
    on_progress: OnProgress | None = None,
) -> Iterator[Recompressed]:
    """Compress the layers of images anew. The new ones are in temporary files until the block is left.

    A layer that the source only has decoded, under its DiffID, is read from there. Raises what reading the source does,
    `OversizedError` for a layer that decodes to far more than it has, and `EncoderUnavailableError`.
    """
    documents = {digest: data for closure in closures for digest, data in closure.documents.items()}
    manifests = _manifests(roots, documents)
    originals: dict[Digest, Descriptor] = {}
    diff_ids: dict[Digest, Digest] = {}
    for parsed in manifests.values():
        if isinstance(parsed, Manifest):
            for digest, one, diff_id in _to_change(source, parsed, documents, compression):
                originals[digest], diff_ids[one.digest] = one, diff_id
    encoded = _EncodedLayers(compression, diff_ids)
    try:
        # A decoded layer that is to stay so is there already.
        plain = compression is Compression.NONE
        reads = [one for digest, one in originals.items() if not (plain and one.digest != digest)]
        transfer(
            source,
            encoded,
            {one.digest: one for one in reads}.values(),
            jobs=jobs,
            total_name=source.name,
            on_progress=on_progress,
            operation="recompress",
        )
        layers = {digest: encoded.layers.get(one.digest, one) for digest, one in originals.items()}
        rewriter = _Rewriter(manifests, layers)
        try:
            new_roots = [replace(root, descriptor=rewriter.descriptor(root.descriptor)) for root in roots]
        except RecursionError:
            raise InvalidManifestError(f"{source.name} has too many artifacts that refer to artifacts") from None
        new_closures = [rewriter.closure(closure) for closure in closures]
        yield Recompressed(_NewSource(source, encoded, rewriter.documents), new_roots, new_closures)
    finally:
        encoded.close()


def _manifests(roots: Sequence[Root], documents: dict[Digest, bytes]) -> dict[Digest, Manifest | Index]:
    parsed: dict[Digest, Manifest | Index] = {}
    pending = [root.descriptor for root in roots]
    while pending:
        descriptor = pending.pop()
        data = documents.get(descriptor.digest)
        if data is None or descriptor.digest in parsed:
            continue
        if descriptor.media_type in media_types.MANIFESTS:
            parsed[descriptor.digest] = parse_manifest(data)
        elif descriptor.media_type in media_types.INDEXES:
            index = parse_index(data)
            parsed[descriptor.digest] = index
            pending += index.manifests
    return parsed


def _to_change(
    source: Source, manifest: Manifest, documents: dict[Digest, bytes], compression: Compression
) -> Iterator[tuple[Digest, Descriptor, Digest]]:
    """The layers that have to be compressed anew, and for each what to read in its place, and what it decodes to."""
    changeable = [_new_type(layer.media_type, compression) is not None for layer in manifest.layers]
    config = documents.get(manifest.config.digest)
    if manifest.config.media_type not in media_types.CONFIGS or config is None or not any(changeable):
        return
    diff_ids = parse_config(config).diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidManifestError(
            f"a manifest has {len(manifest.layers)} layers, its config {manifest.config.digest} has {len(diff_ids)}"
        )
    for layer, diff_id, may_change in zip(manifest.layers, diff_ids, changeable, strict=True):
        if not may_change:
            continue
        is_there = source.blob_size(layer.digest) is not None
        if is_there and media_types.LAYER_COMPRESSIONS[layer.media_type] == compression:
            continue
        size = source.blob_size(diff_id)
        if size is None:
            yield layer.digest, layer, diff_id
        else:
            yield layer.digest, Descriptor(media_type=media_types.OCI_LAYER, digest=diff_id, size=size), diff_id


def _new_type(media_type: str, compression: Compression) -> str | None:
    for family in _FAMILIES:
        if media_type in family:
            return family[list(Compression).index(compression)]
    return None


class _Rewriter:
    """Manifests and indexes that name the new layers."""

    def __init__(self, parsed: dict[Digest, Manifest | Index], layers: dict[Digest, Descriptor]) -> None:
        self._parsed = parsed
        self._layers = layers
        self._new: dict[str, Descriptor] = {}
        self.documents: dict[Digest, bytes] = {}
        """The new ones."""

    def descriptor(self, original: Descriptor) -> Descriptor:
        """The descriptor of what takes the place of a document; the original if nothing changes."""
        parsed = self._parsed.get(original.digest)
        if parsed is None:
            return original
        new = self._new.get(original.digest)
        if new is None:
            changed = self._changed(parsed)
            new = original
            if changed != parsed:
                data = serialize(changed)
                new = _renewed(original, Digest.of(data, original.digest.algorithm), len(data))
                self.documents[new.digest] = data
            self._new[original.digest] = new
        return original if new.digest == original.digest else _renewed(original, new.digest, new.size)

    def closure(self, original: Closure) -> Closure:
        """All that what takes the place of a root needs."""
        result = Closure(self._digest(original.root))
        for digest, data in original.documents.items():
            new = self._digest(digest)
            result.documents[new] = self.documents.get(new, data)
            parsed = self._parsed.get(digest)
            if isinstance(parsed, Manifest) and parsed.config.digest in original.documents:
                # Configs stay, even one that is a manifest as well, which may change.
                result.documents[parsed.config.digest] = original.documents[parsed.config.digest]
        for blob in original.blobs:
            layer = self._layers.get(blob.descriptor.digest, blob.descriptor)
            result.blobs.append(Blob(layer, blob.diff_id))
        return result

    def _digest(self, digest: Digest) -> Digest:
        return self._new[digest].digest if digest in self._new else digest

    def _changed(self, document: Manifest | Index) -> Manifest | Index:
        update: dict[str, object] = {}
        # What it refers to may not be copied along: then it keeps its digest.
        if document.subject is not None:
            update["subject"] = self.descriptor(document.subject)
        if isinstance(document, Manifest):
            update["layers"] = tuple(self._layer(layer) for layer in document.layers)
        else:
            children = [self.descriptor(child) for child in document.manifests]
            update["manifests"] = tuple(self._with_reference(child) for child in children)
        return document.model_copy(update=update)

    def _layer(self, layer: Descriptor) -> Descriptor:
        new = self._layers.get(layer.digest)
        if new is None:
            return layer
        compression = Compression(media_types.LAYER_COMPRESSIONS[new.media_type])
        media_type = _new_type(layer.media_type, compression) or layer.media_type
        annotations = {
            key: value for key, value in layer.annotations.items() if not key.startswith(_ENCODING_ANNOTATIONS)
        }
        changes = {"media_type": media_type, "annotations": annotations, "urls": ()}
        return _renewed(layer, new.digest, new.size).model_copy(update=changes)

    def _with_reference(self, child: Descriptor) -> Descriptor:
        new = self._new.get(child.annotations.get(_REFERENCE_DIGEST, ""))
        if new is None:
            return child
        annotations = {**child.annotations, _REFERENCE_DIGEST: str(new.digest)}
        return child.model_copy(update={"annotations": annotations})


def _renewed(descriptor: Descriptor, digest: Digest, size: int) -> Descriptor:
    return descriptor.model_copy(update={"digest": digest, "size": size, "data": None})


class _EncodedLayers:
    """Takes layers as a `Writer`, and keeps them encoded in temporary files."""

    verifies_blobs = False

    def __init__(self, compression: Compression, diff_ids: dict[Digest, Digest]) -> None:
        """``diff_ids``: what each blob decodes to, as the configs say."""
        self._compression = compression
        self._diff_ids = diff_ids
        self._files: dict[Digest, int] = {}
        self._open: list[int] = []
        self.layers: dict[Digest, Descriptor] = {}
        """The new layers by the digests of what was read."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        return False

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        with translate_os_errors("cannot write a temporary file"):
            with tempfile.TemporaryFile() as file:
                copy = os.dup(file.fileno())
            self._open.append(copy)
            state = hasher("sha256")
            size = 0
            for block in encode(self._layer(descriptor, blocks), self._compression):
                state.update(block)
                size = write_all(copy, block, size)
        digest = Digest.from_raw("sha256", state.digest())
        media_type = _new_type(media_types.OCI_LAYER, self._compression)
        self._files[digest] = copy
        self.layers[descriptor.digest] = Descriptor(media_type=media_type or "", digest=digest, size=size)

    def _layer(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> Iterable[bytes]:
        """The layer that a blob holds. Raises `DigestMismatchError` at its end if it is not the one of the config."""
        diff_id = self._diff_ids[descriptor.digest]
        if diff_id == descriptor.digest:
            return blocks  # it is the layer, whatever it looks like
        return compared(_decoded(blocks, descriptor.size), diff_id)

    def blocks(self, descriptor: Descriptor) -> Iterator[bytes] | None:
        """The bytes of a new layer."""
        file = self._files.get(descriptor.digest)
        return None if file is None else file_blocks(file, 0, descriptor.size + 1)

    def size(self, digest: Digest) -> int | None:
        return os.fstat(self._files[digest]).st_size if digest in self._files else None

    def close(self) -> None:
        for file in self._open:
            os.close(file)


class _NewSource:
    """The source, with what is new in front of it."""

    def __init__(self, source: Source, encoded: _EncodedLayers, documents: dict[Digest, bytes]) -> None:
        self._source = source
        self._encoded = encoded
        self._documents = documents
        self.name = source.name
        self.repository = source.repository
        self.names_are_references = source.names_are_references
        self.blobs_are_verified = False

    def roots(self) -> list[Root]:
        return self._source.roots()

    def layout_files(self) -> LayoutFiles | None:
        return None

    def read_document(self, descriptor: Descriptor) -> bytes:
        new = self._documents.get(descriptor.digest)
        return self._source.read_document(descriptor) if new is None else new

    def blob_size(self, digest: Digest) -> int | None:
        size = self._encoded.size(digest)
        return self._source.blob_size(digest) if size is None else size

    def read_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        blocks = self._encoded.blocks(descriptor)
        return self._source.read_blob(descriptor) if blocks is None else _given(blocks)


@contextmanager
def _given(blocks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    yield blocks


def _decoded(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """A layer's tar, whether it comes compressed or not."""
    blocks = iter(blocks)
    head = b""
    for block in blocks:
        head += block
        if len(head) >= 4:
            break
    whole = chain([head], blocks)
    if detect(head) is None:
        yield from whole
        return
    limit = max(DECODED_SIZE_FREE, size * DECODED_RATIO_MAX)
    for block in decode(whole):
        limit -= len(block)
        if limit < 0:
            raise OversizedError(f"a layer of {size} bytes decodes to far more than can be meant")
        yield block


def encode(blocks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """Compress a stream; the bytes depend on nothing but its content. Raises `EncoderUnavailableError`."""
    if compression is Compression.NONE:
        yield from blocks
        return
    encoder: _Encoder = _Gzip() if compression is Compression.GZIP else _Zstd()
    for block in blocks:
        yield encoder.write(block)
    yield encoder.finish()


class _Encoder(Protocol):
    def write(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Gzip:
    """RFC 1952 around klauspost/pgzip's stream, never that of the system's zlib, which differs by machine."""

    def __init__(self) -> None:
        self._encoder = create_encoder(EncoderNumber.KLAUSPOST_1_20_4, GZIP_LEVEL, GZIP_BLOCK_SIZE)
        self._crc = 0
        self._size = 0
        # No name, no time, no flags, an unknown system.
        self._head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    def write(self, data: bytes) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        head, self._head = self._head, b""
        return head + self._encoder.write(data)

    def finish(self) -> bytes:
        return self.write(b"") + self._encoder.finish() + struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF)


class _Zstd:
    def __init__(self) -> None:
        self._encoder = zstd.ZstdCompressor(level=ZSTD_LEVEL)

    def write(self, data: bytes) -> bytes:
        return self._encoder.compress(data)

    def finish(self) -> bytes:
        return self._encoder.flush()
