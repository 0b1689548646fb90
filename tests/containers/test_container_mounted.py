"""A container that fuse-overlayfs mounts for a user without root's rights can be changed like any directory."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from union_samples import file, folder, layer

CHILD = Path(__file__).with_name("container_mount_child.py")
NOBODY = 65_534
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
# A device that is open to every user, seen by what is started here alone.
_WITH_DEVICE = 'mount --bind "$1" /dev/fuse && shift && exec "$@"'
# Without this Python's own library, which belongs to its version.
_PATHS = ":".join(one for one in sys.path if "site-packages" in one or (Path(one) / "layerstore").is_dir())
_LAYER = layer(
    folder(b"etc"),
    file(b"etc/name", b"one\n", mode=0o644),
    file(b"gone", b"1"),
    folder(b"dir"),
    file(b"dir/a", b"a"),
    folder(b"bin"),
)


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "it needs root, to become somebody else"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if shutil.which("fuse-overlayfs") is None:
        return "there is no fuse-overlayfs"
    program = shutil.which("fusermount3")
    if program is None or not Path(program).stat().st_mode & stat.S_ISUID:
        return "there is no fusermount3 that runs as root"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "this root may not mount"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of nobody's, with a layer to begin with."""
    missing = _missing()
    if missing is not None:
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lsu", ignore_cleanup_errors=True) as name:
        path = Path(name)
        (path / "layer").write_bytes(_LAYER)
        (path / "run").mkdir()
        for one in (path, path / "layer", path / "run"):
            os.chown(one, NOBODY, NOBODY)
        os.mknod(path / "fuse", stat.S_IFCHR | 0o666, os.makedev(10, 229))
        (path / "fuse").chmod(0o666)
        yield path


def _as_user(place: Path, program: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    with_device = ("unshare", "--mount", "sh", "-c", _WITH_DEVICE, "sh", place / "fuse")
    command = [*with_device, *_AS_NOBODY, "/usr/bin/env", program, *arguments]
    environment = {"PATH": "/usr/bin:/bin", "LAYERSTORE_RUNTIME_DIR": str(place / "run"), "PYTHONPATH": _PATHS}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=120)


def _python_of_user(place: Path) -> str:
    """A Python that this user may run, which finds what this one finds."""
    for program in (sys.executable, "/usr/bin/python3"):
        if _as_user(place, program, "-c", "import layerstore").returncode == 0:
            return program
    pytest.skip("the user can run no Python that has layerstore")


def test_a_user_changes_a_mounted_container(place: Path) -> None:
    """Directories of the image are listed, files made; modes are those that were set last; owners stay."""
    done = _as_user(place, _python_of_user(place), "-c", CHILD.read_text(), place)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["listed"] == {
        ".": ["bin", "dir", "etc", "gone"],
        "etc": ["name", "secret"],
        "bin": ["tool"],
    }
    assert said["tool"] == "made\n" and said["secret"] == "0o640"
    assert said["root"] == [7, 8, "0o750"] and said["kept"] == [5, 6, "0o640"] and said["changed"] == [0, 0, "0o700"]
    changes = {path: kind for kind, path in said["changes"]}
    assert changes["gone"] == changes["dir/a"] == "deleted"
    assert changes["new"] == changes["etc/new"] == changes["etc/sub/file"] == changes["dir/b"] == "added"
    in_etc = ["late", "link", "name", "new", "secret", "sub", "sub/file"]
    assert said["committed"] == ["bin", "bin/tool", "dir", "dir/b", "etc", *(f"etc/{name}" for name in in_etc), "new"]
