"""Inputs and cases for Go's encoders, made from seeds alone so that stored digests stay valid on every Python."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("random", "text", "tar", "repetitive", "tiny", "skewed", "sparse", "mixed", "far")


@dataclass(frozen=True, slots=True)
class Case:
    """One stream: which encoder makes it, from which input, flushed after every so many bytes (0: never)."""

    number: int
    level: int
    block_size: int
    flush_every: int
    kind: str
    size: int
    seed: int

    @property
    def key(self) -> str:
        """What names the case in the vectors."""
        return f"{self.number}/{self.level}/{self.block_size}/{self.flush_every}/{self.kind}/{self.size}/{self.seed}"

    def data(self) -> bytes:
        """The input."""
        return make_input(self.kind, self.size, self.seed)


def _below(source: random.Random, bound: int) -> int:
    return source.getrandbits(32) % bound


def _words(source: random.Random) -> Iterator[bytes]:
    alphabet = b"etaoinshrdlucmfwypvbgkjqxz"
    vocabulary = [
        bytes(alphabet[min(_below(source, 26), _below(source, 26))] for _ in range(1 + _below(source, 9)))
        for _ in range(40 + _below(source, 400))
    ]
    while True:
        choice = min(_below(source, len(vocabulary)), _below(source, len(vocabulary)))
        yield vocabulary[choice] + (b" ", b" ", b" ", b", ", b".\n")[_below(source, 5)]


def _random(source: random.Random) -> Iterator[bytes]:
    while True:
        yield source.randbytes(4096)


def _tar(source: random.Random) -> Iterator[bytes]:
    words = _words(source)
    while True:
        name = b"usr/lib/" + b"/".join(next(words).strip(b" ,.\n") for _ in range(3))
        size = _below(source, 6000)
        fields = (b"0000644\0" + b"0000000\0") * 2
        header = name.ljust(100, b"\0") + fields + b"%011o\0" % size + b"14712345670\0"
        body = b"".join(next(words) for _ in range(size // 6)) if _below(source, 3) else source.randbytes(size)
        yield (header + b"%06o\0 0" % _below(source, 1 << 18)).ljust(512, b"\0") + body + b"\0" * (-len(body) % 512)


def _repetitive(source: random.Random) -> Iterator[bytes]:
    while True:
        yield source.randbytes(1 + _below(source, 40)) * (1 + _below(source, 900))


def _skewed(source: random.Random) -> Iterator[bytes]:
    while True:  # code lengths up to the limit: byte n is about half as frequent as byte n - 1
        bits = source.getrandbits(4096)
        piece = bytearray()
        run = 0
        for _ in range(4096):
            if bits & 1:
                piece.append(run)
                run = 0
            else:
                run = min(run + 1, 255)
            bits >>= 1
        yield bytes(piece)


def _sparse(source: random.Random) -> Iterator[bytes]:
    while True:
        yield b"\0" * _below(source, 3000) + source.randbytes(1 + _below(source, 8))


def _mixed(source: random.Random) -> Iterator[bytes]:
    makers = [maker(source) for maker in (_random, _text, _tar, _repetitive, _skewed, _sparse)]
    while True:
        maker = makers[_below(source, len(makers))]
        for _ in range(1 + _below(source, 30)):
            yield next(maker)


def _text(source: random.Random) -> Iterator[bytes]:
    words = _words(source)
    while True:
        yield b"".join(next(words) for _ in range(50))


def _far(source: random.Random) -> Iterator[bytes]:
    history = bytearray(source.randbytes(4000))
    while True:  # matches near the largest distance and of every length
        distance = min(
            len(history), 32768 - 300 + _below(source, 600) if _below(source, 2) else 1 + _below(source, 32768)
        )
        start = len(history) - distance
        piece = bytes(history[start : start + 3 + _below(source, 300)]) + source.randbytes(_below(source, 12))
        history += piece
        del history[:-70000]
        yield piece


_MAKERS = {
    "random": _random,
    "text": _text,
    "tar": _tar,
    "repetitive": _repetitive,
    "tiny": _text,
    "skewed": _skewed,
    "sparse": _sparse,
    "mixed": _mixed,
    "far": _far,
}


def _drift(size: int, seed: int) -> bytes:
    """Text that changes a little after 65,535 bytes: whether a new Huffman code pays is a close call there."""
    changed, text_seed = divmod(seed, 100)
    text = make_input("text", max(size, 2 * 65535), text_seed)
    drifted = bytearray(text)
    for i in range(changed):
        place = i * 40503 % 65535
        drifted[65535 + place] = text[place * 7 % 65535]
    return bytes(drifted[:size])


def make_input(kind: str, size: int, seed: int) -> bytes:
    """Bytes of the kind, always the same for the same arguments."""
    if kind == "drift":
        return _drift(size, seed)
    pieces, total = [], 0
    for piece in _MAKERS[kind](random.Random(seed)):
        pieces.append(piece)
        total += len(piece)
        if total >= size:
            break
    return b"".join(pieces)[:size]


def make_cases(seed: int, encoders: list[tuple[int, int, int]], largest: int) -> Iterator[Case]:
    """Cases without end; encoders are (number, level, block size)."""
    source = random.Random(seed)
    while True:
        number, level, block_size = encoders[_below(source, len(encoders))]
        kind = KINDS[_below(source, len(KINDS))]
        if kind == "tiny":
            size = _below(source, 301)
        elif _below(source, 3) == 0:
            size = 65400 + _below(source, 300)  # about the size of a block
        else:
            size = _below(source, 1 << (9 + _below(source, max(largest.bit_length() - 9, 1)))) % (largest + 1)
        flush_every = 0
        if _below(source, 6) == 0:
            flush_every = 1 + _below(source, (300, 5000, 200000)[_below(source, 3)])
            size = min(size, flush_every * 50)
        yield Case(number, level, block_size, flush_every, kind, size, _below(source, 1 << 30))
