"""The configuration file, and the command line over it."""

import pickle
from pathlib import Path

import pytest

from layerstore.errors import InvalidOptionError, StorageError
from layerstore.registry.server.configuration import is_loopback, load_settings
from layerstore.registry.server.options import Options
from layerstore.registry.server.quantities import duration_of, size_of
from layerstore.registry.server.settings import Anonymous, LogFormat, MetricsAccess, Right, ServerSettings, Upstream

WHOLE = """
listen:
  host: 0.0.0.0
  port: 5001
  workers: 2
  tls: {certificate: tls.crt, key: /etc/tls.key}
  url: https://registry.example.org/
  trusted_proxies: [10.0.0.0/8, "::1"]
accounts: {htpasswd: htpasswd}
anonymous: read
groups: {ci: [robot1, robot2]}
rights:
  - {who: [alice, "@ci"], repositories: ["team/*", "base/**"], actions: [read, write, delete]}
  - {who: ["@accounts"], repositories: ["**"], actions: [read]}
tokens: {lifetime: 10m, secret: secret, service: registry.example.org}
limits:
  blob: 10GiB
  manifest: 1 MiB
  header: 32KiB
  requests: {per_second: 50, burst: 500, at_once: 20}
  connections: 100
  client_connections: 20
  client_uploads: 30
  login_failures: 5
  idle: 30s
delete: false
blob_ttl: 12h
collection_interval: 0
compression_level: -1
proxies: {hub: "https://registry-1.docker.io"}
audit: audit.log
metrics: {access: nobody, token: metrics-token}
log: json
shutdown: {drain: 5s, timeout: 10m}
"""


def load(tmp_path: Path, text: str, **options: object) -> ServerSettings:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    return load_settings(tmp_path / "store", Options(configuration=path, **options))  # type: ignore[arg-type]


def test_every_setting_of_the_file_arrives(tmp_path: Path) -> None:
    settings = load(tmp_path, WHOLE)
    all_actions = frozenset({"read", "write", "delete"})
    assert settings == ServerSettings(
        store=tmp_path / "store",
        blob_size_max=10 << 30,
        manifest_size_max=1 << 20,
        blob_ttl=12 * 3600.0,
        is_delete_enabled=False,
        collection_interval=0,
        compression_level=-1,
        proxies={"hub": Upstream(url="https://registry-1.docker.io")},
        host="0.0.0.0",
        port=5001,
        workers=2,
        url="https://registry.example.org",
        tls_certificate=tmp_path / "tls.crt",
        tls_key=Path("/etc/tls.key"),
        trusted_proxies=("10.0.0.0/8", "::1"),
        htpasswd=tmp_path / "htpasswd",
        anonymous=Anonymous.READ,
        rights=(
            Right(
                who=frozenset({"alice", "robot1", "robot2"}), repositories=("team/*", "base/**"), actions=all_actions
            ),
            Right(who=frozenset({"@accounts"}), repositories=("**",), actions=frozenset({"read"})),
        ),
        token_lifetime=600,
        token_secret=tmp_path / "secret",
        service="registry.example.org",
        header_size_max=32 << 10,
        requests_per_second=50,
        requests_burst=500,
        requests_at_once=20,
        connections_max=100,
        client_connections_max=20,
        client_uploads_max=30,
        login_failures=5,
        idle_seconds=30,
        audit=tmp_path / "audit.log",
        metrics=MetricsAccess.NOBODY,
        metrics_token=tmp_path / "metrics-token",
        log=LogFormat.JSON,
        drain_seconds=5,
        shutdown_seconds=600,
    )
    assert pickle.loads(pickle.dumps(settings)) == settings, "it goes to worker processes"


def test_an_empty_file_is_what_no_file_is(tmp_path: Path) -> None:
    nothing = load_settings(tmp_path / "store", Options())
    assert load(tmp_path, "") == load(tmp_path, "# all as it is\n") == nothing
    assert nothing == ServerSettings(store=tmp_path / "store", rights=nothing.rights)


