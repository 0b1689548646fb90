"""How names, sizes and times are written in a page. Names and texts came with images that others made."""

from datetime import UTC, datetime

from layerstore.wording import escaped

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
    return "".join(one if one.isprintable() or one in kept else escaped(one) for one in text)


def bytes_text(size: int) -> str:
    """A size to the byte."""
    return "1 byte" if size == 1 else f"{size:,} bytes"


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
