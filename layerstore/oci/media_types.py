"""Media types of OCI image specification 1.1 (media-types.md) and their Docker "v2 schema 2" counterparts."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_NONDISTRIBUTABLE_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_NONDISTRIBUTABLE_LAYER_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_NONDISTRIBUTABLE_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
"""What a manifest may call itself."""

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
"""What an index may call itself."""

CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
"""The configs that `layerstore.oci.config.parse_config` understands. Any other one is arbitrary data (manifest.md)."""

NONDISTRIBUTABLE_LAYERS: Final = frozenset(
    {
        OCI_NONDISTRIBUTABLE_LAYER,
        OCI_NONDISTRIBUTABLE_LAYER_GZIP,
        OCI_NONDISTRIBUTABLE_LAYER_ZSTD,
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
    }
)
"""Layers that need not be where their manifest is: they are fetched from the URLs of their descriptor."""

LAYER_COMPRESSIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        OCI_LAYER: "none",
        OCI_LAYER_GZIP: "gzip",
        OCI_LAYER_ZSTD: "zstd",
        OCI_NONDISTRIBUTABLE_LAYER: "none",
        OCI_NONDISTRIBUTABLE_LAYER_GZIP: "gzip",
        OCI_NONDISTRIBUTABLE_LAYER_ZSTD: "zstd",
        DOCKER_LAYER: "none",
        DOCKER_LAYER_GZIP: "gzip",
        DOCKER_LAYER_ZSTD: "zstd",
        DOCKER_FOREIGN_LAYER: "none",
        DOCKER_FOREIGN_LAYER_GZIP: "gzip",
    }
)
"""Every media type of a layer tar, with its compression: ``none``, ``gzip`` or ``zstd``."""
