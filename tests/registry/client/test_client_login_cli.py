"""``layerstore login`` and ``logout`` at a server with accounts."""

import base64
import json
import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from click.shell_completion import CompletionItem, ShellComplete
from click.testing import CliRunner, Result
from client_samples import Images
from server_process import ServerProcess

from layerstore.cli.application import program

NAME, PASSWORD = "writer", "a long: passwörd"
LINE = f"{PASSWORD}\n".encode()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    secret = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (folder / "accounts").write_text(f"{NAME}:{secret}\n")
    with ServerProcess(folder / "store", "--htpasswd", str(folder / "accounts")) as running:
        yield running.address


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Docker's configuration; nothing else is known of anybody."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("XDG_") or name in ("LAYERSTORE_PATH", "DOCKER_CONFIG"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home" / ".docker" / "config.json"


def run(*arguments: object, input: bytes | None = None) -> Result:
    return CliRunner().invoke(program, [str(one) for one in arguments], input=input)


def login(host: str, *options: str, input: bytes = LINE) -> Result:
    return run("login", host, "-u", NAME, "--password-stdin", *options, input=input)


def test_who_has_logged_in_may_push_until_he_logs_out(host: str, tmp_path: Path, config: Path) -> None:
    images = Images(tmp_path / "shop")
    images.add(images.image({"a": b"a"}), "1.0")
    push = ("copy", images.path, f"docker://{host}/team/shop")
    assert run(*push).exit_code == 5
    result = login(host)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"logged in to {host} as {NAME}; the password is kept by {config}\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert run(*push).exit_code == 0
    result = run("logout", host)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"logged out of {host}\n", "")
    assert run(*push).exit_code == 5
    assert run("logout", host).stdout == f"nobody was logged in to {host}\n"


def test_a_wrong_password_is_not_kept(host: str, config: Path) -> None:
    result = login(host, input=b"wrong\n")
    assert (result.exit_code, config.exists()) == (5, False)
    assert result.stderr == f"layerstore: {host} does not accept this name and password\n"
    assert login(host, "--json", input=b"").exit_code == 2
    assert not config.exists()


def test_as_json(host: str, config: Path) -> None:
    assert json.loads(login(host, "--json").stdout) == {
        "registry": host,
        "username": NAME,
        "checked": True,
        "kept_by": str(config),
    }
    assert json.loads(run("logout", host, "--json").stdout) == {"registry": host, "was_logged_in": True}
    assert login(host, "--quiet").stdout == ""


def test_a_helper_keeps_it(host: str, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(f"#!/bin/sh\ncase $1 in get) cat {tmp_path}/kept;; store) cat > {tmp_path}/kept;; esac\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config.parent.mkdir(parents=True)
    config.write_text('{"credsStore": "test"}')
    assert "kept by docker-credential-test" in login(host).stdout
    assert json.loads((tmp_path / "kept").read_text())["Secret"] == PASSWORD
    assert PASSWORD not in config.read_text() and 'auth"' not in config.read_text()
    result = run("copy", f"docker://{host}/nothing:1", tmp_path / "none")
    assert (result.exit_code, "has no image" in result.stderr) == (3, True), "logged in, but nothing is there"


def test_both_places_of_a_copy_get_the_password_from_the_pipe(host: str, tmp_path: Path) -> None:
    images = Images(tmp_path / "shop")
    images.add(images.image({"a": b"a"}), "1.0")
    options = ("--username", NAME, "--password-stdin")
    place = f"docker://{host}/piped/shop:1.0"
    assert run("copy", images.path, place, *options, input=LINE).exit_code == 0
    result = run("copy", place, f"docker://{host}/piped/other:1.0", *options, input=LINE)
    assert (result.exit_code, result.stderr) == (0, "")


def test_podmans_login_for_a_part_of_a_registry(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(tmp_path / "shop")
    images.add(images.image({"a": b"a"}), "1.0")
    auth = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {f"{host}/part": {"auth": auth}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    assert run("copy", images.path, f"docker://{host}/part/shop").exit_code == 0
    result = run("copy", images.path, f"docker://{host}/other/shop")
    assert result.exit_code == 5
    assert f"{host} wants to know who asks for " in result.stderr
    assert result.stderr.endswith(f" (`layerstore login {host}`, or --username and --password-stdin)\n")


def test_a_helper_that_is_not_there(host: str, tmp_path: Path, config: Path) -> None:
    config.parent.mkdir(parents=True)
    config.write_text('{"credsStore": "missing"}')
    result = run("copy", f"docker://{host}/nothing:1", tmp_path / "none")
    assert (result.exit_code, result.stderr) == (
        5,
        "layerstore: the credential helper docker-credential-missing is not installed; install it, or give credentials "
        "(--username and --password-stdin)\n",
    )


def test_a_registry_that_asks_nobody(tmp_path: Path, config: Path) -> None:
    with ServerProcess(tmp_path / "open", "--anonymous", "all") as running:
        result = login(running.address)
        assert (result.exit_code, config.exists()) == (0, True)
        assert "the password was not checked" in result.stderr


def test_podmans_login_stays_and_is_told(host: str, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".config" / "containers" / "auth.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"auths": {host: {"auth": "YTpi"}}}))
    result = run("logout", host)
    assert result.exit_code == 0
    assert f"{path} still has a login for {host}" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("login",),
        ("login", "shop"),
        ("login", "r.example.com/team"),
        ("login", "r.example.com"),
        ("login", "r.example.com", "--password-stdin"),
        ("login", "r.example.com", "-u", "a:b", "--password-stdin"),
        ("login", "r.example.com", "-u", "", "--password-stdin"),
        ("login", "r.example.com", "-u", "a", "-p", "b"),
        ("login", "r.example.com", "-u", "a", "--password", "b"),
        ("logout",),
        ("logout", "shop"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], config: Path) -> None:
    assert run(*arguments, input=LINE).exit_code == 2
    assert not config.exists()


def test_a_terminal_is_asked_and_does_not_show_the_password(host: str, config: Path) -> None:
    shown = typed(["login", host], [("User at", NAME), ("Password of", PASSWORD)])
    assert f"logged in to {host} as {NAME}" in shown
    assert NAME in shown and PASSWORD not in shown
    assert "auths" in config.read_text()


def typed(arguments: list[str], dialogue: list[tuple[str, str]]) -> str:
    """Runs the program on a terminal, and types an answer after each question; all that was to be seen."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "layerstore", *arguments]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    shown = b""
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if not select.select([controller], [], [], 0.1)[0]:
                continue
            try:
                shown += os.read(controller, 4096)
            except OSError:
                break  # the program has ended, and the terminal with it
            if dialogue and dialogue[0][0].encode() in shown and shown.rstrip().endswith(b":"):
                os.write(controller, dialogue.pop(0)[1].encode() + b"\n")
        assert process.wait(10) == 0, shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    return shown.decode()


def test_registries_are_completed(host: str) -> None:
    login(host)
    completion = ShellComplete(program, {}, "layerstore", "_LAYERSTORE_COMPLETE")
    found: list[CompletionItem] = completion.get_completions(["logout"], "127")
    assert [one.value for one in found] == [host]
