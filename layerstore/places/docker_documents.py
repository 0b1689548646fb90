"""``manifest.json`` of Docker archives (moby, image/tarexport): what is written, and which images it lists."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from layerstore.digest import Digest
from layerstore.errors import InvalidInputError, InvalidManifestError
from layerstore.oci import media_types
from layerstore.oci.documents import (
    Descriptor,
    Document,
    Manifest,
    Texts,
    parse_document,
    parse_index,
    parse_manifest,
)
from layerstore.oci.reference import Reference
from layerstore.places.index_file import CONTAINERD_NAME, REF_NAME
from layerstore.places.place import Root
from layerstore.places.platforms import WantedPlatform
from layerstore.places.tar_writer import blob_path

MANIFEST_NAME = "manifest.json"


class DockerEntry(Document):
    """One image: paths of its config and its layers in the archive, the base layer first."""

    Config: str
    RepoTags: Texts = ()
    Layers: Texts = ()


class _DockerEntries(Document):
    entries: tuple[DockerEntry, ...]


def parse_entries(data: bytes, place: str) -> tuple[DockerEntry, ...]:
    """Read ``manifest.json``. Raises `InvalidManifestError`."""
    # It is an array, and documents are objects: so it becomes the only field of one.
    try:
        parsed = parse_document(_DockerEntries, b'{"entries":' + data + b"}", MANIFEST_NAME)
    except InvalidManifestError as error:
        raise InvalidManifestError(f"{place}: {error}") from None
    return parsed.entries


def entry_bytes(roots: Sequence[Root], documents: Mapping[Digest, bytes], platform: WantedPlatform) -> bytes:
    """``manifest.json`` for some roots, each image once with all its names.

    Of an index it lists the image for ``platform``, or else the first one: the file has no word for indexes, and
    programs that know them read ``index.json``. Artifacts are not listed.
    """
    listed: dict[Digest, _Listed] = {}
    for root in roots:
        manifest = _image(root.descriptor, documents, platform)
        if manifest is not None:
            entry = listed.setdefault(manifest.config.digest, _Listed(manifest))
            # Whole names, as skopeo writes them: Podman would take "shop:1.0" for "localhost/shop:1.0".
            reference = None if root.name is None else Reference.parse(root.name).normalized()
            # What has a digest is no tag, and `docker load` takes nothing else.
            if reference is not None and reference.digest is None and str(reference) not in entry.names:
                entry.names.append(str(reference))
    entries = [
        {
            "Config": blob_path(entry.manifest.config.digest),
            "RepoTags": entry.names or None,
            "Layers": [blob_path(layer.digest) for layer in entry.manifest.layers],
        }
        for entry in listed.values()
    ]
    return json.dumps(entries, separators=(",", ":")).encode()


def docker_root(root: Root) -> Root:
    """The root as the ``index.json`` of a Docker archive has it: annotated with the whole reference and the tag."""
    annotations = {
        key: value for key, value in root.descriptor.annotations.items() if key not in (CONTAINERD_NAME, REF_NAME)
    }
    if root.name is not None:
        reference = Reference.parse(root.name)
        annotations[CONTAINERD_NAME] = str(reference.normalized())
        if reference.tag is not None:
            annotations[REF_NAME] = reference.tag
    return Root(root.descriptor.model_copy(update={"annotations": annotations}), root.name)


def configs_of(descriptor: Descriptor, documents: Mapping[Digest, bytes]) -> set[Digest]:
    """The configs of a manifest, or of all manifests of an index."""
    return {manifest.config.digest for _, manifest in _manifests(descriptor, documents)}


def familiar(text: str, place: str) -> str:
    """A name of an image as Docker shows it. Raises `InvalidInputError` for what is none."""
    try:
        return str(Reference.parse(text).familiar())
    except InvalidInputError as error:
        raise InvalidInputError(f"{place}: {error}") from None


@dataclass(slots=True)
class _Listed:
    manifest: Manifest
    names: list[str] = field(default_factory=list)


def _image(descriptor: Descriptor, documents: Mapping[Digest, bytes], wanted: WantedPlatform) -> Manifest | None:
    images = {
        entry.digest: (entry, manifest)
        for entry, manifest in _manifests(descriptor, documents)
        if manifest.config.media_type in media_types.CONFIGS
        and (entry.platform is None or entry.platform.os != "unknown")  # an attestation of BuildKit
    }
    if not images:
        return None
    chosen = wanted.choose(entry for entry, _ in images.values())
    return images[chosen.digest][1] if chosen is not None else next(iter(images.values()))[1]


def _manifests(descriptor: Descriptor, documents: Mapping[Digest, bytes]) -> Iterable[tuple[Descriptor, Manifest]]:
    pending, seen = [descriptor], set()
    while pending:
        one = pending.pop()
        data = documents.get(one.digest)
        if data is None or one.digest in seen:
            continue
        seen.add(one.digest)
        if one.media_type in media_types.MANIFESTS:
            yield one, parse_manifest(data)
        elif one.media_type in media_types.INDEXES:
            pending += reversed(parse_index(data).manifests)
