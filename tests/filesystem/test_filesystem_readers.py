"""What reads through fsspec reads out of an image: pandas, pyarrow, zarr."""

import subprocess
import sys
from pathlib import Path

import pytest
from reader_checks import CHECKS, SKIPPED

SCRIPT = Path(__file__).with_name("reader_checks.py")


@pytest.mark.parametrize("name", CHECKS)
def test_a_reader(name: str, tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, name, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip())
    assert (done.returncode, done.stderr) == (0, "")
