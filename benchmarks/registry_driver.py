"""One step of the registry benchmark as a process of its own.

``python -m benchmarks.registry_driver upload ADDRESS REPOSITORY SIZE SEED`` pushes an image with a layer of at least so
many compressed bytes; ``litter STORE`` pushes layers that nothing keeps into a store, until it is ended.
"""

import hashlib
import random
import struct
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.registry_client import Client, image_documents
from layerstore import Store

PIECE_SIZE = 64 << 10
RANDOM_SIZE = 48 << 10
"""Bytes of each piece that cannot be compressed; the rest are zeros."""
PIECES = 16
"""Of one file."""
GZIP_HEAD = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
RAW_WINDOW = -15
LITTER_SIZE = 2 << 20
LITTER_SECONDS = 0.2


class Hasher(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes, /) -> None: ...


def main(arguments: Sequence[str]) -> int:
    """Do one step."""
    match list(arguments):
        case ["upload", address, repository, size, seed]:
            upload(address, repository, int(size), int(seed))
        case ["litter", store]:
            litter(Path(store))
        case _:
            raise ValueError(f"no step {arguments!r}")
    return 0


def upload(address: str, repository: str, size: int, seed: int) -> None:
    """Push an image whose layer is made while it is sent."""
    compressed, plain = hashlib.sha256(), hashlib.sha256()
    sent = 0

    def blocks() -> Iterator[bytes]:
        nonlocal sent
        for block in layer_blocks(size, seed, plain):
            compressed.update(block)
            sent += len(block)
            yield block

    with Client(address, repository) as client:
        location = client.add(client.begin(), blocks())
        digest = f"sha256:{compressed.hexdigest()}"
        client.finish(location, digest)
        config, manifest = image_documents(digest, sent, f"sha256:{plain.hexdigest()}")
        client.put_blob(config)
        client.put_manifest(manifest, "1")


def layer_blocks(size: int, seed: int, plain: Hasher) -> Iterator[bytes]:
    """A gzip layer of at least so many bytes, no two parts of which are the same; ``plain`` gets the tar.

    What cannot be compressed goes into blocks as it is, as encoders do it, too: so the client costs next to nothing.
    """
    source = random.Random(seed)
    zeros = bytes(PIECE_SIZE - RANDOM_SIZE)
    packed_zeros = _packed(zeros)
    checksum = total = done = number = 0
    yield GZIP_HEAD
    while done < size:
        head = _head(f"data/{number:06}", PIECES * PIECE_SIZE)
        content, encoded = [head], [_packed(head)]
        for _ in range(PIECES):
            data = source.randbytes(RANDOM_SIZE)
            content += (data, zeros)
            encoded += (_stored(data), packed_zeros)
        tar, block = b"".join(content), b"".join(encoded)
        plain.update(tar)
        checksum, total = zlib.crc32(tar, checksum), total + len(tar)
        done, number = done + len(block), number + 1
        yield block
    trailer = bytes(2 * tarfile.BLOCKSIZE)
    plain.update(trailer)
    checksum, total = zlib.crc32(trailer, checksum), total + len(trailer)
    yield _packed(trailer, zlib.Z_FINISH) + struct.pack("<LL", checksum, total & 0xFFFFFFFF)


def litter(root: Path) -> None:
    """Push one layer after another, and keep none."""
    source = random.Random(0)
    with Store.open(root) as store:
        while True:
            with store.lease(60) as lease:
                store.push_layer(source.randbytes(LITTER_SIZE), decode="never", lease=lease)
            time.sleep(LITTER_SECONDS)


def _packed(data: bytes, flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """Blocks of deflate that begin and end at a byte, and refer to nothing before them."""
    encoder = zlib.compressobj(1, zlib.DEFLATED, RAW_WINDOW)
    return encoder.compress(data) + encoder.flush(flush)


def _stored(data: bytes) -> bytes:
    """A block of deflate that is not compressed."""
    return struct.pack("<BHH", 0, len(data), len(data) ^ 0xFFFF) + data


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
