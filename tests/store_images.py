"""Documents of images for tests."""

import gzip
import json

from layerstore import Digest
from layerstore.oci.documents import Descriptor, image_manifest, serialize
from layerstore.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP


def image_of(*blobs: bytes) -> tuple[bytes, bytes]:
    """Manifest and config of an image of gzip layers."""
    rootfs = {"type": "layers", "diff_ids": [Digest.of(gzip.decompress(blob)) for blob in blobs]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    layers = [Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(blob), size=len(blob)) for blob in blobs]
    manifest = image_manifest(Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size=len(config)), layers)
    return serialize(manifest), config
