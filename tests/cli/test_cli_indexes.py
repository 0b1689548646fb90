"""Indexes and artifacts: how they are listed, and which of an index's images is meant."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_layouts import SIGNATURE, Layout, tar_of

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def imported(output: Run, layout: Layout) -> None:
    output("import", "shop")


def test_images(output: Run, document: Run, layout: Layout) -> None:
    rows = {row["tags"][0]: row for row in document("images")}
    kinds = ["image", "image", "index", "artifact"]
    assert [rows[f"shop:{name}"]["kind"] for name in ("1.0", "1.1", "multi", "signature")] == kinds
    assert rows["shop:1.0"]["platforms"] == ["linux/amd64"] and rows["shop:1.0"]["artifact_type"] is None
    assert len(rows["shop:multi"]["platforms"]) == 2 and "linux/s390x" in rows["shop:multi"]["platforms"]
    assert len(rows["shop:multi"]["layers"]) == 3
    assert rows["shop:signature"]["artifact_type"] == SIGNATURE and rows["shop:signature"]["platforms"] == []
    lines = output("images").splitlines()
    assert [line.split("   ")[-1].strip() for line in lines] == [
        *("PLATFORM", "linux/amd64", "linux/amd64", "2 platforms", SIGNATURE)
    ]
    assert output("images", "-q").split() == [root["digest"][7:19] for root in layout.roots]


def test_inspect(run: Run, document: Run, layout: Layout) -> None:
    answer = document("inspect", "shop:multi")
    assert answer["kind"] == "index" and answer["digest"] == layout.roots[2]["digest"]
    assert [one["platform"]["architecture"] for one in answer["platforms"]][1] == "s390x"
    inner = answer["platforms"][1]["image"]
    assert inner["kind"] == "image" and len(inner["layers"]) == 2 and inner["layers"][0]["blob"]["kept_as"] == "queued"
    assert inner["tags"] is inner["created"] is inner["usage"] is None
    assert document("inspect", "shop:multi", "--platform", "linux/s390x") == inner
    assert document("inspect", "shop:1.0", "--platform", "linux/s390x")["digest"] == layout.roots[0]["digest"]
    artifact = document("inspect", "shop:signature")
    assert (artifact["kind"], artifact["artifact_type"]) == ("artifact", SIGNATURE)
    assert [blob["size"] for blob in artifact["blobs"]] == [6]
    result = run("inspect", "shop:multi", "--platform", "windows/amd64")
    assert result.exit_code == 3 and "linux/s390x" in result.stderr
    assert run("inspect", "shop:multi", "--platform", "windows").exit_code == 2


def test_history(run: Run, document: Run, output: Run) -> None:
    own = document("inspect", "shop:multi")["platforms"][0]["image"]
    other = document("inspect", "shop:multi")["platforms"][1]["image"]
    assert [row["diff_id"] for row in document("history", "shop:multi")] == [
        layer["diff_id"] for layer in own["layers"][::-1]
    ]
    assert output("history", "-q", "shop:multi", "--platform", "linux/s390x").split() == [
        layer["diff_id"] for layer in other["layers"][::-1]
    ]
    result = run("history", "shop:signature")
    assert result.exit_code == 2 and "artifact" in result.stderr


def test_diff(run: Run, output: Run) -> None:
    assert output("diff", "shop:1.0", "shop:multi").splitlines() == ["D /app", "D /app/data", "A /arch"]
    assert output("diff", "shop:multi", "shop:multi", "--platform", "linux/s390x") == ""
    assert run("diff", "shop:1.0", "shop:multi", "--platform", "windows/amd64").exit_code == 3
    assert run("diff", "shop:1.0", "shop:signature").exit_code == 2


def test_an_index_for_other_machines_needs_a_choice(run: Run, output: Run, tmp_path: Path) -> None:
    other = Layout(tmp_path / "far")
    other.add(other.index({"linux/s390x": other.image(tar_of({"a": b"a"}), platform="linux/s390x")}), "1")
    output("import", "far")
    result = run("history", "far:1")
    assert result.exit_code == 3 and "linux/s390x; choose one with --platform" in result.stderr
    assert output("history", "far:1", "--platform", "linux/s390x")
    assert output("images").splitlines()[-1].endswith("1 platform")


def test_an_index_as_a_base(run: Run, output: Run, document: Run, base: Path) -> None:
    output("push", base, "--base", "shop:multi", "--tag", "child")
    own = document("inspect", "shop:multi")["platforms"][0]["image"]
    assert len(document("inspect", "child")["layers"]) == len(own["layers"]) + 1
    output("push", base, "--base", "shop:multi", "--tag", "big", "--architecture", "s390x")
    other = document("inspect", "shop:multi")["platforms"][1]["image"]
    assert document("inspect", "big")["layers"][1]["diff_id"] == other["layers"][1]["diff_id"]
    assert run("push", base, "--base", "shop:multi", "--tag", "x", "--architecture", "arm64").exit_code == 3
    assert run("push", base, "--base", "shop:signature", "--tag", "x").exit_code == 2


def test_other_commands_take_an_index_whole(run: Run, output: Run, document: Run, layout: Layout) -> None:
    digest = layout.roots[2]["digest"]
    assert document("tag", "shop:multi", "both")["digest"] == digest
    assert document("why", "both")["tags"] == ["both:latest", "shop:multi"]
    assert document("rm", "shop:multi", "--all-tags")[0]["digest"] == digest
    assert document("undelete", "both")["digest"] == digest
    result = run("pull", "shop:multi", "x")
    assert result.exit_code == 3 and "pull its layers" in result.stderr
    assert output("verify").startswith("clean: 4 images")


def test_a_layer_that_is_kept_elsewhere(output: Run, document: Run, tmp_path: Path) -> None:
    other = Layout(tmp_path / "foreign")
    image = other.image(tar_of({"licensed": b"x"}), tar_of({"own": b"y"}))
    manifest = json.loads(other.file(image["digest"]).read_bytes())
    first = manifest["layers"][0]
    first["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    first["urls"] = ["https://example.com/layer"]
    other.file(first["digest"]).unlink()
    other.add(other.document(manifest), "1")
    assert output("import", "foreign").splitlines()[-1].endswith("; 1 kept elsewhere for their licence")
    assert document("import", "foreign")["blobs_absent"] == 1
    answer = document("inspect", "foreign:1")
    assert answer["layers"][0]["size"] is None and answer["layers"][0]["blob"]["is_available"] is False
    assert answer["layers"][1]["size"] > 0 and answer["size"] == answer["layers"][1]["size"]
    assert document("history", "foreign:1")[1]["size"] == 0
    assert output("images").splitlines()[-1].startswith("foreign:1")
    output("export", "foreign:1", "out")
