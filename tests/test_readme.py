"""The README's own code and commands run, and print what it says they print."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layerstore.encodings.encoders import EncoderNumber, is_available

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def masked(text: str) -> str:
    """Digests, sizes, times and paths depend on the machine; everything else has to be the same."""
    text = re.sub(r"sha256:[0-9a-f]{64}", "DIGEST", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "SHORT", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME", text)
    text = re.sub(r"[\d.,]+ (B|KiB|MiB|GiB)\b", "SIZE", text)
    text = re.sub(r"\d+ chunks", "CHUNKS", text)  # headers name the owner, so chunks of them differ
    text = re.sub(r"/\S+/store\b", "STORE", text)
    return re.sub(r"[ ]+", " ", text).strip()


def environment(folder: Path) -> dict[str, str]:
    scripts = folder / "bin"
    scripts.mkdir()
    program = scripts / "layerstore"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m layerstore "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(README.parent)}


@pytest.mark.skipif(shutil.which("bash") is None, reason="the README's commands are for a shell")
@pytest.mark.skipif(not all(map(is_available, EncoderNumber)), reason="layerstore was installed without a compiler")
def test_the_command_line_tour_prints_what_it_says(tmp_path: Path) -> None:
    steps: list[tuple[str, list[str]]] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    marker = "=== step ==="
    script = "set -e\n" + "\n".join(f"{command}\necho '{marker}'" for command, _ in steps)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split(marker + "\n")
    for (command, expected), actual in zip(steps, printed, strict=False):
        assert masked(actual) == masked("\n".join(expected)), command


def test_the_library_tour_runs(tmp_path: Path) -> None:
    for number, code in enumerate(blocks("python")):
        script = tmp_path / f"tour{number}.py"
        script.write_text(code)
        done = subprocess.run(
            [sys.executable, "-W", "error", script],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_readme() -> None:
    done = subprocess.run([sys.executable, "-m", "layerstore", "--help"], capture_output=True, text=True, check=True)
    commands = re.findall(r"^  ([a-z][a-z-]+) {2,}[A-Z]", done.stdout, re.MULTILINE)
    assert len(commands) > 20
    text = README.read_text()
    assert [one for one in commands if not re.search(rf"\b{one}\b", text)] == []
