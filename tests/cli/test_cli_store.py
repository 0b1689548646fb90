import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def damage(store: Path) -> None:
    """Flip bytes in the middle of the largest pack."""
    pack = max((store / "packs").iterdir(), key=lambda one: one.stat().st_size)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        block = file.read(64)
        file.seek(-len(block), 1)
        file.write(bytes(byte ^ 0xFF for byte in block))


@pytest.fixture
def noise(make_tar: Run) -> Path:
    """A layer that does not compress."""
    return make_tar("noise.tar", {"noise": random.Random(1).randbytes(500_000)})


def test_init(bare: Run, tmp_path: Path) -> None:
    where = tmp_path / "new"
    result = bare("--store", where, "init")
    assert (result.exit_code, result.stdout) == (0, f"made a store at {where}\n")
    options = ("--frame-size", "64KiB", "--pack-size-max", "1M", "--compression-level", "1", "--trash-ttl", "7d")
    options = (*options, "--encoding-cache-max", "3MiB")
    result = bare("init", "--json", "--store", tmp_path / "other", *options)
    answer = json.loads(result.stdout)
    assert answer["path"] == str(tmp_path / "other")
    assert (answer["frame_size"], answer["pack_size_max"]) == (65536, 1 << 20)
    assert (answer["compression_level"], answer["trash_ttl_seconds"]) == (1, 7 * 86400)
    assert answer["encoding_cache_max"] == 3 << 20
    assert bare("--store", where, "init").exit_code == 4
    assert bare("--store", tmp_path / "x", "init", "--frame-size", "1").exit_code == 2
    assert bare("--store", tmp_path / "x", "-q", "init").stdout == ""


def test_the_store_comes_from_the_environment_or_the_option(bare: Run, path: Path, tmp_path: Path) -> None:
    variable = {"LAYERSTORE_PATH": str(path)}
    assert bare("images", env=variable).exit_code == 0
    other = tmp_path / "other"
    assert bare("--store", other, "init", env=variable).exit_code == 0
    assert json.loads(bare("stats", "--json", "--store", other, env=variable).stdout)["images"] == 0
    assert bare("images", "--store", tmp_path / "none", env=variable).exit_code == 3
    result = bare("images")
    assert result.exit_code == 2 and "LAYERSTORE_PATH" in result.stderr


def test_gc(output: Run, document: Run, shop: str) -> None:
    assert output("gc").splitlines() == ["nothing to collect"]
    output("rm", "--now", "shop:1.0")
    answer = document("gc", "--dry-run")
    assert answer["report"] is None and answer["plan"]["images"] == [shop] and len(answer["plan"]["layers"]) == 2
    assert output("gc", "-n").startswith("to go: 1 image, 2 layers, ")
    done = document("gc")
    assert done["plan"] == answer["plan"]
    assert done["report"]["bytes_freed"] == answer["plan"]["bytes_freed"] > 0
    assert document("stats")["layers"] == 0


def test_gc_of_a_little_in_a_pack_that_stays(output: Run, document: Run, shop: str, make_tar: Run) -> None:
    rest = output("push", "-q", make_tar("rest.tar", {"rest": b"rest"})).strip()
    output("rm", rest)
    lines = output("gc").splitlines()
    assert document("stats")["layers"] == 2
    assert lines[0].startswith("to go: 1 layer, ")
    assert lines[1:] == ["collected; a pack gives its space back once enough of it is dead"]
    assert " 0 B" not in "".join(lines)


def test_gc_can_empty_the_trash(output: Run, document: Run, shop: str) -> None:
    output("rm", "shop:1.0")
    assert output("gc").startswith("nothing")
    assert document("gc", "--empty-trash")["report"]["images"] == 1
    assert output("--quiet", "gc") == ""


def test_prune(run: Run, output: Run, document: Run, base: Path, make_tar: Run) -> None:
    digests = [
        output("push", "-q", make_tar(f"{number}.tar", {"n": b"%d" % number}), "--tag", f"app:{number}").strip()
        for number in range(3)
    ]
    assert run("prune").exit_code == 2
    assert run("prune", "--keep-last", "0").exit_code == 2
    plan = document("prune", "--keep-last", "1", "--dry-run")
    assert [item["digest"] for item in plan["images"]] == digests[:2] and plan["dry_run"]
    assert plan["images"][0]["tags"] == ["app:0"] and plan["images"][0]["reason"]
    text = output("prune", "--keep-last", "1", "-n")
    assert digests[0][7:19] in text and "2 images would be deleted" in text
    assert "0 images" in output("prune", "--keep-last", "1", "--older-than", "1d")
    text = output("prune", "--keep-last", "2")
    assert "1 image deleted" in text and "layerstore gc" in text
    assert output("prune", "--max-size", "0", "-q").split() == digests[1:]
    assert document("images") == []


