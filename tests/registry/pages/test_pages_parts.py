"""The parts that pages are made of, on their own."""

import threading
import time
from datetime import UTC, datetime

import pytest

from layerstore.registry.server.pages.chart import chart_of
from layerstore.registry.server.pages.paging import page_of
from layerstore.registry.server.pages.remembered import Remembered
from layerstore.registry.server.pages.text import Lines, exact_moment, moment_of, visible
from layerstore.wording import count_text, path_text, size_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain <b>", "plain <b>"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2066b\u200b\ufeff", "a\\u2066b\\u200b\\ufeff"),
        ("\x1b[31m\x9b\0\n", "\\x1b[31m\\x9b\\x00\\n"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("äöü 漢字", "äöü 漢字"),
    ],
)
def test_what_hides_or_turns_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_lines_stay_lines() -> None:
    assert visible(Lines("a\tb\n\u202ec\r")) == "a\tb\n\\u202ec\\r"
    assert path_text(b"\xff\n") == "\\xff\n"


def test_sizes_counts_and_moments() -> None:
    assert [size_text(one) for one in (0, 1023, 1024, 1_048_570, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 MiB",
        "5.0 GiB",
    ]
    assert [count_text(one, "repository") for one in (0, 1, 2000)] == [
        "0 repositories",
        "1 repository",
        "2,000 repositories",
    ]
    assert moment_of("2026-03-04T05:06:07+02:00") == datetime(2026, 3, 4, 3, 6, 7, tzinfo=UTC)
    assert exact_moment(datetime(2026, 3, 4, tzinfo=UTC)) == "2026-03-04T00:00:00Z"
    assert [moment_of(one) for one in (None, "", "yesterday", "0001-01-01T00:00:00+23:00")] == [None] * 4


def test_pages_of_a_list() -> None:
    assert page_of([], 1, 10).last == 1
    assert list(page_of(range(25), 3, 10).items) == [20, 21, 22, 23, 24]
    assert page_of(range(25), 99, 10).number == 3
    assert page_of(range(25), 2, 10).first_item == 11


def test_a_chart_of_a_long_history_is_thin() -> None:
    chart = chart_of([(3600 * one, one, 1000) for one in range(50_000)])
    assert chart is not None
    assert len(chart.line.split()) <= 240 and len(chart.rows) <= 24
    assert chart.rows[0].logical == 49_999 and chart.rows[-1].logical == 0
    assert 3 <= len(chart.grid) <= 6


@pytest.mark.parametrize("history", [[], [(1, 1, 1)]])
def test_no_chart_without_two_moments(history: list[tuple[int, int, int]]) -> None:
    assert chart_of(history) is None


@pytest.mark.parametrize("history", [[(0, 0, 0), (1, 0, 0)], [(0, 0, 5), (1, 0, 5)], [(0, 10**18, 1), (1, 1, 10**18)]])
def test_odd_sizes_make_a_chart_all_the_same(history: list[tuple[int, int, int]]) -> None:
    chart = chart_of(history)
    assert chart is not None
    for point in chart.line.split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= chart.width and 0 <= y <= chart.height


def test_a_figure_is_made_once_for_all_who_ask_at_the_same_time() -> None:
    remembered: Remembered[str, int] = Remembered(10)
    made, results = [], []
    begun = threading.Event()

    def make() -> int:
        made.append(1)
        begun.wait(10)
        return 42

    threads = [threading.Thread(target=lambda: results.append(remembered.get("one", make))) for _ in range(5)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join()
    assert (made, results) == ([1], [42] * 5)


def test_a_figure_that_failed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: Remembered[str, int] = Remembered(10)
    with pytest.raises(ZeroDivisionError):
        remembered.get("one", lambda: 1 // 0)
    assert remembered.get("one", lambda: 7) == 7
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    assert remembered.get("one", lambda: 8) == 8, "it is too old"


def test_no_more_figures_are_kept_than_are_meant() -> None:
    remembered: Remembered[int, int] = Remembered(3)
    for number in range(5):
        assert remembered.get(number, lambda: 1) == 1
    assert remembered.get(4, lambda: 2) == 1
    assert remembered.get(0, lambda: 2) == 2
