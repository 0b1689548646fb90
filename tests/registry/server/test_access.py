"""Who may do what: accounts, rights, and what clients are told."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
from registry_requests import Registry
from threaded_server import basic, challenge_of, htpasswd, served

from layerstore.errors import InvalidOptionError
from layerstore.registry.server.accounts import Accounts, read_htpasswd
from layerstore.registry.server.buckets import Buckets
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.rights import Rights
from layerstore.registry.server.settings import Anonymous, Right, ServerSettings

ALICE = basic("alice", "secret a")
BOB = basic("bob", "secret b")
ROBOT = basic("robot", "secret r")


@pytest.fixture
def registry(with_accounts: ServerSettings) -> Iterator[Registry]:
    with served(with_accounts) as running:
        yield running


@pytest.fixture
def new_accounts(tmp_path: Path) -> Callable[..., Accounts]:
    def make(**passwords: str) -> Accounts:
        return Accounts(htpasswd(tmp_path / "users", **passwords), Buckets(tmp_path / "f", per_second=0.001, burst=3))

    return make


def rights_of(*repositories: str, who: str = "alice", anonymous: Anonymous = Anonymous.NONE) -> Rights:
    right = Right(who=frozenset({who}), repositories=repositories, actions=frozenset({"read"}))
    return Rights(ServerSettings(store=Path(), anonymous=anonymous, rights=(right,)))


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("team/*", "team/app", True),
        ("team/*", "team/app/part", False),
        ("team/*", "team", False),
        ("team/*", "other/app", False),
        ("team/**", "team/app/part", True),
        ("**", "any/thing", True),
        ("*", "any/thing", False),
        ("team", "team", True),
        ("team", "teams", False),
        ("a.b", "axb", False),
        ("base-*", "base-debian", True),
    ],
)
def test_patterns_of_repositories(pattern: str, name: str, matches: bool) -> None:
    assert rights_of(pattern).allow("alice", name, "read") is matches


def test_rights_add_up_and_hold_for_those_they_name() -> None:
    rights = rights_of("team/*", anonymous=Anonymous.READ)
    assert rights.allow("alice", "team/app", "read")
    assert not rights.allow("alice", "team/app", "write")
    assert rights.allow(None, "any", "read")
    assert not rights.allow(None, "any", "delete")
    assert rights_of("**", who="@accounts").allow("bob", "any", "read")
    assert not rights_of("**", who="@accounts").allow(None, "any", "read")


def test_each_account_does_what_it_has_a_right_to(registry: Registry) -> None:
    upload = "/v2/team/app/blobs/uploads/"
    assert registry.ask("POST", upload, headers=ALICE).status == 202
    assert registry.ask("POST", upload, headers=ROBOT).status == 202
    refused = registry.ask("POST", upload, headers=BOB)
    assert (refused.status, refused.code) == (403, "DENIED")
    assert registry.ask("GET", "/v2/team/app/manifests/none", headers=BOB).code == "MANIFEST_UNKNOWN"
    assert registry.ask("DELETE", "/v2/team/app/manifests/none", headers=ROBOT).status == 403
    assert registry.ask("POST", "/v2/team/other/blobs/uploads/", headers=ROBOT).status == 403


def test_a_repository_without_rights_looks_like_one_that_is_not_there(registry: Registry) -> None:
    registry_image = registry.ask("GET", "/v2/private/app/manifests/latest", headers=BOB)
    nothing = registry.ask("GET", "/v2/private/none/manifests/latest", headers=BOB)
    assert registry_image.status == nothing.status == 403
    assert registry_image.body.replace(b"app", b"none") == nothing.body


def test_without_an_account_the_answer_says_where_to_log_in(registry: Registry) -> None:
    asked = challenge_of(registry.ask("POST", "/v2/team/app/blobs/uploads/"))
    realm = f"http://{registry.address}/v2/token"
    assert asked == f'Bearer realm="{realm}",service="layerstore",scope="repository:team/app:pull,push"'
    assert challenge_of(registry.ask("GET", "/v2/team/app/tags/list")).endswith('scope="repository:team/app:pull"')
    assert challenge_of(registry.ask("DELETE", "/v2/team/app/manifests/a")).endswith(
        'scope="repository:team/app:delete"'
    )
    assert registry.ask("GET", "/v2/public/base/manifests/none").status == 404


def test_docker_is_asked_to_log_in_even_where_everyone_may_read(registry: Registry) -> None:
    assert challenge_of(registry.ask("GET", "/v2/")) == (
        f'Bearer realm="http://{registry.address}/v2/token",service="layerstore"'
    )
    answer = registry.ask("GET", "/v2/", headers=ALICE)
    assert (answer.status, answer.body) == (200, b"{}")
    assert registry.ask("GET", "/v2/", headers=basic("alice", "wrong")).status == 401


def test_without_accounts_nobody_is_asked(store_path: Path) -> None:
    with served(ServerSettings(store=store_path)) as registry:
        assert registry.ask("GET", "/v2/").status == 200
        assert registry.ask("GET", "/v2/", headers=ALICE).status == 200
        assert registry.ask("POST", "/v2/any/blobs/uploads/").status == 202
        assert registry.ask("GET", "/v2/token").status == 404


def test_without_accounts_what_is_not_allowed_is_denied(store_path: Path) -> None:
    with served(ServerSettings(store=store_path, anonymous=Anonymous.READ)) as registry:
        assert registry.ask("GET", "/v2/any/manifests/none").status == 404
        assert registry.ask("POST", "/v2/any/blobs/uploads/").code == "DENIED"


BAD_HEADERS = (
    "Basic",
    "Basic !!!",
    "Basic /w==",
    "Basic YWxpY2U=",
    "Basic " + "A" * 5000,
    "Digest username=alice",
    "Bearer",
    "Bearer a.b.c",
    "Bearer " + "W1tb" * 2000 + ".e30.e30",
    "basic\tYWxpY2U6eA==",
)


def test_headers_that_are_no_login(registry: Registry) -> None:
    for header in BAD_HEADERS:
        assert registry.ask("GET", "/v2/", headers={"Authorization": header}).status == 401, header
    # Not even where none would be needed: who sends one means it.
    assert registry.ask("GET", "/v2/public/a/tags/list", headers={"Authorization": BAD_HEADERS[0]}).status == 401


def test_a_host_that_is_none_is_not_repeated(registry: Registry) -> None:
    for host in ('evil.example"', "a b", "a,b", "", "evil.example/path", "user@evil.example", "x" * 300, "[::1]x"):
        asked = challenge_of(registry.ask("GET", "/v2/", headers={"Host": host}))
        assert asked.startswith(f'Bearer realm="http://{registry.address}/v2/token",'), host


def test_the_configured_address_is_told_whatever_the_request_says(with_accounts: ServerSettings) -> None:
    with served(replace(with_accounts, url="https://hub.example.org")) as registry:
        assert challenge_of(registry.ask("GET", "/v2/")).startswith('Bearer realm="https://hub.example.org/v2/token",')


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "no bcrypt hash"),
        ("alice:$apr1$abc$defdefdefdefdefdefdefd", "no bcrypt hash"),
        ("alice", "no bcrypt hash"),
        (":$2y$04$" + "a" * 53, "cannot have this name"),
        ("@ci:$2y$04$" + "a" * 53, "cannot have this name"),
        ("bob:$2y$04$" + "a" * 53, "has an account already"),
        ("alice:$2y$31$" + "a" * 53, "cost"),
        ("alice:$2y$04$" + "a" * 52, "no bcrypt hash"),
        ("alice:$2x$04$" + "a" * 53, "no bcrypt hash"),
    ],
)
def test_lines_that_are_no_account(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"bob:$2b$04${'b' * 53}\n{line}\n")
    with pytest.raises(InvalidOptionError, match=f"line 2: .*{problem}"):
        read_htpasswd(path)


def test_all_kinds_of_bcrypt_hashes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    made = bcrypt.hashpw(b"word", bcrypt.gensalt(4)).decode()
    path.write_text("".join(f"u{kind}:{made.replace('$2b$', f'$2{kind}$')}\r\n" for kind in "aby"))
    accounts = Accounts(path, Buckets(tmp_path / "failures", per_second=1, burst=10))
    assert all(accounts.verify(f"u{kind}", "word", "c") for kind in "aby")
    assert not accounts.verify("ub", "Word", "c")


def test_a_zero_byte_ends_no_password(new_accounts: Callable[..., Accounts]) -> None:
    accounts = new_accounts(alice="word?")
    assert not accounts.verify("alice", "word\0", "c")
    assert not accounts.verify("alice", "word?\0more", "c")


def test_a_changed_file_holds_at_once(tmp_path: Path, new_accounts: Callable[..., Accounts]) -> None:
    accounts = new_accounts(alice="old")
    assert accounts.verify("alice", "old", "c")
    htpasswd(tmp_path / "new", alice="new", bob="b").replace(tmp_path / "users")
    assert not accounts.verify("alice", "old", "c")
    assert accounts.verify("alice", "new", "c")
    assert accounts.verify("bob", "b", "c")


def test_a_file_that_is_damaged_or_gone_changes_nothing(tmp_path: Path, new_accounts: Callable[..., Accounts]) -> None:
    accounts = new_accounts(alice="word")
    (tmp_path / "users").write_text("alice:plain\n")
    assert accounts.verify("alice", "word", "c")
    (tmp_path / "users").unlink()
    assert accounts.verify("alice", "word", "c")


def test_wrong_passwords_of_a_client_are_bounded_and_right_ones_of_others_go_on(
    new_accounts: Callable[..., Accounts],
) -> None:
    accounts = new_accounts(alice="word", bob="b")
    assert accounts.verify("alice", "word", "attacker")
    for number in range(3):
        assert not accounts.verify("nobody" if number else "alice", "guess", "attacker")
    with pytest.raises(ProblemError) as refused:
        accounts.verify("bob", "b", "attacker")
    assert refused.value.status == 429
    assert int(refused.value.headers["Retry-After"]) > 1
    assert accounts.verify("alice", "word", "attacker"), "what was right a moment ago stays right"
    assert accounts.verify("bob", "b", "somebody else")


def test_an_unknown_name_costs_as_much_as_a_wrong_password(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"alice:{bcrypt.hashpw(b'word', bcrypt.gensalt(9)).decode()}\n")
    accounts = Accounts(path, Buckets(tmp_path / "failures", per_second=1, burst=1000))

    def seconds(name: str) -> float:
        times = []
        for _ in range(5):
            begun = time.thread_time()
            assert not accounts.verify(name, "guess", "c")
            times.append(time.thread_time() - begun)
        return min(times)

    assert 0.5 < seconds("nobody") / seconds("alice") < 2


def test_a_right_password_is_checked_once_and_then_remembered(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"alice:{bcrypt.hashpw(b'word', bcrypt.gensalt(10)).decode()}\n")
    accounts = Accounts(path, Buckets(tmp_path / "failures", per_second=1, burst=1000))
    begun = time.thread_time()
    assert accounts.verify("alice", "word", "c")
    first = time.thread_time() - begun
    begun = time.thread_time()
    assert all(accounts.verify("alice", "word", "c") for _ in range(10))
    assert time.thread_time() - begun < first
    kept = repr(vars(accounts))
    assert "word'" not in kept


def test_many_logins_at_once_are_all_answered(new_accounts: Callable[..., Accounts]) -> None:
    accounts = new_accounts(**{f"u{number}": f"p{number}" for number in range(20)})
    results = []
    threads = [
        threading.Thread(target=lambda n=number: results.append(accounts.verify(f"u{n}", f"p{n}", "c")))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


def test_buckets_count_over_processes_and_forget_what_no_clock_of_this_machine_wrote(tmp_path: Path) -> None:
    first = Buckets(tmp_path / "table", per_second=0.001, burst=4)
    second = Buckets(tmp_path / "table", per_second=0.001, burst=4)
    assert [one.take("10.0.0.1") for one in (first, second, first, second)] == [0.0] * 4
    assert second.take("10.0.0.1") > 900
    assert first.wait("10.0.0.1") > 900
    assert first.take("10.0.0.2") == 0.0
    third = Buckets(tmp_path / "table", per_second=1000, burst=4)
    assert third.take("10.0.0.1") == 0.0, "a moment that is beyond every limit is none of this clock"
    for one in (first, second, third):
        one.close()


def test_what_a_bucket_lost_comes_back_with_time(tmp_path: Path) -> None:
    buckets = Buckets(tmp_path / "table", per_second=50, burst=2)
    assert buckets.take("c") == buckets.take("c") == 0.0
    wait = buckets.take("c")
    assert 0 < wait <= 0.05
    time.sleep(wait)
    assert buckets.take("c") == 0.0
    buckets.close()
