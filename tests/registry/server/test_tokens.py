"""Docker's token flow."""

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import jwt
import pytest
from registry_requests import Registry
from threaded_server import basic, bearer, challenge_of, htpasswd, served, token_of

from layerstore import Digest
from layerstore.errors import InvalidOptionError
from layerstore.registry.server.access import create_access
from layerstore.registry.server.settings import Anonymous, ServerSettings
from layerstore.registry.server.signing import Signer, Token, read_secret

ALICE = basic("alice", "secret a")
BOB = basic("bob", "secret b")
SECRET = b"s" * 32
UPLOAD = "/v2/team/app/blobs/uploads/"


@pytest.fixture
def registry(with_accounts: ServerSettings) -> Iterator[Registry]:
    with served(with_accounts) as running:
        yield running


def test_a_token_is_for_what_was_asked_and_is_allowed(registry: Registry) -> None:
    token = token_of(registry, "repository:team/app:pull,push", ALICE)
    assert registry.ask("POST", UPLOAD, headers=bearer(token)).status == 202
    assert registry.ask("GET", "/v2/", headers=bearer(token)).status == 200
    other = registry.ask("POST", "/v2/team/other/blobs/uploads/", headers=bearer(token))
    assert challenge_of(other).endswith('scope="repository:team/other:pull,push",error="insufficient_scope"')


def test_a_token_of_somebody_without_the_right_does_not_give_it(registry: Registry) -> None:
    token = token_of(registry, "repository:team/app:pull,push", BOB)
    assert registry.ask("GET", "/v2/team/app/manifests/none", headers=bearer(token)).status == 404
    assert registry.ask("POST", UPLOAD, headers=bearer(token)).code == "DENIED"


def test_several_scopes_in_both_spellings(registry: Registry) -> None:
    token = token_of(registry, "repository:team/a:pull&scope=repository:team/b:*%20repository:team/b:delete", ALICE)
    assert registry.ask("GET", "/v2/team/a/manifests/none", headers=bearer(token)).status == 404
    assert registry.ask("DELETE", "/v2/team/b/manifests/none", headers=bearer(token)).status == 404


def test_a_token_without_an_account_reads_what_everyone_may_read(registry: Registry) -> None:
    token = token_of(registry, "repository:public/base:pull,push")
    assert registry.ask("GET", "/v2/public/base/manifests/none", headers=bearer(token)).status == 404
    assert registry.ask("POST", "/v2/public/base/blobs/uploads/", headers=bearer(token)).status == 401
    assert registry.ask("GET", "/v2/team/app/manifests/none", headers=bearer(token)).status == 401


def test_where_nothing_is_for_everyone_there_is_no_token_without_an_account(with_accounts: ServerSettings) -> None:
    with served(replace(with_accounts, rights=with_accounts.rights[1:])) as registry:
        assert registry.ask("GET", "/v2/token?scope=repository:team/app:pull").status == 401


def test_the_list_of_repositories_needs_its_own_scope_and_shows_what_may_be_read(registry: Registry) -> None:
    token = token_of(registry, "repository:team/app:pull", ALICE)
    asked = registry.ask("GET", "/v2/_catalog", headers=bearer(token))
    assert challenge_of(asked).endswith('scope="registry:catalog:*",error="insufficient_scope"')
    registry.ask("GET", "/v2/", headers=ALICE)
    token = token_of(registry, "registry:catalog:*", ALICE)
    assert registry.ask("GET", "/v2/_catalog", headers=bearer(token)).status == 200
    assert registry.ask("GET", "/v2/team/app/manifests/none", headers=bearer(token)).status == 401


