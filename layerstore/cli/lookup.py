"""Finds what a user means: digests may be shortened to a unique beginning of twelve hex digits or more, as Docker's.

Of an index, most commands need one of its images. It is the one for ``--platform``, or else for this machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from layerstore import FileSystem, ImageConfig
from layerstore.digest import reads_as_digest
from layerstore.errors import (
    BlobNotFoundError,
    ImageNotFoundError,
    InvalidInputError,
    InvalidReferenceError,
    LayerNotFoundError,
    NotFoundError,
)
from layerstore.objects import Container, Image, Layer, LayerEncoding
from layerstore.places.platforms import WantedPlatform, image_for, normalized
from layerstore.store import Store

V = TypeVar("V")

CONTAINER_PREFIX = "container:"
"""What stands before the name of a container where an image may be named, too."""

_PREFIX_LENGTH_MIN = 12
_HEX_LENGTH = 64
_LOWER_HEX = frozenset("0123456789abcdef")


def find_image(store: Store, text: str) -> Image:
    """An image by tag, digest or shortened digest. Raises `ImageNotFoundError`."""
    digits = _shortened_digits(text)
    if digits is None:
        return store.images[text]
    tagged = store.tags.get(text)  # a tag that reads as the beginning of a digest is the tag
    if tagged is not None:
        return store.images[tagged]
    if len(digits) == _HEX_LENGTH:
        return store.images[f"sha256:{digits}"]
    found = _beginning_with(text, digits, store.images)
    if found is None:
        raise ImageNotFoundError(f"the store has no image {text}")
    return store.images[found]


def find_layer(store: Store, text: str) -> Layer:
    """A layer by DiffID or shortened DiffID. Raises `LayerNotFoundError`."""
    return _find(store.layers, text, LayerNotFoundError(f"the store has no layer {text}"))


def find_encoding(store: Store, text: str) -> LayerEncoding:
    """An encoding by digest or shortened digest. Raises `BlobNotFoundError`."""
    return _find(store.encodings, text, BlobNotFoundError(f"the store has no encoding {text}"))


def _find(things: Mapping[str, V], text: str, missing: NotFoundError) -> V:
    digits = _shortened_digits(text)
    found = text if digits is None else _beginning_with(text, digits, things)
    if found is None:
        raise missing
    return things[found]


def find_either(store: Store, text: str) -> Image | Layer:
    """An image or a layer. Raises `ImageNotFoundError`, which says what was tried."""
    try:
        return find_image(store, text)
    except ImageNotFoundError as error:
        if not _reads_as_digest(text):
            raise
        try:
            return find_layer(store, text)
        except LayerNotFoundError:
            # The first error may know more: that the image lies in the trash.
            raise ImageNotFoundError(str(error).replace("no image", "no image or layer", 1)) from None


def find_container(store: Store, text: str) -> Container:
    """A container by its name, be it written as ``container:NAME``. Raises `ContainerNotFoundError`."""
    return store.containers[text.removeprefix(CONTAINER_PREFIX)]


def find_files(store: Store, text: str, platform: str | None) -> tuple[str, FileSystem, ImageConfig | None]:
    """The files of an image, a layer or a container, behind what to call it: a digest, or ``container:NAME``.

    The last is the config of the image; a layer has none. Raises `ImageNotFoundError`, `ContainerNotFoundError`,
    `InvalidInputError` for an artifact.
    """
    if text.startswith(CONTAINER_PREFIX):
        container = find_container(store, text)
        return f"{CONTAINER_PREFIX}{container.name}", container, container.config
    found = find_either(store, text)
    if isinstance(found, Layer):
        return found.diff_id, store.view([found]), None
    image = refuse_artifact(for_platform(found, text, platform), text)
    return image.digest, image.view(), image.config


def find_any(store: Store, text: str) -> Image | Layer | LayerEncoding:
    """An image, a layer or an encoding. Raises `ImageNotFoundError`, which says what was tried."""
    try:
        return find_either(store, text)
    except ImageNotFoundError as error:
        if not _reads_as_digest(text):
            raise
        try:
            return find_encoding(store, text)
        except BlobNotFoundError:
            raise ImageNotFoundError(str(error).replace("image or layer", "image, layer or encoding", 1)) from None


def artifact_type(image: Image) -> str | None:
    """What kind of artifact it is; None for an image or an index of images."""
    return image.descriptor.artifact_type


def platforms_of(image: Image) -> list[str]:
    """The platforms that an index has images for, as they are typed; those of an image are the one of its config."""
    if image.is_index:
        known = [str(normalized(platform)) for platform, _ in image.platforms if platform is not None]
        return [one for one in dict.fromkeys(known) if not one.startswith("unknown/")]  # attestations have none
    if artifact_type(image) is not None:
        return []
    config = image.config
    if not (config.os and config.architecture):
        return []
    return [str(WantedPlatform.of(config.os, config.architecture, config.variant or ""))]


def for_platform(image: Image, text: str, platform: str | None) -> Image:
    """Of an index that was named as ``text``, the image for a platform, by default this machine's; others are it.

    Raises `ImageNotFoundError` if the index has none, and `InvalidOptionError` for what is no platform.
    """
    wanted = WantedPlatform.of_this_machine() if platform is None else WantedPlatform.parse(platform)
    found = image_for(image, wanted)
    if found is None:
        known = ", ".join(platforms_of(image)) or "none"
        hint = "; choose one with --platform" if platform is None else ""
        raise ImageNotFoundError(f"{text} is not there for {wanted}; it is for: {known}{hint}")
    return found


def refuse_artifact(image: Image, text: str) -> Image:
    """The image. Raises `InvalidInputError` for an artifact, which has no config of an image."""
    kind = artifact_type(image)
    if kind is not None:
        raise InvalidInputError(f"{text} is an artifact ({kind}) and no image")
    return image


def stored_layers(store: Store, image: Image) -> list[Layer]:
    """The layers of an image that the store has: those that licences keep elsewhere may be missing."""
    return [layer for layer in image.layers if layer.diff_id in store.layers]


def _beginning_with(text: str, digits: str, digests: Iterable[str]) -> str | None:
    found = [digest for digest in digests if digest.startswith(f"sha256:{digits}")]
    _refuse_ambiguous(text, found)
    return found[0] if found else None


def _shortened_digits(text: str) -> str | None:
    digits = text.removeprefix("sha256:")
    if digits == text:
        is_short = _PREFIX_LENGTH_MIN <= len(digits) <= _HEX_LENGTH
    else:
        is_short = _PREFIX_LENGTH_MIN <= len(digits) < _HEX_LENGTH
    return digits if is_short and _LOWER_HEX.issuperset(digits) else None


def _reads_as_digest(text: str) -> bool:
    return _shortened_digits(text) is not None or reads_as_digest(text)


def _refuse_ambiguous(text: str, found: Sequence[str]) -> None:
    if len(found) > 1:
        raise InvalidReferenceError(f"{text} is the beginning of {len(found)} digests; give more digits")
