"""What a layer's tar contains, read from its skeleton and recipe: no payload is touched."""

from collections.abc import Iterator

from layerstore.digest import Digest
from layerstore.operations.pull import RecipeReader, leased_layer
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import Ref, Segment
from layerstore.tar.entries import EntryReader, TarEntry


def layer_entries(store: OpenedStore, diff_id: Digest) -> Iterator[TarEntry]:
    """The entries of a layer in the order of its tar. A layer that is no tar has none."""
    for entry, _ in layer_contents(store, diff_id):
        yield entry


def layer_contents(store: OpenedStore, diff_id: Digest) -> Iterator[tuple[TarEntry, tuple[Ref, ...]]]:
    """The entries of a layer, each with the chunks of its contents.

    Chunks are cut alike wherever equal contents stand and each is stored once, so equal contents have equal chunks.
    """
    reader = EntryReader()
    contents: list[Ref] = []
    with leased_layer(store, diff_id) as record:
        recipe = RecipeReader(store, record)
        for _, segment in recipe.segments():
            chunks = _Chunks(recipe, segment)
            for part in recipe.skeleton_of(segment):
                if isinstance(part, int):
                    contents += chunks.take(part)
                    entries = reader.payload(part)
                else:
                    entries = reader.skeleton(part)
                for entry in entries:
                    # Contents belong to the entry that ends with them; the others of a list have none.
                    own = bool(entry.payload_size)
                    yield entry, tuple(contents) if own else ()
                    if own:
                        contents = []
        for entry in reader.finish():
            yield entry, tuple(contents)


class _Chunks:
    """The chunks of a segment's payload stream, in order."""

    def __init__(self, recipe: RecipeReader, segment: Segment) -> None:
        self._lengths = recipe.frame_lengths(segment.payload)
        self._refs = (
            Ref(run.frame, position) for run in segment.payload for position in range(run.first, run.first + run.chunks)
        )

    def take(self, length: int) -> list[Ref]:
        """The chunks of the next ``length`` bytes; pieces end where chunks end."""
        taken = []
        while length > 0:
            ref = next(self._refs)
            taken.append(ref)
            length -= self._lengths[ref.frame][ref.position]
        return taken
