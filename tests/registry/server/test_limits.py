"""What a client cannot do: too often, too much at once, too large, too slowly."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from places_samples import layer_tar, noise
from registry_requests import Registry
from threaded_server import basic, htpasswd, served

from layerstore.registry.server import connections, limits, upload_bounds, uvicorn_config
from layerstore.registry.server.pages import figures
from layerstore.registry.server.settings import Anonymous, ServerSettings

UPLOAD = b"POST /v2/a/blobs/uploads/?digest=sha256:" + b"0" * 64 + b" HTTP/1.1\r\nHost: localhost\r\n"
END_SECONDS = 20


@pytest.fixture
def settings(store_path: Path) -> ServerSettings:
    return ServerSettings(store=store_path, idle_seconds=0.5, header_size_max=8000, collection_interval=0)


@pytest.fixture
def registry(settings: ServerSettings) -> Iterator[Registry]:
    with served(settings) as running:
        yield running


@pytest.fixture
def everyone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients on this machine are limited as others are."""
    for module in (limits, upload_bounds, uvicorn_config):
        monkeypatch.setattr(module, "is_loopback", lambda address: False)


@contextmanager
def connected(registry: Registry) -> Iterator[socket.socket]:
    host, _, port = registry.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=END_SECONDS) as connection:
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_long_heads_are_refused_while_they_come(registry: Registry) -> None:
    with connected(registry) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nX-Long: " + b"x" * 20_000)
        assert rest_of(connection).startswith(b"HTTP/1.1 431 ")
    with connected(registry) as connection:
        connection.sendall(b"GET /v2/" + b"a" * 20_000)
        assert rest_of(connection).startswith(b"HTTP/1.1 431 ")
    with connected(registry) as connection:
        connection.sendall(b"\r\n" * 10_000)
        assert rest_of(connection).startswith(b"HTTP/1.1 431 ")


def test_heads_that_come_whole_have_the_same_bounds(registry: Registry) -> None:
    assert registry.ask("GET", "/v2/", headers={"X-Long": "x" * 7000}).status == 200
    assert registry.ask("GET", "/v2/", headers={"X-Long": "x" * 8000}).status == 431
    assert registry.ask("GET", "/v2/", headers={f"X-{number}": "1" for number in range(300)}).status == 431
    assert registry.ask("GET", "/v2/?" + "q" * 8000).status == 431


def test_chunk_extensions_and_trailers_are_bounded(registry: Registry) -> None:
    head = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n"
    with connected(registry) as connection:
        connection.sendall(head + b"1;" + b"x" * 20_000)
        assert rest_of(connection) == b"" or b"200" not in rest_of(connection)
    with connected(registry) as connection:
        connection.sendall(head + b"1\r\na\r\n0\r\nX-Trailer: " + b"x" * 200_000)
        assert b" 201 " not in rest_of(connection)


def test_a_trailer_is_no_header(registry: Registry) -> None:
    with connected(registry) as connection:
        connection.sendall(
            b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\nX-Request-ID: mine\r\n\r\n"
        )
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"mine" not in answer


