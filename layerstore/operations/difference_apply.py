"""Taking a difference: its layer is put together out of others, stored, and the blob made of it and compared.

Everything in a difference is a stranger's word. What comes of it is a layer only if it has the DiffID that was
promised, and a blob only if it has the digest.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from layerstore.digest import Digest, digest_of_blocks
from layerstore.encodings.recipe import Recipe
from layerstore.encodings.regenerate import regenerate
from layerstore.errors import ContentDamagedError, DigestMismatchError, IndexDamagedError, UndecodableError
from layerstore.operations.blobs import PushedBlob, add_encoding
from layerstore.operations.difference_format import (
    Copy,
    Head,
    Instruction,
    InstructionCoder,
    RecordKind,
    decode_head,
    decode_literals,
    decode_records,
)
from layerstore.operations.layer_reader import LayerReader
from layerstore.operations.pull import layer_blocks_from
from layerstore.operations.push import Decode, push
from layerstore.operations.source import open_source
from layerstore.operations.upload import Holder
from layerstore.progress import OnProgress
from layerstore.storage.opened import OpenedStore
from layerstore.storage.records import NO_PLACE, EncodingRecord, EncodingState

_BLOCK_SIZE = 1 << 20
_STEPS_MIN = 1 << 16
_STEP_SIZE = 64
"""Bytes that an instruction makes at least, on average: it costs as much as to make some thousands."""
_BUFFER_SIZE_MAX = 160 << 20
"""Literals that are held until an instruction takes them. Differences made here need 70 MiB at the most."""


class ReceivedDifference:
    """A difference on its way in: its head is read, its bases can be looked at before anything is done with it."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        """Raises `UndecodableError` if this is no difference."""
        self._records = decode_records(blocks)
        kind, body = next(self._records, (RecordKind.END, b""))
        if kind is not RecordKind.HEAD:
            raise UndecodableError("a difference begins without a head")
        self._head: Head = decode_head(body)

    @property
    def digest(self) -> Digest:
        """The blob that it is of."""
        return self._head.blob

    @property
    def layer(self) -> Digest:
        """The layer of the blob."""
        return self._head.layer

    @property
    def size(self) -> int:
        """Bytes of the layer."""
        return self._head.size

    @property
    def recipe(self) -> bytes:
        """How the blob is made of its layer; empty if it is the layer."""
        return self._head.recipe

    @property
    def bases(self) -> tuple[Digest, ...]:
        """The layers that are needed to make it."""
        return self._head.bases

    def layer_blocks(self, store: OpenedStore) -> Iterator[bytes]:
        """The bytes of the layer. Raises `UndecodableError`, and `LayerNotFoundError` if a base is missing."""
        with ExitStack() as stack:
            bases = [stack.enter_context(LayerReader(store, base)) for base in self._head.bases]
            yield from _Composer(self._head, bases).blocks(self._records)


@dataclass(slots=True)
class _Composer:
    head: Head
    bases: list[LayerReader]
    done: int = 0
    steps: int = 0

    def blocks(self, records: Iterator[tuple[RecordKind, bytes]]) -> Iterator[bytes]:
        """Do what the records say."""
        coder = InstructionCoder(len(self.bases))
        literals = (bytearray(), bytearray())
        for kind, body in records:
            if kind is RecordKind.LITERALS:
                stream, data = decode_literals(body)
                literals[stream].extend(data)
                if sum(map(len, literals)) > _BUFFER_SIZE_MAX:
                    raise UndecodableError("a difference has more literals than its instructions take")
            elif kind is RecordKind.INSTRUCTIONS:
                for instruction in coder.decode(body):
                    self._count(instruction.size)
                    yield from self._do(instruction, literals)
            else:
                raise UndecodableError("a difference has two heads")
        if any(literals) or self.done != self.head.size:
            raise UndecodableError(f"a difference makes {self.done} bytes of a layer of {self.head.size}")

    def _count(self, size: int) -> None:
        self.done += size
        self.steps += 1
        if self.steps > _STEPS_MIN + self.done // _STEP_SIZE:
            raise UndecodableError("a difference is cut into too small pieces")
        if self.done > self.head.size:
            raise UndecodableError(f"a difference makes more than the {self.head.size} bytes of its layer")

    def _do(self, instruction: Instruction, literals: tuple[bytearray, bytearray]) -> Iterator[bytes]:
        if not isinstance(instruction, Copy):
            buffer = literals[instruction.stream]
            if len(buffer) < instruction.size:
                raise UndecodableError("a difference takes literals that it does not have")
            yield bytes(buffer[: instruction.size])
            del buffer[: instruction.size]
            return
        reader = self.bases[instruction.base]
        if instruction.offset + instruction.size > reader.size:
            raise UndecodableError("a difference copies from behind the end of a base")
        reader.seek(instruction.offset)
        left = instruction.size
        while left:
            block = reader.read(min(left, _BLOCK_SIZE))
            if not block:
                raise ContentDamagedError("a layer ends before its size")
            yield block
            left -= len(block)


def push_difference(
    store: OpenedStore,
    difference: ReceivedDifference,
    digest: Digest,
    *,
    holder: Holder,
    on_progress: OnProgress | None = None,
) -> PushedBlob:
    """Store the blob that a difference makes; it is safe when this returns. Raises `DigestMismatchError`."""
    store.check_writable()
    if difference.digest != digest:
        raise DigestMismatchError(digest, difference.digest)
    if not difference.recipe and difference.layer != digest:
        raise UndecodableError("a difference does not say how its blob is made of the layer")
    recipe = _recipe(difference.recipe) if difference.recipe else None
    with open_source(_joined(difference.layer_blocks(store)), str(digest)) as source:
        pushed = push(
            store,
            source,
            holder=holder,
            decode_mode=Decode.NEVER,
            expected=difference.layer,
            on_progress=on_progress,
        )
    size = pushed.size
    if recipe is not None:
        size = recipe.size
        _add_proved(store, digest, difference, recipe, holder)
    return PushedBlob(digest, pushed.diff_id, size, pushed.already_present, pushed.totals)


def _add_proved(
    store: OpenedStore, digest: Digest, difference: ReceivedDifference, recipe: Recipe, holder: Holder
) -> None:
    """Make the blob once, compare it, and keep the recipe."""
    layer = difference.layer
    try:
        made = digest_of_blocks(
            regenerate(recipe, lambda offset: layer_blocks_from(store, layer, offset)), digest.algorithm
        )
    except ContentDamagedError as error:
        raise UndecodableError(f"the recipe in a difference does not fit its layer: {error}") from None
    if made != digest:
        raise DigestMismatchError(digest, made)
    record = EncodingRecord(0, NO_PLACE, layer, recipe.size, EncodingState.RECIPE, recipe=difference.recipe)
    add_encoding(store, digest, record, holder, None)


def _recipe(data: bytes) -> Recipe:
    try:
        return Recipe.from_bytes(data)
    except IndexDamagedError as error:
        raise UndecodableError(f"the recipe in a difference makes no sense: {error}") from None


def _joined(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of about 1 MiB: a push costs something a block."""
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size >= _BLOCK_SIZE:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
