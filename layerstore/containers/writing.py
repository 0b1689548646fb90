"""A file of the image that is open for writing: it is copied up by the first write, not before."""

import io
from collections.abc import Callable


class LazyFile(io.RawIOBase):
    """Reads the image's file until something is written; then ``copy_up`` opens the container's own."""

    def __init__(
        self, original: io.BufferedReader, copy_up: Callable[[], io.FileIO], *, readable: bool, append: bool
    ) -> None:
        self._file: io.BufferedReader | io.FileIO = original
        self._copy_up = copy_up
        self._readable = readable
        self._append = append

    def readable(self) -> bool:
        """Whether it was opened for reading, too."""
        return self._readable

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Read what is there at present."""
        if not self._readable:
            raise io.UnsupportedOperation("the file is open for writing alone")
        return self._file.readinto(buffer) or 0

    def write(self, data: "memoryview | bytes | bytearray") -> int:  # type: ignore[override]
        """Write at the present position, or at the end of a file that is appended to."""
        file = self._own()
        if self._append:
            file.seek(0, io.SEEK_END)
        return file.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The present position."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cut the file, or fill it up with zeros."""
        return self._own().truncate(self.tell() if size is None else size)

    def close(self) -> None:
        """Close it. A second call does nothing."""
        if not self.closed:
            self._file.close()
        super().close()

    def _own(self) -> io.FileIO:
        if not isinstance(self._file, io.FileIO):
            position = self._file.tell()
            own = self._copy_up()
            self._file.close()
            own.seek(position)
            self._file = own
        return self._file
