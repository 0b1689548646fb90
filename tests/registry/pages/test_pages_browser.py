"""The pages in Chromium: colours, narrow windows, the keyboard, and no script at all."""

import zlib
from collections.abc import Iterator

import pytest
from pages_browser import Browser, browsing
from pages_samples import Samples
from pages_server import RunningServer
from test_pages_html import _KINDS, address_of

_FOCUS = """(() => {
    const one = document.activeElement, style = getComputedStyle(one);
    return [one.tagName, (one.textContent || one.name || '').trim().slice(0, 40),
            one.matches(':focus-visible') && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("kind", _KINDS)
def test_pages_load_without_a_complaint_and_fit_narrow_windows(
    kind: str, browser: Browser, samples: Samples, server: RunningServer
) -> None:
    browser.log.clear()
    for width in (360, 1280):
        browser.look(width, 800, "light")
        browser.open(server.address + address_of(kind, samples))
        assert browser.tell("document.documentElement.scrollWidth") <= width
    refused = [one for one in browser.log if kind != "missing" or "404" not in one]
    assert not refused


def test_both_colour_schemes_are_served(browser: Browser, server: RunningServer) -> None:
    shots = {}
    for scheme in ("light", "dark"):
        browser.look(800, 600, scheme)
        browser.open(f"{server.address}/")
        shots[scheme] = browser.screenshot()
    assert size_of(shots["light"]) == size_of(shots["dark"]) == (800, 600)
    assert min(first_pixel(shots["light"])) > 230
    assert max(first_pixel(shots["dark"])) < 40
    assert all(len(shot) > 10_000 for shot in shots.values()), "there is something to see"


def test_everything_is_reached_with_the_keyboard(browser: Browser, server: RunningServer) -> None:
    browser.look(1280, 800, "light")
    browser.open(f"{server.address}/")
    browser.press("Tab")
    assert browser.tell(_FOCUS) == ["A", "Skip to the content", True]
    assert browser.tell("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Enter")
    browser.wait("location.hash === '#content'")
    browser.press("Tab")
    assert browser.tell(_FOCUS) == ["INPUT", "q", True]
    browser.type("site")
    browser.press("Enter")
    browser.wait("location.search === '?q=site' && document.readyState === 'complete'")
    for _ in range(20):
        browser.press("Tab")
        tag, text, is_visible = browser.tell(_FOCUS)
        assert is_visible, (tag, text)
        if text == "team/site":
            break
    browser.press("Enter")
    browser.wait("location.pathname === '/repositories/team/site' && document.readyState === 'complete'")
    assert browser.tell("document.querySelector('h1').textContent") == "team/site"


def test_details_open_with_the_keyboard(browser: Browser, samples: Samples, server: RunningServer) -> None:
    browser.look(1280, 800, "light")
    browser.open(f"{server.address}/images/team/site@{samples.site}")
    for _ in range(80):
        browser.press("Tab")
        tag, text, is_visible = browser.tell(_FOCUS)
        assert is_visible, (tag, text)
        if tag == "SUMMARY":
            break
    browser.press("Enter")
    assert browser.tell("document.querySelector('details').open")


def test_a_hostile_file_is_saved_and_not_opened(browser: Browser, samples: Samples, server: RunningServer) -> None:
    browser.open(f"{server.address}/images/odd@{samples.odd}/files?path=/odd/turned.txt")
    before = browser.tell("location.href")
    browser.call("Page.setDownloadBehavior", behavior="deny")
    result = browser.call("Page.navigate", url=browser.tell("document.querySelector('a[download]').href"))
    assert result["errorText"] == "net::ERR_ABORTED"
    assert browser.tell("location.href") == before


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def first_pixel(png: bytes) -> bytes:
    """Red, green and blue at the upper left: no filter of PNG changes the first pixel."""
    data, position = b"", 8
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        if png[position + 4 : position + 8] == b"IDAT":
            data += png[position + 8 : position + 8 + length]
        position += length + 12
    return zlib.decompress(data)[1:4]
