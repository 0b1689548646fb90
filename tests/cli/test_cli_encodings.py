"""encodings, prove, and what other commands say of encodings."""

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_layouts import LAYER, MANIFEST, Layout, digest_of, tar_of, words
from click.testing import CliRunner

from layerstore.cli.application import program
from layerstore.store import Store

Run = Callable[..., Any]

needs_encoders = pytest.mark.skipif(
    not list((Path(__file__).parents[2] / "layerstore" / "encodings").glob("_encoders*.so")),
    reason="the extension module was not built",
)


@pytest.fixture
def blobs(output: Run, layout: Layout) -> list[str]:
    """The digests of the blobs of ``shop:1.0``, which was imported."""
    output("import", "shop", "1.0")
    manifest = json.loads(layout.file(layout.roots[0]["digest"]).read_bytes())
    return [layer["digest"] for layer in manifest["layers"]]


@pytest.fixture
def odd(output: Run, tmp_path: Path) -> str:
    """A blob that no known encoder makes, of the image ``odd:1``."""
    other = Layout(tmp_path / "odd")
    tar = tar_of({"x": words(9, 1000)})
    stored = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"".join(
        (b"\1" if start + 7 >= len(tar) else b"\0")
        + len(tar[start : start + 7]).to_bytes(2, "little")
        + (0xFFFF - len(tar[start : start + 7])).to_bytes(2, "little")
        + tar[start : start + 7]
        for start in range(0, len(tar), 7)
    )
    stored += zlib.crc32(tar).to_bytes(4, "little") + len(tar).to_bytes(4, "little")
    image = other.image(tar)
    manifest = json.loads(other.file(image["digest"]).read_bytes())
    manifest["layers"] = [other.blob(stored, f"{LAYER}+gzip")]
    other.add(other.document({**manifest, "mediaType": MANIFEST}), "1")
    output("import", "odd")
    return digest_of(stored)


def test_encodings(output: Run, document: Run, blobs: list[str], layout: Layout) -> None:
    lines = output("encodings").splitlines()
    assert lines[0].split() == ["DIGEST", "LAYER", "SIZE", "KEPT", "AS", "ENCODER", "TAGS"]
    assert sorted(line.split()[0] for line in lines[1:]) == sorted(blob[7:19] for blob in blobs)
    assert all(line.split()[-3:] == ["queued", "-", "shop:1.0"] for line in lines[1:])
    rows = {row["digest"]: row for row in document("encodings")}
    assert rows.keys() == set(blobs)
    layers = [layer["diff_id"] for layer in document("inspect", "shop:1.0")["layers"]]
    assert [rows[blob]["diff_id"] for blob in blobs] == layers
    first = rows[blobs[0]]
    assert first["size"] == layout.file(blobs[0]).stat().st_size and first["is_available"]
    assert first["tags"] == ["shop:1.0"] and first["images"] == [layout.roots[0]["digest"]] and first["encoders"] == []
    assert sorted(output("encodings", "-q", "--no-trunc").split()) == sorted(blobs)
    assert sorted(output("encodings", "-q").split()) == sorted(blob[7:19] for blob in blobs)


def test_an_empty_list(output: Run, document: Run) -> None:
    assert len(output("encodings").splitlines()) == 1
    assert document("encodings") == [] and output("encodings", "-q") == ""
    assert output("encodings", "prove") == "nothing to prove\n"


@needs_encoders
def test_prove(output: Run, document: Run, blobs: list[str], odd: str) -> None:
    lines = output("encodings", "prove").splitlines()
    assert lines[0].startswith("proved 2 encodings; that freed ")
    assert lines[1] == "no known encoder makes 1 encoding: kept raw"
    kept = {row["digest"]: row for row in document("encodings")}
    assert [kept[blob]["kept_as"] for blob in blobs] == ["recipe", "recipe"] and kept[odd]["kept_as"] == "raw"
    assert " level " in kept[blobs[0]]["encoders"][0]
    assert output("encodings", "prove") == "nothing to prove\n"
    assert output("encodings", "prove", "-q") == ""
    output("verify")


@needs_encoders
def test_prove_some(run: Run, document: Run, blobs: list[str]) -> None:
    answer = document("encodings", "prove", blobs[0][7:19])
    assert answer["proved"] == 1 and answer["bytes_freed"] > 0 and answer["seconds"] > 0
    assert answer["unproved"] == 0 and answer["damaged"] == [] and answer["unavailable"] is None
    kept = {row["digest"]: row["kept_as"] for row in document("encodings")}
    assert [kept[blob] for blob in blobs] == ["recipe", "queued"]
    for text, exit_code in (("0" * 12, 3), ("sha256:" + "0" * 64, 3), ("nosuch", 2)):
        assert run("encodings", "prove", text).exit_code == exit_code


