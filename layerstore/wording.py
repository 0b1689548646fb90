"""How sizes, counts, paths and strange characters are written for humans, on a terminal and in a page alike."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size_text(size: float) -> str:
    """A size, for example ``12.3 MiB``."""
    if abs(size) < 1024:
        return f"{size:.0f} B"
    value = float(size)
    unit = 0
    # 1023.96 KiB would be written as 1024.0 KiB.
    while round(abs(value), 1) >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}"


def count_text(count: int, noun: str) -> str:
    """For example ``1 layer``, ``2,000 layers`` or ``0 directories``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def path_text(path: bytes) -> str:
    """A path out of a layer; bytes that are not UTF-8 become ``\\xff``."""
    return path.decode("utf-8", "backslashreplace")


def escaped(character: str) -> str:
    """A character that must not be shown as it is, as an escape that can be read."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8, as Python keeps it in file names
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
