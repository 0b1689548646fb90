"""Which bytes differ between two versions of a file: chunks that both have are found wherever they stand."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from io import BufferedReader

from layerstore.chunking import Chunker
from layerstore.storage.frames import chunk_id

_BLOCK_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of the old version, and those of the new one that stand in their place. Either may be none."""

    old_offset: int
    old_size: int
    new_offset: int
    new_size: int


def compare_contents(old: BufferedReader, new: BufferedReader) -> list[ByteRange]:
    """The bytes that differ, in order; begin and end of each range differ. Both files are read once, and where they
    differ again.

    What both have is found by content-defined chunking (`layerstore.chunking`), so that what was inserted or removed
    shifts nothing.
    """
    before, after = list(_chunks(old)), list(_chunks(new))
    start = _common(before, after)
    end = min(_common(before[::-1], after[::-1]), len(before) - start, len(after) - start)
    offsets, new_offsets = _offsets(before), _offsets(after)
    middle, new_middle = before[start : len(before) - end], after[start : len(after) - end]
    matcher = SequenceMatcher(None, middle, new_middle, autojunk=False)
    found = []
    for tag, first, last, new_first, new_last in matcher.get_opcodes():
        if tag != "equal":
            one = (offsets[start + first], offsets[start + last])
            other = (new_offsets[start + new_first], new_offsets[start + new_last])
            found.append(_trimmed(old, one, new, other))
    return [one for one in found if one.old_size or one.new_size]


def _chunks(file: BufferedReader) -> Iterator[tuple[bytes, int]]:
    chunker = Chunker()
    file.seek(0)
    while block := file.read(_BLOCK_SIZE):
        yield from ((chunk_id(chunk), len(chunk)) for chunk in chunker.feed(memoryview(block), False))
    yield from ((chunk_id(chunk), len(chunk)) for chunk in chunker.feed(memoryview(b""), True))


def _common(before: list[tuple[bytes, int]], after: list[tuple[bytes, int]]) -> int:
    count = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        count += 1
    return count


def _offsets(chunks: list[tuple[bytes, int]]) -> list[int]:
    offsets = [0]
    for _, size in chunks:
        offsets.append(offsets[-1] + size)
    return offsets


def _trimmed(old: BufferedReader, one: tuple[int, int], new: BufferedReader, other: tuple[int, int]) -> ByteRange:
    """A range without the bytes that both have at its begin and end."""
    old_begin, old_end = one
    new_begin, new_end = other
    head = _equal_head(old, old_begin, new, new_begin, min(old_end - old_begin, new_end - new_begin))
    room = min(old_end - old_begin, new_end - new_begin) - head
    tail = _equal_tail(old, old_end, new, new_end, room)
    return ByteRange(
        old_begin + head, old_end - old_begin - head - tail, new_begin + head, new_end - new_begin - head - tail
    )


def _equal_head(old: BufferedReader, old_at: int, new: BufferedReader, new_at: int, size: int) -> int:
    done = 0
    while done < size:
        count = min(_BLOCK_SIZE, size - done)
        ours, theirs = _read(old, old_at + done, count), _read(new, new_at + done, count)
        if ours != theirs:
            return done + _equal_count(ours, theirs)
        done += count
    return done


def _equal_tail(old: BufferedReader, old_end: int, new: BufferedReader, new_end: int, size: int) -> int:
    done = 0
    while done < size:
        count = min(_BLOCK_SIZE, size - done)
        ours, theirs = _read(old, old_end - done - count, count), _read(new, new_end - done - count, count)
        if ours != theirs:
            return done + _equal_count(ours[::-1], theirs[::-1])
        done += count
    return done


def _equal_count(ours: bytes, theirs: bytes) -> int:
    """How many bytes two texts that differ begin with in common, by halves: comparing is fast, a loop is not."""
    low, high = 0, len(ours)
    while high - low > 1:
        middle = (low + high) // 2
        if ours[low:middle] == theirs[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _read(file: BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
