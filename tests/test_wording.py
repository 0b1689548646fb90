"""How sizes, counts, paths and strange characters are written."""

import pytest

from layerstore.wording import count_text, escaped, path_text, size_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1536 * 1024, "1.5 MiB"),
        (10 * 1024**3, "10.0 GiB"),
        (2**70, "1024.0 EiB"),
    ],
)
def test_size_text(number: int, text: str) -> None:
    assert size_text(number) == text


def test_count_text() -> None:
    assert [count_text(number, "layer") for number in (0, 1, 2000)] == ["0 layers", "1 layer", "2,000 layers"]
    assert [count_text(number, "directory") for number in (0, 1)] == ["0 directories", "1 directory"]


def test_what_is_no_text_is_written_out() -> None:
    assert path_text(b"a/\xff\n") == "a/\\xff\n"
    assert [escaped(one) for one in "\x1b\u202e\udcff\ud800"] == ["\\x1b", "\\u202e", "\\xff", "\\ud800"]
