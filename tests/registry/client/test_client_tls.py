"""Certificates on both sides."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from client_samples import EMPTY, MANIFEST
from client_servers import make_certificate, serving
from memory_registry import MemoryRegistry

from layerstore import ConnectionOptions, RemoteRepository
from layerstore.cli.application import program
from layerstore.errors import InvalidOptionError, RegistryError

INDEX_OF_ONE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": EMPTY, "digest": f"sha256:{'0' * 64}", "size": 2},
        "layers": [],
    }
).encode()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", MANIFEST)
        self.send_header("Content-Length", str(len(INDEX_OF_ONE)))
        self.end_headers()
        self.wfile.write(INDEX_OF_ONE)

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        """Clients without a certificate are what the tests are about."""


@contextmanager
def guarded(
    server: tuple[Path, Path], trusted: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> Iterator[str]:
    """A registry that speaks to those alone who show a certificate of an authority; ``host:port``.

    In TLS 1.2 a refusal is part of the handshake; in 1.3 it comes behind it, and may be lost with the connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    context.load_cert_chain(*server)
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    http = _Server(("127.0.0.1", 0), _Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Certificates with their keys: of the server, of us, and of somebody else."""
    made = {}
    for name in ("server", "own", "other"):
        made[name] = make_certificate(tmp_path_factory.mktemp(name))
    return made


@pytest.fixture
def host(pairs: dict[str, tuple[Path, Path]]) -> Iterator[str]:
    with guarded(pairs["server"], pairs["own"][0]) as address:
        yield address


def roots(host: str, **options: object) -> int:
    made = ConnectionOptions(tries=1, connect_seconds_max=2, read_seconds_max=2, **options)  # type: ignore[arg-type]
    return len(RemoteRepository(f"{host}/shop:1.0", options=made).roots())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_shows_a_certificate_gets_in(
    pairs: dict[str, tuple[Path, Path]], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    server, own = pairs["server"], pairs["own"]
    both = tmp_path / "both.pem"
    both.write_bytes(own[0].read_bytes() + own[1].read_bytes())
    with guarded(server, own[0], version) as host:
        assert roots(host, ca_file=server[0], client_certificate=own[0], client_key=own[1]) == 1
        assert roots(host, ca_file=server[0], client_certificate=both) == 1


def test_who_shows_none_or_another_does_not(host: str, pairs: dict[str, tuple[Path, Path]]) -> None:
    """And plain HTTP is no way around it."""
    server, other = pairs["server"][0], pairs["other"]
    with pytest.raises(RegistryError, match=f"{host} .*want a certificate of ours"):
        roots(host, ca_file=server)
    with pytest.raises(RegistryError, match=f"{host} does not accept the certificate {other[0]}"):
        roots(host, ca_file=server, client_certificate=other[0], client_key=other[1])


def test_files_that_do_not_fit(pairs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    own, other = pairs["own"], pairs["other"]
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", own[1], "-aes256", "-passout", "pass:word", "-out", locked],
        check=True,
        capture_output=True,
    )
    for certificate, key, message in (
        (own[0], other[1], "the key in .* is not that of"),
        (own[0], None, "has no certificate and key in PEM"),
        (junk, own[1], "is no such file in PEM"),
        (own[0], junk, "is no such file in PEM"),
        (tmp_path / "none.pem", own[1], r"none\.pem cannot be read: No such file"),
        (own[0], locked, "has a password"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            roots("127.0.0.1:1", client_certificate=certificate, client_key=key)
    with pytest.raises(InvalidOptionError, match="without the certificate"):
        ConnectionOptions(client_key=own[1])
    with pytest.raises(InvalidOptionError, match="over plain HTTP"):
        ConnectionOptions(client_certificate=own[0], plain_http=True)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(program, [str(one) for one in arguments])
    return result.exit_code, result.stderr


def test_the_options(host: str, pairs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    place = f"docker://{host}/shop:1.0"
    server, own = pairs["server"][0], pairs["own"]
    pair = ("--tls-cert", own[0], "--tls-key", own[1])
    code, said = run("login", host, "--ca-file", server, *pair, "--username", "a", "--password-stdin")
    assert (code, "there is no password" in said) == (2, True)
    code, said = run("copy", place, f"oci:{tmp_path}/out", "--ca-file", server, *pair)
    assert "has no blob" in said or "sha256:" in said, said  # it got the manifest, which names what is not there
    code, said = run("copy", place, f"oci:{tmp_path}/out", "--ca-file", server)
    assert (code, said.rstrip().endswith("give one (--tls-cert and --tls-key)")) == (5, True), said
    code, said = run("copy", place, f"oci:{tmp_path}/out", "--tls-key", own[1])
    assert (code, "without the certificate" in said) == (2, True)
    code, said = run("copy", place, f"oci:{tmp_path}/out", "--tls-cert", tmp_path / "none", "--tls-key", own[1])
    assert (code, "does not exist" in said) == (2, True)
    code, said = run("copy", place, f"oci:{tmp_path}/out", *pair)
    assert (code, said.rstrip().endswith("its authority has to be trusted (--ca-file)")) == (5, True), said
    assert f"the certificate of {host} is not trusted: " in said


def test_a_registry_without_tls(pairs: dict[str, tuple[Path, Path]]) -> None:
    """On a loopback address plain HTTP is found out by itself, but not if there is a certificate to show."""
    certificate, key = pairs["own"]
    with (
        serving(MemoryRegistry()) as server,
        pytest.raises(RegistryError, match=r"does not speak TLS as it should: .*; it may be without$"),
    ):
        roots(server.host, client_certificate=certificate, client_key=key)
