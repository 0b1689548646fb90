"""Copies of images from one place to another: exactly the same bytes, or no image.

What that is worth for several images at once is the sink's to say: a layout or an archive shows all of them or none, a
store each image as a whole, one after another.
"""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from layerstore.digest import Digest
from layerstore.errors import (
    BlobNotFoundError,
    InvalidInputError,
    InvalidManifestError,
    InvalidOptionError,
    LayerstoreError,
)
from layerstore.oci import media_types
from layerstore.oci.closure import Closure
from layerstore.oci.documents import Descriptor, parse_image
from layerstore.places.closure import Walker, blobs_of
from layerstore.places.index_file import CONTAINERD_NAME
from layerstore.places.layout import OCILayout
from layerstore.places.names import checked_name, names_in
from layerstore.places.place import RemotePlace, Root, Sink, Source, Writer
from layerstore.places.platforms import WantedPlatform
from layerstore.places.recompress import Compression, Recompressed, recompressed
from layerstore.places.selection import for_platform, select, with_referrers
from layerstore.places.store_place import as_place
from layerstore.places.transfer import transfer
from layerstore.progress import OnProgress
from layerstore.store import Store


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """One root that was copied."""

    digest: Digest
    source_digest: Digest
    """Another one than `digest` only if layers were compressed anew."""
    source_name: str | None
    """What it is called in the source."""
    name: str | None
    """What it is called in the sink."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy came to."""

    images: tuple[CopiedImage, ...]
    documents: int
    """Manifests, indexes and configs."""
    blobs_copied: int
    bytes_copied: int
    blobs_present: int
    """Blobs that the sink had."""
    bytes_present: int
    blobs_absent: int
    """Nondistributable layers that the source does not have: their manifests say where they can be fetched."""
    replaced: tuple[str, ...] = ()
    """Names that another image had in a layout until now; it is still there, without them."""


def copy(
    source: Source | Store,
    sink: Sink | Store,
    references: Sequence[str] | None = None,
    *,
    name: str | None = None,
    platform: str | None = None,
    referrers: bool = False,
    compression: Compression | str | None = None,
    on_progress: OnProgress | None = None,
    jobs: int | None = None,
) -> CopyReport:
    """Copy images, indexes and artifacts with all that hangs on them; digests stay as they are.

    Args:
        source: Where they are.
        sink: Where they are to be. After an error, a layout or an archive shows none of them. A store takes one image
            after another, each whole or not at all, once all blobs are there: after an error in one of them, those
            before it remain. Blobs that were completed may remain, and are not copied again the next time.
        references: Names, digests, or references that come to the same. None copies all that the source lists.
        name: What to call the only one in the sink. Else each keeps its name (`layerstore.places.names`).
        platform: Of an index, copy only the image for this one: ``linux/arm64``.
        referrers: Also what refers to them: signatures, attestations.
        compression: Compress layers anew that are not compressed so, or that the source only has decoded. Digests
            change with them.
        on_progress: Told how far each blob and the whole have come.
        jobs: How many blobs are copied at the same time; by default as many as suit the sink.

    Raises:
        ImageNotFoundError: Nothing has such a name, or it is not there for the platform.
        BlobNotFoundError: Something that an image needs is missing in the source.
        DigestMismatchError: A blob of the source is damaged.
        InvalidManifestError: A document is malformed, contradicts its descriptor, or is too much.
        InvalidReferenceError: The sink cannot use a name.
        InvalidOptionError: An option makes no sense, or not for so many images.
        InvalidInputError: A name stands for several images, or the place is not what it seems.
    """
    if jobs is not None and jobs < 1:
        raise InvalidOptionError(f"{jobs} jobs: at least one is needed")
    origin, target = as_place(source), as_place(sink)
    jobs = jobs or _jobs(origin, target)
    chosen = _choose(origin, target, references, name, platform, referrers)
    if isinstance(target, RemotePlace):
        target.check_names([one for one in chosen.names if one is not None])
        target.may_mount_from(origin)
    with ExitStack() as stack:
        made = Recompressed(origin, chosen.roots, chosen.closures)
        if compression is not None:
            made = stack.enter_context(
                recompressed(
                    origin,
                    chosen.roots,
                    chosen.closures,
                    _compression(compression),
                    jobs=jobs,
                    on_progress=on_progress,
                )
            )
        blobs, absent = _present(made.source, made.closures)
        before = _names_before(target)
        with target.writing() as writer:
            _check_missing(made.source, writer, absent)
            writer.expect(_sizes(made.closures, blobs))
            transferred = transfer(
                made.source, writer, blobs.values(), jobs=jobs, total_name=origin.name, on_progress=on_progress
            )
            for root, new_name, closure in zip(made.roots, chosen.names, made.closures, strict=True):
                writer.put_root(_renamed(root, new_name), closure.documents)
            files = made.source.layout_files()
            if files is not None and name is None and made.roots == origin.roots():
                writer.resemble(files)
    return CopyReport(
        tuple(
            CopiedImage(new.descriptor.digest, old.descriptor.digest, old.name, new_name)
            for new, old, new_name in zip(made.roots, chosen.roots, chosen.names, strict=True)
        ),
        len({digest for closure in made.closures for digest in closure.documents}),
        transferred.copied,
        transferred.copied_bytes,
        transferred.present,
        transferred.present_bytes,
        sum(_may_be_absent(descriptor) for descriptor in absent),
        tuple(
            dict.fromkeys(
                name
                for root, name in zip(made.roots, chosen.names, strict=True)
                if name is not None and before.get(name, root.descriptor.digest) != root.descriptor.digest
            )
        ),
    )


