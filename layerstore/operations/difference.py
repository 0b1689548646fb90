"""Differences: a blob as what is needed to make it out of layers that somebody else has."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from layerstore._zstd import zstd
from layerstore.digest import Digest
from layerstore.operations.blob_reader import find_blob
from layerstore.operations.difference_format import (
    MAGIC,
    Head,
    Instruction,
    InstructionCoder,
    RecordKind,
    Take,
    encode_head,
    encode_literals,
    encode_record,
)
from layerstore.operations.difference_plan import LaidOutLayer, Plan, choose_bases, make_plan
from layerstore.operations.pull import RecipeReader, leased_layer
from layerstore.storage.frames import CODEC_STORED, CODEC_ZSTD
from layerstore.storage.opened import OpenedStore
from layerstore.storage.recipe import join_runs
from layerstore.storage.records import EncodingState

CANDIDATES_MAX = 256
"""Layers that are looked at for what they have in common with a blob."""
_COPIED_SHARE_MIN = 0.1
"""Where less of a layer comes from others, a difference is not worth it."""
_INSTRUCTIONS_MAX = 4096
_LITERALS_SIZE = 1 << 20
_BLOCK_LITERALS_SIZE = 4 << 20


class Difference:
    """What is needed to make a blob out of `bases`. Close it: it keeps all of them from collection."""

    def __init__(self, store: OpenedStore, head: Head, plan: Plan, reader: RecipeReader, leases: ExitStack) -> None:
        self._store = store
        self._head = head
        self._plan = plan
        self._reader = reader
        self._leases = leases

    @property
    def bases(self) -> tuple[Digest, ...]:
        """The layers that it is made against."""
        return self._head.bases

    @property
    def copied(self) -> int:
        """How many bytes of the layer come from the bases."""
        return self._plan.copied

    def close(self) -> None:
        """Let go of the layers. A second call does nothing."""
        self._leases.close()

    def __enter__(self) -> "Difference":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def blocks(self) -> Iterator[bytes]:
        """The bytes, for `Store.push_difference` of another store; every frame is verified."""
        yield MAGIC + encode_head(self._head)
        coder = InstructionCoder(len(self._head.bases))
        literals = (self._literals(0), self._literals(1))
        sent, taken = [0, 0], [0, 0]
        for instructions in _blocks(self._plan.instructions):
            for one in instructions:
                if isinstance(one, Take):
                    taken[one.stream] += one.size
            for stream in (0, 1):
                while sent[stream] < taken[stream]:
                    size, record = next(literals[stream])
                    sent[stream] += size
                    yield record
            yield coder.encode(instructions)
        yield encode_record(RecordKind.END)

    def _literals(self, stream: int) -> Iterator[tuple[int, bytes]]:
        """Records of all literals of a stream with their sizes. Whole frames are sent as they are stored."""
        waiting: list[bytes] = []
        size = 0
        for run in join_runs(self._plan.literals[stream]):
            with self._store.index.read() as transaction:
                record = transaction.frames[run.frame]
            is_whole = run.first == 0 and run.chunks == len(record.lengths) and not any(record.states)
            if is_whole or size >= _LITERALS_SIZE:
                if waiting:
                    yield _compressed(stream, waiting, size)
                waiting, size = [], 0
            if is_whole and (body := self._store.frames.stored_body(run.frame, record)) is not None:
                content = record.content_size
                yield content, encode_literals(stream, record.codec, content, body)
                continue
            data = bytes(self._reader.run_bytes(run))
            waiting.append(data)
            size += len(data)
        if waiting:
            yield _compressed(stream, waiting, size)


def make_difference(store: OpenedStore, digest: Digest, have: Sequence[Digest]) -> Difference | None:
    """The difference of a blob to those layers of ``have`` that the store has as well.

    None if the blob cannot be made of its layer, or if it has too little in common with them. Raises
    `BlobNotFoundError`.
    """
    found = find_blob(store, digest)
    layer, recipe = digest, b""
    if found.layer is None:
        if found.encoding is None or found.encoding.state is EncodingState.RAW:
            return None
        layer, recipe = found.encoding.diff_id, found.encoding.recipe
    with ExitStack() as stack:
        target = RecipeReader(store, stack.enter_context(leased_layer(store, layer)))
        names = _present(store, [one for one in dict.fromkeys(have[:CANDIDATES_MAX]) if one != layer])
        readers = [RecipeReader(store, stack.enter_context(leased_layer(store, one))) for one in names]
        chosen = choose_bases(target, readers)
        plan = make_plan(LaidOutLayer(target), [LaidOutLayer(readers[index]) for index in chosen])
        if plan.copied < _COPIED_SHARE_MIN * target.record.size:
            return None
        head = Head(digest, layer, target.record.size, recipe, tuple(names[index] for index in chosen))
        return Difference(store, head, plan, target, stack.pop_all())


def _present(store: OpenedStore, layers: Sequence[Digest]) -> list[Digest]:
    with store.index.read() as transaction:
        return [one for one in layers if one in transaction.layers]


def _compressed(stream: int, parts: list[bytes], size: int) -> tuple[int, bytes]:
    content = b"".join(parts)
    body = zstd.compress(content)
    if len(body) < size:
        return size, encode_literals(stream, CODEC_ZSTD, size, body)
    return size, encode_literals(stream, CODEC_STORED, size, content)


def _blocks(instructions: list[Instruction]) -> Iterator[list[Instruction]]:
    """The instructions, so many at a time as take a few MiB of literals."""
    block: list[Instruction] = []
    size = 0
    for one in instructions:
        block.append(one)
        size += one.size if isinstance(one, Take) else 0
        if len(block) >= _INSTRUCTIONS_MAX or size >= _BLOCK_LITERALS_SIZE:
            yield block
            block, size = [], 0
    if block:
        yield block
