"""How names, sizes and times are written in a page. Names and texts came with images that others made."""

from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_LINE_BREAKS = frozenset("\n\t")


class Lines(str):
    """A text whose line breaks and tabs are to be shown as such."""

    __slots__ = ()


def visible(text: str) -> str:
    """``text`` with everything escaped that cannot be seen or that turns the order of what is around it.

    What HTML means by some characters is another matter, and that of the templates.
    """
    if text.isprintable():
        return text
    kept = _LINE_BREAKS if isinstance(text, Lines) else frozenset()
    return "".join(one if one.isprintable() or one in kept else _escaped(one) for one in text)


def path_text(path: bytes) -> str:
    """A path out of a layer; bytes that are not UTF-8 become ``\\xff``."""
    return path.decode("utf-8", "backslashreplace")


def size_text(size: float) -> str:
    """A size for humans, for example ``12.3 MiB``."""
    if abs(size) < 1024:
        return f"{size:.0f} B"
    value = float(size)
    unit = 0
    # 1023.96 KiB would be written as 1024.0 KiB.
    while round(abs(value), 1) >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}"


def bytes_text(size: int) -> str:
    """A size to the byte."""
    return "1 byte" if size == 1 else f"{size:,} bytes"


def count_text(count: int, noun: str) -> str:
    """For example ``1 layer``, ``2,000 layers`` or ``0 repositories``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def moment_text(moment: datetime) -> str:
    """A time for humans, to the minute. It is that of UTC: the time zone of whoever looks is not known here."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def exact_moment(moment: datetime) -> str:
    """A time for programs, as ``datetime`` of HTML wants it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_of(text: str | None) -> datetime | None:
    """The time that a document names; None if it is none that we can read."""
    try:
        moment = datetime.fromisoformat(text or "")
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8, as Python keeps it in file names
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
