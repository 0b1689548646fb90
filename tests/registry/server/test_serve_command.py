"""``layerstore serve`` as an operator runs it: start, several workers, signals, TLS, and the end."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path

import pytest
import waiting
from click.testing import CliRunner
from registry_requests import Registry
from server_process import ServerProcess
from threaded_server import basic, htpasswd

from layerstore import Digest
from layerstore.cli.application import program
from layerstore.registry.server.settings import ServerSettings
from layerstore.registry.server.worker import tls_context

PATIENCE_SECONDS = 60
eventually = partial(waiting.eventually, seconds=PATIENCE_SECONDS)
LAYERSTORE = (sys.executable, "-m", "layerstore")


def refused(store: Path, *options: str) -> str:
    """What the command says when it does not start. It runs in this process, of which nothing may be changed."""
    handler = signal.getsignal(signal.SIGTERM)
    done = CliRunner().invoke(program, ["--store", str(store), "serve", *options])
    assert done.exit_code in (2, 3, 5), (done.exit_code, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("layerstore: "), done.stderr
    assert "unexpected" not in done.stderr
    assert signal.getsignal(signal.SIGTERM) is handler
    return done.stderr


def workers_of(server: ServerProcess) -> list[int]:
    """The processes that answer requests."""
    found = Path(f"/proc/{server.process_id}/task/{server.process_id}/children").read_text().split()
    return [int(one) for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_what_is_wrong_is_told_before_anything_listens(store_path: Path, tmp_path: Path) -> None:
    assert "store" in refused(tmp_path / "nothing", "--port", "0")
    assert "name accounts" in refused(store_path, "--host", "0.0.0.0")
    assert "cannot read" in refused(store_path, "--htpasswd", str(tmp_path / "none"))
    assert "cannot read" in refused(store_path, "--config", str(tmp_path / "none"))
    (tmp_path / "plain").write_text("alice:secret\n")
    assert "line 1" in refused(store_path, "--htpasswd", str(tmp_path / "plain"))
    pair = ("--tls-certificate", str(tmp_path / "plain"), "--tls-key", str(tmp_path / "plain"))
    assert "cannot be used" in refused(store_path, *pair)
    assert "tls.key" in refused(store_path, *pair[:2])


def test_a_port_that_is_taken(store_path: Path) -> None:
    with ServerProcess(store_path) as server:
        assert "cannot listen on" in refused(store_path, "--port", str(server.port))


def test_without_the_extra_the_command_says_what_to_install(store_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('starlette', 'uvicorn', 'bcrypt', 'yaml', 'jwt', 'prometheus_client', 'anyio'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['layerstore', '--store', {str(store_path)!r}, *sys.argv[1:]]\n"
        "from layerstore.cli import main\n"
        "main()\n"
    )
    for arguments, status in (("stats",), 0), (("serve",), 5):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
    assert "pip install 'layerstore[server]'" in done.stderr


def test_the_first_line_tells_where_it_listens(store_path: Path) -> None:
    command = [*LAYERSTORE, "--store", str(store_path), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        address = line.rpartition("//")[2].strip()
        assert Registry(address).ask("GET", "/readyz").status == 200
        process.send_signal(signal.SIGINT)
        log = process.stderr.read()
        assert process.wait(PATIENCE_SECONDS) == 0, log
    assert all(json.loads(one)["level"] == "info" for one in log.splitlines())


def test_quiet_tells_only_what_goes_wrong(store_path: Path) -> None:
    command = [*LAYERSTORE, "-q", "--json", "--store", str(store_path), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = json.loads(process.stdout.readline())["address"].rpartition("//")[2]
        assert Registry(address).ask("GET", "/v2/").status == 200
        process.send_signal(signal.SIGTERM)
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
        assert process.wait(PATIENCE_SECONDS) == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*LAYERSTORE, "-q", "--store", str(store_path), "serve", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            try:
                assert Registry(f"127.0.0.1:{port}").ask("GET", "/readyz").status == 200
                break
            except OSError:
                pass
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("", "")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_running_transfer_ends_before_the_server_does(store_path: Path, workers: str) -> None:
    data = bytes(range(256)) * 4000
    going, may_end = threading.Event(), threading.Event()

    def slow() -> object:
        yield data
        going.set()
        assert may_end.wait(PATIENCE_SECONDS)
        yield data

    with ServerProcess(store_path, "--workers", workers) as server:
        registry = Registry(server.address)
        answers = []
        path = f"/v2/a/blobs/uploads/?digest={Digest.of(data + data)}"
        thread = threading.Thread(target=lambda: answers.append(registry.ask("POST", path, slow())))
        thread.start()
        assert going.wait(PATIENCE_SECONDS)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        eventually(lambda: refuses(registry))
        may_end.set()
        thread.join(PATIENCE_SECONDS)
        stopper.join(PATIENCE_SECONDS)
        assert [one.status for one in answers] == [201]


def refuses(registry: Registry) -> bool:
    try:
        registry.ask("GET", "/healthz")
    except OSError:
        return True
    return False


def test_readiness_ends_before_the_server_does(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "server.yaml").write_text("shutdown: {drain: 60s}\n")
    with ServerProcess(store_path, "--config", str(tmp_path / "server.yaml")) as server:
        registry = Registry(server.address)
        eventually(lambda: registry.ask("GET", "/readyz").status == 200)
        os.kill(server.process_id, signal.SIGTERM)
        eventually(lambda: registry.ask("GET", "/readyz").status == 503)
        assert registry.ask("GET", "/v2/").status == 200
        # A second signal ends the waiting; `stop` sends it.


@pytest.mark.skipif(sys.platform != "linux", reason="the workers are found in /proc")
def test_a_worker_that_died_is_replaced(store_path: Path) -> None:
    with ServerProcess(store_path, "--workers", "2") as server:
        registry = Registry(server.address)
        eventually(lambda: len(workers_of(server)) == 2)
        first = workers_of(server)
        os.kill(first[0], signal.SIGKILL)
        eventually(lambda: len(set(workers_of(server)) - set(first)) == 1)
        assert registry.push_blob("a", b"data").status == 201
        assert registry.ask("GET", "/metrics").status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="the workers are found in /proc")
def test_workers_end_with_a_supervisor_that_was_killed(store_path: Path) -> None:
    server = ServerProcess(store_path, "--workers", "2")
    server.start()
    eventually(lambda: len(workers_of(server)) == 2)
    workers = workers_of(server)
    os.kill(server.process_id, signal.SIGKILL)
    eventually(lambda: not any(is_running(one) for one in workers))
    server.kill()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_rights_are_read_again_at_a_signal(store_path: Path, tmp_path: Path, workers: str) -> None:
    htpasswd(tmp_path / "users", alice="a")
    configuration = tmp_path / "server.yaml"
    text = "accounts: {{htpasswd: users}}\nrights: [{{who: [alice], repositories: ['**'], actions: [{}]}}]\n"
    configuration.write_text(text.format("read"))
    alice = basic("alice", "a")

    def may_write(registry: Registry) -> bool:
        # Over new connections, so that all workers are asked.
        found = {registry.ask("POST", "/v2/a/blobs/uploads/", headers=alice).status for _ in range(10)}
        return found == {202}

    with ServerProcess(store_path, "--config", str(configuration), "--workers", workers) as server:
        registry = Registry(server.address)
        eventually(lambda: server.log_text().count("startup complete") == int(workers))
        assert not may_write(registry)
        configuration.write_text(text.format("read, write"))
        assert not may_write(registry)
        os.kill(server.process_id, signal.SIGHUP)
        eventually(lambda: may_write(registry))
        configuration.write_text("rights: 3\n")
        os.kill(server.process_id, signal.SIGHUP)
        eventually(lambda: "was not read again" in server.log_text())
        assert may_write(registry)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for this machine and its key, new at each call."""
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    subprocess.run([*command, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def test_tls_and_a_new_certificate_at_a_signal(store_path: Path, tmp_path: Path) -> None:
    found, key = certificate(tmp_path, "first")
    settings = ServerSettings(store=store_path, tls_certificate=found, tls_key=key)
    assert tls_context(settings).minimum_version is ssl.TLSVersion.TLSv1_2
    command = [*LAYERSTORE, "--json", "--store", str(store_path), "serve", "--port", "0"]
    options = ["--tls-certificate", str(found), "--tls-key", str(key)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        assert address.startswith("https://127.0.0.1:")

        def is_served_by(trusted: Path) -> bool:
            context = ssl.create_default_context(cafile=str(trusted))
            try:
                with urllib.request.urlopen(f"{address}/v2/", context=context, timeout=PATIENCE_SECONDS) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        eventually(lambda: is_served_by(found))
        second, second_key = certificate(tmp_path, "second")
        trusted = tmp_path / "trusted.crt"
        trusted.write_bytes(second.read_bytes())
        assert not is_served_by(trusted)
        second_key.replace(key)
        second.replace(found)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: is_served_by(trusted))
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


def test_deletes_can_be_switched_off(store_path: Path) -> None:
    with ServerProcess(store_path, "--no-delete") as server:
        registry = Registry(server.address)
        digest = registry.push_image("a", "1.0", b"layer")
        assert registry.delete("a", "1.0").status == 405
        assert registry.delete("a", digest).status == 405
        assert registry.manifest("a", "1.0").status == 200


def test_figures_of_all_workers_are_added_up(store_path: Path) -> None:
    with ServerProcess(store_path, "--workers", "2") as server:
        registry = Registry(server.address)
        for _ in range(20):
            registry.ask("GET", "/v2/")
        text = registry.ask("GET", "/metrics").body.decode()
        counted = 'layerstore_requests_total{method="GET",route="/v2/",status="200"} '
        assert float(text.partition(counted)[2].split()[0]) >= 20
