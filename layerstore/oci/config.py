"""Image configs: OCI image specification 1.1, config.md, and what Docker writes in their place."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, FailFast, Field, ValidationError
from pydantic.alias_generators import to_pascal

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError
from layerstore.oci.documents import Document, NullMeans, Ordered, TextMap, Texts, parse_document, refuse

# Fields that speak of how and where one image was built. They would be false in an image that is derived from it.
_BUILD_FIELDS = frozenset({"container", "container_config", "docker_version", "id", "parent"})
_BUILD_FIELD_PREFIX = "moby.buildkit."

_KeySet = Annotated[dict[str, Any], NullMeans({}), Ordered]


class ExecutionConfig(Document):
    """How a container of the image is run (config.md, "config"). Docker's further fields are in `model_extra`."""

    model_config = ConfigDict(alias_generator=to_pascal)

    user: str | None = None
    exposed_ports: _KeySet = Field(default_factory=dict)
    """The keys are what counts, for example ``8080/tcp``; the values are empty objects."""
    env: Texts = ()
    """``NAME=value`` each."""
    entrypoint: Texts = ()
    cmd: Texts = ()
    volumes: _KeySet = Field(default_factory=dict)
    """The keys are what counts; the values are empty objects."""
    working_dir: str | None = None
    labels: TextMap = Field(default_factory=dict)
    stop_signal: str | None = None
    args_escaped: bool | None = None


class RootFS(Document):
    """The layers of the image, by DiffID (config.md, "rootfs")."""

    always_written: ClassVar[frozenset[str]] = frozenset({"diff_ids"})

    type: Literal["layers"]
    # Docker leaves the field out, or writes null, when an image has no layers.
    diff_ids: Annotated[tuple[Digest, ...], FailFast(), NullMeans(())] = ()
    """The base layer first."""


class HistoryEntry(Document):
    """One build step (config.md, "history")."""

    created: str | None = None
    """RFC 3339; see `rfc3339`."""
    author: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: Annotated[bool, NullMeans(False)] = False
    """The step made no layer."""


class ImageConfig(Document):
    """The config of an image (config.md, "Properties"). Its digest is the ImageID."""

    created: str | None = None
    """RFC 3339, as received: the text may be finer than a `datetime` can be."""
    author: str | None = None
    # The specification requires these two, but Docker leaves them out when it doesn't know them.
    architecture: Annotated[str, NullMeans("")] = ""
    os: Annotated[str, NullMeans("")] = ""
    os_version: str | None = Field(default=None, validation_alias="os.version", serialization_alias="os.version")
    os_features: Texts = Field(default=(), validation_alias="os.features", serialization_alias="os.features")
    variant: str | None = None
    config: Annotated[ExecutionConfig, NullMeans(ExecutionConfig())] = Field(default_factory=ExecutionConfig)
    rootfs: RootFS
    history: Annotated[tuple[HistoryEntry, ...], FailFast(), NullMeans(())] = ()

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The DiffIDs of the layers, the base layer first."""
        return self.rootfs.diff_ids


def parse_config(data: bytes) -> ImageConfig:
    """Read an image config. Raises `InvalidManifestError`, which says where and what, for anything that is none."""
    return parse_document(ImageConfig, data, "config")


def chain_ids(diff_ids: Iterable[Digest]) -> list[Digest]:
    """The ChainID of each layer on top of those before it (config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def rfc3339(moment: datetime) -> str:
    """``moment`` as configs have it, in UTC. Raises `InvalidManifestError` if it has no time zone."""
    if moment.tzinfo is None:
        raise InvalidManifestError(f"the time {moment.isoformat()} has no time zone")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def image_config(
    diff_ids: Iterable[Digest],
    *,
    architecture: str,
    os: str,
    variant: str | None = None,
    created: datetime | None = None,
    author: str | None = None,
    config: Mapping[str, Any] | None = None,
    history: Sequence[HistoryEntry] = (),
) -> ImageConfig:
    """Make a config; ``config`` has the fields of `ExecutionConfig` under their JSON names, for example ``Env``.

    Without ``created`` the config has no time, so that equal images have equal configs. Raises
    `InvalidManifestError` for a field of the wrong type, and for a history that does not fit the layers.
    """
    layers = tuple(diff_ids)
    _check_history(history, len(layers))
    try:
        return ImageConfig(
            created=None if created is None else rfc3339(created),
            author=author,
            architecture=architecture,
            os=os,
            variant=variant,
            config=_execution_config(config or {}),
            rootfs=RootFS(type="layers", diff_ids=layers),
            history=tuple(history),
        )
    except ValidationError as error:
        refuse(error, "config")


def derive_config(
    base: ImageConfig,
    diff_ids: Iterable[Digest] = (),
    *,
    created: datetime | None = None,
    author: str | None = None,
    config: Mapping[str, Any] | None = None,
    history: Sequence[HistoryEntry] = (),
) -> ImageConfig:
    """Make the config of an image that puts ``diff_ids`` on top of ``base``.

    ``config`` is laid over the base's field by field, under JSON names: a value replaces the base's, None removes it.
    Platform and unknown fields are inherited; time, author and what describes the base's own build are not. ``history``
    is added to the base's. Raises `InvalidManifestError` as `image_config` does.
    """
    layers = tuple(diff_ids)
    _check_history(history, len(layers))
    inherited = {
        name: value
        for name, value in (base.model_extra or {}).items()
        if name not in _BUILD_FIELDS and not name.startswith(_BUILD_FIELD_PREFIX)
    }
    merged = {**base.config.model_dump(), **(config or {})}
    changes: dict[str, Any] = {
        "created": None if created is None else rfc3339(created),
        "author": author,
        "config": _execution_config(merged),
        "rootfs": base.rootfs.model_copy(update={"diff_ids": base.diff_ids + layers}),
        "history": base.history + tuple(history),
    }
    known = {name: getattr(base, name) for name in ImageConfig.model_fields}
    try:
        return ImageConfig.model_validate({**inherited, **known, **changes})
    except ValidationError as error:
        refuse(error, "config")


def _execution_config(fields: Mapping[str, Any]) -> ExecutionConfig:
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        data = json.dumps(present, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidManifestError(f"execution config cannot be written as JSON: {error}") from None
    return parse_document(ExecutionConfig, data, "execution config")


def _check_history(history: Sequence[HistoryEntry], layer_count: int) -> None:
    # A missing history is allowed, one that doesn't fit would attribute layers to the wrong steps.
    described = sum(not entry.empty_layer for entry in history)
    if history and described != layer_count:
        raise InvalidManifestError(f"the history describes {described} layers, but there are {layer_count}")
