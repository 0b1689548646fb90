"""Which other images have layers of an image."""

from collections import Counter
from dataclasses import dataclass

from layerstore.digest import Digest
from layerstore.objects import Image
from layerstore.registry.server.pages.readers import Reader
from layerstore.registry.server.pages.summaries import stored_layers
from layerstore.store import Store

_OTHERS_MAX = 1000
"""Other images of which it is looked up who may see them: those that share most."""
_SHOWN_MAX = 25


@dataclass(frozen=True, slots=True)
class Sharing:
    """The layers of an image, and who else has them."""

    sizes: dict[Digest, int]
    """The layers with their bytes."""
    others: tuple[tuple[Digest, tuple[Digest, ...]], ...]
    """The other images with the layers that they share with this one; those that share most come first."""


@dataclass(frozen=True, slots=True)
class SharedWith:
    """What an image shares with another one."""

    repository: str
    digest: Digest
    tags: tuple[str, ...]
    layer_count: int
    size: int


@dataclass(frozen=True, slots=True)
class SeenSharing:
    """What an image shares with others, as somebody may see it."""

    shown: tuple[SharedWith, ...]
    more: int
    """How many more images share some of its layers and are not listed."""
    hidden_count: int
    """How many images share layers that are in no repository which the reader may see."""
    hidden_layer_count: int
    hidden_size: int
    """The bytes of the layers that are shared with these, each layer once."""


def sharing_of(store: Store, image: Image) -> Sharing:
    """Who else has the layers of an image."""
    sizes: dict[Digest, int] = {}
    shared: dict[Digest, list[Digest]] = {}
    for layer in stored_layers(store, image):
        if layer.diff_id in sizes:
            continue
        sizes[layer.diff_id] = layer.size
        for other in layer.images:
            if other != image:
                shared.setdefault(other.digest, []).append(layer.diff_id)
    ordered = sorted(shared.items(), key=lambda item: (-sum(sizes[one] for one in item[1]), item[0]))
    return Sharing(sizes, tuple((digest, tuple(layers)) for digest, layers in ordered))


def users_besides(sharing: Sharing, whole: frozenset[Digest]) -> dict[Digest, int]:
    """How many other images have each of the layers, without those that the image is part of."""
    return dict(Counter(one for digest, layers in sharing.others if digest not in whole for one in layers))


def seen_by(reader: Reader, sharing: Sharing, whole: frozenset[Digest]) -> SeenSharing:
    """What somebody may see of it. ``whole`` are the indexes that the image is part of: they are not others."""
    store = reader.registry.store
    others = [one for one in sharing.others if one[0] not in whole]
    shown: list[SharedWith] = []
    more = max(0, len(others) - _OTHERS_MAX)
    hidden_count = 0
    hidden: set[Digest] = set()
    for digest, layers in others[:_OTHERS_MAX]:
        repositories, _ = reader.repositories_of(digest)
        other = store.images.get(digest)
        if not repositories or other is None:
            hidden_count += 1
            hidden.update(layers)
        elif len(shown) < _SHOWN_MAX:
            size = sum(sharing.sizes[one] for one in layers)
            shown.append(SharedWith(repositories[0], digest, tuple(reader.tags_of(other)), len(layers), size))
        else:
            more += 1
    hidden_size = sum(sharing.sizes[one] for one in hidden)
    return SeenSharing(tuple(shown), more, hidden_count, len(hidden), hidden_size)
