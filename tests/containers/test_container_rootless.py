"""Without root's rights a container shows and commits the same as with them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_samples import changed, check_commit, everything, groups, picture
from rootless_changes import change

from layerstore import Image

TESTS = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).with_name("rootless_container_child.py")
NOBODY = 65_534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of nobody's, reachable for nobody."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def test_a_user_without_rights_shows_and_commits_the_same_as_root(place: Path, image: Image) -> None:
    (place / "layers").mkdir()
    for number, layer in enumerate(everything()):
        (place / "layers" / f"{number:03}").write_bytes(layer)
    folders = [TESTS, *(TESTS / name for name in ("containers", "unpacking", "union"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-W", "error", str(CHILD), str(place), str(NOBODY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    with image.container() as container:
        change(container)
        check_commit(container).close()
        assert theirs == {
            "first": True,
            "owners_kept": True,
            "layer": container.commit().layers[-1].diff_id,
            "changes": changed(container),
            "shown": repr(sorted(picture(container).items())),
            "groups": repr(sorted(sorted(group) for group in groups(container))),
            "reopened": True,
            "owners": [NOBODY],
            "removed": True,
        }
    container.remove()
