"""The system's table of mounts: /proc/self/mountinfo (proc(5))."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mountinfo")
"""That of this process's mount namespace."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")

MountFields = tuple[str, bytes, Path, str, str, bytes]
"""Device (``0:52``), what of the file system is mounted, mount point, type, source, options of the file system."""


def mount_fields(table: bytes) -> Iterator[MountFields]:
    """The lines of a table, in its order: later mounts are over earlier ones. What is no line is left out."""
    for line in table.split(b"\n"):
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        if len(fields) < 5 or not right:
            continue
        kind, source, options = [*right.split(b" "), b"", b""][:3]
        yield (
            fields[2].decode(),
            _unescaped(fields[3]),
            Path(os.fsdecode(_unescaped(fields[4]))),
            os.fsdecode(kind),
            os.fsdecode(_unescaped(source)),
            _unescaped(options),
        )


def _unescaped(field: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field)
