import json
import random
from pathlib import Path

import pytest

from benchmarks import dedup_ratio, store_driver
from benchmarks.images import sha256_of
from benchmarks.layer_tar import Node, write_layer
from benchmarks.store_plan import Plan
from layerstore import Store


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three layer tars, each with a file of its own and one that all have."""
    shared = random.Random(0).randbytes(200_000)
    paths = []
    for number in range(3):
        own = random.Random(number + 1).randbytes(100_000)
        paths.append(tmp_path / f"layer-{number}.tar")
        tree = {"a": Node(0o644, lambda: shared), "b": Node(0o644, lambda own=own: own)}
        write_layer(paths[-1], tree, 1_700_000_000 + number)
    return paths


def test_dedup_ratio_pushes_pulls_and_writes_its_results(
    layers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    assert dedup_ratio.main(["--work", str(work), "--jobs", "1", "--tar", *map(str, layers)]) == 0
    assert "3 of 3 layers came back bit for bit." in capsys.readouterr().out
    document = json.loads((work / "results.json").read_text())
    totals = {total["key"]: total["stored_bytes"] for total in document["totals"]}
    assert 500_000 < totals["layerstore"] < totals["gzip"]


def test_a_layer_that_comes_back_wrong_is_status_1(
    layers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.store_run.sha256_of", lambda _: "sha256:" + "0" * 64)
    assert dedup_ratio.main(["--work", str(tmp_path / "work"), "--jobs", "1", "--tar", *map(str, layers)]) == 1
    assert "LAYERS DID NOT COME BACK" in capsys.readouterr().out


def test_no_input_is_status_2(tmp_path: Path) -> None:
    assert dedup_ratio.main(["--work", str(tmp_path / "work"), "--tar", str(tmp_path / "missing")]) == 2


def test_the_driver_stores_restores_and_collects(layers: list[Path], tmp_path: Path) -> None:
    plan = Plan(
        store=str(tmp_path / "store"),
        layers=[str(path) for path in layers],
        diff_ids=[sha256_of(path) for path in layers],
        targets=[str(tmp_path / f"restored-{number}.tar") for number in range(3)],
        images={"benchmark:0": [0, 1], "benchmark:1": [0, 2]},
        deleted=["benchmark:0"],
    )
    plan.write(tmp_path / "plan.json")
    for step in ("store", "restore", "collect"):
        assert store_driver.main([step, str(tmp_path / "plan.json")]) == 0
    assert [Path(target).read_bytes() for target in plan.targets] == [path.read_bytes() for path in layers]
    with Store.open(Path(plan.store)) as store:
        store.pull_layer(plan.diff_ids[2], tmp_path / "kept.tar")
    assert sha256_of(tmp_path / "kept.tar") == plan.diff_ids[2]
