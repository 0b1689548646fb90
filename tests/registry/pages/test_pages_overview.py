"""The page at ``/``: repositories, the store's figures, and its ratio over time."""

import time
from pathlib import Path

from pages_html import Document
from pages_samples import Samples, layer, put
from pages_server import RunningServer, serving

from layerstore import Store


def test_it_lists_all_repositories_with_their_figures(server: RunningServer) -> None:
    rows = Document(server.page("/")).rows("6 repositories")
    assert [(name, tags, images) for name, tags, images, *_ in rows] == [
        ("base", "1", "1"),
        ("mirror/shop", "1", "1"),
        ("odd", "1", "1"),
        ("private/plans", "1", "1"),
        ("team/shop", "2", "2"),
        ("team/site", "1", "1"),
    ]
    assert all(size.endswith("KiB") and newest.startswith("20") for *_, size, newest in rows)


def test_the_form_finds_a_part_of_a_name(server: RunningServer) -> None:
    found = Document(server.page("/?q=SHOP"))
    assert [row[0] for row in found.rows("2 repositories with “SHOP”")] == ["mirror/shop", "team/shop"]
    assert found.links()["Show all"] == "/"
    nothing = server.page("/?q=%3Cb%3Enothing")
    assert "No repository that you may see has “&lt;b&gt;nothing” in its name" in nothing
    assert "Show all 6 repositories" in nothing


def test_the_figures_of_the_store_are_those_of_its_statistics(samples: Samples, server: RunningServer) -> None:
    def shown_and_counted() -> tuple[list[str], list[str]]:
        facts = Document(server.page("/")).facts()
        with Store.open(samples.path, read_only=True) as store:
            stats = store.stats()
        shown = [facts["Images"], facts["Layers"], facts["Ratio"]]
        return shown, [str(stats.images), str(stats.layers), f"{stats.ratio:.2f}"]

    # The server works on its encodings beside this, and shows figures that are half a minute old at most.
    end = time.monotonic() + 60
    shown, counted = shown_and_counted()
    while shown != counted and time.monotonic() < end:
        time.sleep(1)
        shown, counted = shown_and_counted()
    assert shown == counted


def test_the_ratio_over_time_is_a_curve_and_a_table(server: RunningServer) -> None:
    document = Document(server.page("/"))
    (picture,) = [one for one in document.all("svg") if one.attributes.get("role") == "img"]
    points = next(one for one in picture.children if one.tag == "polyline").attributes["points"].split()
    assert len(points) >= 30
    heights = [float(point.partition(",")[2]) for point in points[:30]]
    assert heights == sorted(heights, reverse=True), "the ratio grew"
    description = next(one for one in picture.children if one.tag == "desc")
    assert description.attributes["id"] in picture.attributes["aria-labelledby"].split()
    rows = document.rows("Ratio over time, the newest first")
    assert 20 < len(rows) <= 24
    assert rows[-1][1] == "2.50"  # the first day: 1,000,000 to 400,000 bytes


def test_many_repositories_come_in_pages(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        digest = put(store, [layer("one", 100)])
        for number in range(120):
            store.tags[f"many/number-{number:03d}:1"] = digest
        store.tags["localhost:5000/many:1"] = digest  # no name that this registry can have
    with serving(tmp_path / "store") as server:
        assert "Ratio" in Document(server.page("/")).facts()
        first = Document(server.page("/?q=many"))
        rows = first.rows("120 repositories")
        assert len(rows) == 50 and rows[0][0] == "many/number-000"
        assert "1–50 of 120 repositories" in " ".join(first.all("main")[0].text.split())
        second = Document(server.page(first.links()["Next"]))
        assert second.rows("120 repositories")[0][0] == "many/number-050"
        assert Document(server.page(second.links()["Previous"])).rows("120 repositories") == rows
        for odd in ("999999999999999999999", "-1", "0", "x", "%FF", "%C2%B2"):
            assert server.get(f"/?page={odd}").status == 200
        assert len(Document(server.page("/?page=99")).rows("120 repositories")) == 20


def test_an_empty_store_says_how_to_push(tmp_path: Path) -> None:
    Store.create(tmp_path / "store").close()
    with serving(tmp_path / "store") as server:
        text = server.page("/")
        assert f"docker push 127.0.0.1:{server.port}/shop:1.0" in text
        assert "Nothing has been pushed yet" in text
        assert "a curve of it appears here" in text
        Document(text)


def test_the_style_sheet_is_there_under_the_address_that_pages_name(server: RunningServer) -> None:
    document = Document(server.page("/"))
    (style,) = [one.attributes["href"] for one in document.all("link") if one.attributes["rel"] == "stylesheet"]
    answer = server.get(style)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
