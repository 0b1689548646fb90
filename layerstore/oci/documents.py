"""Descriptors, manifests and indexes of OCI image specification 1.1, and those of Docker's "v2 schema 2".

Bytes that were received are kept as they came, and digests are taken of them. `serialize` is only for documents that
layerstore makes itself.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError
from layerstore.oci import media_types

DOCUMENT_SIZE_MAX = 32 << 20
"""Bytes. Registries have to take 4 MiB, and may refuse what is larger (the distribution specification, "Pushing
Manifests"). At this size the worst document takes 320 MB of memory and two seconds to be parsed."""
CONFIG_SIZE_MAX = 4 << 20
"""Bytes of a config that is a document; a larger one, as artifacts may have, is a blob."""

_PARTS_MAX = 1_000_000
"""Names, values and signs between them in one document. Parsed, each takes up to 100 bytes of memory and two
microseconds, however few bytes stand for it."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?+[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_SIGNS = (b",", b"{", b"[")

_SIZE_MAX = 2**63 - 1  # descriptor.md: "size" is an int64
_SHOWN_ERRORS_MAX = 3

_D = TypeVar("_D", bound="Document")


@dataclass(frozen=True)
class NullMeans:
    """Field annotation: a JSON ``null`` stands for ``value``, as it does for the Go programs that write ``null``."""

    value: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Not a "before" validator: that would take the strict checks below it out of JSON mode, where lists are tuples.
        return core_schema.no_info_after_validator_function(self._fill, core_schema.nullable_schema(handler(source)))

    def _fill(self, value: Any) -> Any:
        return copy(self.value) if value is None else value


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _ordered(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    return value


Ordered = PlainSerializer(_ordered, return_type=dict[str, Any])
"""Field annotation: the keys of this map are written in order."""

Texts = Annotated[tuple[str, ...], FailFast(), NullMeans(())]
"""An array of strings; ``null`` is the empty one."""

TextMap = Annotated[dict[str, str], NullMeans({}), Ordered]
"""A string-string map, for example annotations (annotations.md, "Rules"); ``null`` is the empty one."""

# RFC 6838 names, with room for the parameters that are found in practice ("text/plain; charset=utf-8"). Control
# characters stay out, because media types end up in HTTP headers.
MediaType = Annotated[str, Field(pattern=r"^[!-.0-~]+/[!-~][ -~]*$", max_length=255)]
"""A media type. One that is unknown is no error (manifest.md)."""


class Document(BaseModel):
    """A JSON object of a specification: frozen, strictly typed, and with unknown fields kept in `model_extra`.

    Attributes are in snake case, also in the constructor; the JSON names are their aliases.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", validate_by_name=True, serialize_by_alias=True)

    always_written: ClassVar[frozenset[str]] = frozenset()
    """JSON names of the fields that `serialize` writes even when they are empty."""

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        extra = self.model_extra or {}
        written = {}
        for name, value in handler(self).items():
            if name in extra:
                continue
            # As Go's "omitempty"; an empty string and a zero are information here.
            absent = value is None or value is False or (isinstance(value, dict | list | tuple) and not value)
            if not absent or name in self.always_written:
                written[name] = value
        for name in sorted(extra):
            written[name] = _ordered(extra[name])
        return written


class Platform(Document):
    """What an image runs on (image-index.md, "platform")."""

    architecture: str
    os: str
    os_version: str | None = Field(default=None, validation_alias="os.version", serialization_alias="os.version")
    os_features: Texts = Field(default=(), validation_alias="os.features", serialization_alias="os.features")
    variant: str | None = None


class Descriptor(Document):
    """What names a piece of content: its media type, digest and size (descriptor.md, "Properties").

    A digest of an algorithm that layerstore cannot compute is refused, because its content could never be verified.
    """

    model_config = ConfigDict(alias_generator=to_camel)

    media_type: MediaType
    digest: Digest
    size: int = Field(ge=0, le=_SIZE_MAX)
    urls: Texts = ()
    annotations: TextMap = Field(default_factory=dict)
    data: str | None = None
    """The content itself in Base 64, as received: not verified (descriptor.md, "Embedded Content")."""
    artifact_type: str | None = None
    platform: Platform | None = None


_Descriptors = Annotated[tuple[Descriptor, ...], FailFast(), NullMeans(())]


class _Versioned(Document):
    """What manifests and indexes have in common."""

    model_config = ConfigDict(alias_generator=to_camel)

    # Fields of the other kind of document. One that can be read as either means different content to different
    # programs (CVE-2021-41190), so it is refused.
    foreign_fields: ClassVar[frozenset[str]] = frozenset()

    schema_version: int

    @field_validator("schema_version")
    @classmethod
    def _check_version(cls, value: int) -> int:
        if value != 2:
            raise ValueError(f"must be 2, not {value}")
        return value

    @model_validator(mode="after")
    def _check_unambiguous(self) -> Self:
        foreign = sorted(self.foreign_fields.intersection(self.model_extra or ()))
        if foreign:
            raise ValueError(f"the field {foreign[0]!r} belongs to another kind of document")
        return self


class Manifest(_Versioned):
    """The config and the layers of one image, or of an artifact (manifest.md). Covers Docker's "v2 schema 2" too."""

    always_written = frozenset({"layers"})
    foreign_fields = frozenset({"manifests", "fsLayers"})

    media_type: Annotated[str, NullMeans(media_types.OCI_MANIFEST)] = media_types.OCI_MANIFEST
    """Where the document says none, it is the OCI one."""
    artifact_type: str | None = None
    config: Descriptor
    layers: _Descriptors
    """The base layer first."""
    subject: Descriptor | None = None
    annotations: TextMap = Field(default_factory=dict)

    @field_validator("media_type")
    @classmethod
    def _check_media_type(cls, value: str) -> str:
        return _one_of(value, media_types.MANIFESTS, "a manifest")


class Index(_Versioned):
    """Manifests for several platforms (image-index.md). Covers Docker's manifest list too."""

    always_written = frozenset({"manifests"})
    foreign_fields = frozenset({"config", "layers", "fsLayers"})

    media_type: Annotated[str, NullMeans(media_types.OCI_INDEX)] = media_types.OCI_INDEX
    """Where the document says none, it is the OCI one."""
    artifact_type: str | None = None
    manifests: _Descriptors
    subject: Descriptor | None = None
    annotations: TextMap = Field(default_factory=dict)

    @field_validator("media_type")
    @classmethod
    def _check_media_type(cls, value: str) -> str:
        return _one_of(value, media_types.INDEXES, "an index")


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest. Raises `InvalidManifestError`, which says where and what, for anything that is none."""
    return parse_document(Manifest, data, "manifest")


def parse_index(data: bytes) -> Index:
    """Read an index. Raises `InvalidManifestError`, which says where and what, for anything that is none."""
    return parse_document(Index, data, "index")


def parse_image(data: bytes) -> Manifest | Index:
    """Read a manifest or an index, whichever it is. Raises `InvalidManifestError` for anything that is neither."""
    return parse_index(data) if b'"manifests"' in data and _has_manifests(data) else parse_manifest(data)


def _has_manifests(data: bytes) -> bool:
    _check_size(data, "document")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "manifests" in document


def parse_descriptor(data: bytes) -> Descriptor:
    """Read a descriptor. Raises `InvalidManifestError`, which says where and what, for anything that is none."""
    return parse_document(Descriptor, data, "descriptor")


def image_manifest(
    config: Descriptor,
    layers: Iterable[Descriptor],
    *,
    artifact_type: str | None = None,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Make an OCI manifest; `serialize` gives its bytes."""
    try:
        return Manifest(
            schema_version=2,
            artifact_type=artifact_type,
            config=config,
            layers=tuple(layers),
            subject=subject,
            annotations=dict(annotations or {}),
        )
    except ValidationError as error:
        refuse(error, "manifest")


def parse_document(kind: type[_D], data: bytes, noun: str) -> _D:
    """Read a document of any kind; ``noun`` is what to call it in errors. Raises only `InvalidManifestError`.

    The document is parsed twice: `json` can tell duplicate keys, on which programs disagree, and numbers that JSON
    does not have; pydantic's own parser can tell what is strictly typed JSON and limits the nesting.
    """
    _check_size(data, noun)
    _check_json(data, noun)
    try:
        return kind.model_validate_json(data, by_alias=True, by_name=False)
    except ValidationError as error:
        refuse(error, noun)


def _check_size(data: bytes, noun: str) -> None:
    """Refuse what is too large, or would take much more memory and time than its bytes tell."""
    if len(data) > DOCUMENT_SIZE_MAX:
        raise InvalidManifestError(f"{noun} of {len(data)} bytes: more than {DOCUMENT_SIZE_MAX} are not accepted")
    if data.count(b'"') // 2 + sum(data.count(sign) for sign in _SIGNS) <= _PARTS_MAX:
        return
    parts = end = 0  # it may be that they only stand in strings
    for string in _STRING.finditer(data):
        parts += 1 + sum(data.count(sign, end, string.start()) for sign in _SIGNS)
        end = string.end()
        if parts > _PARTS_MAX:
            break
    if parts + sum(data.count(sign, end) for sign in _SIGNS) > _PARTS_MAX:
        raise InvalidManifestError(f"{noun} has more than {_PARTS_MAX} names and values: it is not accepted")


def _check_json(data: bytes, noun: str) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidManifestError(f"{noun} is not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        json.loads(text, object_pairs_hook=_unique, parse_constant=_not_json, parse_float=_finite)
    except ValueError as error:
        raise InvalidManifestError(f"{noun} is not JSON: {error}") from None
    except RecursionError:
        raise InvalidManifestError(f"{noun} is nested too deeply") from None


def serialize(model: Document) -> bytes:
    """The bytes of a document that layerstore makes: compact UTF-8 JSON, fields in the order of the specification.

    Keys of maps are sorted and unknown fields come last, so that equal documents have equal bytes. Raises
    `InvalidManifestError` if an unknown field holds what JSON cannot express.
    """
    try:
        value = model.model_dump()  # "json" mode would turn NaN into null
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidManifestError(f"document cannot be written as JSON: {error}") from error


def refuse(error: ValidationError, noun: str) -> NoReturn:
    """Raise an `InvalidManifestError` that says where and what, in place of pydantic's error."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    parts = []
    for detail in details[:_SHOWN_ERRORS_MAX]:
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:80]}" for step in detail["loc"])
        what = detail["msg"].removeprefix("Value error, ")
        parts.append(f"{where.lstrip('.')}: {what}" if where else what)
    if len(details) > _SHOWN_ERRORS_MAX:
        parts.append(f"and {len(details) - _SHOWN_ERRORS_MAX} more")
    raise InvalidManifestError(f"invalid {noun}: {'; '.join(parts)}") from None


def _one_of(value: str, known: frozenset[str], noun: str) -> str:
    if value not in known:
        raise ValueError(f"{value[:120]!r} is not the media type of {noun}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name[:80]!r} stands twice in one object")
            seen.add(name)
    return result


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is out of range")
    return value
