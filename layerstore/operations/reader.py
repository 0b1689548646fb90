"""What the readers of layers and of blobs have in common: a position in bytes that never change."""

import io
import os
from typing import NoReturn


class Reader(io.RawIOBase):
    """A seekable, read-only binary file. Whoever derives from it has `readinto`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        """Bytes of the whole."""
        self._position = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, as for any file. Positions beyond the end are allowed and read nothing."""
        position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence] + offset
        if position < 0:
            raise ValueError("negative seek position")
        self._position = position
        return position

    def write(self, data: object) -> NoReturn:
        """Not possible: what is stored never changes. Raises `io.UnsupportedOperation`."""
        raise io.UnsupportedOperation("it can only be read")