def test_without_encoders(output: Run, document: Run, blobs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.encodings.encoders._encoders", None)
    assert output("encodings", "prove").startswith("nothing can be proved: layerstore was installed without a compiler")
    assert "without a compiler" in document("encodings", "prove")["unavailable"]
    assert output("import", "shop", "1.1", "--prove").splitlines()[-1].startswith("nothing can be proved: ")
    assert {row["kept_as"] for row in document("encodings")} == {"queued"}


@needs_encoders
def test_an_encoder_that_is_not_here(
    output: Run, document: Run, blobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output("encodings", "prove")
    monkeypatch.setattr("layerstore.encodings.encoders._encoders", None)
    monkeypatch.setattr("layerstore.encodings.recipe._is_available", lambda method: False)
    assert output("encodings").count("(not in this installation)") == 2
    assert not document("inspect", blobs[0])["is_available"]
    lines = output("verify").splitlines()
    assert lines[0].startswith("clean: ") and lines[1].startswith("not checked: 2 encodings, for lack of an encoder")
    assert document("verify")["encodings_unavailable"] == 2


def test_damage(run: Run, output: Run, document: Run, path: Path, blobs: list[str]) -> None:
    output("backup", "copy")
    for file in (path / "raw").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1] + b"x")
    result = run("verify")
    assert result.exit_code == 6 and blobs[0] in result.stdout
    result = run("encodings", "prove", "--json")
    assert (result.exit_code, sorted(json.loads(result.stdout)["damaged"])) == (6, sorted(blobs))
    result = run("encodings", "prove")
    assert result.exit_code == 6 and f"damaged: encoding {blobs[0]}" in result.stderr
    assert run("export", "shop:1.0", "out").exit_code == 6 and not Path("out").exists()
    text = output("repair", "--from", "copy")
    assert "2 encodings" in text and text.startswith("healed ")
    assert document("repair", "--from", "copy")["encodings_healed"] == 0
    assert "2 encodings, " in output("verify")


def test_stats(output: Run, document: Run, blobs: list[str]) -> None:
    answer = document("stats")
    by_name = {one["name"]: one for one in answer["encodings"]}
    assert list(by_name) == ["recipe", "queued", "raw", "plain"]
    assert by_name["queued"]["encodings"] == 2
    assert by_name["queued"]["blob_bytes"] == by_name["queued"]["kept_bytes"] == answer["raw_bytes"] > 0
    assert answer["cache_bytes"] == 0
    lines = output("stats").splitlines()
    assert any(line.startswith("raw encodings") for line in lines)
    assert any(line.split()[:2] == ["queued", "2"] for line in lines)


def test_stats_of_a_store_without_encodings(output: Run, shop: str) -> None:
    assert "ENCODINGS" not in output("stats") and "raw encodings" not in output("stats")


def test_collection(output: Run, document: Run, blobs: list[str]) -> None:
    output("rm", "--now", "shop:1.0")
    plan = document("gc", "--dry-run")["plan"]
    assert sorted(plan["encodings"]) == sorted(blobs)
    assert "2 layers, 2 encodings, " in output("gc", "-n")
    assert document("gc")["report"]["encodings"] == 2
    assert document("encodings") == []


def test_why_and_inspect(run: Run, document: Run, output: Run, blobs: list[str]) -> None:
    for name in (blobs[0], blobs[0][7:19], blobs[0][:25]):
        answer = document("why", name)
        assert (answer["kind"], answer["digest"], answer["tags"]) == ("encoding", blobs[0], ["shop:1.0"])
        assert document("inspect", name)["kind"] == "encoding"
    assert "layer 1 of image" in output("why", blobs[0])
    image = document("inspect", "shop:1.0")
    assert [layer["blob"]["digest"] for layer in image["layers"]] == blobs
    assert all(layer["blob"]["kept_as"] == "queued" and layer["blob"]["is_available"] for layer in image["layers"])
    layer = document("inspect", image["layers"][0]["diff_id"])
    assert layer["encodings"] == [blobs[0]]
    result = run("pull", blobs[0], "x")
    assert result.exit_code == 3 and image["layers"][0]["diff_id"] in result.stderr


def test_rm(run: Run, document: Run, blobs: list[str], path: Path) -> None:
    result = run("rm", blobs[0])
    assert result.exit_code == 4 and "layerstore why" in result.stderr
    data = gzip.compress(b"loose" * 100, mtime=0)
    with Store.open(path) as store:
        store.push_blob(data, digest=digest_of(data))
    assert document("rm", digest_of(data)[7:19]) == [{"kind": "encoding", "digest": digest_of(data)}]
    assert document("gc")["report"]["encodings"] == 1


def test_completion(path: Path, blobs: list[str]) -> None:
    for line in ("encodings prove", "why", "rm", "inspect"):
        variables = {"_LAYERSTORE_COMPLETE": "bash_complete", "LAYERSTORE_PATH": str(path)}
        result = CliRunner().invoke(program, [], env={**variables, "COMP_LINE": f"layerstore {line} {blobs[0][:20]}"})
        assert result.stdout == f"plain,{blobs[0]}\n"


def test_a_pushed_layer_is_its_own_blob(document: Run, shop: str) -> None:
    layer = document("inspect", "shop:1.0")["layers"][0]
    assert layer["blob"]["kept_as"] == "layer" and layer["blob"]["digest"] == layer["diff_id"]
