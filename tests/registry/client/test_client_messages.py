"""What is said of registries that cannot be reached or say no: who did what, in words."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from client_servers import Answer, free_port, make_certificate, serving
from memory_registry import MemoryRegistry

from layerstore import ConnectionOptions, Proxies, RemoteRepository
from layerstore.errors import RegistryError
from layerstore.registry.client.requests import purpose

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("method", "target", "words"),
    [
        ("GET", "/v2/", "a login"),
        ("GET", "/v2/team/shop/manifests/1.0", "the pull of team/shop:1.0"),
        ("HEAD", f"/v2/team/shop/manifests/{DIGEST}", f"the pull of team/shop@{DIGEST}"),
        ("PUT", "/v2/shop/manifests/1.0", "the push of shop:1.0"),
        ("GET", f"/v2/shop/blobs/{DIGEST}", f"the pull of blob {DIGEST} of shop"),
        ("POST", "/v2/shop/blobs/uploads/?mount=x&from=/v2/y/blobs/z", "the push of a blob to shop"),
        ("PATCH", "https://r.example.com/v2/shop/blobs/uploads/7?state=x", "the push of a blob to shop"),
        ("PUT", "https://cdn.example.com/there?digest=x", "the push of a blob"),
        ("GET", "/v2/shop/tags/list?n=1000", "the tags of shop"),
        ("GET", f"/v2/shop/referrers/{DIGEST}", f"what refers to {DIGEST} in shop"),
        ("POST", f"/v2/shop/_layerstore/blobs/{DIGEST}", "changed chunks of shop"),
        ("GET", "/v2/manifests/blobs/1.0/manifests/tags", "the pull of manifests/blobs/1.0:tags"),
    ],
)
def test_what_a_request_is_for(method: str, target: str, words: str) -> None:
    assert purpose(method, target) == words


def test_a_url_without_end_is_not_shown_whole() -> None:
    assert len(purpose("PATCH", "https://r.example.com" + "/v2/a" * 4000 + "/blobs/x")) < 1200


def message(host: str, **more: Any) -> str:
    """What is said when an image cannot be had: nothing of HTTP libraries, nor of options of the command line."""
    options = ConnectionOptions(tries=1, connect_seconds_max=2, read_seconds_max=2, **more)
    with pytest.raises(RegistryError) as caught:
        RemoteRepository(f"{host}/shop:1.0", options=options).roots()
    text = str(caught.value)
    for technical in ("HTTPConnection", "urllib3", "Errno", "Max retries", "_ssl.c", "GET ", "('", "--"):
        assert technical not in text, text
    return text


def test_nobody_listens() -> None:
    port = free_port()
    assert message(f"127.0.0.1:{port}") == f"127.0.0.1:{port} refused the connection"


def test_a_name_that_nobody_knows() -> None:
    assert message("registry.invalid:5000") == "registry.invalid:5000 cannot be found: nobody knows that name"


def test_a_listener_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        assert message(host, plain_http=True) == f"{host} was silent for 2 s"


def test_a_listener_that_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        host = f"127.0.0.1:{rude.getsockname()[1]}"

        def hang_up() -> None:
            connection, _ = rude.accept()
            connection.recv(4096)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert message(host, plain_http=True) == f"{host} closed the connection without an answer"
        thread.join()


def test_a_listener_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        host = f"127.0.0.1:{other.getsockname()[1]}"

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example.com ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert message(host, plain_http=True) == f"{host} answers with what is not HTTP"
        thread.join()


@contextmanager
def said_once(said: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Somebody who says the same to whoever comes, and hangs up at once; ``host:port``."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with suppress(OSError), connection:
                spoken = connection if context is None else context.wrap_socket(connection, server_side=True)
                spoken.recv(4096)
                spoken.sendall(said)
                spoken.shutdown(socket.SHUT_RDWR)  # the TCP connection alone
                spoken.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_tls_that_ends_in_an_answer(tmp_path: Path) -> None:
    """It was spoken: nothing is said of doing without."""
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 10
    with said_once(answer, context) as host:
        assert message(host, ca_file=certificate[0]) == f"{host} closed the connection in the middle of an answer"


def test_a_proxy_that_does_not_connect() -> None:
    with said_once(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
        said = message("registry.invalid", proxies=Proxies(https=f"http://{proxy}"))
    assert said == (
        f"registry.invalid cannot be reached: the proxy {proxy} does not connect to it: "
        "407 Proxy Authentication Required"
    )
    port = free_port()
    said = message("registry.invalid", proxies=Proxies(https=f"http://127.0.0.1:{port}"))
    assert said == f"registry.invalid cannot be reached: the proxy 127.0.0.1:{port} refused the connection"


def test_answers_that_say_no() -> None:
    registry = MemoryRegistry()
    body = json.dumps({"errors": [{"code": "DENIED", "message": "not you"}]}).encode()
    for status, expected in (
        (403, "does not allow the pull of shop:1.0: DENIED: not you"),
        (418, "answers 418 to the pull of shop:1.0: DENIED: not you"),
    ):
        registry.misbehave = lambda request, status=status: (
            Answer(status, {}, body) if "manifests" in request.path else None
        )
        with serving(registry) as server:
            assert message(server.host) == f"{server.host} {expected}"
