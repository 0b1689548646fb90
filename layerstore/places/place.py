"""What a place is: somewhere that has images (`Source`), takes them (`Sink`), or both.

A place deals in roots: the descriptors of manifests and indexes that it lists, with the name that each has there.
What hangs on a root (manifests of an index, configs, layers) is found by reading documents, which is not its concern.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from layerstore.digest import Digest
from layerstore.oci.documents import Descriptor


@dataclass(frozen=True, slots=True)
class Root:
    """An image, index or artifact that a place lists."""

    descriptor: Descriptor
    """With the annotations that the place keeps of it."""
    name: str | None
    """The name it has there: in a layout the text of ``org.opencontainers.image.ref.name``, which often is a mere tag;
    in a Docker archive and in a store a reference. None: it has only its digest."""


def named_roots(descriptor: Descriptor, names: Sequence[str]) -> list[Root]:
    """A root for each name; without names, one that has none."""
    return [Root(descriptor, name) for name in names] or [Root(descriptor, None)]


@dataclass(frozen=True, slots=True)
class LayoutFiles:
    """The two files that make a folder an OCI layout, as they are (image-layout.md)."""

    layout: bytes
    """``oci-layout``"""
    index: bytes
    """``index.json``"""


class Source(Protocol):
    """A place that has images. Its methods may be called from several threads at once."""

    name: str
    """What to call the place in messages."""
    repository: str | None
    """What images whose name is a mere tag belong to there: for a layout, the name of its folder."""
    names_are_references: bool
    """Whether every name is a reference with a repository, and not any text."""
    blobs_are_verified: bool
    """Whether what `read_blob` gives raises before its end if it is not what the descriptor says."""

    def roots(self) -> list[Root]:
        """All roots, in the place's order; one with several names comes once for each."""
        ...

    def layout_files(self) -> LayoutFiles | None:
        """What a whole copy that is a layout should have; None if the place is none."""
        ...

    def read_document(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest, index or config; size and digest are those of the descriptor.

        Raises `BlobNotFoundError`, `DigestMismatchError`, and `InvalidManifestError` if the size is another.
        """
        ...

    def blob_size(self, digest: Digest) -> int | None:
        """How many bytes a blob has, or None if `read_blob` would not find it."""
        ...

    def read_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of a blob of any size. Who uses them compares size and digest. Raises `BlobNotFoundError`."""
        ...


class BlobWriter(Protocol):
    """Something that takes blobs. Its methods may be called from several threads at once."""

    verifies_blobs: bool
    """Whether `put_blob` itself compares digests."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the sink has the blob, and will keep it until it is closed."""
        ...

    def put_blob(self, descriptor: Descriptor, blocks: Iterable[bytes]) -> None:
        """Take a blob. If ``blocks`` raises, or has another digest where the sink verifies, nothing is kept.

        ``blocks`` begins anew each time that it is gone through, one time after the other.
        """
        ...


@runtime_checkable
class DifferenceSource(Protocol):
    """A source that may give a blob as its difference to layers that somebody has."""

    def open_difference(
        self, descriptor: Descriptor, have: Sequence[Digest]
    ) -> AbstractContextManager[Iterator[bytes] | None]:
        """What `Store.open_difference` takes, against layers of ``have``. None: the blob is to be read as it is."""
        ...


@runtime_checkable
class DifferenceWriter(Protocol):
    """A writer that may take a blob as its difference to layers that it has."""

    def put_difference(self, descriptor: Descriptor, source: "Source") -> bool:
        """Take a blob so, if the source can give it so; else nothing is done. Whether it was taken."""
        ...


class Writer(BlobWriter, Protocol):
    """An open `Sink`."""

    def expect(self, sizes: Mapping[Digest, int]) -> None:
        """Say, once and first, all that is going to be put, documents included, with its size."""
        ...

    def put_root(self, root: Root, documents: Mapping[Digest, bytes]) -> None:
        """List a root under its name, which it takes from whatever had it.

        All its blobs are there; ``documents`` are all manifests, indexes and configs that hang on it, itself included.
        """
        ...

    def resemble(self, files: LayoutFiles) -> None:
        """Say that all roots of a layout are put, so that the copy can have the same files."""
        ...


class Sink(Protocol):
    """A place that takes images."""

    name: str
    names_are_references: bool
    """As for `Source`: a mere tag is refused as a name."""
    jobs: int
    """How many blobs are best put at the same time."""

    def writing(self) -> AbstractContextManager[Writer]:
        """Open the sink. What was put is seen, durably, when the block is left without an error; else none of it."""
        ...


@runtime_checkable
class RemotePlace(Source, Sink, Protocol):
    """A place to which each question is a journey: it is asked for what is needed, and not to list all."""

    def roots_named(self, reference: str) -> list[Root]:
        """What answers to a name, a digest or a reference; empty if nothing does."""
        ...

    def referrers_of(self, digest: Digest) -> list[Root]:
        """What refers to a manifest or index."""
        ...

    def check_names(self, names: Iterable[str]) -> None:
        """Raise `InvalidReferenceError` if images cannot have these names there, each its own."""
        ...

    def may_mount_from(self, source: Source) -> None:
        """Say, before it is opened, where the blobs come from: some may be there, and need not be sent."""
        ...
