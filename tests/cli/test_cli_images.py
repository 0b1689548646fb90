import base64
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerstore.cli.image_options import merged_environment
from layerstore.digest import Digest
from layerstore.store import Store

Run = Callable[..., Any]


def test_images(output: Run, document: Run, shop: str, base: Path) -> None:
    output("tag", "shop:1.0", "shop")
    lines = output("images").splitlines()
    assert lines[0].split() == ["TAG", "DIGEST", "CREATED", "SIZE", "SHARED", "EXCLUSIVE", "PLATFORM"]
    assert [line.split()[:2] for line in lines[1:]] == [["shop:1.0", shop[7:19]], ["shop:latest", shop[7:19]]]
    (row,) = document("images")
    assert row["digest"] == shop and row["tags"] == ["shop:1.0", "shop:latest"] and len(row["layers"]) == 2
    assert row["size"] > base.stat().st_size
    assert row["stored_bytes"] == row["shared_bytes"] + row["exclusive_bytes"] > 0
    assert output("images", "-q").split() == [shop[7:19]]
    assert output("images", "-q", "--no-trunc").split() == [shop]


def test_images_without_usage(output: Run, document: Run, shop: str) -> None:
    assert output("images", "--no-usage").splitlines()[0].split() == ["TAG", "DIGEST", "CREATED", "SIZE", "PLATFORM"]
    (row,) = document("images", "--no-usage")
    assert row["size"] > 0 and row["shared_bytes"] is row["exclusive_bytes"] is row["stored_bytes"] is None


def test_an_untagged_image_is_listed(output: Run, shop: str) -> None:
    output("untag", "shop:1.0")
    assert output("images").splitlines()[1].startswith("<none>")


def test_config_options(output: Run, document: Run, shop: str, make_tar: Run) -> None:
    output(
        *("push", make_tar("a.tar", {"a": b"a"}), "--base", shop[7:19], "--tag", "one:1", "--tag", "one:2"),
        *("--env", "A=1", "--env", "B=x=y", "--label", "k=v", "--cmd", 'run --name "two words"'),
        *("--entrypoint", '["/bin/app", "-v"]', "--workdir", "/srv", "--user", "1:2"),
        *("--author", "somebody", "--annotation", "note=1"),
    )
    answer = document("inspect", "one:2")
    assert answer["tags"] == ["one:1", "one:2"]
    assert answer["manifest"]["annotations"] == {"note": "1"}
    config = answer["config"]
    assert config["author"] == "somebody"
    assert config["config"] == {
        "Cmd": ["run", "--name", "two words"],
        "Entrypoint": ["/bin/app", "-v"],
        "Env": ["A=1", "B=x=y"],
        "Labels": {"k": "v"},
        "User": "1:2",
        "WorkingDir": "/srv",
    }
    child = ("push", make_tar("b.tar", {"b": b"b"}), "--base", "one:1", "--tag", "two")
    output(*child, "--env", "C=3", "--env", "A=0", "--label", "l=w", "--entrypoint", "sh", "--architecture", "s390x")
    answer = document("inspect", "two")
    assert len(answer["layers"]) == 4
    config = answer["config"]["config"]
    assert config["Env"] == ["A=0", "B=x=y", "C=3"]
    assert config["Labels"] == {"k": "v", "l": "w"}
    assert config["Entrypoint"] == ["sh"] and "Cmd" not in config  # the arguments were for the other program
    assert config["WorkingDir"] == "/srv"


def test_merged_environment() -> None:
    assert merged_environment(("A=1", "odd", "B=2"), {"B": "3", "C": "4"}) == ["A=1", "odd", "B=3", "C=4"]


def test_an_image_without_a_tag_can_be_made_on_a_base(output: Run, document: Run, shop: str, base: Path) -> None:
    digest = output("push", "-q", base, "--base", "shop:1.0").strip()
    assert document("inspect", digest)["tags"] == []


def test_tag_moves_and_names_are_checked_first(run: Run, output: Run, document: Run, shop: str, base: Path) -> None:
    other = output("push", "-q", base, "--tag", "other").strip()
    assert document("tag", "other", "shop:1.0", "x:1") == {"digest": other, "tags": ["other:latest", "shop:1.0", "x:1"]}
    assert run("tag", "other", "fine:1", "Not Fine").exit_code == 2
    assert run("tag", "missing", "fine:1").exit_code == 3
    assert "fine:1" not in output("images")


def test_untag(run: Run, document: Run, shop: str) -> None:
    assert run("untag", "shop:1.0", "missing").exit_code == 3
    assert document("untag", "shop:1.0") == [{"tag": "shop:1.0", "digest": shop}]
    assert document("images")[0]["tags"] == []


