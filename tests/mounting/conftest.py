"""What the tests of mounts share: a runtime folder of their own, and nothing left mounted."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "union"))

from mounting_servers import Mounter, servers, wait_until

from layerstore import Store
from layerstore.mounting.mount_table import read_mounts
from layerstore.mounting.runtime import RUNTIME_VARIABLE


def _missing() -> str | None:
    """Why nothing can be mounted here."""
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if os.geteuid() != 0:
        return "it needs root"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "this root may not mount"


MISSING = _missing()


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path, as those of sockets are limited."""
    path = Path(tempfile.mkdtemp(prefix="lsm", dir="/tmp"))
    monkeypatch.setenv(RUNTIME_VARIABLE, str(path))
    yield path
    _unmount_below(path)
    wait_until(lambda: not servers(path), "a server has not ended")
    shutil.rmtree(path)


@pytest.fixture
def place(runtime: Path) -> Path:
    """A folder to mount in, which is cleaned up with the runtime folder's."""
    path = runtime / "place"
    path.mkdir(mode=0o755)
    runtime.chmod(0o755)
    return path


@pytest.fixture
def mounter(store: Store, place: Path) -> Mounter:
    """Mounts stacks of layers of the store."""
    if MISSING is not None:
        pytest.skip(MISSING)
    return Mounter(store, place)


def _unmount_below(path: Path) -> None:
    for one in reversed(read_mounts()):
        if one.target.is_relative_to(path):
            # The server may be quicker with its own.
            subprocess.run(["umount", "-l", one.target], capture_output=True, check=False)
