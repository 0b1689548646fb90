"""What holds for every page: headers, valid tags, and what those need who do not see it or have no mouse."""

import re
from importlib.resources import files
from itertools import pairwise

import pytest
from pages_html import Document
from pages_samples import HOSTILE, TURNED, Samples
from pages_server import RunningServer

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_KINDS = (
    "overview",
    "search",
    "repository",
    "image",
    "index",
    "part",
    "artifact",
    "directory",
    "file",
    "long",
    "odd",
    "missing",
)


def address_of(kind: str, samples: Samples) -> str:
    shop, odd = f"/images/team/shop@{samples.shop}", f"/images/odd@{samples.odd}"
    return {
        "overview": "/",
        "search": "/?q=%3Cscript%3Ealert(3)%3C/script%3E%E2%80%AE",
        "repository": "/repositories/team/shop",
        "image": shop,
        "index": f"/images/base@{samples.index}",
        "part": f"/images/base@{samples.parts['arm64']}",
        "artifact": f"/images/team/shop@{samples.signature}",
        "directory": f"{odd}/files?path=/odd",
        "file": f"{odd}/files?path=/odd/turned.txt",
        "long": f"{odd}/files?path=/odd/long.txt",
        "odd": odd,
        "missing": f"{odd}/files?path=/%3Cscript%3E%E2%80%AE",
    }[kind]


@pytest.fixture(params=_KINDS)
def text(request: pytest.FixtureRequest, samples: Samples, server: RunningServer) -> str:
    """A page of each kind, whose headers are right."""
    answer = server.get(address_of(request.param, samples))
    assert answer.status == (404 if request.param == "missing" else 200)
    assert answer.headers["content-security-policy"] == _POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "private, no-cache"
    return answer.text


def test_nothing_of_an_image_becomes_part_of_the_page(text: str) -> None:
    document = Document(text)
    assert not document.all("script", "iframe", "object", "embed", "base", "style")
    assert not [one for one in document.elements if any(name.startswith("on") for name in one.attributes)]
    assert HOSTILE not in text and TURNED not in text
    assert all(one.isprintable() or one == "\n" for one in text)
    for element in document.all("a", "form", "link"):
        target = element.attributes.get("href", element.attributes.get("action", ""))
        assert re.match(r"/|#|data:image/svg", target), target


def test_tags_are_balanced_and_ids_stand_once(text: str) -> None:
    document = Document(text)
    identifiers = [one.attributes["id"] for one in document.elements if "id" in one.attributes]
    assert len(identifiers) == len(set(identifiers))
    for element in document.elements:
        for name in ("aria-labelledby", "for"):
            for target in element.attributes.get(name, "").split():
                assert target in identifiers, (element.tag, name, target)
        if element.tag == "a" and element.attributes["href"].startswith("#"):
            assert element.attributes["href"][1:] in identifiers
        assert element.tag != "a" or not element.inside("a")


def test_the_page_has_a_language_a_title_and_landmarks(text: str) -> None:
    document = Document(text)
    assert document.all("html")[0].attributes["lang"] == "en"
    assert document.all("title")[0].text.endswith(" · layerstore")
    for tag in ("title", "h1", "main", "header", "footer"):
        assert tag == "header" or len(document.all(tag)) == 1, tag
    first = document.all("a")[0]
    assert first.attributes["class"] == "skip" and first.attributes["href"] == "#content"
    names = [one.attributes["aria-label"] for one in document.all("nav")]
    assert len(names) == len(set(names))


def test_headings_leave_no_level_out(text: str) -> None:
    levels = [int(one.tag[1]) for one in Document(text).all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(following <= level + 1 for level, following in pairwise(levels))


def test_tables_have_captions_and_heads(text: str) -> None:
    document = Document(text)
    for table in document.all("table"):
        assert table.children[0].tag == "caption" and table.children[0].text.strip()
        wide = table.parent
        assert wide is not None and wide.attributes["tabindex"] == "0", "what scrolls can be reached with the keyboard"
        columns = sum(int(cell.attributes.get("colspan", 1)) for cell in table.children[1].children[0].children)
        for row in table.children[2].children:
            assert row.children[0].attributes["scope"] == "row"
            assert sum(int(cell.attributes.get("colspan", 1)) for cell in row.children) == columns
    assert all(one.attributes.get("scope") in ("row", "col") for one in document.all("th"))
    assert not any("{" in one.text for one in document.all("thead")), "nothing of a template is left"


def test_sizes_and_times_are_exact_for_those_who_ask(text: str) -> None:
    document = Document(text)
    for element in document.all("data"):
        size = int(element.attributes["value"])
        assert element.attributes["title"] in (f"{size:,} bytes", "1 byte")
    for element in document.all("time"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", element.attributes["datetime"])


def test_inputs_have_labels(text: str) -> None:
    document = Document(text)
    labelled = {one.attributes["for"] for one in document.all("label")}
    assert {one.attributes["id"] for one in document.all("input")} == labelled


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: a contrast of 4.5 for text, 3 for what surrounds inputs and shows the focus."""
    sheet = files("layerstore.registry.server.pages").joinpath("style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[0]))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[1]))
    for ground in ("ground", "raised"):
        for front in ("text", "quiet", "link"):
            assert contrast(colours[front], colours[ground]) >= 4.5, (front, ground)
        for front in ("strong-rule", "focus", "own"):
            assert contrast(colours[front], colours[ground]) >= 3, (front, ground)
    assert contrast(colours["on-action"], colours["own"]) >= 4.5
    assert contrast(colours["own"], colours["rest"]) >= 3


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.2, "contrast ratio")."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
