"""What ``import --name`` means: a reference for one image, or a repository, in which all keep their tags."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from layerstore.errors import InvalidInputError, InvalidOptionError, InvalidReferenceError
from layerstore.places.names import full_name, is_tag
from layerstore.places.place import Root, Source
from layerstore.places.platforms import WantedPlatform
from layerstore.places.selection import select

_DEFAULT_TAG = "latest"


@dataclass(frozen=True, slots=True)
class Naming:
    """Images to copy, and the new name if there is one for them."""

    references: list[str] | None
    name: str | None


def namings(source: Source, references: list[str] | None, name: str | None, platform: str | None) -> list[Naming]:
    """The copies that give images a new name.

    Raises `ImageNotFoundError`, and `InvalidInputError` if several images would get the same name.
    """
    if name is None:
        return [Naming(references, None)]
    roots = select(source, references, None if platform is None else WantedPlatform.parse(platform))
    if _has_tag(name):
        if len(roots) > 1:
            raise InvalidOptionError(
                f"{name} cannot be the name of {len(roots)} images: choose one of them, or give a repository without "
                "a tag, in which they keep theirs"
            )
        return [Naming(references, name)]
    tags = [_tag_of(source, root) for root in roots]
    if len(roots) == 1:
        tags = [tags[0] or _DEFAULT_TAG]
    _refuse_repeated(tags, name)
    return [
        Naming([root.name or str(root.descriptor.digest)], None if tag is None else f"{name}:{tag}")
        for root, tag in zip(roots, tags, strict=True)
    ]


def _has_tag(name: str) -> bool:
    return "@" in name or ":" in name.rpartition("/")[2]


def _tag_of(source: Source, root: Root) -> str | None:
    if root.name is None or is_tag(root.name):
        return root.name
    try:
        reference = full_name(source, root.name)
    except InvalidReferenceError:
        return None  # a layout may have any text
    return None if "@" in reference else reference.rpartition(":")[2]


def _refuse_repeated(tags: Sequence[str | None], name: str) -> None:
    repeated = [tag for tag, count in Counter(tag for tag in tags if tag is not None).items() if count > 1]
    if repeated:
        raise InvalidInputError(f"several images would be {name}:{repeated[0]}: choose one of them, and name it whole")
