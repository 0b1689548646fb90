"""What the operator sees: the log, the audit log, the metrics, and whether the server is well."""

import json
import logging
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from registry_requests import Registry
from server_process import ServerProcess
from threaded_server import basic, served

from layerstore import Digest, Store
from layerstore.registry.server.audit import AuditLog
from layerstore.registry.server.logs import JsonFormatter, TextFormatter, log_configuration
from layerstore.registry.server.settings import LogFormat, MetricsAccess, ServerSettings

ALICE = basic("alice", "secret a")


@pytest.fixture
def audited(with_accounts: ServerSettings, tmp_path: Path) -> ServerSettings:
    return replace(with_accounts, audit=tmp_path / "audit.log")


def records(settings: ServerSettings) -> list[dict[str, Any]]:
    assert settings.audit is not None
    return [json.loads(line) for line in settings.audit.read_text().splitlines()] if settings.audit.exists() else []


class Signed(Registry):
    """Every request is alice's."""

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
        return super().ask(method, path, body, {**ALICE, **(headers or {})})


@pytest.fixture
def registry(audited: ServerSettings) -> Iterator[Registry]:
    with served(audited) as running:
        yield running


def test_pushes_mounts_and_deletes_are_recorded(registry: Registry, audited: ServerSettings) -> None:
    alice = Signed(registry.address)
    layer = b"layer" * 100
    digest = alice.push_image("team/app", "1.0", layer)
    mount = alice.ask("POST", f"/v2/team/other/blobs/uploads/?mount={Digest.of(layer)}&from=team/app")
    assert mount.status == 201
    assert alice.delete("team/app", "1.0").status == 202
    assert alice.manifest("team/app", digest).status == 200
    found = [(one["event"], one["repository"], one["status"]) for one in records(audited)]
    assert found == [
        ("push-blob", "team/app", 201),
        ("push-blob", "team/app", 201),
        ("push-manifest", "team/app", 201),
        ("mount", "team/other", 201),
        ("delete-tag", "team/app", 202),
    ]
    third = records(audited)[2]
    assert (third["account"], third["client"], third["reference"]) == ("alice", "127.0.0.1", "1.0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", third["time"])
    assert records(audited)[3]["from"] == "team/app"
    assert records(audited)[0]["digest"].startswith("sha256:")
    assert alice.delete("team/app", digest).status == 202
    last = records(audited)[-1]
    assert (last["event"], last["reference"], last["status"]) == ("delete-manifest", digest, 202)


def test_who_was_refused_is_recorded(registry: Registry, audited: ServerSettings) -> None:
    registry.ask("GET", "/v2/")
    registry.ask("GET", "/v2/", headers=basic("alice", "wrong"))
    registry.ask("GET", "/v2/token", headers=basic("ev\nil", "wrong"))
    registry.ask("POST", "/v2/team/app/blobs/uploads/", headers=basic("bob", "secret b"))
    found = [(one["event"], one["account"], one["status"]) for one in records(audited)]
    assert found == [("login-failed", "alice", 401), ("login-failed", "ev\nil", 401), ("denied", "bob", 403)]
    assert records(audited)[2]["path"] == "/v2/team/app/blobs/uploads/"
    assert "wrong" not in (audited.audit or Path()).read_text()