def test_what_is_answered_with_a_token(registry: Registry) -> None:
    answer = registry.ask("GET", "/v2/token?scope=repository:team/app:pull&client_id=docker", headers=ALICE)
    document = answer.json
    assert document["token"] == document["access_token"]
    assert document["expires_in"] == 300
    assert time.strptime(document["issued_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert answer.headers["cache-control"] == "no-store"


def test_wrong_logins_get_no_token(registry: Registry) -> None:
    for headers in (basic("alice", "wrong"), basic("nobody", "x"), {"Authorization": "Basic !!"}):
        assert registry.ask("GET", "/v2/token", headers=headers).code == "UNAUTHORIZED"


def form(registry: Registry, **fields: str) -> tuple[int, dict[str, object]]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = registry.ask("POST", "/v2/token", urlencode(fields).encode(), headers)
    return answer.status, answer.json


def test_the_form_of_oauth2(registry: Registry) -> None:
    fields = {"grant_type": "password", "service": "layerstore", "client_id": "x", "scope": "repository:team/app:pull"}
    status, document = form(registry, username="alice", password="secret a", **fields)
    assert status == 200
    token = str(document["access_token"])
    assert registry.ask("GET", "/v2/team/app/manifests/none", headers=bearer(token)).status == 404
    assert form(registry, username="alice", password="wrong", **fields)[0] == 401
    assert form(registry, grant_type="refresh_token", refresh_token="x")[0] == 400
    assert form(registry)[0] == 400


def test_forms_that_are_none(registry: Registry) -> None:
    assert registry.ask("POST", "/v2/token", b"\xff\xfe=1").status == 400
    assert registry.ask("POST", "/v2/token", b"a=1&" * 100).status == 400
    assert registry.ask("POST", "/v2/token", b"a" * 20_000).status == 413


def test_scopes_that_mean_nothing_are_left_out(registry: Registry) -> None:
    scopes = [
        "repository:../../etc:pull",
        "repository::pull",
        "x",
        ":",
        "repository:team/app:",
        "repository:A:pull,%00",
    ]
    token = token_of(registry, "%20".join(scopes), ALICE)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["access"] == [{"type": "repository", "name": "team/app", "actions": []}]
    assert registry.ask("GET", "/v2/token?scope=" + "%20".join(["a:b:c"] * 101), headers=ALICE).status == 400


def claims_of(**changes: object) -> dict[str, object]:
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": "layerstore",
        "aud": "layerstore",
        "sub": "alice",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": "1",
        "access": [{"type": "repository", "name": "a", "actions": ["read"]}],
        "account": "f",
    }
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def test_only_whole_tokens_of_this_server_are_read() -> None:
    signer = Signer(SECRET, "layerstore", 300)

    def read(key: bytes = SECRET, algorithm: str = "HS256", **changes: object) -> Token | None:
        return signer.read(jwt.encode(claims_of(**changes), key, algorithm))

    assert read() == Token("alice", "f", {"a": frozenset({"read"})})
    assert read(key=b"t" * 32) is None
    assert read(key=SECRET * 2, algorithm="HS512") is None
    assert read(exp=int(time.time()) - 60) is None
    assert read(nbf=int(time.time()) + 60) is None
    assert read(aud="other") is None
    assert read(iss="other") is None
    for claim in claims_of():
        assert read(**{claim: None}) is None, claim
    unsigned = jwt.encode(claims_of(), None, "none")
    assert signer.read(unsigned) is None
    whole = jwt.encode(claims_of(), SECRET, "HS256")
    assert signer.read(whole[:-1] + ("A" if whole[-1] != "A" else "B")) is None
    assert signer.read("a." * 40_000) is None


def test_a_changed_password_and_a_removed_account_end_their_tokens(
    with_accounts: ServerSettings, tmp_path: Path
) -> None:
    with served(with_accounts) as registry:
        alice = bearer(token_of(registry, "repository:team/app:pull", ALICE))
        bob = bearer(token_of(registry, "repository:team/app:pull", BOB))
        robot = bearer(token_of(registry, "repository:team/app:pull", basic("robot", "secret r")))
        path = "/v2/team/app/manifests/none"
        assert {registry.ask("GET", path, headers=one).status for one in (alice, bob, robot)} == {404}
        kept = next(line for line in (tmp_path / "htpasswd").read_text().splitlines() if line.startswith("robot"))
        changed = htpasswd(tmp_path / "new", alice="another")
        changed.write_text(f"{changed.read_text()}{kept}\n")
        changed.replace(tmp_path / "htpasswd")
        assert 'error="invalid_token"' in challenge_of(registry.ask("GET", path, headers=alice))
        assert registry.ask("GET", path, headers=bob).status == 401
        assert registry.ask("GET", path, headers=robot).status == 404


def test_a_right_that_was_taken_away_ends_at_once(with_accounts: ServerSettings) -> None:
    access = create_access(with_accounts)
    token = access.token_for("bob", ["repository:team/app:pull"])
    with served(replace(with_accounts, rights=with_accounts.rights[:2])) as registry:
        answer = registry.ask("GET", "/v2/team/app/manifests/none", headers=bearer(token))
        assert (answer.status, answer.code) == (403, "DENIED")


def test_all_workers_of_a_store_have_one_secret_that_others_cannot_read(with_accounts: ServerSettings) -> None:
    first, second = create_access(with_accounts), create_access(with_accounts)
    assert second.signer.read(first.token_for("alice", [])) is not None
    path = with_accounts.folder / "token-secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(with_accounts.folder.glob("token-secret*"))) == 1


def test_a_secret_of_the_operator_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("short\n")
    path.chmod(0o640)
    with pytest.raises(InvalidOptionError, match="random characters"):
        read_secret(path, is_own=False)
    path.write_text("x" * 40 + "\n")
    assert read_secret(path, is_own=False) == b"x" * 40
    path.chmod(0o644)
    with pytest.raises(InvalidOptionError, match="everyone can read"):
        read_secret(path, is_own=False)


def test_a_mount_needs_the_right_to_read_where_it_comes_from(with_accounts: ServerSettings) -> None:
    layer = b"layer" * 100
    with served(with_accounts) as registry:
        alice = bearer(token_of(registry, "repository:team/secret:pull,push", ALICE))
        path = f"/v2/team/secret/blobs/uploads/?digest={digest_of(layer)}"
        assert registry.ask("POST", path, layer, alice).status == 201
        mount = f"/v2/team/app/blobs/uploads/?mount={digest_of(layer)}&from=team/secret"
        one = bearer(token_of(registry, "repository:team/app:pull,push", ALICE))
        both = bearer(token_of(registry, "repository:team/app:pull,push&scope=repository:team/secret:pull", ALICE))
        assert registry.ask("POST", mount, headers=one).status == 202, "an upload begins instead"
        assert registry.ask("POST", mount, headers=both).status == 201


def digest_of(data: bytes) -> str:
    return str(Digest.of(data))


def test_a_server_where_all_may_read_still_knows_its_accounts(with_accounts: ServerSettings) -> None:
    with served(replace(with_accounts, anonymous=Anonymous.READ)) as registry:
        assert registry.ask("GET", "/v2/team/app/manifests/none").status == 404
        challenge_of(registry.ask("POST", UPLOAD))
        token = token_of(registry, "repository:team/app:pull,push", ALICE)
        assert registry.ask("POST", UPLOAD, headers=bearer(token)).status == 202
        assert json.loads(registry.ask("GET", "/v2/_catalog").body) == {"repositories": []}
