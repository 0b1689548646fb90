"""Logging in: challenges, tokens, and where credentials must not go."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from client_samples import EMPTY, MANIFEST
from client_servers import Answer, Request, Server, make_certificate, serving
from hypothesis import given
from hypothesis import strategies as st
from memory_registry import MemoryRegistry

from layerstore import ConnectionOptions, Credentials, DockerConfig, RemoteRepository
from layerstore.errors import AuthenticationError, DeniedError, InvalidInputError, RegistryError
from layerstore.registry.client.challenges import parse_challenges

BASIC = "Basic " + base64.b64encode(b"shop:word").decode()


class TokenRegistry:
    """A registry that wants tokens, and the server that gives them, in one."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        config = {"mediaType": EMPTY, "digest": self.registry.hold(b"{}"), "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
        self.registry.hold_manifest("1.0", MANIFEST, json.dumps(manifest).encode())
        self.realm = ""
        self.give: Callable[[Request], Answer] = lambda request: self.token("t1")
        self.valid = {"t1"}

    @staticmethod
    def token(text: object, **more: object) -> Answer:
        return Answer(200, {}, json.dumps({"token": text, **more}).encode())

    def __call__(self, request: Request) -> Answer:
        if request.path.startswith("/token"):
            return self.give(request)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") in self.valid:
            return self.registry(request)
        return Answer(401, {"Www-Authenticate": f'Bearer realm="{self.realm}",service="registry",scope="x:y:pull"'})


def reach(
    server: Server, credentials: Credentials | None = None, *, plain_http: bool = True, insecure: bool = False
) -> RemoteRepository:
    options = ConnectionOptions(
        plain_http=plain_http,
        insecure=insecure,
        credentials=lambda _: credentials,
        tries=2,
        back_off_seconds=0.01,
    )
    return RemoteRepository(f"{server.host}/shop:1.0", options=options)


def asked(server: Server) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(one.path).query) for one in server.requests if one.path.startswith("/token")]


def test_an_anonymous_token_is_used_as_long_as_it_lasts() -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        repository = reach(server)
        repository.roots()
        repository.roots_named("1.0")
        assert asked(server) == [{"service": ["registry"], "scope": ["repository:shop:pull"]}]


def test_a_token_that_is_no_longer_taken_is_replaced() -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        repository = reach(server)
        repository.roots()
        tokens.valid = {"t2"}
        tokens.give = lambda request: tokens.token(None, access_token="t2", expires_in=300)
        assert repository.roots_named("1.0")
        assert len(asked(server)) == 2


def test_a_user_gets_a_token_for_what_is_done() -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token?tenant=a"
        repository = reach(server, Credentials("shop", "word"))
        repository.roots()
        with repository.writing():
            pass
        (query,) = asked(server)
        assert (query["tenant"], query["account"]) == (["a"], ["shop"])
        (request,) = [one for one in server.requests if one.path.startswith("/token")]
        assert request.headers["Authorization"] == BASIC


def test_an_identity_token_is_exchanged() -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        reach(server, Credentials(identity_token="identity")).roots()
        (request,) = server.asked("POST", "/token")
        assert parse_qs(request.body.decode()) == {
            "grant_type": ["refresh_token"],
            "client_id": ["layerstore"],
            "refresh_token": ["identity"],
            "service": ["registry"],
            "scope": ["repository:shop:pull"],
        }


def test_a_registry_token_is_sent_as_it_is() -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        tokens.valid = {"ready"}
        reach(server, Credentials(registry_token="ready")).roots()
        assert asked(server) == []


def test_refused_credentials_and_missing_rights() -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        tokens.give = lambda request: Answer(401)
        with pytest.raises(AuthenticationError, match=f"{server.host} refuses the credentials of 'shop'"):
            reach(server, Credentials("shop", "word")).roots()
        with pytest.raises(
            AuthenticationError, match="wants to know who asks for access to shop, or it is not there; give credentials"
        ):
            reach(server).roots()
        tokens.give = lambda request: tokens.token("other")
        with pytest.raises(AuthenticationError, match=r"who asks for the pull of shop:1\.0, or it is not there"):
            reach(server).roots()
        tokens.give = lambda request: tokens.token("t1")
        tokens.registry.misbehave = lambda request: Answer(403)
        with pytest.raises(DeniedError):
            reach(server).roots()


