import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from layerstore import errors
from layerstore.cli.application import program
from layerstore.cli.failures import BrokenOutput, Interrupted, failure_of
from layerstore.cli.settings import StoreCommand

Run = Callable[..., Any]


def kinds(kind: type[errors.LayerstoreError]) -> Iterator[type[errors.LayerstoreError]]:
    for one in kind.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
            yield from kinds(one)


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.InvalidInputError, 2),
        (errors.NotFoundError, 3),
        (errors.ConflictError, 4),
        (errors.UnavailableError, 5),
        (errors.DamagedError, 6),
    ],
)
def test_every_kind_of_error_has_its_exit_code(kind: type[errors.LayerstoreError], exit_code: int) -> None:
    for one in (kind, *kinds(kind)):
        error = one("a", "b") if one is errors.DigestMismatchError else one("what")
        failure = failure_of(error)
        assert failure is not None
        assert (failure.exit_code, failure.code, failure.message) == (exit_code, one.code, str(error))


def test_other_failures() -> None:
    def told(error: Exception) -> tuple[int, str]:
        failure = failure_of(error)
        assert failure is not None
        return failure.exit_code, failure.code

    assert told(errors.LayerstoreError("x")) == (1, "error")
    assert told(ValueError("x")) == (1, "unexpected")
    assert told(OSError(28, "No space left on device")) == (5, "storage")
    assert told(Interrupted()) == told(click.Abort()) == (130, "interrupted")
    assert told(click.UsageError("x")) == told(click.FileError("x")) == (2, "usage")
    assert failure_of(BrokenOutput()) is None


def test_errors_are_one_line_or_an_object(run: Run, path: Path) -> None:
    result = run("images", "--nosuch")
    assert result.exit_code == 2
    assert result.stderr.startswith("layerstore: ") and "`layerstore images --help`" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""
    for arguments in (("--json", "inspect", "nosuch"), ("inspect", "nosuch", "--json")):
        result = run(*arguments)
        assert result.exit_code == 3 and result.stdout == ""
        error = json.loads(result.stderr)["error"]
        assert error["code"] == "image-not-found" and "nosuch" in error["message"]
    assert json.loads(run("--json", "nosuch").stderr)["error"]["code"] == "usage"
    assert run("inspect", "--", "--json").stderr.startswith("layerstore: ")


def test_messages_cannot_harm_a_terminal(run: Run) -> None:
    result = run("inspect", "a\x1b[31m\r\nb")
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr and len(result.stderr.splitlines()) == 1


def test_debug_shows_where(run: Run) -> None:
    assert "Traceback" not in run("inspect", "nosuch").stderr
    for arguments in (("--debug", "inspect", "nosuch"), ("inspect", "nosuch", "--debug")):
        result = run(*arguments)
        assert "Traceback" in result.stderr and result.exit_code == 3


@pytest.fixture
def failing() -> Iterator[Callable[[BaseException], str]]:
    """Adds a command that raises an error; its name."""
    names = []

    def add(error: BaseException) -> str:
        def fail() -> None:
            raise error

        command = StoreCommand(f"fail{len(names)}", callback=fail, examples="", json_form="")
        program.add_command(command)
        names.append(command.name)
        return command.name

    yield add
    for name in names:
        del program.commands[name]


def test_unexpected_errors_are_told_without_a_traceback(bare: Run, failing: Callable[[BaseException], str]) -> None:
    result = bare(failing(ZeroDivisionError("by \x1b zero")))
    assert result.exit_code == 1
    assert result.stderr == (
        "layerstore: unexpected ZeroDivisionError: by \\x1b zero; run it with --debug to see where\n"
    )


def test_interrupts_and_broken_pipes(bare: Run, failing: Callable[[BaseException], str]) -> None:
    result = bare(failing(KeyboardInterrupt()))
    assert (result.exit_code, result.stderr) == (130, "layerstore: interrupted\n")
    result = bare(failing(BrokenPipeError()))
    assert (result.exit_code, result.output) == (141, "")


def test_errors_reach_a_caller_that_wants_them(failing: Callable[[BaseException], str]) -> None:
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(program, [failing(ZeroDivisionError())], standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_push_cleanly(process: Run, run: Run, path: Path, number: int, exit_code: int) -> None:
    child = process("push", "-", stdin=-1)
    child.stdin.write(os.urandom(100_000))
    child.stdin.flush()
    deadline = time.monotonic() + 30
    while not list((path / "leases").iterdir()):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    _, err = child.communicate()
    assert child.returncode == exit_code
    hint = b"layerstore: interrupted; `layerstore gc` frees what was stored of this layer\n"
    assert err == (hint if number == signal.SIGINT else b"")
    assert list((path / "leases").iterdir()) == []
    assert run("verify").exit_code == 0


def test_a_reader_that_goes_away(process: Run, tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(os.urandom(3_000_000))
    out, _ = process("push", "-q", tmp_path / "layer").communicate()
    child = process("pull", out.decode().strip(), "-")
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait() == 141
    child.stderr.close()


def test_a_full_disk_behind_the_output(process: Run, tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"x" * 100_000)
    out, _ = process("push", "-q", tmp_path / "layer").communicate()
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    for arguments in (("pull", out.decode().strip(), "-"), ("images",)):
        with Path("/dev/full").open("wb") as full:
            child = process(*arguments, stdout=full)
            _, err = child.communicate()
        assert child.returncode == 5
        assert err.startswith(b"layerstore: ") and err.count(b"\n") == 1


def test_closed_standard_streams(process: Run) -> None:
    def close_output() -> None:
        os.close(1)

    child = process("images", stdout=None, preexec_fn=close_output)
    _, err = child.communicate()
    assert (child.returncode, err) == (0, b"")


def test_an_encoding_that_lacks_a_character(process: Run, tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"x")
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    child = process("push", tmp_path / "layer", "--tag", "x", "--label", "k=ü", env=poor)
    assert child.communicate()[1] == b"" and child.returncode == 0
    out, err = process("inspect", "x", env=poor).communicate()
    assert err == b"" and b"\\u00fc" in out
    assert json.loads(out)["config"]["config"]["Labels"] == {"k": "ü"}
    out, _ = process("inspect", "x", env={"PYTHONUTF8": "1"}).communicate()
    assert "ü".encode() in out
