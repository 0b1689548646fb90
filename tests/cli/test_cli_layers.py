import gzip
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def diff_id_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_push_prints_a_line_a_layer(output: Run, base: Path, app: Path) -> None:
    lines = output("push", base, app).splitlines()
    assert len(lines) == 2
    first, second = (line.split("   ") for line in lines)
    assert first[0] == diff_id_of(base.read_bytes())
    assert first[2].endswith("new") and first[3].endswith("stored") and first[4] == str(base)
    assert second[0] == diff_id_of(gzip.decompress(app.read_bytes()))
    assert second[-1] == f"{app} (decoded gzip)"
    assert output("push", base).split("   ")[2] == "already present"


def test_push_json_is_one_object_a_line(output: Run, base: Path, app: Path) -> None:
    text = output("--json", "push", base, app, "--tag", "shop:1.0")
    first, second, image = (json.loads(line) for line in text.splitlines())
    assert first["type"] == second["type"] == "layer"
    assert first["diff_id"] == diff_id_of(base.read_bytes())
    assert first["size"] == base.stat().st_size and first["encoding"] is None
    assert second["encoding"] == "gzip" and not second["already_present"]
    assert second["chunks_reused"] > 0 and second["bytes_new"] < second["size"]
    assert image["type"] == "image" and image["tags"] == ["shop:1.0"]
    assert image["layers"] == [first["diff_id"], second["diff_id"]]


def test_push_quiet_prints_digests_only(output: Run, base: Path, app: Path) -> None:
    assert output("push", "-q", base, app).splitlines() == [
        diff_id_of(base.read_bytes()),
        diff_id_of(gzip.decompress(app.read_bytes())),
    ]
    assert output("--quiet", "push", base, "--tag", "x").startswith("sha256:")


def test_push_never_decodes_on_request(output: Run, app: Path) -> None:
    assert output("push", "--decode", "never", app).startswith(diff_id_of(app.read_bytes()))


def test_push_of_a_directory_depends_on_its_contents_only(output: Run, tmp_path: Path) -> None:
    digests = []
    for name, mtime in (("one", 1_000_000_000), ("two", 2_000_000_000)):
        tree = tmp_path / name
        tree.mkdir()
        (tree / "file").write_bytes(b"same")
        for entry in (tree / "file", tree):
            os.utime(entry, (mtime, mtime))
        digests.append(output("push", "-q", tree, "--mtime-max", "0"))
    assert digests[0] == digests[1]


def test_source_date_epoch_limits_times(bare: Run, path: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"same")
    plain = bare("--store", path, "push", "-q", tree).stdout
    limited = bare("--store", path, "push", "-q", tree, env={"SOURCE_DATE_EPOCH": "5"}).stdout
    assert plain != limited
    assert limited == bare("--store", path, "push", "-q", "--mtime-max", "5", tree).stdout


def test_push_from_stdin_and_pull_to_stdout_are_binary(output: Run, run: Run) -> None:
    data = os.urandom(300_000) + b"\r\n\x00\xff"
    diff_id = output("push", "-q", "-", input=data).strip()
    assert diff_id == diff_id_of(data)
    result = run("pull", diff_id, "-")
    assert result.exit_code == 0
    assert result.stdout_bytes == data
    assert result.stderr == ""


def test_piping_through_the_real_program(process: Run) -> None:
    data = os.urandom(3_000_000)
    pushed = process("push", "-q", "-", stdin=-1)
    out, err = pushed.communicate(data)
    assert (pushed.returncode, err) == (0, b"")
    pulled = process("pull", out.decode().strip()[7:19], "-")
    out, err = pulled.communicate()
    assert (pulled.returncode, err) == (0, b"")
    assert out == data


def test_pull_to_a_file(run: Run, document: Run, output: Run, base: Path, tmp_path: Path) -> None:
    diff_id = output("push", "-q", base).strip()
    assert output("pull", diff_id, tmp_path / "out.tar").split("   ")[0] == diff_id
    assert (tmp_path / "out.tar").read_bytes() == base.read_bytes()
    for name in (diff_id[7:19], diff_id[:25], diff_id[7:]):
        answer = document("pull", name, "again.tar")
        assert answer == {"diff_id": diff_id, "size": base.stat().st_size, "file": "again.tar"}
    assert run("pull", diff_id, tmp_path).exit_code == 2
    assert run("pull", diff_id, tmp_path / "none" / "x").exit_code == 5


def test_pull_json_leaves_stdout_to_the_layer(run: Run, output: Run, base: Path) -> None:
    diff_id = output("push", "-q", base).strip()
    result = run("pull", diff_id, "-", "--json")
    assert result.stdout_bytes == base.read_bytes()
    assert json.loads(result.stderr)["file"] == "-"