def test_a_head_that_trickles_is_given_up(settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with served(settings) as registry:
        for begin in (b"", b"\r\n", b"GET /v2/ HTTP/1.1\r\nX-A: "):
            with connected(registry) as connection:
                begun = time.monotonic()
                connection.sendall(begin)
                assert rest_of(connection).startswith(b"HTTP/1.1 408 ")
                assert 0.3 < time.monotonic() - begun < END_SECONDS
        with connected(registry) as connection:
            # The second head of a connection is bounded as the first one is.
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v2")
            answers = rest_of(connection)
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answers


def test_a_body_that_stands_still_is_given_up(registry: Registry) -> None:
    with connected(registry) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 1000\r\n\r\nabc")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert registry.ask("GET", "/v2/").status == 200


def test_a_body_that_trickles_is_given_up_although_it_never_stands_still(registry: Registry) -> None:
    with connected(registry) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 1000\r\n\r\n")
        end = time.monotonic() + END_SECONDS
        connection.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() < end:
            connection.sendall(b"x")
            try:
                answer = connection.recv(100)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_does_not_read_is_given_up(registry: Registry) -> None:
    blob = bytes(range(256)) * 60_000
    digest = registry.push_blob("a", blob).headers["docker-content-digest"]
    with connected(registry) as connection:
        connection.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        begin = connection.recv(10)
        assert begin == b"HTTP/1.1 2"
        end = time.monotonic() + END_SECONDS
        while registry_connections(registry) and time.monotonic() < end:
            time.sleep(0.05)
        assert len(rest_of(connection)) < len(blob)


def registry_connections(registry: Registry) -> int:
    """Requests that are being answered, but for the one that asks."""
    text = registry.ask("GET", "/metrics").body.decode()
    return int(float(text.partition("\nlayerstore_requests_running ")[2].split()[0])) - 1


@pytest.mark.usefixtures("everyone_counts")
def test_a_client_that_asks_too_often_waits(settings: ServerSettings) -> None:
    with served(replace(settings, requests_per_second=0.01, requests_burst=5)) as registry:
        answers = [registry.ask("GET", "/v2/") for _ in range(6)]
    assert [one.status for one in answers] == [200] * 5 + [429]
    assert answers[-1].code == "TOOMANYREQUESTS"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 101


@pytest.mark.usefixtures("everyone_counts")
def test_a_client_that_asks_too_much_at_once_is_refused(settings: ServerSettings) -> None:
    with served(replace(settings, requests_at_once=2, idle_seconds=END_SECONDS)) as registry:
        with connected(registry) as first, connected(registry) as second:
            for connection in (first, second):
                connection.sendall(UPLOAD + b"Content-Length: 1000\r\n\r\nabc")
            end = time.monotonic() + END_SECONDS
            while registry.ask("GET", "/v2/").status == 200 and time.monotonic() < end:
                pass
            assert registry.ask("GET", "/v2/").code == "TOOMANYREQUESTS"
        while registry.ask("GET", "/v2/").status != 200 and time.monotonic() < end:
            pass
        assert registry.ask("GET", "/v2/").status == 200


def test_clients_on_this_machine_are_not_counted(settings: ServerSettings) -> None:
    with served(replace(settings, requests_per_second=0.01, requests_burst=1)) as registry:
        assert [registry.ask("GET", "/v2/").status for _ in range(5)] == [200] * 5


@pytest.mark.usefixtures("everyone_counts")
def test_only_a_trusted_proxy_says_who_the_client_is(settings: ServerSettings) -> None:
    limited = replace(settings, requests_per_second=0.01, requests_burst=1)
    with served(limited) as registry:
        named = [registry.ask("GET", "/v2/", headers={"X-Forwarded-For": f"192.0.2.{one}"}).status for one in range(3)]
    assert named == [200, 429, 429]
    with served(replace(limited, trusted_proxies=("127.0.0.0/8",))) as registry:
        named = [
            registry.ask("GET", "/v2/", headers={"X-Forwarded-For": f"198.51.100.{one}"}).status for one in range(3)
        ]
        lying = registry.ask("GET", "/v2/", headers={"X-Forwarded-For": "198.51.100.9, 198.51.100.1"})
    assert named == [200, 200, 200]
    assert lying.status == 429, "what the client itself has put before the proxy's word does not count"


def test_bodies_that_are_too_large_are_refused(settings: ServerSettings) -> None:
    with served(replace(settings, manifest_size_max=1000, blob_size_max=5000)) as registry:
        assert registry.put("a", "latest", b"x" * 1001).status == 413
        assert registry.push_blob("a", b"x" * 5001).status == 413
        assert registry.push_blob("a", b"x" * 5000).status == 201


def test_many_connections_at_once_are_answered(registry: Registry) -> None:
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(registry.ask("GET", "/v2/").status)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 50


def opened(registry: Registry) -> socket.socket:
    host, _, port = registry.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=END_SECONDS)


def answers(connection: socket.socket) -> bool:
    """Whether a connection is there to be used."""
    try:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