def test_rm_and_undelete(run: Run, output: Run, document: Run, shop: str) -> None:
    text = output("rm", "shop:1.0")
    assert f"deleted {shop} (shop:1.0)" in text and "layerstore undelete shop:1.0" in text
    result = run("inspect", shop)
    assert result.exit_code == 3 and "trash" in result.stderr
    assert document("undelete", "shop:1.0") == {"digest": shop, "tags": ["shop:1.0"]}
    (deleted,) = document("rm", shop[7:19])
    assert deleted["kind"] == "image" and deleted["digest"] == shop and deleted["tags"] == ["shop:1.0"]
    assert deleted["undelete_until"] is not None
    assert shop in output("undelete", shop)
    assert run("undelete", shop).exit_code == 3


def test_rm_now_lets_the_next_collection_take_it(run: Run, output: Run, document: Run, shop: str) -> None:
    assert document("rm", "--now", "shop:1.0")[0]["undelete_until"] is None
    output("gc")
    assert run("undelete", shop).exit_code == 3
    assert document("layers") == []


def test_rm_of_one_tag_of_several_is_refused(run: Run, output: Run, document: Run, shop: str) -> None:
    output("tag", "shop:1.0", "shop:latest")
    result = run("rm", "shop:1.0")
    assert result.exit_code == 4
    assert "layerstore untag shop:1.0" in result.stderr and "shop:latest" in result.stderr
    assert document("rm", "shop:1.0", "shop")[0]["tags"] == ["shop:1.0", "shop:latest"]
    output("undelete", shop)
    assert len(document("rm", "shop:1.0", "--all-tags")) == 1
    output("undelete", shop)
    assert len(document("rm", shop)) == 1


def test_rm_looks_everything_up_first(run: Run, document: Run, shop: str) -> None:
    assert run("rm", "shop:1.0", "missing").exit_code == 3
    assert [row["digest"] for row in document("images")] == [shop]


def test_rm_of_a_layer_releases_it(run: Run, output: Run, document: Run, shop: str, make_tar: Run) -> None:
    loose = output("push", "-q", make_tar("loose.tar", {"x": b"x"})).strip()
    used = document("inspect", shop)["layers"][0]["diff_id"]
    assert run("rm", used).exit_code == 4
    assert document("rm", loose[7:19]) == [{"kind": "layer", "diff_id": loose}]
    output("gc")
    assert loose not in output("layers", "-q", "--no-trunc")


def test_inspect_keeps_the_documents_as_they_are(output: Run, document: Run, path: Path, shop: str) -> None:
    answer = document("inspect", "shop:1.0")
    assert json.loads(output("inspect", shop)) == answer
    with Store.open(path) as store:
        image = store.images[shop]
        assert answer["manifest"] == json.loads(image.manifest_bytes)
        assert answer["config"] == json.loads(image.config_bytes)
        assert [layer["chain_id"] for layer in answer["layers"]] == image.chain_ids
    layer = document("inspect", answer["layers"][0]["diff_id"])
    assert layer["kind"] == "layer" and layer["images"] == [shop] and layer["tags"] == ["shop:1.0"]


def test_history(output: Run, document: Run, shop: str) -> None:
    rows = document("history", "shop:1.0")
    layers = [layer["diff_id"] for layer in document("inspect", shop)["layers"]]
    assert [row["diff_id"] for row in rows] == layers[::-1]
    lines = output("history", "shop:1.0").splitlines()
    assert lines[0].startswith("LAYER") and lines[1].startswith(layers[1][7:19])
    assert output("history", "-q", "shop:1.0").split() == layers[::-1]


def test_history_of_documents_from_elsewhere(output: Run, document: Run, path: Path, shop: str) -> None:
    with Store.open(path) as store:
        config = json.loads(store.images[shop].config_bytes)
        config["history"] = [
            {"created": "2024-01-02T03:04:05.123456789Z", "created_by": "/bin/sh -c #(nop) ADD " + "x" * 100},
            {"created": "never", "created_by": "ENV \x1b[31m", "empty_layer": True},
        ]
        data = json.dumps(config).encode()
        manifest = json.loads(store.images[shop].manifest_bytes)
        manifest["config"]["size"] = len(data)
        manifest["config"]["digest"] = Digest.of(data)
        store.put_image(json.dumps(manifest).encode(), data, tag="odd")
    rows = document("history", "odd")
    assert [row["diff_id"] is None for row in rows] == [False, True, False]
    lines = output("history", "odd").splitlines()
    assert "2024-01-02 03:04:05" in lines[3] and "..." in lines[3]
    assert "never" in lines[2] and "\\x1b[31m" in lines[2]


