"""Content that has to be what its descriptor says."""

from collections.abc import Callable, Iterable, Iterator

from layerstore.digest import compared
from layerstore.errors import InvalidManifestError
from layerstore.oci.documents import DOCUMENT_SIZE_MAX, Descriptor


def measured(
    descriptor: Descriptor, blocks: Iterable[bytes], on_block: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """The blocks as they come, each told by its size to ``on_block``.

    Raises `InvalidManifestError` as soon as the size is not the descriptor's.
    """
    size = 0
    for block in blocks:
        size += len(block)
        if size > descriptor.size:
            raise _wrong_size(descriptor, f"more than {descriptor.size}")
        if on_block is not None:
            on_block(len(block))
        yield block
    if size != descriptor.size:
        raise _wrong_size(descriptor, str(size))


def verified(
    descriptor: Descriptor, blocks: Iterable[bytes], on_block: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """As `measured`; raises also `DigestMismatchError` at the end."""
    return compared(measured(descriptor, blocks, on_block), descriptor.digest)


def verified_document(descriptor: Descriptor, blocks: Iterable[bytes]) -> bytes:
    """A whole document. Raises as `verified` does, and `InvalidManifestError` for one that is too large."""
    check_document_size(descriptor)
    return b"".join(verified(descriptor, blocks))


def check_document_size(descriptor: Descriptor) -> None:
    """Raise `InvalidManifestError` if no document may be as large as the descriptor says."""
    if descriptor.size > DOCUMENT_SIZE_MAX:
        raise InvalidManifestError(
            f"{descriptor.digest} has {descriptor.size} bytes: documents over {DOCUMENT_SIZE_MAX} are not accepted"
        )


def _wrong_size(descriptor: Descriptor, actual: str) -> InvalidManifestError:
    return InvalidManifestError(f"{descriptor.digest} has {actual} bytes where its descriptor says {descriptor.size}")