def test_a_token_server_that_is_busy_is_asked_again() -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        answers = iter([Answer(503), tokens.token("t1")])
        tokens.give = lambda request: next(answers)
        assert reach(server).roots()
        tokens.give = lambda request: Answer(503)
        with pytest.raises(RegistryError, match="answers 503 when asked for a token"):
            reach(server).roots()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}, b"<html>"),
        Answer(200, {}, b"[]"),
        Answer(200, {}, b"{}"),
        Answer(200, {}, b"[" * 100_000),
        TokenRegistry.token("a\r\nX-Evil: 1"),
        TokenRegistry.token(7),
        TokenRegistry.token("x" * 100_000),
        Answer(200, {}, b" ", endless=True),
        Answer(302, {"Location": "http://192.0.2.1/"}),
    ],
)
def test_token_servers_that_give_something_else(answer: Answer) -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        tokens.give = lambda request: answer
        with pytest.raises((RegistryError, InvalidInputError)):
            reach(server).roots()


@pytest.mark.parametrize("lifetime", [None, "soon", -5, 0, 1e300, float("nan"), True, 10**30], ids=str)
def test_lifetimes_that_make_no_sense(lifetime: object) -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = f"{server.url}/token"
        tokens.give = lambda request: tokens.token("t1", expires_in=lifetime)
        assert reach(server).roots()


@pytest.mark.parametrize(
    "realm",
    ["", "token", "http://192.0.2.1/token", "file:///etc/passwd", "http://user:word@127.0.0.1/", "http://x y/"],
)
def test_realms_that_lead_nowhere(realm: str) -> None:
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = realm
        with pytest.raises(RegistryError):
            reach(server, Credentials("shop", "word"), plain_http=False).roots()


def test_credentials_do_not_leave_the_machine_without_encryption() -> None:
    """To a realm that is neither TLS nor here, also where plain HTTP is asked for."""
    with serving(tokens := TokenRegistry()) as server:
        tokens.realm = "http://registry.invalid/token"
        with pytest.raises(AuthenticationError, match=r"not sent to registry\.invalid without encryption"):
            reach(server, Credentials("shop", "word")).roots()
        with pytest.raises(RegistryError, match=r"registry\.invalid cannot be found: nobody knows that name"):
            reach(server, Credentials("shop", "word"), insecure=True).roots()


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", "Bearer realm", 'Bearer realm="', "Digest realm=x", "\x7f", "Basic " + "a" * 30_000]
)
def test_challenges_that_are_none(challenge: str) -> None:
    answer = Answer(401, {"Www-Authenticate": challenge})
    with serving(lambda request: answer) as server, pytest.raises(RegistryError):
        reach(server, Credentials("shop", "word")).roots()


def test_challenges() -> None:
    (first, second) = parse_challenges(['Basic realm="a, \\"b\\"", bearer realm="https://x/t" , service=y,scope="a b"'])
    assert (first.scheme, first.parameters) == ("basic", {"realm": 'a, "b"'})
    assert (second.scheme, second.parameters) == (
        "bearer",
        {"realm": "https://x/t", "service": "y", "scope": "a b"},
    )
    assert [one.scheme for one in parse_challenges(["Negotiate, Basic"])] == ["negotiate", "basic"]


