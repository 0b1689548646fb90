"""cp and tree, as a user types them."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerstore import Store

Run = Callable[..., Any]


def web(output: Run) -> None:
    output("container", "create", "shop:1.0", "--name", "web")


def test_a_file_into_a_directory_and_under_a_new_name(output: Run, shop: str, tmp_path: Path) -> None:
    assert output("cp", "shop:1.0:/etc/os", ".").startswith(".   1 file, ")
    assert (tmp_path / "os").read_text() == "two\n"
    output("cp", f"{shop}:/etc/os", "renamed")
    assert (tmp_path / "renamed").read_text() == "two\n"
    (tmp_path / "renamed").write_text("older")
    output("cp", "shop:1.0:/etc/os", "renamed")
    assert (tmp_path / "renamed").read_text() == "two\n", "files are replaced"
    assert {one.name for one in tmp_path.iterdir()} >= {"os", "renamed"}
    assert not [one for one in tmp_path.iterdir() if one.name.endswith(".cp")]


def test_directories_come_with_what_is_in_them(output: Run, document: Run, run: Run, shop: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    copied = document("cp", "shop:1.0:/app", "shop:1.0:/etc/", "there")
    assert copied == {"target": "there", "files": 3, "directories": 2, "size": 512_000 + 8}
    assert (tmp_path / "there/app/data").stat().st_size == 512_000
    again = run("cp", "shop:1.0:/app", "there")
    assert again.exit_code == 4 and "is a directory; remove it" in again.stderr
    (tmp_path / "there/lib").write_text("a file")
    refused = run("cp", "shop:1.0:/lib", "there")
    assert refused.exit_code == 4 and "move what is there" in refused.stderr
    assert (tmp_path / "there/lib").read_text() == "a file"
    output("cp", "shop:1.0:/", "everything")
    assert sorted(one.name for one in (tmp_path / "everything").iterdir()) == ["app", "etc", "lib"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("shop:1.0:/missing", "."), 3),
        (("missing:/x", "."), 3),
        (("shop:1.0:/etc/os", "no/such/place"), 4),
        (("shop:1.0:/etc/os", "shop:1.0:/app", "new"), 4),
        (("shop:1.0:/", "."), 2),
        (("shop:1.0:/etc/os", "shop:1.0:/etc/os", "."), 2),
        (("local", "shop:1.0:/etc"), 2),
        (("shop:1.0:/etc/os", "container:web:/etc"), 2),
        (("local", "elsewhere"), 2),
        (("local", "container:missing:/etc"), 3),
    ],
)
def test_what_makes_no_sense(run: Run, shop: str, tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    (tmp_path / "local").write_text("x")
    before = sorted(one.name for one in tmp_path.iterdir())
    result = run("cp", *arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert sorted(one.name for one in tmp_path.iterdir()) == before


def test_links_lead_nowhere(output: Run, run: Run, make_tar: Run, tmp_path: Path) -> None:
    """A link that is named is followed inside of the image; others are copied as they are."""
    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/passwd").symlink_to("/etc/passwd")
    (tmp_path / "tree/d/up").symlink_to("../../../../etc/passwd")
    output("push", "tree", "--tag", "links:1")
    assert run("cp", "links:1:/passwd", ".").exit_code == 3, "the image has no /etc/passwd"
    output("cp", "links:1:/d", "copied")
    assert str((tmp_path / "copied/up").readlink()) == "../../../../etc/passwd"


def test_into_a_container(output: Run, document: Run, run: Run, shop: str, path: Path, tmp_path: Path) -> None:
    web(output)
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("in")
    (tmp_path / "tree/link").symlink_to("/etc/passwd")
    (tmp_path / "tree/sub/file").chmod(0o640)
    os.utime(tmp_path / "tree/sub/file", (5, 5))
    output("cp", "tree", "container:web:/etc")
    output("cp", "tree/sub/file", "container:web:/etc/os")
    output("cp", "tree/sub", "container:web:/app")
    with Store.open(path, read_only=True) as store, store.containers["web"] as container:
        node = container.stat("/etc/tree/sub/file")
        assert (node.mode, node.mtime_ns, node.uid, container.read_bytes("/etc/os")) == (0o640, 5 * 10**9, 0, b"in")
        assert container.readlink("/etc/tree/link") == b"/etc/passwd"
        assert container.listdir("/app") == ["data", "new", "sub"], "directories are merged"
    (tmp_path / "alias").symlink_to("tree/sub/file")
    assert document("cp", "alias", "container:web:/etc")["files"] == 1
    assert output("cat", "container:web", "/etc/alias") == "in", "a link that is named is followed, under its own name"
    assert run("cp", "tree", "container:web:/etc/os").exit_code == 4
    assert run("cp", "missing", "container:web:/etc").exit_code in (2, 5)
    output("cp", "container:web:/etc/tree", "back")
    assert (tmp_path / "back/sub/file").read_text() == "in"


def test_links_of_a_container_lead_into_it(output: Run, shop: str, path: Path, tmp_path: Path) -> None:
    web(output)
    (tmp_path / "file").write_text("new")
    with Store.open(path) as store, store.containers["web"] as container:
        container.symlink("/app", "/etc/alias")
        container.symlink(str(tmp_path), "/out")
    output("cp", "file", "container:web:/etc/alias")
    assert output("cat", "container:web", "/app/file") == "new"
    before = sorted(tmp_path.iterdir())
    output("cp", "file", "container:web:/out2")
    assert sorted(tmp_path.iterdir()) == before


def test_tree(output: Run, document: Run, run: Run, shop: str) -> None:
    assert output("tree", "shop:1.0").splitlines() == [
        "/",
        "├── app",
        "│   ├── data",
        "│   └── new",
        "├── etc",
        "│   └── os",
        "└── lib",
        "    ├── data",
        "    └── old",
        "",
        "3 directories, 5 files",
    ]
    assert output("tree", "shop:1.0", "-d", "/").splitlines()[1:4] == ["├── app", "├── etc", "└── lib"]
    assert output("tree", "shop:1.0", "--level", "1").splitlines()[-1] == "3 directories, 0 files"
    assert "[4 B] os" in output("tree", "shop:1.0", "/etc", "--size")
    drawn = document("tree", "shop:1.0", "/etc")
    assert [(one["depth"], one["path"]) for one in drawn] == [(0, "/etc"), (1, "/etc/os")]
    assert run("tree", "shop:1.0", "/missing").exit_code == 3
    assert output("tree", "shop:1.0", "/etc/os").splitlines()[0] == "/etc/os"
    web(output)
    assert output("tree", "container:web") == output("tree", "shop:1.0")


def test_a_deep_tree(output: Run, document: Run, path: Path, shop: str) -> None:
    web(output)
    with Store.open(path) as store, store.containers["web"] as container:
        container.mkdir("/" + "d/" * 1500, parents=True)
    assert "1503 directories" in output("tree", "container:web").replace(",", "")
    assert max(one["depth"] for one in document("tree", "container:web")) == 1500
    output("container", "rm", "web")  # whoever cleans up behind the tests might not get so deep


def test_json_is_json(run: Run, shop: str) -> None:
    failed = run("cp", "shop:1.0:/missing", ".", "--json")
    assert json.loads(failed.stderr)["error"]["code"] == "not-found"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_rights_of_others_do_not_become_ours(output: Run, path: Path, tmp_path: Path) -> None:
    """A set-uid program of one user must not become one of root by being copied."""
    (tmp_path / "tree").mkdir()
    program = tmp_path / "tree/program"
    program.write_text("x")
    os.chown(program, 1000, 1000)
    program.chmod(0o6755)
    os.setxattr(program, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    output("push", "tree", "--tag", "tree:1")
    output("cp", "tree:1:/program", "plain")
    output("cp", "--archive", "tree:1:/program", "kept")
    status, kept = (tmp_path / "plain").stat(), (tmp_path / "kept").stat()
    assert (status.st_uid, status.st_mode & 0o7777, os.listxattr(tmp_path / "plain")) == (0, 0o755, [])
    assert (kept.st_uid, kept.st_mode & 0o7777) == (1000, 0o6755)
    output("container", "create", "tree:1", "--name", "web")
    output("cp", "tree/program", "container:web:/plain")
    output("cp", "--archive", "tree/program", "container:web:/kept")
    with Store.open(path, read_only=True) as store, store.containers["web"] as container:
        plain, archived = container.stat("/plain"), container.stat("/kept")
    assert (plain.uid, plain.mode) == (0, 0o755)
    assert (archived.uid, archived.mode) == (1000, 0o6755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_devices_come_along_only_when_asked_for(output: Run, document: Run, path: Path, tmp_path: Path) -> None:
    (tmp_path / "tree/dev").mkdir(parents=True)
    os.mknod(tmp_path / "tree/dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(tmp_path / "tree/dev/pipe")
    output("push", "tree", "--tag", "tree:1")
    output("container", "create", "tree:1", "--name", "web")
    for number, source in enumerate(("tree:1", "container:web")):
        assert "1 device made as empty files" in output("cp", f"{source}:/dev", f"plain{number}")
        output("cp", f"{source}:/dev/null", f"null{number}")
        output("cp", "-a", f"{source}:/dev", f"kept{number}")
        for plain in (tmp_path / f"plain{number}/null", tmp_path / f"null{number}"):
            assert stat.S_ISREG(plain.lstat().st_mode) and plain.stat().st_size == 0
        assert stat.S_ISFIFO((tmp_path / f"plain{number}/pipe").lstat().st_mode)
        assert stat.S_ISCHR((tmp_path / f"kept{number}/null").lstat().st_mode)


def test_a_file_in_a_container_is_replaced_as_a_whole(output: Run, shop: str, path: Path, tmp_path: Path) -> None:
    """With its holes; who has the old one open, or another name of it, keeps it. Nothing is left if it fails."""
    web(output)
    size = 64 << 20
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(size)
        for offset in (0, 8 << 20, size - 1):
            file.seek(offset)
            file.write(b"x")
    with Store.open(path) as store, store.containers["web"] as container:
        container.write_bytes("/old", b"old")
        container.link("/old", "/etc/other")
    output("cp", "sparse", "container:web:/old")
    with Store.open(path) as store, store.containers["web"] as container:
        assert container.read_bytes("/etc/other") == b"old"
        assert container.stat("/old").links == 1
        with container.open("/old") as copied, (tmp_path / "sparse").open("rb") as file:
            assert os.fstat(copied.fileno()).st_blocks * 512 < 1 << 20, "its holes are filled"
            assert copied.read() == file.read()
    output("cp", "/proc/self/status", "container:web:/status")
    assert "VmRSS" in output("cat", "container:web", "/status")
    with Store.open(path) as store, store.containers["web"] as container:
        with pytest.raises(ZeroDivisionError), container.replacing("/old") as descriptor:
            os.write(descriptor, b"new")
            1 / 0  # noqa: B018
        assert container.stat("/old").size == size
        container.close()
        assert list((path / "containers/web/tmp").iterdir()) == []
