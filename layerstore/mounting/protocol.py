"""What the kernel and a FUSE server say to each other (linux/fuse.h, version 7.31 of the protocol), as packed structs.

It is spoken here directly. Of the libraries, pyfuse3 hands on no inode with a read, only what `open` returned, and
cannot let the kernel cache directories; so every open and every listing would cost messages for ever.
"""

import struct
from enum import IntEnum, IntFlag

VERSION = (7, 31)
MINOR_OLDEST = 23
"""Of Linux 3.15: the layout of all structs below."""


class Opcode(IntEnum):
    """The requests that are answered, or that need no answer; all others get ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44
    LSEEK = 46


class Capability(IntFlag):
    """Flags of INIT that are asked for."""

    ASYNC_READ = 1 << 0
    READDIRPLUS = 1 << 13
    NO_OPEN = 1 << 17
    """ENOSYS for an open means: never ask again, and keep what is cached."""
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR = 1 << 24
    """As NO_OPEN; listings are cached, too."""


OPEN_KEEP_CACHE = 1 << 1
OPEN_CACHE_DIRECTORY = 1 << 3
"""What an open replies to a kernel that has no NO_OPEN or NO_OPENDIR."""

_ATTRIBUTES = "QQQqqqIIIIIIIIII"
IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
INIT_IN = struct.Struct("=IIII")
INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
ENTRY_OUT = struct.Struct(f"=QQQQII{_ATTRIBUTES}")
ATTRIBUTES_OUT = struct.Struct(f"=QII{_ATTRIBUTES}")
DIRENT = struct.Struct("=QQII")
DIRENT_PLUS = struct.Struct(f"=QQQQII{_ATTRIBUTES}QQII")
READ_IN = struct.Struct("=QQII")
OPEN_OUT = struct.Struct("=QII")
GETXATTR = struct.Struct("=II")
LSEEK_IN = struct.Struct("=QQII")
LSEEK_OUT = struct.Struct("=Q")
STATFS_OUT = struct.Struct("=QQQQQIIII24x")

READ_SIZE_MAX = 1 << 20
"""The longest read that is asked for at once: 256 pages, the most that Linux allows by itself."""
REQUEST_SIZE_MAX = 1 << 16
"""Room for a request. The longest are names of attributes, as nothing is written."""
NAME_LENGTH_MAX = 1024
"""The kernel refuses a listing with a longer name."""

_PADDINGS = tuple(bytes(-length % 8) for length in range(8))


def padding(length: int) -> bytes:
    """The zeros behind a name in a listing."""
    return _PADDINGS[length % 8]
