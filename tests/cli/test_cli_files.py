"""ls, find, cat, unpack."""

import base64
import io
import json
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def odd(output: Run, tmp_path: Path) -> str:
    """An image ``odd:1`` of two layers with something of every kind."""
    entries: list[tuple[str, bytes, bytes, dict[str, Any]]] = [
        ("etc", tarfile.DIRTYPE, b"", {"mode": 0o755, "mtime": 86_400}),
        ("etc/os", tarfile.REGTYPE, b"line\x1b[31m\ttab\n", {"mode": 0o640, "uid": 3, "gid": 4, "mtime": 3600}),
        ("etc/link", tarfile.SYMTYPE, b"", {"linkname": "os"}),
        ("etc/gone", tarfile.REGTYPE, b"x", {}),
        ("way", tarfile.SYMTYPE, b"", {"linkname": "/etc"}),
        ("dangling", tarfile.SYMTYPE, b"", {"linkname": "no\x1b[2Jwhere"}),
        ("null", tarfile.CHRTYPE, b"", {"devmajor": 1, "devminor": 3}),
        ("n\udcff\x1b[2J\n", tarfile.REGTYPE, b"\xff\x00", {}),
        ("late", tarfile.REGTYPE, b"", {"mtime": 10**15}),
    ]
    for name, content in (("one.tar", entries), ("two.tar", [("etc/.wh.gone", tarfile.REGTYPE, b"", {})])):
        with tarfile.open(tmp_path / name, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
            for path, kind, data, values in content:
                info = tarfile.TarInfo(path)
                info.type, info.size = kind, len(data)
                for key, value in values.items():
                    setattr(info, key, value)
                tar.addfile(info, io.BytesIO(data))
    return str(output("push", "one.tar", "two.tar", "--tag", "odd:1", "--quiet")).strip()


def test_ls(output: Run, odd: str) -> None:
    assert output("ls", "odd:1").splitlines() == ["dangling", "etc", "late", "null", "n\\xff\\x1b[2J\\n", "way"]
    assert output("ls", odd[7:19], "etc") == output("ls", "odd:1", "/way/") == "link\nos\n"
    assert output("ls", "odd:1", "etc/os") == "os\n"
    assert output("ls", "odd:1", "-l", "/etc").splitlines() == [
        "lrw-r--r--   1   0:0    0   1970-01-01 00:00:00   link -> os",
        "-rw-r-----   1   3:4   14   1970-01-01 01:00:00   os",
    ]
    lines = output("ls", "-l", "odd:1").splitlines()
    assert lines[0].endswith("dangling -> no\\x1b[2Jwhere")
    assert lines[2].endswith("@1000000000000000     late")
    assert "   1, 3   " in lines[3]


def test_ls_of_one_layer(output: Run, document: Run, odd: str) -> None:
    layers = [layer["diff_id"] for layer in document("inspect", "odd:1")["layers"]]
    assert output("ls", layers[0], "etc") == "gone\nlink\nos\n"
    assert document("ls", "odd:1", "etc")[1]["layer"] == layers[0]


def test_ls_as_json(document: Run, odd: str) -> None:
    rows = {row["path"]: row for row in document("ls", "odd:1")}
    assert rows["/null"]["device"] == [1, 3]
    assert rows["/way"]["link_target"] == "/etc"
    name = "/n\\xff\x1b[2J\n"
    assert base64.b64decode(rows[name]["path_base64"]) == b"/n\xff\x1b[2J\n"
    (os_,) = document("ls", "odd:1", "/etc/os")
    assert {key: os_[key] for key in ("path", "kind", "mode", "uid", "gid", "size", "mtime_ns", "links", "xattrs")} == {
        "path": "/etc/os",
        "kind": "file",
        "mode": "0640",
        "uid": 3,
        "gid": 4,
        "size": 14,
        "mtime_ns": 3600 * 10**9,
        "links": 1,
        "xattrs": {},
    }


def test_find(output: Run, document: Run, run: Run, odd: str) -> None:
    assert output("find", "odd:1").splitlines()[:4] == ["/dangling", "/etc", "/etc/link", "/etc/os"]
    assert output("find", "odd:1", "etc") == "/etc/link\n/etc/os\n"
    assert output("find", "odd:1", "--name", "[lo]*") == "/etc/link\n/etc/os\n/late\n"
    assert output("find", "odd:1", "--type", "d,c") == output("find", "odd:1", "--type", "dc") == "/etc\n/null\n"
    assert output("find", "odd:1", "--name", "l*", "--type", "l", "-l").endswith("/etc/link -> os\n")
    assert output("find", "odd:1", "--name", "none") == ""
    assert document("find", "odd:1", "--name", "none") == []
    assert [row["path"] for row in document("find", "odd:1", "--type", "d")] == ["/etc"]
    assert b"/etc/os\0/late\0/null\0/n\xff\x1b[2J\n\0" in run("find", "odd:1", "-0").stdout_bytes
    assert run("find", "odd:1", "--type", "x").exit_code == 2
    assert run("find", "odd:1", "--type", "").exit_code == 2


def test_cat(output: Run, document: Run, run: Run, odd: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("cat", "odd:1", "way/link", "/etc/os").stdout_bytes == b"line\x1b[31m\ttab\n" * 2
    rows = document("cat", "odd:1", b"n\xff\x1b[2J\n".decode(errors="surrogateescape"))
    assert [(row["size"], base64.b64decode(row["contents_base64"])) for row in rows] == [(2, b"\xff\x00")]
    # What a terminal gets cannot harm it.
    monkeypatch.setattr("layerstore.cli.files._is_terminal", lambda: True)
    assert output("cat", "odd:1", "etc/os") == "line\\x1b[31m\ttab\n"
    name = b"n\xff\x1b[2J\n".decode(errors="surrogateescape")
    assert output("cat", "odd:1", name) == "\\xff\\x00"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ls", "none:1"], 3, "none:1"),
        (["ls", "odd:1", "no/such"], 3, "layerstore: /no/such in odd:1: No such file or directory\n"),
        (["ls", "odd:1", "etc/os/x"], 2, "Not a directory"),
        (["ls", "odd:1", "dangling"], 3, "No such file or directory"),
        (["find", "odd:1", "etc/os"], 2, "Not a directory"),
        (["cat", "odd:1", "etc"], 2, "layerstore: /etc in odd:1: Is a directory\n"),
        (["cat", "odd:1", "null"], 2, "Invalid argument"),
        (["cat", "odd:1", "etc/os", "nope"], 3, "/nope in odd:1"),
        (["cat", "odd:1"], 2, "Missing argument"),
        (["unpack", "none:1", "root"], 3, "none:1"),
        (["unpack", "odd:1", "full"], 4, "full is not empty: choose a new or empty directory"),
        (["unpack", "odd:1", "no/such"], 3, "there is no directory no to make such in"),
        (["unpack", "odd:1", "root", "--owner", "me"], 2, "is not UID:GID"),
        (["unpack", "odd:1", "root", "--owner", "1:1", "--rootless"], 2, "owner"),
    ],
)
def test_what_is_not_there(run: Run, odd: str, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "full" / "of").mkdir(parents=True)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert not (tmp_path / "root").exists()
    failed = run(*arguments, "--json")
    assert failed.exit_code == code and "error" in json.loads(failed.stderr)


