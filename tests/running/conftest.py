"""What the tests of running share: an image with busybox, and a runtime folder for mounts of their own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_samples import busybox_root

from layerstore import Image, Store
from layerstore.mounting.mount_table import MountEntry, read_mounts
from layerstore.mounting.runtime import RUNTIME_VARIABLE


def missing_for_mounts() -> str | None:
    """Why no container can be mounted here."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        return "it needs root and /dev/fuse"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "this root may not mount"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    """Busybox with an environment, a working directory and a command."""
    layer = store.push_tree(busybox_root(tmp_path / "root"), mtime_max=0).layer
    config = {"Env": ["A=1", "PATH=/bin"], "WorkingDir": "/tmp", "Cmd": ["sh", "-c", "echo default"]}
    return store.create_image([layer], tag="busybox:1", config=config)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can come to: a runtime may open volumes as the user it runs for."""
    with tempfile.TemporaryDirectory(prefix="lsv", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A runtime folder of the test's own, and nothing left mounted."""
    missing = missing_for_mounts()
    if missing is not None:
        pytest.skip(missing)
    path = Path(tempfile.mkdtemp(prefix="lsr", dir="/tmp"))
    monkeypatch.setenv(RUNTIME_VARIABLE, str(path))
    before = {one.target for one in read_mounts()}
    yield
    left = [one for one in read_mounts() if one.target not in before and _is_of(one, path)]
    for one in reversed(left):
        subprocess.run(["umount", "-l", one.target], capture_output=True, check=False)
    shutil.rmtree(path, ignore_errors=True)
    assert not [one.target for one in left if path not in one.target.parents], left


def _is_of(mounted: MountEntry, runtime: Path) -> bool:
    lower = (mounted.option(b"lowerdir") or b"") if mounted.is_container else b""
    return runtime in mounted.target.parents or lower.startswith(os.fsencode(runtime))
