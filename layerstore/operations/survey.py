"""A survey of the packs: every record that is sound, found without the index, and what is damaged."""

import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from layerstore.digest import Digest
from layerstore.errors import ContentDamagedError, LayerstoreError
from layerstore.operations.threads import worker_count
from layerstore.storage.frames import decode_frame, decode_meta
from layerstore.storage.layout import Layout, translate_os_errors
from layerstore.storage.packs import PACK_HEADER, PackRecordHead, PackScan, RecordKind
from layerstore.storage.records import EncodingRecord, FrameRecord, FrameState, LayerRecord, Place


@dataclass(frozen=True, slots=True)
class FrameCopy:
    """One record of a frame. A frame has several where a rewritten pack was not unlinked, or damage was healed."""

    place: Place
    is_sound: bool
    positions: int
    states: bytes
    """Empty if all positions are present."""

    def state(self, position: int) -> FrameState:
        """What stands at a position, as the record says; a position beyond its end is a hole."""
        if position >= self.positions:
            return FrameState.HOLE
        return FrameState(self.states[position]) if self.states else FrameState.PRESENT


@dataclass(slots=True)
class PackSurvey:
    """What one pack holds."""

    pack: int
    size: int
    frames: list[tuple[int, FrameCopy]] = field(default_factory=list)
    segments: list[tuple[int, int, Place]] = field(default_factory=list)
    """Layer number, offset in the layer, place."""
    layers: list[tuple[Digest, LayerRecord]] = field(default_factory=list)
    blobs: list[tuple[Digest, Place]] = field(default_factory=list)
    encodings: list[tuple[Digest, EncodingRecord]] = field(default_factory=list)
    headless_layers: list[tuple[int, Digest]] = field(default_factory=list)
    """Layers of whose record only the head is sound: number and DiffID."""
    damaged: list[tuple[int, int]] = field(default_factory=list)
    """Where damaged bytes begin, and how many there are."""


@dataclass(slots=True)
class Survey:
    """What all packs hold together. Where a record is there more than once, the copy in the later pack counts."""

    packs: dict[int, int] = field(default_factory=dict)
    """Sizes of the files."""
    frames: dict[int, list[FrameCopy]] = field(default_factory=dict)
    segments: dict[int, dict[int, Place]] = field(default_factory=dict)
    """By layer number, then by offset."""
    layers: dict[int, tuple[Digest, LayerRecord]] = field(default_factory=dict)
    layer_packs: dict[int, list[int]] = field(default_factory=dict)
    """All packs that hold a layer's or an encoding's record."""
    encodings: dict[int, list[tuple[Digest, EncodingRecord]]] = field(default_factory=dict)
    """All records of an encoding: it has several if it came to be kept in another way."""
    headless_layers: dict[int, Digest] = field(default_factory=dict)
    blobs: dict[Digest, Place] = field(default_factory=dict)
    damaged: dict[tuple[int, int], int] = field(default_factory=dict)
    """Sizes of the damaged regions, by pack and offset."""
    damaged_bytes: int = 0

    def add(self, pack: PackSurvey) -> None:
        """Take in one more pack; packs come in the order of their numbers."""
        self.packs[pack.pack] = pack.size
        for number, copy in pack.frames:
            self.frames.setdefault(number, []).append(copy)
        for layer, offset, place in pack.segments:
            self.segments.setdefault(layer, {})[offset] = place
        for diff_id, record in pack.layers:
            self.layers[record.number] = (diff_id, record)
            self.layer_packs.setdefault(record.number, []).append(pack.pack)
        for digest, encoding in pack.encodings:
            self.encodings.setdefault(encoding.number, []).append((digest, encoding))
            self.layer_packs.setdefault(encoding.number, []).append(pack.pack)
        self.headless_layers.update(pack.headless_layers)
        self.blobs.update(pack.blobs)
        self.damaged.update({(pack.pack, start): size for start, size in pack.damaged})
        self.damaged_bytes += sum(size for _, size in pack.damaged)


def pack_files(layout: Layout) -> dict[int, Path]:
    """The pack files that are there, by number, in order."""
    with translate_os_errors(f"cannot read {layout.packs}"):
        paths = list(layout.packs.iterdir())
    numbered = [(layout.pack_number(path), path) for path in paths]
    return dict(sorted((number, path) for number, path in numbered if number is not None))


def survey_packs(layout: Layout) -> Iterator[PackSurvey]:
    """Read every pack whole, several at a time, in the order of their numbers."""
    files = pack_files(layout)
    pool = ThreadPoolExecutor(worker_count())
    try:
        yield from pool.map(survey_pack, files.values(), files)
    finally:
        pool.shutdown(cancel_futures=True)


def survey_pack(path: Path, pack: int) -> PackSurvey:
    """Read one pack whole: heads, bodies and, of frames, contents are checked."""
    with translate_os_errors(f"cannot read {path}"), path.open("rb") as file:
        scan = PackScan.of(file.fileno(), pack)
        found = PackSurvey(pack, scan.end)
        expected = PACK_HEADER.size
        for head in scan.records():
            if head.place.offset > expected:
                found.damaged.append((expected, head.place.offset - expected))
            expected = head.place.offset + head.place.size
            try:
                _take(found, head, os.pread(file.fileno(), head.body_size, head.body_offset))
            except (LayerstoreError, struct.error):
                # The head is sound and says something impossible, or the body is not what the head says.
                found.damaged.append((head.place.offset, head.place.size))
        if scan.end > expected:
            found.damaged.append((expected, scan.end - expected))
        return found


def _take(found: PackSurvey, head: PackRecordHead, body: bytes) -> None:
    if head.kind is RecordKind.FRAME:
        found.frames.append((head.number, _frame_copy(found, head, body)))
        return
    is_sound = zlib.crc32(body) == head.body_crc
    if head.kind is RecordKind.LAYER and not is_sound:
        found.headless_layers.append((head.number, Digest.unpack(head.meta)))
    if not is_sound:
        raise ContentDamagedError("a record's body does not match its checksum")
    if head.kind is RecordKind.SEGMENT:
        found.segments.append((head.number, int.from_bytes(head.meta, "big"), head.place))
    elif head.kind is RecordKind.LAYER:
        # The record cannot hold its own place, nor, in theory, another number than its head.
        record = replace(LayerRecord.decode(body), number=head.number, place=head.place)
        found.layers.append((Digest.unpack(head.meta), record))
    elif head.kind is RecordKind.ENCODING:
        encoding = replace(EncodingRecord.decode(body), number=head.number, place=head.place)
        found.encodings.append((Digest.unpack(head.meta), encoding))
    else:
        digest = Digest.unpack(head.meta)
        if Digest.of(body, digest.algorithm) != digest:
            raise ContentDamagedError("a blob does not match its digest")
        found.blobs.append((digest, head.place))


def _frame_copy(found: PackSurvey, head: PackRecordHead, body: bytes) -> FrameCopy:
    meta = decode_meta(head.meta)
    states = meta.states if any(meta.states) else b""
    is_sound = True
    try:
        # Not only the checksum: collection copies a frame as it is, so a sound record may hold damaged contents.
        decode_frame(FrameRecord(head.place, head.codec, meta.digest, meta.lengths, meta.states), body)
    except ContentDamagedError:
        found.damaged.append((head.place.offset, head.place.size))
        is_sound = False
    return FrameCopy(head.place, is_sound, len(meta.lengths), states)
