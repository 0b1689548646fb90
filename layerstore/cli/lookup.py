"""Finds what a user means: digests may be shortened to a unique beginning of twelve hex digits or more, as Docker's."""

from collections.abc import Sequence

from layerstore.digest import reads_as_digest
from layerstore.errors import ImageNotFoundError, InvalidReferenceError, LayerNotFoundError
from layerstore.objects import Image, Layer
from layerstore.store import Store

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
    found = [digest for digest in store.images if digest.startswith(f"sha256:{digits}")]
    _refuse_ambiguous(text, found)
    if not found:
        raise ImageNotFoundError(f"the store has no image {text}")
    return store.images[found[0]]


def find_layer(store: Store, text: str) -> Layer:
    """A layer by DiffID or shortened DiffID. Raises `LayerNotFoundError`."""
    digits = _shortened_digits(text)
    if digits is None:
        return store.layers[text]
    found = [diff_id for diff_id in store.layers if diff_id.startswith(f"sha256:{digits}")]
    _refuse_ambiguous(text, found)
    if not found:
        raise LayerNotFoundError(f"the store has no layer {text}")
    return store.layers[found[0]]


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