def test_pull_of_an_image_names_its_layers(run: Run, shop: str, base: Path) -> None:
    for name in ("shop:1.0", shop, shop[7:20]):
        result = run("pull", name, "x")
        assert result.exit_code == 3
        assert diff_id_of(base.read_bytes())[7:19] in result.stderr


def test_layers(output: Run, document: Run, shop: str, base: Path) -> None:
    lines = output("layers").splitlines()
    assert lines[0].split() == ["DIFF", "ID", "CREATED", "SIZE", "IMAGES", "TAGS"]
    assert len(lines) == 3 and all(line.endswith("1   shop:1.0") for line in lines[1:])
    rows = document("layers")
    assert {row["diff_id"] for row in rows} >= {diff_id_of(base.read_bytes())}
    assert all(row["images"] == [shop] and row["tags"] == ["shop:1.0"] and row["size"] > 0 for row in rows)
    assert output("layers", "-q").split() == [row["diff_id"][7:19] for row in rows]
    assert output("layers", "-q", "--no-trunc").split() == [row["diff_id"] for row in rows]


def test_lists_of_an_empty_store(output: Run, document: Run) -> None:
    assert len(output("layers").splitlines()) == len(output("images").splitlines()) == 1
    assert document("layers") == document("images") == []
    assert output("images", "-q") == output("layers", "-q") == ""


def test_expected_digest(run: Run, output: Run, app: Path) -> None:
    assert output("push", "--expected", diff_id_of(app.read_bytes()), app)
    result = run("push", "--expected", diff_id_of(b"other"), app)
    assert result.exit_code == 2
    assert "not the expected" in result.stderr
    assert run("push", "--expected", diff_id_of(b""), app, app).exit_code == 2
    assert run("push", "--expected", diff_id_of(b""), app.parent).exit_code == 2


def test_a_second_stdin_is_refused(run: Run) -> None:
    assert run("push", "-", "-", input=b"x").exit_code == 2


def test_nothing_is_pushed_if_a_source_or_the_image_is_wrong(run: Run, output: Run, base: Path) -> None:
    for arguments in (
        (base, "missing.tar"),
        (base, "--tag", "Bad Name"),
        (base, "--base", "missing"),
        (base, "--env", "A=1"),
        (base, "--tag", "x", "--env", "A"),
        (base, "--tag", "x", "--cmd", "[1]"),
        (base, "--tag", "x", "--cmd", "'"),
    ):
        assert run("push", *arguments).exit_code in (2, 3)
    assert output("layers", "-q") == ""


def test_a_terminal_sees_progress_and_stdout_does_not(process: Run, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(30_000_000))
    seen: list[bytes] = []
    master, slave = os.openpty()

    def drain() -> None:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # the other side is closed
                return
            seen.append(data)

    reader = threading.Thread(target=drain)
    child = process("push", tmp_path / "big", stderr=slave, env={"TERM": "xterm"})
    os.close(slave)
    reader.start()
    out, _ = child.communicate()
    reader.join()
    os.close(master)
    assert child.returncode == 0
    assert b"\x1b" in b"".join(seen) and b"MiB" in b"".join(seen)
    assert out.startswith(b"sha256:") and b"\x1b" not in out and out.count(b"\n") == 1


@pytest.mark.parametrize("option", ["--no-progress", "--quiet"])
def test_progress_can_be_turned_off(process: Run, tmp_path: Path, option: str) -> None:
    (tmp_path / "big").write_bytes(os.urandom(1_000_000))
    master, slave = os.openpty()
    child = process(option, "push", tmp_path / "big", stderr=slave, env={"TERM": "xterm"})
    child.communicate()
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 100)
    os.close(slave)
    os.close(master)


def test_a_missing_source_is_told_before_anything_is_pushed(run: Run, document: Run, app: Path) -> None:
    result = run("push", app, "absent.tar")
    assert (result.exit_code, result.stderr) == (3, "layerstore: there is no file or directory absent.tar\n")
    assert document("layers") == []


def test_sockets_are_left_out_and_told(run: Run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mknod(tree / "one\x1b", stat.S_IFSOCK | 0o600)
    result = run("push", tree)
    assert (result.exit_code, result.stderr) == (0, f"{tree}: left out 1 socket, which a tar cannot have: one\\x1b\n")
    for number in range(6):
        os.mknod(tree / str(number), stat.S_IFSOCK | 0o600)
    result = run("push", tree)
    assert result.stderr == f"{tree}: left out 7 sockets, which a tar cannot have: 0, 1, 2, 3, 4, …\n"
    document = json.loads(run("push", tree, "--json").stdout)
    assert (document["skipped_count"], document["skipped"][-1]) == (7, "one\x1b")