def test_options_hold_over_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        WHOLE,
        host="127.0.0.1",
        port=0,
        anonymous="none",
        no_delete=True,
        proxies={"quay": "https://quay.io"},
        tls_certificate=Path("/other.crt"),
        tls_key=Path("/other.key"),
    )
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 0, 2)
    assert settings.anonymous is Anonymous.NONE
    assert not settings.is_quiet
    assert load(tmp_path, WHOLE, quiet=True).is_quiet
    assert settings.tls_certificate == Path("/other.crt")
    assert {name: one.url for name, one in settings.proxies.items()} == {
        "hub": "https://registry-1.docker.io",
        "quay": "https://quay.io",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen: {prot: 5000}", "listen.prot: there is no such setting"),
        ("limits: {requests: {often: 1}}", "limits.requests.often: there is no such setting"),
        ("listen: {port: 70000}", "listen.port: "),
        ("listen: {workers: 0}", "listen.workers: "),
        ("listen: {tls: {certificate: a}}", "listen.tls.key: this setting is missing"),
        ("listen: {url: registry.example.org}", "listen.url: it is no address"),
        ("listen: {url: 'http://a\"b'}", "listen.url: it is no address"),
        ("listen: {trusted_proxies: [proxy]}", "listen.trusted_proxies.0: "),
        ("limits: {blob: 1 TB}", "limits.blob: it is no size"),
        ("limits: {blob: true}", "limits.blob: it is no size"),
        ("limits: {blob: 0}", "limits.blob: "),
        ("limits: {manifest: 33MiB}", "limits.manifest: "),
        ("limits: {client_connections: -1}", "limits.client_connections: "),
        ("limits: {blob: 2000000 GiB}", "limits.blob: "),
        ("limits: {requests: {per_second: .inf}}", "limits.requests.per_second: "),
        ("limits: {requests: {per_second: .nan}}", "limits.requests.per_second: "),
        ("limits: {idle: .inf}", "limits.idle: "),
        ("limits: {idle: 25h}", "limits.idle: "),
        ("collection_interval: .nan", "collection_interval: "),
        ("proxies: {hub: {url: 'https://x', keep: 59m}}", "proxies.hub.keep: it is 1h or more"),
        ("limits: {idle: soon}", "limits.idle: it is no duration"),
        ("anonymous: everything", "anonymous: "),
        ("anonymous: no", "anonymous: "),
        ("rights: [{who: [a], repositories: ['**'], actions: [push]}]", "rights.0.actions"),
        ("rights: [{who: [a], repositories: ['A b'], actions: [read]}]", "rights.0.repositories.0: it is no pattern"),
        ("rights: [{who: ['@ci'], repositories: ['**'], actions: [read]}]", "rights.0.who: there is no group @ci"),
        ("rights: [{who: [a], repositories: ['**'], actions: [read]}]", "rights: without accounts"),
        ("rights: [{who: [], repositories: ['**'], actions: [read]}]", "rights.0.who"),
        ("groups: {everyone: [a]}", "groups.everyone: "),
        ("groups: {'a b': [a]}", "groups.a b: "),
        ("proxies: {a/b: 'https://x'}", "proxies.a/b: "),
        ("proxies: {hub: 'file:///etc'}", "proxies.hub.url: it is no address"),
        ("tokens: {service: 'a\"b'}", "tokens.service: "),
        ("tokens: {lifetime: 1s}", "tokens.lifetime: "),
        ("listen: 5000", "listen"),
        ("[listen]", "is no configuration"),
        ("a: b: c", "is not YAML"),
        ("delete: true\ndelete: false", "'delete' stands twice"),
        ("!!python/object/apply:os.system [true]", "is not YAML"),
        ("a: " + "[" * 5000, "is not YAML"),
        ("listen: {host: 0.0.0.0}", "name accounts"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidOptionError) as refused:
        load(tmp_path, text)
    assert problem in str(refused.value)
    assert "server.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        load_settings(tmp_path, Options(configuration=tmp_path / "none.yaml"))


def test_who_may_do_what_if_nothing_is_said(tmp_path: Path) -> None:
    assert load(tmp_path, "").anonymous is Anonymous.ALL
    assert load(tmp_path, "accounts: {htpasswd: a}").anonymous is Anonymous.NONE
    assert load(tmp_path, "listen: {host: 0.0.0.0}\naccounts: {htpasswd: a}").anonymous is Anonymous.NONE
    assert load(tmp_path, "listen: {host: 0.0.0.0}\nanonymous: read").anonymous is Anonymous.READ
    assert load(tmp_path, "accounts: {htpasswd: a}").rights[0].who == {"@accounts"}
    assert load(tmp_path, "rights: []").rights == ()


def test_which_hosts_are_this_machine() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example.org", "")))


def test_sizes_and_durations() -> None:
    assert [size_of(one) for one in (10, "10", "4KiB", "64 GiB")] == [10, 10, 4096, 64 << 30]
    assert [duration_of(one) for one in (10, 0.5, "90s", "5m", "24h", "7d", "250ms")] == [
        10,
        0.5,
        90,
        300,
        86400,
        604800,
        0.25,
    ]
    for bad in ("", "-1", "1e9", "inf", "nan", "1 TiBs", "9" * 30, None, True, [], "١"):
        with pytest.raises(ValueError):
            size_of(bad)
        with pytest.raises(ValueError):
            duration_of(bad)
