"""Users other than root mount through fusermount3: a server for each mount, and containers by fuse-overlayfs."""

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting_servers import Mounter, servers, wait_until
from union_samples import file, folder, layer

from layerstore.mounting.mount_table import mount_at

_NOBODY = 65534
_AS_NOBODY = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
# Without this Python's own library, which belongs to its version.
_PATHS = ":".join(one for one in sys.path if "site-packages" in one or (Path(one) / "layerstore").is_dir())
_DEVICE = Path("/dev/fuse")
_FILES = layer(folder(b"etc"), file(b"etc/name", b"one\n", uid=_NOBODY), file(b"gone", b"1", uid=_NOBODY))
_VIEW = """
from layerstore.mounting.client import mount_view, mounts
with mount_view(store, store_id, layers, folder / "target") as mount:
    assert (mount.target / "etc/name").read_text() == "one\\n"
    found, = mounts()
    assert (found.target, found.is_container, found.store, list(found.layers)) == (mount.target, False, store, layers)
assert mounts() == []
mount_view(store, store_id, layers, folder / "target")
print("mounted")
"""
_CONTAINER = """
from layerstore.mounting.client import mount_container, mounts
for attempt in range(2):
    with mount_container(
        store, store_id, layers, folder / "target",
        upper=folder / "upper", work=folder / "work", lock=folder / "lock", user_xattrs=True,
    ) as mount:
        assert (mount.target / "etc/name").read_text() == "one\\n" + "two\\n" * attempt
        with (mount.target / "etc/name").open("a") as file:
            file.write("two\\n")
        (mount.target / "gone").unlink(missing_ok=True)
        assert [(one.target, one.is_container, one.is_alive) for one in mounts()] == [(mount.target, True, True)]
assert mounts() == []
print("mounted")
"""


@pytest.fixture
def user(mounter: Mounter, runtime: Path) -> Iterator[Path]:
    """A folder of a user who may use FUSE, with a copy of the store."""
    program = shutil.which("fusermount3")
    if program is None or not Path(program).stat().st_mode & stat.S_ISUID:
        pytest.skip("there is no fusermount3 that runs as root")
    mode = stat.S_IMODE(_DEVICE.stat().st_mode)
    if mode & 0o666 != 0o666:
        pytest.skip(f"{_DEVICE} is not open to users")
    folder = runtime / "user"
    for path in (folder, *(folder / name for name in ("target", "upper", "work", "run"))):
        path.mkdir()
    mounter.push(_FILES)
    shutil.copytree(mounter.store.path, folder / "store")
    subprocess.run(["chown", "-R", f"{_NOBODY}:{_NOBODY}", folder], check=True)
    yield folder


def _python_of_user() -> str:
    """A Python that this user may run, which finds what this one finds."""
    for program in (sys.executable, "/usr/bin/python3"):
        probe = subprocess.run(
            [*_AS_NOBODY, "/usr/bin/env", program, "-c", "import layerstore"],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": _PATHS},
            capture_output=True,
            check=False,
        )
        if probe.returncode == 0:
            return program
    pytest.skip("the user can run no Python that has layerstore")


def _run_as_user(mounter: Mounter, folder: Path, script: str) -> None:
    diff_ids = [str(one) for one in mounter.store.layers]
    head = (
        "import sys\nfrom pathlib import Path\nfrom layerstore import Digest\n"
        "folder, store_id = Path(sys.argv[1]), sys.argv[2]\n"
        "store, layers = folder / 'store', [Digest(one) for one in sys.argv[3:]]\n"
    )
    done = subprocess.run(
        [*_AS_NOBODY, _python_of_user(), "-c", head + script, str(folder), mounter.store.config.store_id, *diff_ids],
        env={"PATH": "/usr/bin:/bin", "LAYERSTORE_RUNTIME_DIR": str(folder / "run"), "PYTHONPATH": _PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "mounted\n", done.stderr


def test_a_user_mounts_a_view(mounter: Mounter, user: Path) -> None:
    _run_as_user(mounter, user, _VIEW)
    assert mount_at(user / "target") is not None
    assert len(servers(user)) == 1
    subprocess.run(["umount", user / "target"], check=True)
    wait_until(lambda: not servers(user), "the server has not ended")


def test_a_user_mounts_a_container(mounter: Mounter, user: Path) -> None:
    if shutil.which("fuse-overlayfs") is None:
        pytest.skip("there is no fuse-overlayfs")
    _run_as_user(mounter, user, _CONTAINER)
    assert (user / "upper/etc/name").read_text() == "one\ntwo\ntwo\n"
    assert stat.S_ISCHR((user / "upper/gone").lstat().st_mode) or (user / "upper/.wh.gone").exists()
    wait_until(lambda: not servers(user), "the server has not ended")
