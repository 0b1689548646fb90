"""``index.json`` and ``oci-layout`` (OCI image specification 1.1, image-layout.md), as the Go tools write them."""

import json
from collections.abc import Sequence
from typing import Any

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError, UnsupportedFormatError
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor, Document, Index, parse_document, parse_index
from layerstore.places.place import LayoutFiles, Root

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that has a root's name."""
CONTAINERD_NAME = "io.containerd.image.name"
"""The annotation in which containerd and Docker write the whole reference."""

LAYOUT_NAME = "oci-layout"
INDEX_NAME = "index.json"
BLOBS_NAME = "blobs"

LAYOUT_FILE = b'{"imageLayoutVersion": "1.0.0"}'
"""What skopeo writes, space included."""
EMPTY_INDEX = b'{"schemaVersion":2,"manifests":[]}'

# The order of fields in the Go types, where it is not that of `Descriptor`.
_LAST_FIELDS = ("platform", "artifactType")
# encoding/json writes these as escapes, so that JSON may stand in HTML.
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


class _LayoutVersion(Document):
    imageLayoutVersion: str


def check_layout_file(data: bytes, place: str) -> None:
    """Raise `UnsupportedFormatError` for a layout of another major version, `InvalidManifestError` for no version."""
    version = parse_document(_LayoutVersion, data, f"{LAYOUT_NAME} of {place}").imageLayoutVersion
    if version.partition(".")[0] != "1":
        raise UnsupportedFormatError(f"{place} is an OCI layout of version {version[:40]!r}: only 1.0.0 can be read")


def read_index(data: bytes, place: str) -> Index:
    """Read ``index.json``. Raises `InvalidManifestError`."""
    try:
        return parse_index(data)
    except InvalidManifestError as error:
        raise InvalidManifestError(f"{INDEX_NAME} of {place}: {error}") from None


def index_roots(index: Index) -> list[Root]:
    """The roots that an ``index.json`` lists."""
    return [Root(entry, entry.annotations.get(REF_NAME) or None) for entry in index.manifests]


def with_roots(index: Index, roots: Sequence[Root]) -> Index:
    """The index with roots added, as skopeo does it.

    A name is taken from what had it, which stays without a name. A root takes the place of an entry that has the same
    digest and no name; but an entry that came with ``roots`` itself stays.
    """
    entries = list(index.manifests)
    named: dict[str, list[int]] = {}
    unnamed: dict[Digest, list[int]] = {}
    for i, entry in enumerate(entries):
        if name := entry.annotations.get(REF_NAME):
            named.setdefault(name, []).append(i)
        else:
            unnamed.setdefault(entry.digest, []).append(i)
    for root in roots:
        if root.name is not None:
            for i in named.pop(root.name, []):
                entries[i] = _named(entries[i], None)
                if i < len(index.manifests):
                    unnamed.setdefault(entries[i].digest, []).append(i)
        entry = _named(root.descriptor, root.name)
        places = unnamed.get(entry.digest)
        if places:
            i = min(places)
            places.remove(i)
            entries[i] = entry
        else:
            i = len(entries)
            entries.append(entry)
        if root.name is not None:
            named.setdefault(root.name, []).append(i)
    return index.model_copy(update={"manifests": tuple(entries)})


def index_bytes(index: Index, resembled: LayoutFiles | None = None) -> bytes:
    """The bytes of ``index.json``; those of ``resembled`` if they list the same."""
    if resembled is not None and parse_index(resembled.index).manifests == index.manifests:
        return resembled.index
    value = index.model_dump()
    if "media_type" not in index.model_fields_set:
        del value["mediaType"]  # of an index that says none
    value["manifests"] = [_reordered(entry) for entry in value["manifests"]]
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidManifestError(f"{INDEX_NAME} cannot be written as JSON: {error}") from error
    data = text.translate(_ESCAPED).encode()
    if len(data) > DOCUMENT_SIZE_MAX:
        raise InvalidManifestError(f"{INDEX_NAME} would have {len(data)} bytes: nobody reads over {DOCUMENT_SIZE_MAX}")
    return data


def _named(descriptor: Descriptor, name: str | None) -> Descriptor:
    if descriptor.annotations.get(REF_NAME) == name:
        return descriptor
    annotations = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
    if name is not None:
        annotations[REF_NAME] = name
    return descriptor.model_copy(update={"annotations": annotations})


def _reordered(entry: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in entry.items() if name not in _LAST_FIELDS}
    return known | {name: entry[name] for name in _LAST_FIELDS if name in entry}
