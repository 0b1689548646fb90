"""Which roots of a source are meant: by references, by platform, and with what refers to them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError, InvalidInputError, InvalidManifestError
from layerstore.oci import media_types
from layerstore.oci.documents import Descriptor, Index
from layerstore.places.closure import Walker
from layerstore.places.names import answers_to
from layerstore.places.place import RemotePlace, Root, Source
from layerstore.places.platforms import WantedPlatform, normalized

_SHOWN_NAMES_MAX = 10
_REFERRERS_MAX = 10_000


def select(source: Source, references: Sequence[str] | None, platform: WantedPlatform | None) -> list[Root]:
    """The roots that are meant, each once: all if there are no references.

    Raises `ImageNotFoundError` for a reference that nothing answers to, and `InvalidInputError` for one, or a name,
    that several different images answer to.
    """
    if references is None:
        return _without_ambiguity(source, source.roots(), platform)
    find = _finder(source)
    chosen: list[Root] = []
    for reference in references:
        found = find(reference)
        exact = [root for root in found if root.name == reference]
        one = _without_ambiguity(source, exact or found, platform)
        if reference == one[0].descriptor.digest:
            # A digest means what has no other name, if there is such an entry.
            one = [next((root for root in one if root.name is None), one[0])]
        chosen += [root for root in one if root not in chosen]
    return chosen


def _finder(source: Source) -> Callable[[str], list[Root]]:
    """Gives the roots that answer to a reference. Raises `ImageNotFoundError` if none does."""
    if isinstance(source, RemotePlace):
        return lambda reference: _found_far(source, reference)
    roots = source.roots()

    def find(reference: str) -> list[Root]:
        found = [root for root in roots if answers_to(source, root, reference)]
        if not found:
            raise ImageNotFoundError(f"{source.name} has no image {reference[:200]!r}: {_available(roots)}")
        return found

    return find


def _found_far(source: RemotePlace, reference: str) -> list[Root]:
    found = source.roots_named(reference)
    if not found:
        raise ImageNotFoundError(f"{source.name} has no image {reference[:200]!r}")
    return found


def for_platform(walker: Walker, root: Root, wanted: WantedPlatform) -> Root:
    """The root of the one image of an index that is for a platform; a manifest stands for itself.

    Raises `ImageNotFoundError` if the index has none.
    """
    if root.descriptor.media_type not in media_types.INDEXES:
        return root
    entries = _manifests(walker, root.descriptor)
    chosen = wanted.choose(entries)
    if chosen is None:
        known = sorted({str(normalized(entry.platform)) for entry in entries if entry.platform is not None})
        raise ImageNotFoundError(
            f"{root.name or root.descriptor.digest} is not there for {wanted}; "
            f"it is for: {', '.join(known[:20]) or 'none'}"
        )
    return replace(root, descriptor=chosen)


def platform_to_copy(source: Source, root: Root, wanted: WantedPlatform) -> WantedPlatform | None:
    """The platform to choose an image of an index by; None where nothing is to be chosen from.

    Raises `ImageNotFoundError` if there are others, and not this one.
    """
    if root.descriptor.media_type not in media_types.INDEXES:
        return None
    walker = Walker(source)
    if all(entry.platform is None for entry in _manifests(walker, root.descriptor)):
        return None
    for_platform(walker, root, wanted)
    return wanted


def with_referrers(walker: Walker, source: Source, chosen: Sequence[Root], digests: Iterable[Digest]) -> list[Root]:
    """The roots that refer to what is chosen (signatures, attestations), and to those in turn.

    They say so by their ``subject``, or by their name (distribution specification, "Referrers Tag Schema").
    ``digests`` are all manifests and indexes that are chosen.
    """
    targets = set(digests)
    keys = {_key(root) for root in chosen}
    if isinstance(source, RemotePlace):
        return _referrers_far(source, keys, targets)
    result: list[Root] = []
    rest = [root for root in source.roots() if _key(root) not in keys]
    subjects = {root.descriptor.digest: _subject(walker, root.descriptor) for root in rest}
    grown = True
    while grown:
        found = [root for root in rest if subjects[root.descriptor.digest] in targets or _is_tagged(root, targets)]
        keys.update(_key(root) for root in found)
        rest = [root for root in rest if _key(root) not in keys]
        targets.update(root.descriptor.digest for root in found)
        result += found
        grown = bool(found)
    return result


def _referrers_far(source: RemotePlace, keys: set[tuple[str | None, Digest]], targets: set[Digest]) -> list[Root]:
    result: list[Root] = []
    asked: set[Digest] = set()
    while targets - asked:
        digest = min(targets - asked)
        asked.add(digest)
        for root in source.referrers_of(digest):
            if _key(root) in keys:
                continue
            if len(result) >= _REFERRERS_MAX:
                raise InvalidManifestError(f"{source.name} has more than {_REFERRERS_MAX} referrers of what is copied")
            keys.add(_key(root))
            targets.add(root.descriptor.digest)
            result.append(root)
    return result


def _without_ambiguity(source: Source, roots: list[Root], platform: WantedPlatform | None) -> list[Root]:
    by_name: dict[str | None, list[Root]] = {}
    seen: set[tuple[str | None, Digest]] = set()
    for root in roots:
        if _key(root) not in seen:
            seen.add(_key(root))
            by_name.setdefault(root.name, []).append(root)
    chosen = []
    for name, same in by_name.items():
        if name is None or len(same) == 1:
            chosen += same
            continue
        # A layout may have one name for several platforms (annotations.md, "org.opencontainers.image.ref.name").
        one = None if platform is None else platform.choose([root.descriptor for root in same])
        if one is None:
            digests = ", ".join(root.descriptor.digest for root in same[:4])
            raise InvalidInputError(f"{source.name} has several images {name!r}: choose one by digest: {digests}")
        chosen += [root for root in same if root.descriptor == one]
    return chosen


def _key(root: Root) -> tuple[str | None, Digest]:
    return root.name, root.descriptor.digest


def _manifests(walker: Walker, descriptor: Descriptor) -> list[Descriptor]:
    document = walker.document(descriptor)
    return list(document.manifests) if isinstance(document, Index) else []


def _subject(walker: Walker, descriptor: Descriptor) -> Digest | None:
    if descriptor.media_type not in media_types.MANIFESTS | media_types.INDEXES:
        return None
    try:
        subject = walker.document(descriptor).subject
    except InvalidManifestError:
        return None  # not asked for: nothing of it is copied
    return None if subject is None else subject.digest


def _is_tagged(root: Root, targets: set[Digest]) -> bool:
    if root.name is None:
        return False
    tag = root.name.rpartition(":")[2]
    algorithm, _, rest = tag.partition("-")
    return f"{algorithm}:{rest.partition('.')[0]}" in targets


def _available(roots: Sequence[Root]) -> str:
    names = list(dict.fromkeys(root.name or str(root.descriptor.digest) for root in roots))
    if not names:
        return "it has none at all"
    more = f" and {len(names) - _SHOWN_NAMES_MAX} more" if len(names) > _SHOWN_NAMES_MAX else ""
    return f"it has {', '.join(name[:200] for name in names[:_SHOWN_NAMES_MAX])}{more}"