def test_the_audit_log_follows_a_rotation_and_lets_no_line_in(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log, other = AuditLog(path), AuditLog(path)
    log.write({"account": 'a"}\n{"account": "forged\x1b[2J\u2028'})
    path.rename(tmp_path / "audit.log.1")
    log.write({"account": "b"})
    other.write({"account": "c"})
    first = (tmp_path / "audit.log.1").read_bytes()
    assert first.count(b"\n") == 1
    assert first.isascii()
    assert b"\x1b" not in first
    assert [json.loads(line)["account"] for line in path.read_text().splitlines()] == ["b", "c"]
    assert path.stat().st_mode & 0o007 == 0
    log.close()
    other.close()


def test_what_cannot_be_recorded_is_not_acknowledged(audited: ServerSettings, tmp_path: Path) -> None:
    with served(replace(audited, audit=tmp_path / "none" / "audit.log")) as registry:
        alice = Signed(registry.address)
        assert alice.push_blob("team/app", b"data").status == 503
        assert alice.ask("GET", "/v2/team/app/tags/list").status == 200, "reading is not recorded"


def figures(registry: Registry, headers: dict[str, str] | None = None) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = registry.ask("GET", "/metrics", headers=headers)
    assert answer.status == 200, answer
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_the_metrics_count_requests_bytes_and_what_is_stored(registry: Registry) -> None:
    alice = Signed(registry.address)
    before = figures(registry)
    alice.push_image("team/app", "1.0", b"layer" * 1000)
    alice.manifest("team/app", "1.0")
    registry.ask("GET", "/v2/", headers=basic("alice", "wrong"))
    after = figures(registry)

    def more(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0)

    assert more("layerstore_requests_total", "PUT", "/v2/{name}/manifests/{reference}", "201") == 1
    assert more("layerstore_requests_total", "GET", "/v2/{name}/manifests/{reference}", "200") == 1
    assert more("layerstore_request_seconds_count", "POST", "/v2/{name}/blobs/uploads/") == 2
    assert more("layerstore_received_bytes_total") > 5000
    assert more("layerstore_sent_bytes_total") > 100
    assert more("layerstore_login_failures_total") == 1
    assert after["layerstore_store_ratio", ()] >= 0
    assert after["layerstore_store_disk_bytes", ()] > 0
    assert ("layerstore_store_encodings", ("raw",)) in after


def test_hostile_paths_and_methods_make_no_new_labels(registry: Registry) -> None:
    before = set(figures(registry))
    for number in range(20):
        registry.ask("GET", f"/nothing/{number}")
        registry.ask("GET", f"/v2/{number}/{number}")
    registry.ask("PROPFIND", "/v2/")
    labels = {labels for name, labels in set(figures(registry)) - before if name == "layerstore_requests_total"}
    assert len(labels) <= 4, labels


def test_the_metrics_are_for_this_machine_only(registry: Registry) -> None:
    assert registry.ask("GET", "/metrics").status == 200
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        assert registry.ask("GET", "/metrics", headers={header: "127.0.0.1"}).status == 403, header


def test_a_token_opens_the_metrics(with_accounts: ServerSettings, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("word\n")
    closed = replace(with_accounts, metrics=MetricsAccess.NOBODY, metrics_token=tmp_path / "token")
    with served(closed) as registry:
        assert registry.ask("GET", "/metrics").status == 403
        assert registry.ask("GET", "/metrics", headers={"Authorization": "Bearer words"}).status == 403
        assert registry.ask("GET", "/metrics", headers={"Authorization": "Bearer word"}).status == 200
        (tmp_path / "token").write_text("")
        assert registry.ask("GET", "/metrics", headers={"Authorization": "Bearer "}).status == 403


def test_health_and_readiness(registry: Registry) -> None:
    assert (registry.ask("GET", "/healthz").status, registry.ask("GET", "/healthz").body) == (200, b"ok\n")
    assert registry.ask("GET", "/readyz").status == 200


def line_of(formatter: logging.Formatter, message: str, **fields: object) -> str:
    record = logging.LogRecord("layerstore.requests", logging.INFO, "", 0, message, (), None)
    record.fields = fields
    return formatter.format(record)


def test_a_line_of_the_log_is_one_line_whatever_is_in_it() -> None:
    hostile = "GET /\n\x1b[2J\u2028\x00"
    document = json.loads(line_of(JsonFormatter(), hostile, status=404, account='x"\n'))
    assert (document["message"], document["status"], document["account"]) == (hostile, 404, 'x"\n')
    for formatter in (JsonFormatter(), TextFormatter()):
        assert line_of(formatter, hostile, account="a\nb").isprintable()


def test_the_log_is_for_programs_unless_somebody_looks() -> None:
    def kind(wanted: LogFormat) -> str:
        return str(log_configuration(wanted)["formatters"]["lines"]["()"]).rpartition(".")[2]

    assert [kind(one) for one in (LogFormat.AUTO, LogFormat.JSON, LogFormat.TEXT)] == [
        "JsonFormatter",
        "JsonFormatter",
        "TextFormatter",
    ]


def test_requests_have_an_id(registry: Registry) -> None:
    own = registry.ask("GET", "/v2/", headers={**ALICE, "X-Request-ID": "abc-1"})
    assert own.headers["x-request-id"] == "abc-1"
    made = registry.ask("GET", "/v2/team/app/tags/list", headers={"X-Request-ID": "bad id"})
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])


def test_what_prometheus_is_told_is_well_formed(store_path: Path) -> None:
    with served(ServerSettings(store=store_path, collection_interval=0)) as registry, Store.open(store_path) as store:
        assert figures(registry)["layerstore_store_images", ()] == len(store.images)


def test_what_is_no_http_is_counted_and_not_told(store_path: Path) -> None:
    with ServerProcess(store_path) as server:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(b"\x16\x03\x01\x00\x05hello")  # as TLS begins
                assert connection.recv(12) == b"HTTP/1.1 400"
        text = Registry(server.address).ask("GET", "/metrics").body.decode()
        assert "\nlayerstore_invalid_requests_total 2.0\n" in text
        assert "Invalid HTTP" not in server.log_text()
