"""Composing the documents of a new image: an OCI manifest and config (OCI image specification 1.1)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from layerstore.digest import Digest
from layerstore.oci.config import HistoryEntry, derive_config, image_config, parse_config, rfc3339
from layerstore.oci.documents import Descriptor, image_manifest, parse_manifest, serialize
from layerstore.oci.media_types import OCI_CONFIG, OCI_LAYER
from layerstore.operations.images import ImageDocuments


def compose_image(
    sizes: Mapping[Digest, int],
    diff_ids: Sequence[Digest],
    *,
    base: ImageDocuments | None,
    architecture: str,
    operating_system: str,
    created: datetime | None,
    author: str | None,
    config: Mapping[str, Any] | None,
    history: Sequence[HistoryEntry] | None,
    annotations: Mapping[str, str] | None,
) -> ImageDocuments:
    """The documents of an image of ``diff_ids`` on top of ``base``. Raises `InvalidManifestError`.

    New layers are described as what the store has: uncompressed tars under their DiffIDs.
    """
    if history is None:
        when = rfc3339(created) if created is not None else None
        history = [HistoryEntry(created=when, created_by="layerstore") for _ in diff_ids]
    descriptors = [Descriptor(media_type=OCI_LAYER, digest=one, size=sizes[one]) for one in diff_ids]
    if base is None:
        document = image_config(
            diff_ids,
            architecture=architecture,
            os=operating_system,
            created=created,
            author=author,
            config=config,
            history=history,
        )
    else:
        document = derive_config(
            parse_config(base.config), diff_ids, created=created, author=author, config=config, history=history
        )
        descriptors = [*parse_manifest(base.manifest).layers, *descriptors]
    config_bytes = serialize(document)
    descriptor = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config_bytes), size=len(config_bytes))
    manifest = image_manifest(descriptor, descriptors, annotations=dict(annotations or {}))
    return ImageDocuments(serialize(manifest), config_bytes)