def test_diff(output: Run, document: Run, shop: str, base: Path) -> None:
    output("push", base, "--tag", "base")
    assert output("diff", "base", "shop:1.0").splitlines() == ["A /app", "A /app/data", "A /app/new", "C /etc/os"]
    assert output("diff", "shop:1.0", "base").splitlines() == ["D /app", "D /app/data", "D /app/new", "C /etc/os"]
    assert output("diff", shop, shop) == ""
    change = document("diff", "base", "shop:1.0")[3]
    assert change["kind"] == "modified" and change["path"] == "/etc/os"
    assert change["old"]["kind"] == "file" and change["new"]["size"] == 4


def test_values_of_xattrs_are_kept_in_json(output: Run, document: Run, tmp_path: Path, base: Path) -> None:
    value = "\udcff\\xff\0"
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("file")
        member.pax_headers = {"SCHILY.xattr.user.x": value}
        tar.addfile(member)
    old, new = (output("push", "-q", one).strip() for one in (base, tmp_path / "x.tar"))
    entry = next(one["new"] for one in document("diff", old, new) if one["path"] == "/file")
    assert base64.b64decode(entry["xattrs"]["user.x"]) == value.encode("utf-8", "surrogateescape")


def test_diff_shows_hostile_names_harmlessly(output: Run, document: Run, make_tar: Run) -> None:
    old = output("push", "-q", make_tar("old.tar", {"a": b""})).strip()
    names = {"a": b"", "red\x1b[31m\nline": b"", "bad\udcff": b"", "ltr\u202e": b"", "fine ü": b""}
    new = output("push", "-q", make_tar("new.tar", names)).strip()
    lines = output("diff", old, new).splitlines()
    assert set(lines) == {"A /red\\x1b[31m\\nline", "A /bad\\xff", "A /ltr\\u202e", "A /fine ü"}
    changes = {change["path"]: change for change in document("diff", old, new)}
    assert set(changes) == {"/red\x1b[31m\nline", "/bad\\xff", "/ltr\u202e", "/fine ü"}
    assert changes["/bad\\xff"]["path_base64"] == "L2JhZP8=" and "path_base64" not in changes["/fine ü"]


def test_why(run: Run, output: Run, document: Run, shop: str, make_tar: Run) -> None:
    assert "shop:1.0" in output("why", "shop:1.0")
    layer = document("inspect", shop)["layers"][0]["diff_id"]
    answer = document("why", layer[7:19])
    assert answer["kind"] == "layer" and answer["digest"] == layer and "shop:1.0" in answer["reasons"][0]
    loose = output("push", "-q", make_tar("loose.tar", {"x": b"x"})).strip()
    output("rm", loose)
    assert "nothing keeps it" in output("why", loose)
    output("rm", "shop:1.0")
    assert "trash" in output("why", shop)
    assert run("why", "shop:1.0").exit_code == 3
    assert run("why", "sha256:" + "0" * 64).exit_code == 3


@pytest.mark.parametrize("name", ["missing", "sha256:" + "0" * 64, "0" * 12, "sha256:" + "0" * 20])
@pytest.mark.parametrize("command", ["inspect", "history", "why", "rm"])
def test_what_is_not_there(run: Run, command: str, name: str) -> None:
    result = run(command, name)
    assert result.exit_code == 3
    assert result.stderr.startswith("layerstore: the store has no ") and result.stdout == ""


def test_what_has_other_words_than_its_name(run: Run) -> None:
    result = run("undelete", "nope")
    assert (result.exit_code, result.stderr) == (3, "layerstore: the trash has no image nope:latest\n")
    result = run("pull", "nope:1", "f")
    assert result.exit_code == 3
    assert "DiffID" in result.stderr and "`layerstore layers`" in result.stderr
    result = run("pull", "sha256:" + "0" * 64, "f")
    assert (result.exit_code, result.stderr) == (3, f"layerstore: the store has no layer sha256:{'0' * 64}\n")


def test_a_tag_of_hex_digits_wins(run: Run, output: Run, document: Run, shop: str, base: Path) -> None:
    other = output("push", base, "--tag", shop[7:19], "-q").strip()
    assert document("inspect", shop[7:19])["digest"] == other
    assert document("inspect", shop[7:20])["digest"] == shop
    assert document("inspect", shop[:19])["digest"] == shop
    for tag in ("sha256:1.0", "blake3"):
        assert run("tag", shop, "fine:1", tag).exit_code == 2
        assert run("push", base, "--tag", tag).exit_code == 2
    assert [one["tags"] for one in document("images")] == [["shop:1.0"], [f"{shop[7:19]}:latest"]]


@pytest.mark.parametrize("name", ["sha256:123", "sha256:" + "G" * 64, "UPPER", ""])
def test_what_is_no_name(run: Run, name: str) -> None:
    result = run("inspect", name)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
