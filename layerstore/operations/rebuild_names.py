"""Images, tags and the trash, from the journal and the packs' manifests and configs: part of a rebuild."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from layerstore.digest import Digest
from layerstore.errors import BlobNotFoundError, LayerstoreError
from layerstore.oci.config import parse_config
from layerstore.oci.documents import parse_manifest
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
    diff_ids: dict[Digest, tuple[Digest, ...]] = field(default_factory=dict)
    """The layers of each image, those in the trash included."""
    damaged: list[ImageDamage] = field(default_factory=list)
    recovered: list[Digest] = field(default_factory=list)
    """Images that the journal does not name; they have no tags."""

    @property
    def wanted(self) -> set[Digest]:
        """All layers that images need."""
        return {one for layers in self.diff_ids.values() for one in layers}

    @property
    def blob_uses(self) -> dict[Digest, int]:
        """How often each manifest and config is used."""
        uses: dict[Digest, int] = {}
        records = self.images | {digest: record.image for digest, record in self.trash.items()}
        for digest, record in records.items():
            for one in (digest, record.config):
                uses[one] = uses.get(one, 0) + 1
        return uses

    def note_missing_layers(self, layers: Iterable[Digest]) -> None:
        """Note which images lack layers, given those that are there."""
        there = set(layers)
        for digest, diff_ids in self.diff_ids.items():
            missing = [one for one in diff_ids if one not in there]
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
            config, diff_ids = _read_documents(digest, read_blob)
        except LayerstoreError as error:
            tags = named_by | set(event.get("tags", ()))
            names.damaged.append(ImageDamage(digest, tuple(sorted(tags)), str(error)))
            continue
        names.diff_ids[digest] = diff_ids
        record = ImageRecord(event["number"], event["created"], config, 0)
        if digest in history.trash:
            names.trash[digest] = TrashRecord(record, event["deleted"], event["expires"], tuple(event["tags"]))
        else:
            names.images[digest] = replace(record, tag_count=len(named_by))
            names.tags |= dict.fromkeys(named_by, digest)
    return names


def recover_unnamed_images(
    names: Names, history: History, blobs: Iterable[Digest], layers: Iterable[Digest], read_blob: ReadBlob
) -> None:
    """Without the whole journal: every manifest whose config and layers are all there becomes an untagged image."""
    there = set(layers)
    number = history.image_number_max
    damaged = {damage.digest for damage in names.damaged}
    for digest in blobs:
        if digest in names.diff_ids or digest in damaged:
            continue
        try:
            config, diff_ids = _read_documents(digest, read_blob)
        except LayerstoreError:
            continue  # a config, or an image whose documents are not complete
        if there.issuperset(diff_ids):
            number += 1
            names.diff_ids[digest] = diff_ids
            names.images[digest] = ImageRecord(number, time.time_ns(), config, 0)
            names.recovered.append(digest)


def _read_documents(digest: Digest, read_blob: ReadBlob) -> tuple[Digest, tuple[Digest, ...]]:
    """Config and layers of an image."""
    manifest = _needed(digest, read_blob)
    config = parse_manifest(manifest).config.digest
    return config, parse_config(_needed(config, read_blob)).diff_ids


def _needed(digest: Digest, read_blob: ReadBlob) -> bytes:
    data = read_blob(digest)
    if data is None:
        raise BlobNotFoundError(f"no pack has blob {digest}")
    return data
