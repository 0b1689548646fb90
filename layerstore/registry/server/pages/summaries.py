"""What an image is, in a line: kind, platforms, size."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.objects import Image, Layer
from layerstore.oci.documents import Descriptor, Index, parse_image
from layerstore.oci.media_types import NONDISTRIBUTABLE_LAYERS
from layerstore.places.platforms import WantedPlatform, normalized
from layerstore.store import Store


@dataclass(frozen=True, slots=True)
class Summary:
    """An image in a line."""

    kind: str
    """``image``, ``index`` or ``artifact``."""
    artifact_type: str | None
    platforms: tuple[str, ...]
    """As they are typed; of an index, those of its images."""
    size: int
    """Bytes of its layers, uncompressed, each once."""
    layer_count: int


def summary_of(store: Store, image: Image) -> Summary:
    """What an image is. One that cannot be read as what it calls itself is without platforms and size."""
    artifact_type = image.descriptor.artifact_type
    is_index = image.is_index
    kind = "index" if is_index else "image" if artifact_type is None else "artifact"
    try:
        layers = stored_layers(store, image)
        platforms = _platforms(image, kind)
    except LayerstoreError:
        return Summary(kind, artifact_type, (), 0, 0)
    sizes = {layer.diff_id: layer.size for layer in layers}
    return Summary(kind, artifact_type, platforms, sum(sizes.values()), len(layers))


def stored_layers(store: Store, image: Image) -> list[Layer]:
    """The layers of an image that the store has, as its blobs are them: a config may name those of others.

    Those that licences keep elsewhere may be missing.
    """
    proper = set(_proper_layers(store, image))
    return [layer for layer in image.layers if layer.diff_id in proper and layer.diff_id in store.layers]


def layer_of(store: Store, descriptor: Descriptor) -> Digest | None:
    """What a blob decodes to, whatever a config says; None where a manifest need not have the blob to name it."""
    if descriptor.media_type in NONDISTRIBUTABLE_LAYERS:
        return None
    encoding = store.encodings.get(descriptor.digest)
    return descriptor.digest if encoding is None else encoding.layer.diff_id


def _proper_layers(store: Store, image: Image) -> Iterator[Digest | None]:
    document = parse_image(image.manifest_bytes)
    if isinstance(document, Index):
        for _, child in image.platforms:
            yield from _proper_layers(store, child)
    else:
        yield from (layer_of(store, one) for one in document.layers)


def created(store: Store, digest: str) -> datetime | None:
    """When an image came into the store; None if it is gone, or is part of an index only."""
    image = store.images.get(digest)
    try:
        return None if image is None else image.created
    except LayerstoreError:
        return None


def _platforms(image: Image, kind: str) -> tuple[str, ...]:
    if kind == "artifact":
        return ()
    if kind == "index":
        document = parse_image(image.manifest_bytes)
        assert isinstance(document, Index)
        known = [str(normalized(one.platform)) for one in document.manifests if one.platform is not None]
        return tuple(one for one in dict.fromkeys(known) if not one.startswith("unknown/"))  # attestations have none
    config = image.config
    if not (config.os and config.architecture):
        return ()
    return (str(WantedPlatform.of(config.os, config.architecture, config.variant or "")),)
