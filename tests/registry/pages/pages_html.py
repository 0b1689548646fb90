"""A page as its reader gets it: tags in their order, checked as far as anybody can tell by reading alone."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"br", "img", "input", "link", "meta", "hr", "wbr"})
_SELF_CLOSED = frozenset({"path", "rect", "line", "polygon", "polyline", "circle"})


@dataclass
class Element:
    """A tag and the text in it."""

    tag: str
    attributes: dict[str, str]
    parent: "Element | None"
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def inside(self, tag: str) -> bool:
        """Whether it lies in such a tag."""
        return self.parent is not None and (self.parent.tag == tag or self.parent.inside(tag))


class Document(HTMLParser):
    """A parsed page. Raises `AssertionError` for a tag that is not closed, or not where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        assert text.startswith("<!doctype html>\n")
        self.feed(text)
        self.close()
        assert not self._open, [one.tag for one in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        parent = self._open[-1] if self._open else None
        element = Element(tag, {name: value or "" for name, value in attrs}, parent)
        if parent is not None:
            parent.children.append(element)
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _SELF_CLOSED, f"<{tag}/> means <{tag}> in HTML"
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, (tag, [one.tag for one in self._open])
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        """The elements of these tags, in order."""
        return [one for one in self.elements if one.tag in tags]

    def rows(self, caption: str) -> list[list[str]]:
        """The cells of the table with that beginning of its caption, a list for each row of its body."""
        for table in self.all("table"):
            if " ".join(table.children[0].text.split()).startswith(caption):
                body = next(one for one in table.children if one.tag == "tbody")
                return [[" ".join(cell.text.split()) for cell in row.children] for row in body.children]
        raise AssertionError(f"there is no table {caption!r}")

    def facts(self) -> dict[str, str]:
        """What lists of terms say."""
        terms, values = self.all("dt"), self.all("dd")
        pairs = zip(terms, values, strict=True)
        return {" ".join(term.text.split()): " ".join(value.text.split()) for term, value in pairs}

    def links(self) -> dict[str, str]:
        """Addresses by the texts of their links."""
        return {" ".join(one.text.split()): one.attributes["href"] for one in self.all("a")}