def _jobs(source: Source, sink: Sink) -> int:
    """As many as suit the sink; but what comes from afar is mostly waited for."""
    return max(source.jobs, sink.jobs) if isinstance(source, RemotePlace) else sink.jobs


def _names_before(target: Sink) -> dict[str, Digest]:
    """The names that a layout has. That a tag moves in a store is what tags are for."""
    if not isinstance(target, OCILayout):
        return {}
    with suppress(LayerstoreError):
        return {root.name: root.descriptor.digest for root in target.roots() if root.name is not None}
    return {}


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What to copy, under which names, and all that hangs on it."""

    roots: list[Root]
    names: list[str | None]
    closures: list[Closure]


def _choose(
    source: Source,
    sink: Sink,
    references: Sequence[str] | None,
    name: str | None,
    platform: str | None,
    referrers: bool,
) -> _Chosen:
    wanted = None if platform is None else WantedPlatform.parse(platform)
    walker = Walker(source)
    selected = select(source, references, wanted)
    if name is not None and len(selected) != 1:
        raise InvalidOptionError(f"one name cannot be given to {len(selected)} images: choose one of them")
    names: list[str | None] = names_in(sink, source, selected) if name is None else [checked_name(sink, source, name)]
    roots = selected if wanted is None else [for_platform(walker, root, wanted) for root in selected]
    closures = [walker.closure(root.descriptor) for root in roots]
    if referrers:
        refer = with_referrers(walker, source, selected, _manifests_in(closures))
        roots = [*roots, *refer]
        names += names_in(sink, source, refer)
        closures += [walker.closure(root.descriptor) for root in refer]
    _check_distinct(roots, names)
    return _Chosen(roots, names, closures)


def _manifests_in(closures: Sequence[Closure]) -> list[Digest]:
    """All that something can refer to: manifests and indexes, no configs."""
    found = []
    for closure in closures:
        for digest, data in closure.documents.items():
            with suppress(InvalidManifestError):
                parse_image(data)
                found.append(digest)
    return found


def _check_distinct(roots: Sequence[Root], names: Sequence[str | None]) -> None:
    digests: dict[str, Digest] = {}
    for root, name in zip(roots, names, strict=True):
        digest = root.descriptor.digest
        if name is not None and digests.setdefault(name, digest) != digest:
            raise InvalidInputError(f"two images would be called {name!r}: copy them one by one, and name one anew")


def _compression(text: str) -> Compression:
    try:
        return Compression(text)
    except ValueError:
        known = ", ".join(Compression)
        raise InvalidOptionError(f"{text[:40]!r} is no compression: choose one of {known}") from None


def _present(source: Source, closures: Sequence[Closure]) -> tuple[dict[Digest, Descriptor], list[Descriptor]]:
    """The blobs that can be copied, and those that the source does not have."""
    blobs = blobs_of(closures)
    # From afar, what is missing shows when it is read; only what may be missing is worth a question.
    asked = [one for one in blobs.values() if _may_be_absent(one) or not isinstance(source, RemotePlace)]
    absent = [descriptor for descriptor in asked if source.blob_size(descriptor.digest) is None]
    for descriptor in absent:
        if _may_be_absent(descriptor):
            del blobs[descriptor.digest]
    return blobs, absent


def _may_be_absent(descriptor: Descriptor) -> bool:
    return descriptor.media_type in media_types.NONDISTRIBUTABLE_LAYERS


def _check_missing(source: Source, writer: Writer, absent: Sequence[Descriptor]) -> None:
    """What the sink has need not be in the source."""
    missing = [one for one in absent if not _may_be_absent(one) and not writer.has_blob(one)]
    if missing:
        more = f", and {len(missing) - 1} more are missing" if missing[1:] else ""
        raise BlobNotFoundError(
            f"{source.name} has no blob {missing[0].digest} ({missing[0].media_type}), which an image needs{more}"
        )


def _sizes(closures: Sequence[Closure], blobs: dict[Digest, Descriptor]) -> dict[Digest, int]:
    sizes = {digest: descriptor.size for digest, descriptor in blobs.items()}
    for closure in closures:
        sizes.update((digest, len(data)) for digest, data in closure.documents.items())
    return sizes


def _renamed(root: Root, name: str | None) -> Root:
    """The root under a new name. What containerd calls it is dropped if it would contradict the name."""
    annotations = root.descriptor.annotations
    told = annotations.get(CONTAINERD_NAME)
    if told is None or name is None or name == root.name or told.endswith(f":{name}"):
        return replace(root, name=name)
    kept = {key: value for key, value in annotations.items() if key != CONTAINERD_NAME}
    return Root(root.descriptor.model_copy(update={"annotations": kept}), name)
