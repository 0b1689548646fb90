"""Unsigned numbers of variable size (LEB128), and a reader of records that are made of them and trusts nothing."""

from layerstore.errors import IndexDamagedError

_NUMBER_SIZE_MAX = 9
NUMBER_MAX = (1 << 7 * _NUMBER_SIZE_MAX) - 1
"""The largest number: 2^63 - 1."""


def encode_number(value: int) -> bytes:
    """A number in seven bits a byte, the lowest first; the high bit says that more bytes follow."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def zigzag(value: int) -> int:
    """A signed number as an unsigned one: 0, -1, 1, -2 ... as 0, 1, 2, 3 ..."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """The reverse of `zigzag`."""
    return value >> 1 if value & 1 == 0 else -(value + 1 >> 1)


class Reader:
    """Reads a record. Whatever is not as it must be is an `IndexDamagedError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def number(self, minimum: int = 0, maximum: int = NUMBER_MAX) -> int:
        """The next number."""
        value = shift = 0
        for position in range(self._position, min(self._position + _NUMBER_SIZE_MAX, len(self._data))):
            byte = self._data[position]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._position = position + 1
                break
            shift += 7
        else:
            raise IndexDamagedError("record with a number that is cut or too long")
        if not minimum <= value <= maximum:
            raise IndexDamagedError(f"record with the number {value}, which must be from {minimum} to {maximum}")
        return value

    def count(self, minimum: int = 0) -> int:
        """How many things follow, of a byte or more each: never more than there are bytes."""
        return self.number(minimum, len(self._data) - self._position)

    def take(self, size: int) -> bytes:
        """The next bytes."""
        end = self._position + size
        if end > len(self._data):
            raise IndexDamagedError("record that is cut")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self._data) - self._position)

    @property
    def at_end(self) -> bool:
        """Whether no byte is left."""
        return self._position == len(self._data)

    def crc32(self) -> int:
        """The next four bytes, a CRC-32."""
        return int.from_bytes(self.take(4), "little")

    def end(self) -> None:
        """Nothing must follow."""
        if self._position != len(self._data):
            raise IndexDamagedError("record with bytes behind its end")
