"""What images are called, and what they are to be called elsewhere.

In a layout a name is any text, often a mere tag. A store and a Docker archive need references. Towards them a tag
belongs to the repository that the source stands for; from them to a layout only the tag is taken along.
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from layerstore.errors import InvalidReferenceError
from layerstore.oci.reference import Reference, check_tag
from layerstore.places.index_file import CONTAINERD_NAME
from layerstore.places.place import Root, Sink, Source

_ARCHIVE_SUFFIX = re.compile(r"(\.(oci|docker))?(\.(tar|tgz))?(\.(gz|zst))?$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def repository_of(file_name: str) -> str | None:
    """The repository that a layout or archive of this name stands for, if a name can be made of it."""
    stem = _ARCHIVE_SUFFIX.sub("", file_name.lower())
    return _SEPARATORS.sub("-", stem).strip("-")[:128].strip("-") or None


def is_tag(text: str) -> bool:
    """Whether a name is a mere tag. What has neither colon nor slash never is a reference here."""
    if not {":", "/", "@"}.isdisjoint(text):
        return False
    try:
        check_tag(text)
    except InvalidReferenceError:
        return False
    return True


def full_name(source: Source, name: str) -> str:
    """The reference that a name stands for. Raises `InvalidReferenceError` if it stands for none."""
    if not is_tag(name):
        return str(Reference.parse(name))
    if source.repository is None:
        raise InvalidReferenceError(f"{name!r} is a mere tag, and {source.name} has no repository: give a whole name")
    return str(Reference(source.repository, name))


def reference_of(source: Source, root: Root) -> str | None:
    """The reference that a root's name stands for, by what containerd and BuildKit note beside it if they do.

    None for a root without a name. Raises `InvalidReferenceError` if the name stands for none.
    """
    if root.name is None:
        return None
    told = root.descriptor.annotations.get(CONTAINERD_NAME, "")
    if is_tag(root.name) and told.endswith(f":{root.name}"):
        with suppress(InvalidReferenceError):
            return str(Reference.parse(told).familiar())
    return full_name(source, root.name)


def answers_to(source: Source, root: Root, wanted: str) -> bool:
    """Whether ``wanted`` names the root: by its name, its digest, or by a reference that comes to the same."""
    if wanted in (root.name, root.descriptor.digest):
        return True
    if root.name is None:
        return False
    try:
        own = Reference.parse(reference_of(source, root) or "").normalized()
        if is_tag(wanted) and source.names_are_references:
            return own == Reference.parse(wanted).normalized()
        return own == Reference.parse(full_name(source, wanted)).normalized()
    except InvalidReferenceError:
        return False


def names_in(sink: Sink, source: Source, roots: Sequence[Root]) -> list[str | None]:
    """What the roots are to be called in the sink. Raises `InvalidReferenceError`."""
    if sink.names_are_references:
        return [reference_of(source, root) for root in roots]
    if not source.names_are_references:
        return [root.name for root in roots]
    tags = [None if root.name is None else Reference.parse(root.name).tag for root in roots]
    # Where several repositories have the same tag, only whole references tell their images apart.
    counts = Counter(tags)
    return [root.name if counts[tag] > 1 else tag for root, tag in zip(roots, tags, strict=True)]


def checked_name(sink: Sink, source: Source, name: str) -> str:
    """A name that was asked for, as the sink needs it. Raises `InvalidReferenceError`."""
    if not sink.names_are_references:
        if not name:
            raise InvalidReferenceError("a name cannot be empty")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidReferenceError(f"{name!r} cannot be a name: it is not UTF-8") from None
        return name
    if is_tag(name) and source.repository is not None:
        return full_name(source, name)
    return str(Reference.parse(name))
