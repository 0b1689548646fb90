"""Contents for tests: reproducible bytes, tars of every dialect and state of health, sources of every kind."""

import gzip
import io
import os
import random
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from layerstore import Digest, Layer, Store
from layerstore._zstd import zstd

BLOCK = 512
END = bytes(2 * BLOCK)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same ones every time."""
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int = 0) -> bytes:
    """Bytes that compress well."""
    words = [b"%d layer of an image %d\n" % (i * i, seed) for i in range(size // 16 + 1)]
    return b"".join(words)[:size]


def make_tar(files: Mapping[str, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def header(
    name: bytes = b"file", size: int = 0, typeflag: bytes = b"0", link: bytes = b"", *, magic: bool = True
) -> bytes:
    """A header block; without ``magic`` as v7 had it."""
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    block += b" " * 8 + typeflag + link.ljust(100, b"\0") + (b"ustar\x0000" if magic else b"")
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    """``data`` up to a block's end."""
    return data + bytes(-len(data) % BLOCK)


def member(contents: bytes, name: bytes = b"file", typeflag: bytes = b"0", *, magic: bool = True) -> bytes:
    """An entry with its contents."""
    return header(name, len(contents), typeflag, magic=magic) + padded(contents)


def pax(records: Mapping[bytes, bytes], typeflag: bytes = b"x") -> bytes:
    """A PAX header with ``records``."""
    body = b""
    for keyword, value in records.items():
        rest = len(keyword) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        body += b"%d %s=%s\n" % (length, keyword, value)
    return header(b"pax", len(body), typeflag) + padded(body)


def gnu_sparse(name: bytes, real_size: int, regions: list[tuple[int, bytes]]) -> bytes:
    """An old GNU sparse entry: type S, the map in the header and in extension blocks behind it."""
    fields = [
        b"%011o\0%011o\0" % (offset, len(data)) if offset < 8**11 else _base256(offset) + b"%011o\0" % len(data)
        for offset, data in regions
    ]
    payload = b"".join(data for _, data in regions)
    block = bytearray(header(name, len(payload), b"S"))
    block[257:265] = b"ustar  \0"
    block[386:482] = b"".join(fields[:4]).ljust(96, b"\0")
    rest = fields[4:]
    block[482] = bool(rest)
    block[483:495] = b"%011o\0" % real_size if real_size < 8**11 else _base256(real_size)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    extensions = b""
    while rest:
        extensions += b"".join(rest[:21]).ljust(504, b"\0") + bytes([len(rest) > 21]) + bytes(7)
        rest = rest[21:]
    return bytes(block) + extensions + padded(payload)


def _base256(number: int) -> bytes:
    return b"\x80" + number.to_bytes(11, "big")


def pax_sparse(name: bytes, real_size: int, regions: list[tuple[int, bytes]]) -> bytes:
    """A PAX sparse entry, version 1.0: the map stands before the contents."""
    numbers = [len(regions), *(number for offset, data in regions for number in (offset, len(data)))]
    contents = padded(b"".join(b"%d\n" % number for number in numbers)) + b"".join(data for _, data in regions)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % real_size,
    }
    return pax(records) + member(contents, b"GNUSparseFile.0/" + name[-60:])


def dialects() -> dict[str, bytes]:
    """Tars of every layout, whole and otherwise."""
    files = {"etc/passwd": text(900), "bin/tool": noise(70_000, 1), "empty": b"", "log": text(20_000, 2)}
    long = {f"{'deep/' * 30}{'n' * 150}": noise(3000, 3), "ümläut/ß": b"x", **files}
    plain = make_tar(files, tarfile.USTAR_FORMAT)
    v7 = member(text(700), b"old", b"\0", magic=False) + header(b"dir/", 0, b"\0", magic=False) + END
    return {
        "ustar": plain,
        "pax": make_tar(long, tarfile.PAX_FORMAT),
        "gnu": make_tar(long, tarfile.GNU_FORMAT),
        "v7": v7,
        "gnu sparse": gnu_sparse(b"s", 1 << 33, [(i << 20, noise(700, i)) for i in range(30)]) + END,
        "pax sparse": pax_sparse(b"s", 1 << 33, [(i << 20, noise(700, i)) for i in range(30)]) + END,
        "no end": plain.rstrip(b"\0") + bytes(3),
        "cut in a header": plain[: BLOCK + 1024 + 77],
        "cut in contents": plain[:40_000],
        "bytes behind": plain + b"and more\n" * 33,
        "concatenated": plain + v7 + plain[:30_000],
        "only zeros": bytes(10_240),
        "damaged header": plain[:1030] + b"?" + plain[1031:],
        "huge size": header(b"h", 8**11 - 1) + noise(5000, 9),
        "huge metadata": header(b"h", 8**11 - 1, b"x") + noise(5000, 9),
        "no tar": noise(90_000, 5),
        "empty": b"",
        "one byte": b"\0",
    }


def compressed(data: bytes) -> dict[str, tuple[bytes, bool]]:
    """Compressed forms of ``data``, good and bad; whether each can be decoded."""
    half = len(data) // 2
    one, two = gzip.compress(data, 1, mtime=0), zstd.compress(data, 1)
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    damaged = bytearray(one)
    damaged[-6] ^= 1
    return {
        "gzip": (one, True),
        "gzip members": (gzip.compress(data[:half], 1, mtime=0) + gzip.compress(data[half:], 9, mtime=0), True),
        "gzip, cut": (one[:-5], False),
        "gzip, damaged": (bytes(damaged), False),
        "gzip, bytes behind": (one + b"tail", False),
        "gzip, zeros behind": (one + bytes(512), False),
        "zstd": (two, True),
        "zstd frames": (zstd.compress(data[:half], 1) + skippable + zstd.compress(data[half:], 1), True),
        "zstd, cut": (two[:-3], False),
        "zstd, bytes behind": (two + b"tail", False),
        "gzip head alone": (b"\x1f\x8b\x08", False),
        "zstd head alone": (b"\x28\xb5\x2f\xfd", False),
    }


class Pipe:
    """A stream that cannot seek and gives odd amounts."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        self._data = io.BytesIO(data)
        self._random = random.Random(seed)

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._random.choice((1, 7, 511, 512, 4097, 65_536, 1 << 20))))


def pieces(data: bytes, seed: int = 0) -> Iterator[bytes]:
    """``data`` in odd-sized blocks, some of them empty."""
    chooser = random.Random(seed)
    start = 0
    while start < len(data):
        size = chooser.choice((0, 3, 512, 10_000, 1 << 20))
        yield data[start : start + size]
        start += size


def os_pipe(data: bytes) -> io.FileIO:
    """The reading end of a real pipe that ``data`` comes through."""
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return io.FileIO(reader, "rb")


def pulled(layer: Layer) -> bytes:
    """A layer's bytes."""
    buffer = io.BytesIO()
    layer.pull(buffer)
    return buffer.getvalue()


def sha256(data: bytes) -> Digest:
    """The DiffID of a layer with these bytes."""
    return Digest.of(data)


def packs_on_disk(store: Store) -> int:
    """Bytes of all pack files."""
    return sum(path.stat().st_size for path in (store.path / "packs").iterdir())


def packs_of(store: Store) -> list[Path]:
    """The pack files in order."""
    return sorted((store.path / "packs").iterdir())


def assert_clean(store: Store, *, full: bool = True) -> None:
    """`verify` finds nothing."""
    report = store.verify(full=full)
    assert report.is_clean, [problem.text for problem in report.problems]