@pytest.mark.usefixtures("everyone_counts")
def test_connections_of_one_client_are_bounded(settings: ServerSettings) -> None:
    few = replace(settings, client_connections_max=3, idle_seconds=END_SECONDS)
    with served(few) as registry:
        before = refused_connections(registry)
        connections = [opened(registry) for _ in range(3)]
        try:
            assert all(answers(one) for one in connections)
            with opened(registry) as fourth:
                assert not answers(fourth)
            connections.pop().close()
            end = time.monotonic() + END_SECONDS
            is_answered = False
            while not is_answered and time.monotonic() < end:
                with opened(registry) as next_one:
                    is_answered = answers(next_one)
            assert is_answered, "who has closed a connection may have another one"
        finally:
            for one in connections:
                one.close()
    with served(settings) as registry:
        assert refused_connections(registry) > before


def refused_connections(registry: Registry) -> float:
    text = registry.ask("GET", "/metrics").body.decode()
    return float(text.partition("\nlayerstore_connections_refused_total ")[2].split()[0])


def test_proxies_and_this_machine_may_have_any_number_of_connections(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_answer(some: ServerSettings) -> bool:
        with served(some) as registry:
            connections = [opened(registry) for _ in range(5)]
            try:
                return all(answers(one) for one in connections)
            finally:
                for one in connections:
                    one.close()

    few = replace(settings, client_connections_max=2, idle_seconds=END_SECONDS)
    assert all_answer(few)
    monkeypatch.setattr(uvicorn_config, "is_loopback", lambda address: False)
    assert not all_answer(few)
    assert all_answer(replace(few, trusted_proxies=("127.0.0.0/8",)))
    assert all_answer(replace(few, client_connections_max=0))


@pytest.mark.usefixtures("everyone_counts")
def test_uploads_of_one_client_are_bounded(settings: ServerSettings) -> None:
    with served(replace(settings, client_uploads_max=2)) as registry:
        first, second = registry.begin("a"), registry.begin("b")
        refused = registry.ask("POST", "/v2/c/blobs/uploads/")
        assert (refused.status, refused.code) == (429, "TOOMANYREQUESTS")
        assert int(refused.headers["retry-after"]) >= 1
        assert len(list((settings.folder / "uploads").iterdir())) == 2, "what was refused leaves nothing"
        assert registry.push_blob("c", b"whole").status == 201, "what comes in one request is not begun"
        assert registry.ask("DELETE", first).status == 204
        third = registry.begin("a")
        assert registry.ask("POST", "/v2/c/blobs/uploads/").status == 429
        digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        for one in (second, third):
            assert registry.ask("PUT", f"{one}?digest={digest}", b"").status == 201
        assert [registry.ask("POST", "/v2/c/blobs/uploads/").status for _ in range(3)] == [202, 202, 429]


def test_uploads_are_counted_by_account(settings: ServerSettings, tmp_path: Path) -> None:
    accounts = htpasswd(tmp_path / "htpasswd", alice="secret a", bob="secret b")
    with served(replace(settings, client_uploads_max=1, htpasswd=accounts, anonymous=Anonymous.ALL)) as registry:
        alice, bob = basic("alice", "secret a"), basic("bob", "secret b")
        statuses = [
            registry.ask("POST", "/v2/a/blobs/uploads/", headers=one).status for one in (alice, alice, bob, bob)
        ]
        nobody = [registry.ask("POST", "/v2/a/blobs/uploads/").status for _ in range(3)]
    assert statuses == [202, 429, 202, 429]
    assert nobody == [202, 202, 202], "on this machine, where a proxy may stand for many"


def test_files_that_are_saved_at_once_are_bounded(settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DOWNLOADS_MAX", 1)
    data = noise(1, 8_000_000)
    with served(replace(settings, idle_seconds=END_SECONDS)) as registry:
        digest = registry.push_image("a", "1", layer_tar({"large": data, "small": b"small"}))
        place = f"/images/a@{digest}/download?path=/"
        with connected(registry) as slow:
            slow.sendall(f"GET {place}large HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert slow.recv(12) == b"HTTP/1.1 200"
            refused = registry.ask("GET", f"{place}small")
            assert (refused.status, refused.code) == (429, "TOOMANYREQUESTS")
            assert "retry-after" in refused.headers
        for name, contents in (("small", b"small"), ("large", data)):  # who went away takes no place
            end = time.monotonic() + END_SECONDS
            while (answer := registry.ask("GET", f"{place}{name}")).status == 429 and time.monotonic() < end:
                pass
            assert answer.body == contents