def test_unpack(output: Run, run: Run, tmp_path: Path, shop: str) -> None:
    line = output("unpack", "shop:1.0", "root/")
    assert line == f"{shop}   root/   5 files, 1000.0 KiB\n"
    assert (tmp_path / "root/etc/os").read_bytes() == b"two\n"
    assert (tmp_path / "root/lib/data").read_bytes() == (tmp_path / "root/app/data").read_bytes()
    assert output("unpack", "shop:1.0", "quiet", "--quiet") == ""


def test_unpack_as_json(document: Run, shop: str) -> None:
    told = document("unpack", "shop:1.0", "root")
    assert told["image"] == shop and told["directory"] == "root"
    assert (told["files"], told["directories"], told["shortfalls"]) == (5, 3, [])


def test_unpack_tells_what_it_could_not_do(run: Run, odd: str, tmp_path: Path) -> None:
    result = run("unpack", "odd:1", "root", "--rootless")
    assert result.exit_code == 0
    assert result.stderr == "root: 1 device made as empty files: /null (device)\n"
    assert (tmp_path / "root/null").is_file()
    assert not (tmp_path / "root/etc/gone").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_unpack_for_an_owner(output: Run, shop: str, tmp_path: Path) -> None:
    output("unpack", "shop:1.0", "root", "--owner", "12:34")
    assert {(one.lstat().st_uid, one.lstat().st_gid) for one in (tmp_path / "root").rglob("*")} == {(12, 34)}


def test_unpack_for_a_platform(run: Run, output: Run, layout: Any, tmp_path: Path) -> None:
    output("import", layout.path, "multi", "--name", "shop:multi")
    output("unpack", "shop:multi", "other", "--platform", "linux/s390x")
    assert (tmp_path / "other/arch").read_bytes() == b"linux/s390x"
    assert output("cat", "shop:multi", "arch", "--platform", "linux/s390x") == "linux/s390x"
    assert run("ls", "shop:multi", "--platform", "linux/none").exit_code == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_unpack_leaves_nothing(
    output: Run, process: Run, make_tar: Run, tmp_path: Path, number: signal.Signals
) -> None:
    make_tar("many.tar", {f"d{n % 50}/f{n}": b"%d" % n * 500 for n in range(20_000)})
    output("push", "many.tar", "--tag", "many:1")
    running = process("unpack", "many:1", "root")
    until = time.monotonic() + 60
    while not list(tmp_path.glob("root/d*/f*")) and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(number)
    _, told = running.communicate(timeout=60)
    assert running.returncode == (130 if number == signal.SIGINT else 143)
    assert told in (b"layerstore: interrupted; what was written has been removed\n", b"")
    assert not (tmp_path / "root").exists()
