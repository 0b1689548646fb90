import json
from pathlib import Path

import pytest

from benchmarks import plots
from benchmarks.baselines import WAYS
from benchmarks.images import Corpus, LayerFile, disk_bytes, make_image
from benchmarks.report import Outcome, StoreRun, as_document, as_text, ratio, table, write_document


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    for name, size in {"base": 6_000_000, "one": 1_000_000, "two": 2_000_000}.items():
        (tmp_path / name).write_bytes(name.encode() + bytes(size - len(name)))
    known: dict[Path, LayerFile] = {}
    images = (
        make_image("shop:1", "shop", [tmp_path / "base", tmp_path / "one"], known),
        make_image("shop:2", "shop", [tmp_path / "base", tmp_path / "two"], known),
        make_image("shop:3", "shop", [tmp_path / "base", tmp_path / "two"], known),
    )
    added = {way.key: [3_000_000, 500_000, 1_500_000] for way in WAYS}
    run = StoreRun([2_000_000, 2_500_000, 2_500_000], 2.0, 1.0, 0.5, 0.4, [])
    return Outcome.of(Corpus(images, "made up"), added, run, {"corpus": 1.0})


def test_what_layers_add_becomes_what_is_stored_after_each_image(outcome: Outcome) -> None:
    assert outcome.stored["gzip"] == [3_500_000, 5_000_000, 5_000_000]
    assert outcome.stored["layerstore"] == [2_000_000, 2_500_000, 2_500_000]


def test_the_document_has_the_ratios_of_each_image_and_in_total(outcome: Outcome, tmp_path: Path) -> None:
    write_document(tmp_path / "results.json", as_document(outcome))
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["corpus"]["logical_bytes"] == 7_000_000 + 8_000_000 + 8_000_000
    assert document["corpus"]["distinct_layer_bytes"] == 9_000_000
    totals = {total["key"]: total for total in document["totals"]}
    assert totals["gzip"]["ratio_to_images"] == pytest.approx(23 / 5)
    assert totals["layerstore"]["ratio_to_images"] == pytest.approx(23 / 2.5)
    assert totals["layerstore"]["ratio_to_distinct_layers"] == pytest.approx(9 / 2.5)
    assert totals["layerstore"]["ratio_to_gzip"] == pytest.approx(2)
    assert [image["ratio"]["layerstore"] for image in document["images"]] == [3.5, 16, None]
    assert [image["added_bytes"]["gzip"] for image in document["images"]] == [3_500_000, 1_500_000, 0]


def test_the_text_shows_every_way_and_says_what_it_counts(outcome: Outcome) -> None:
    text = as_text(outcome)
    for way in WAYS:
        assert way.name in text
        assert way.counts in text
    assert "3 of 3 layers came back bit for bit." in text
    assert all(len(line) == len(line.rstrip()) for line in text.splitlines())


def test_the_text_shouts_when_a_layer_came_back_wrong(outcome: Outcome) -> None:
    outcome.run.mismatches.append("sha256:00")
    assert "1 of 3 LAYERS DID NOT COME BACK BIT FOR BIT: sha256:00" in as_text(outcome)


def test_a_table_is_aligned() -> None:
    assert table(["way", "MB"], [["gzip", "1.0"], ["b", "10.0"]]).splitlines() == [
        "way     MB",
        "----  ----",
        "gzip   1.0",
        "b     10.0",
    ]


def test_a_ratio_of_nothing_is_none() -> None:
    assert ratio(5, 0) is None


def test_disk_bytes_counts_allocated_blocks_and_hard_links_once(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    empty = disk_bytes(folder)
    (folder / "a").write_bytes(b"x" * 100_000)
    with (folder / "sparse").open("wb") as file:
        file.truncate(10_000_000)
    (folder / "link").hardlink_to(folder / "a")
    assert 100_000 <= disk_bytes(folder) - empty < 150_000


def test_plots_are_pictures_or_left_out(outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_figure", None)
    assert plots.write_plots(outcome, tmp_path) == []
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    files = plots.write_plots(outcome, tmp_path)
    assert len(files) == 2
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