@given(st.lists(st.text(alphabet='Bearc =,"\\realm\t/:'), max_size=3))
def test_no_challenge_is_too_strange(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


def test_tls_is_tried_first_on_loopback(tmp_path: Path) -> None:
    """A certificate that is not good is not a reason to do without."""
    certificate = make_certificate(tmp_path)
    with serving(TokenRegistry().registry, certificate=certificate) as server:
        with pytest.raises(RegistryError, match="is not trusted"):
            reach(server, plain_http=False).roots()
        options = ConnectionOptions(ca_file=certificate[0])
        assert RemoteRepository(f"{server.host}/shop:1.0", options=options).roots_named("gone") == []


def config_file(folder: Path, document: object) -> DockerConfig:
    path = folder / "config.json"
    path.write_text(json.dumps(document) if not isinstance(document, str) else document)
    return DockerConfig(path)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("registry.example.com", "registry.example.com"),
        ("https://registry.example.com/v1/", "registry.example.com"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_a_login_in_the_file(tmp_path: Path, key: str, domain: str) -> None:
    config = config_file(tmp_path, {"auths": {key: {"auth": encoded("shop:wo:rd")}, "other": {}}})
    assert config.credentials(domain) == Credentials("shop", "wo:rd")
    assert config.credentials("elsewhere.example.com") is None
    assert config.credentials("other") is None


def test_an_identity_token_in_the_file(tmp_path: Path) -> None:
    entry = {"auth": encoded("00000000-0000-0000-0000-000000000000:"), "identitytoken": "abc"}
    found = config_file(tmp_path, {"auths": {"r.example.com": entry}}).credentials("r.example.com")
    assert found is not None
    assert (found.identity_token, found.password) == ("abc", "")
    assert "abc" not in repr(found)


def test_no_file_and_none_that_can_be_read(tmp_path: Path) -> None:
    assert DockerConfig(tmp_path / "none").credentials("r.example.com") is None
    for document in ("", "[]", "[" * 100_000, "{", '{"auths": {"r.example.com": {"auth": "%%"}}}'):
        with pytest.raises(InvalidInputError):
            config_file(tmp_path, document).credentials("r.example.com")
    for strange in ({"auths": []}, {"auths": {"r.example.com": 7}}, {"credHelpers": 7}):
        assert config_file(tmp_path, strange).credentials("r.example.com") is None


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_credential_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'echo "$1 $(cat)" > asked; echo \'{"ServerURL": "x", "Username": "shop", "Secret": "word"}\''
    helper(tmp_path, monkeypatch, script)
    monkeypatch.chdir(tmp_path)
    config = config_file(tmp_path, {"credsStore": "test", "auths": {"r.example.com": {}}})
    assert config.credentials("r.example.com") == Credentials("shop", "word")
    assert (tmp_path / "asked").read_text() == "get r.example.com\n"
    assert config.credentials("docker.io") == Credentials("shop", "word")
    assert (tmp_path / "asked").read_text() == "get https://index.docker.io/v1/\n"
    only = config_file(tmp_path, {"credHelpers": {"r.example.com": "test"}})
    assert only.credentials("r.example.com") == Credentials("shop", "word")
    assert only.credentials("elsewhere.example.com") is None


def test_a_helper_with_an_identity_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, 'echo \'{"Username": "<token>", "Secret": "identity"}\'')
    config = config_file(tmp_path, {"credsStore": "test"})
    assert config.credentials("r.example.com") == Credentials(identity_token="identity")


def test_helpers_that_know_nothing_or_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "echo 'credentials not found in native keychain'; exit 1")
    config = config_file(tmp_path, {"credsStore": "test", "auths": {"r.example.com": {"auth": encoded("a:b")}}})
    assert config.credentials("r.example.com") == Credentials("a", "b")
    for script in ("echo locked; exit 1", "echo nothing", "echo '[]'"):
        helper(tmp_path, monkeypatch, script)
        with pytest.raises(AuthenticationError, match="docker-credential-test"):
            config.credentials("r.example.com")
    with pytest.raises(AuthenticationError, match="is not installed"):
        config_file(tmp_path, {"credsStore": "missing"}).credentials("r.example.com")
    for name in ("../../bin/sh", "a b", 7):
        with pytest.raises(InvalidInputError, match="no name of a credential helper"):
            config_file(tmp_path, {"credsStore": name}).credentials("r.example.com")
