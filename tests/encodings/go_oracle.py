"""Drive the Go programs of ``oracle/``, which compress with the real encoders.

``go build oracle/stdlib/stdflate.go`` makes that of the toolchain in use. The one for klauspost/compress is built in a
directory with a copy of ``klauspost.go`` and a ``go.mod`` that names the versions, as ``test_klauspost_makes_the_same``
does. What is compiled with ``GOARCH=arm64`` runs in QEMU's user mode.
"""

import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from go_cases import Case


class Oracle:
    """A running program of ``tests/encodings/oracle``."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def compress(self, case: Case, data: bytes, write_size: int = 0) -> bytes:
        """What the real encoder makes of the data."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(struct.pack("<iIIII", case.level, case.block_size, write_size, case.flush_every, len(data)) + data)
        stdin.flush()
        (size,) = struct.unpack("<I", stdout.read(4))
        return stdout.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()