def test_stats(output: Run, document: Run, shop: str) -> None:
    output("tag", "shop:1.0", "x")
    answer = document("stats")
    assert (answer["images"], answer["layers"], answer["trash_images"]) == (1, 2, 0)
    assert answer["logical_bytes"] == answer["unique_bytes"] > answer["stored_bytes"]
    assert {"ratio", "layer_ratio", "disk_bytes", "index_bytes", "chunk_bytes", "dead_bytes"} <= answer.keys()
    text = output("stats")
    assert "1 image, 2 layers" in text and "on disk" in text
    output("rm", shop)
    assert "1 in the trash" in output("stats")


def test_verify_of_a_sound_store(output: Run, document: Run, shop: str) -> None:
    assert output("verify").startswith("clean: 1 image, 2 layers, ")
    answer = document("verify", "--quick")
    assert answer["is_clean"] and answer["problems"] == [] and answer["images_checked"] == 1
    assert output("verify", "-q") == ""


def test_damage_is_found_and_healed_from_a_backup(
    run: Run, bare: Run, output: Run, document: Run, noise: Path, path: Path, tmp_path: Path
) -> None:
    output("push", noise, "--tag", "noise")
    diff_id = document("layers")[0]["diff_id"]
    copy = tmp_path / "copy"
    answer = document("backup", copy)
    assert answer["packs_copied"] == 1 and answer["bytes_copied"] > 500_000
    assert bare("--store", copy, "verify").exit_code == 0
    damage(path)

    result = run("verify", "--json")
    assert result.exit_code == 6
    report = json.loads(result.stdout)
    assert not report["is_clean"] and report["problems"][0]["images"] == ["noise:latest"]
    result = run("verify")
    assert result.exit_code == 6 and "noise:latest" in result.stdout
    result = run("pull", diff_id, "x.tar")
    assert result.exit_code == 6 and not Path("x.tar").exists()
    result = run("--json", "pull", diff_id, "x.tar")
    assert json.loads(result.stderr)["error"]["code"] == "content-damaged"

    result = run("repair")
    assert result.exit_code == 6 and "lost" in result.stdout
    assert "healed" in output("repair", "--from", copy)
    assert document("repair", "--from", copy) == {
        "healed": 0,
        "lost": 0,
        "records_rewritten": 0,
        "encodings_healed": 0,
    }
    output("verify")
    output("pull", diff_id, "x.tar")
    assert Path("x.tar").read_bytes() == noise.read_bytes()
    assert run("repair", "--from", tmp_path / "none").exit_code == 3


def test_backup_says_what_it_could_not_copy(run: Run, output: Run, noise: Path, path: Path, tmp_path: Path) -> None:
    output("push", noise)
    assert output("backup", tmp_path / "copy").startswith("backed up to ")
    assert run("backup", path / "inside").exit_code == 2


def test_rebuild_index(bare: Run, output: Run, document: Run, path: Path, shop: str) -> None:
    before = document("inspect", "shop:1.0")
    (path / "index" / "data.mdb").unlink()
    answer = document("rebuild-index")
    assert answer["layers"] == 2 and answer["images"] == 1 and answer["is_clean"]
    after = document("inspect", "shop:1.0")
    assert (after["digest"], after["manifest"], after["config"]) == (shop, before["manifest"], before["config"])
    output("verify")
    assert "layers: 2" in output("rebuild-index")
    assert bare("--store", path / "none", "rebuild-index").exit_code == 3


def test_upgrade(run: Run, output: Run, document: Run, path: Path) -> None:
    assert "already" in output("upgrade")
    assert document("upgrade")["already_current"]
    config = path / "layerstore.json"
    config.write_text(re.sub(r'("format_version": )\d+', r"\g<1>999", config.read_text()))
    result = run("images", "--json")
    assert result.exit_code == 5
    assert json.loads(result.stderr)["error"]["code"] == "unsupported-format"
