"""The tools whose bytes zlib's family of encoders makes, and why one of them may not be asked here."""

import shutil
import subprocess
import tempfile
import zlib
from itertools import pairwise

from layerstore.encodings._encoders import Encoder

ZLIB, PIGZ, PIGZ_ONE_THREAD, PIGZ_INDEPENDENT, GNU_GZIP = 16, 17, 18, 19, 20

PIGZ_ARGUMENTS = {PIGZ: ("-p", "3"), PIGZ_ONE_THREAD: ("-p", "1"), PIGZ_INDEPENDENT: ("-i", "-p", "2")}
PIGZ_BLOCK_SIZE = 131072

_GZIP_HEADER_SIZE = 10
_GZIP_TRAILER_SIZE = 8


def no_zlib() -> str | None:
    """Why this Python's zlib is not the one that is meant; None when it is."""
    version = zlib.ZLIB_RUNTIME_VERSION
    if "ng" in version or not version.startswith(("1.2.11", "1.2.12", "1.2.13", "1.3")):
        return f"this Python uses zlib {version}, whose bytes may differ from those of zlib 1.2.11-1.3.x"
    return None


def no_pigz() -> str | None:
    """Why pigz cannot be asked; None when it can."""
    return None if shutil.which("pigz") else "pigz is not installed"


def no_gnu_gzip() -> str | None:
    """Why GNU gzip cannot be asked; None when it can."""
    if not shutil.which("gzip"):
        return "gzip is not installed"
    version = subprocess.run(["gzip", "--version"], capture_output=True, check=False).stdout
    return None if b"Free Software Foundation" in version else "gzip is not GNU's"


def zlib_bytes(level: int, data: bytes) -> bytes:
    """What zlib makes of the data."""
    stream = zlib.compressobj(level, wbits=-15)
    return stream.compress(data) + stream.flush()


def pigz_bytes(number: int, level: int, block_size: int, data: bytes) -> bytes:
    """What pigz makes of the data, without gzip's header and trailer."""
    command = ["pigz", "-c", "-n", f"-{level}", "-b", str(block_size // 1024), *PIGZ_ARGUMENTS[number]]
    output = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    return output[_GZIP_HEADER_SIZE:-_GZIP_TRAILER_SIZE]


def gnu_gzip_bytes(level: int, data: bytes) -> bytes:
    """What GNU gzip makes of the data when it reads them from a file, without gzip's header and trailer."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        output = subprocess.run(["gzip", "-cn", f"-{level}"], stdin=file, stdout=subprocess.PIPE, check=True).stdout
    return output[_GZIP_HEADER_SIZE:-_GZIP_TRAILER_SIZE]


def our_bytes(number: int, level: int, block_size: int, data: bytes, cuts: tuple[int, ...] = ()) -> bytes:
    """What our encoder makes of the data, which it gets cut at the given places."""
    encoder = Encoder(number, level, block_size)
    written = [encoder.write(data[start:end]) for start, end in pairwise((0, *cuts, len(data)))]
    return b"".join(written) + encoder.finish()
