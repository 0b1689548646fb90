"""Images, tags and the trash, from the journal and the packs' manifests and configs: part of a rebuild."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.oci.closure import Closure, gather
from layerstore.operations.closure import needed_layers
from layerstore.storage.journal import Event, Journal, encode_event
from layerstore.storage.records import ImageRecord, TrashRecord


@dataclass(frozen=True, slots=True)
class ImageDamage:
    """An image that does not come back, or comes back without some of its layers."""

    digest: Digest
    tags: tuple[str, ...]
    reason: str


@dataclass(slots=True)
class History:
    """What the journal's events come to."""

    images: dict[Digest, Event] = field(default_factory=dict)
    trash: dict[Digest, Event] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    """Numbers of layers that are no more."""
    image_number_max: int = 0
    is_whole: bool = False
    """Whether the file was there and readable to its end."""

    @classmethod
    def of(cls, journal: Journal) -> "History":
        """Replay the journal."""
        found = cls()
        size = 0
        for event in journal.events():
            size += len(encode_event(event))
            found._replay(event)
        found.is_whole = journal.path.exists() and journal.path.stat().st_size == size
        return found

    def _replay(self, event: Event) -> None:
        kind = event.get("op")
        if kind == "drop-layer":
            self.dropped.add(event["number"])
        elif kind == "tag":
            self.tags[event["tag"]] = Digest(event["digest"])
        elif kind == "untag":
            self.tags.pop(event["tag"], None)
        elif kind in ("image", "trash", "drop-image"):
            digest = Digest(event["digest"])
            self.images.pop(digest, None)
            self.trash.pop(digest, None)
            self.image_number_max = max(self.image_number_max, event.get("number", 0))
            if kind == "image":
                self.images[digest] = event
            else:
                self.tags = {tag: named for tag, named in self.tags.items() if named != digest}
            if kind == "trash":
                self.trash[digest] = event


@dataclass(slots=True)
class Names:
    """The images that come back."""

    images: dict[Digest, ImageRecord] = field(default_factory=dict)
    trash: dict[Digest, TrashRecord] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    closures: dict[Digest, Closure] = field(default_factory=dict)
    """What hangs on each image, those in the trash included."""
    damaged: list[ImageDamage] = field(default_factory=list)
    recovered: list[Digest] = field(default_factory=list)
    """Images that the journal does not name; they have no tags."""

    def wanted(self, encodings: Mapping[Digest, Digest]) -> set[Digest]:
        """All layers that images need, given what the encodings decode to whose records were found."""
        return {one for closure in self.closures.values() for one in needed_layers(closure, encodings.get)}

    @property
    def blob_uses(self) -> dict[Digest, int]:
        """How often each manifest and config is used."""
        uses: dict[Digest, int] = {}
        for closure in self.closures.values():
            for one in closure.documents:
                uses[one] = uses.get(one, 0) + 1
        return uses

    def note_missing_layers(self, layers: Iterable[Digest], encodings: Mapping[Digest, Digest]) -> None:
        """Note which images lack layers, given those that are there, and what the encodings decode to."""
        there = set(layers)
        known = {one: one for one in there} | dict(encodings)
        for digest, closure in self.closures.items():
            missing = [one for one in needed_layers(closure, known.get) if one not in there]
            if missing:
                tags = tuple(sorted(tag for tag, named in self.tags.items() if named == digest))
                reason = f"lacks layer {', '.join(missing)}; push it, then create the image again"
                self.damaged.append(ImageDamage(digest, tags, reason))


ReadBlob = Callable[[Digest], bytes | None]
"""The bytes of a manifest or config; None if no pack has them."""


def bring_back_images(history: History, read_blob: ReadBlob) -> Names:
    """The images that the journal names and whose documents are there."""
    names = Names()
    for digest, event in (history.images | history.trash).items():
        named_by = {tag for tag, named in history.tags.items() if named == digest}
        try:
            closure = gather(digest, read_blob)
        except LayerstoreError as error:
            tags = named_by | set(event.get("tags", ()))
            names.damaged.append(ImageDamage(digest, tuple(sorted(tags)), str(error)))
            continue
        names.closures[digest] = closure
        record = ImageRecord(event["number"], event["created"], closure.config, 0)
        if digest in history.trash:
            names.trash[digest] = TrashRecord(record, event["deleted"], event["expires"], tuple(event["tags"]))
        else:
            names.images[digest] = replace(record, tag_count=len(named_by))
            names.tags |= dict.fromkeys(named_by, digest)
    return names


def recover_unnamed_images(
    names: Names,
    history: History,
    documents: Iterable[Digest],
    layers: Iterable[Digest],
    encodings: Mapping[Digest, Digest],
    read_blob: ReadBlob,
) -> None:
    """Without the whole journal: every manifest whose config and contents are all there becomes an untagged image."""
    there = set(layers)
    blobs = there.union(encodings)
    known = {one: one for one in there} | dict(encodings)
    number = history.image_number_max
    damaged = {damage.digest for damage in names.damaged}
    for digest in documents:
        if digest in names.closures or digest in damaged:
            continue
        try:
            closure = gather(digest, read_blob)
        except LayerstoreError:
            continue  # a config, or an image whose documents are not complete
        if there.issuperset(needed_layers(closure, known.get)) and blobs.issuperset(closure.needed_blob_digests):
            number += 1
            names.closures[digest] = closure
            names.images[digest] = ImageRecord(number, time.time_ns(), closure.config, 0)
            names.recovered.append(digest)
