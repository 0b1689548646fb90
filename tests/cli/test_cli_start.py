"""The first moments of the program: what is loaded, and what Ctrl-C does meanwhile."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)

import layerstore
sys.meta_path.insert(0, Interrupting())
wanted, sys.argv[1:] = sys.argv[1], sys.argv[2:]
from layerstore.cli import main
main()
"""
"""The program, with a Ctrl-C in the middle of an import."""

_LOADED = """
import sys
from layerstore.cli import main
try:
    main()
except SystemExit:
    print(*sys.modules, file=sys.stderr)
"""
"""The program, which tells at its end what was loaded."""


def started(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["layerstore.cli.application", "layerstore.cli.settings", "layerstore.cli.images"])
def test_ctrl_c_while_modules_are_loaded_is_no_traceback(path: Path, module: str) -> None:
    done = started(_INTERRUPTED, module, "--store", path, "images")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_who_ignores_ctrl_c_goes_on_doing_so(path: Path) -> None:
    """As `nohup` and shells do for what runs in the background."""
    ignoring = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{_INTERRUPTED}"
    done = started(ignoring, "layerstore.cli.images", "--store", path, "images")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_that_runs_is_interrupted_as_before(path: Path) -> None:
    """Not ended by the signal: what it holds is let go of."""
    kill = (
        "import os, signal\nfrom layerstore.store import Store\n"
        "Store.open = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = started(f"{kill}from layerstore.cli import main\nmain()", "--store", path, "images")
    assert (done.returncode, done.stderr) == (130, "layerstore: interrupted\n")


@pytest.mark.parametrize(("command", "own"), [("images", "images"), ("gc", "maintenance")])
def test_a_command_loads_its_own_module_and_no_bars(path: Path, command: str, own: str) -> None:
    done = started(_LOADED, "--store", path, command)
    loaded = set(done.stderr.split())
    assert f"layerstore.cli.{own}" in loaded, done.stderr
    for needless in ("rich", "urllib3", "starlette", "fsspec", "layerstore.cli.run", "layerstore.cli.serve"):
        assert needless not in loaded


def test_a_command_that_is_not_there(path: Path) -> None:
    done = started(_LOADED, "--store", path, "imagse")
    assert "No such command 'imagse'" in done.stderr


def test_help_is_there_without_a_store() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LAYERSTORE_PATH"}
    command = [sys.executable, "-m", "layerstore", "images", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: layerstore images ")
