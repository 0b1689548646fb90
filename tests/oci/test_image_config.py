import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.digest import Digest
from layerstore.errors import InvalidManifestError
from layerstore.oci.config import (
    HistoryEntry,
    ImageConfig,
    chain_ids,
    derive_config,
    image_config,
    parse_config,
    rfc3339,
)
from layerstore.oci.documents import serialize

A = Digest("sha256:" + "a" * 64)
B = Digest("sha256:" + "b" * 64)
C = Digest("sha256:" + "c" * 64)

# As Docker's classic builder writes it, with its nulls and its own fields.
DOCKER: dict[str, Any] = {
    "architecture": "amd64",
    "config": {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "Tty": False,
        "ExposedPorts": {"8080/tcp": {}},
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["sh"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000},
        "Image": str(A),
        "Volumes": None,
        "WorkingDir": "/srv",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": {"b": "2", "a": "1"},
        "StopSignal": "SIGTERM",
    },
    "container": "b8a2c1",
    "container_config": {"Hostname": "b8a2c1"},
    "created": "2024-05-01T10:00:00.123456789Z",
    "docker_version": "20.10.23",
    "history": [
        {"created": "2024-05-01T09:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:a3bc in / "},
        {"created": "2024-05-01T09:00:01Z", "created_by": '/bin/sh -c #(nop)  CMD ["sh"]', "empty_layer": True},
        {"created": "2024-05-01T10:00:00.123456789Z", "created_by": "/bin/sh -c apk add curl", "comment": "x"},
    ],
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [str(A), str(B)]},
}

# As crane appends a layer to an empty base.
CRANE: dict[str, Any] = {
    "architecture": "",
    "created": "0001-01-01T00:00:00Z",
    "history": [{"created": "0001-01-01T00:00:00Z"}],
    "os": "",
    "rootfs": {"type": "layers", "diff_ids": [str(A)]},
    "config": {},
}

WINDOWS: dict[str, Any] = {
    "architecture": "amd64",
    "os": "windows",
    "os.version": "10.0.20348.2402",
    "os.features": ["win32k"],
    "config": {"Cmd": ["c:\\windows\\system32\\cmd.exe"], "ArgsEscaped": True},
    "rootfs": {"type": "layers", "diff_ids": [str(A)]},
}


def parse(fields: object) -> ImageConfig:
    return parse_config(json.dumps(fields).encode())


def test_docker_config() -> None:
    parsed = parse(DOCKER)
    assert parsed.created == "2024-05-01T10:00:00.123456789Z"
    assert parsed.diff_ids == (A, B)
    assert type(parsed.diff_ids[0]) is Digest
    assert parsed.config.exposed_ports == {"8080/tcp": {}}
    assert (parsed.config.volumes, parsed.config.entrypoint, parsed.config.cmd) == ({}, (), ("sh",))
    assert parsed.config.working_dir == "/srv"
    assert parsed.config.stop_signal == "SIGTERM"
    assert parsed.config.model_extra is not None
    assert parsed.config.model_extra["Healthcheck"]["Interval"] == 30000000000
    assert [entry.empty_layer for entry in parsed.history] == [False, True, False]
    assert parsed.model_extra == {
        "container": "b8a2c1",
        "container_config": {"Hostname": "b8a2c1"},
        "docker_version": "20.10.23",
    }


@pytest.mark.parametrize("fields", [DOCKER, CRANE, WINDOWS])
def test_written_configs_read_the_same(fields: dict[str, Any]) -> None:
    parsed = parse(fields)
    assert parse_config(serialize(parsed)) == parsed


def test_windows_config() -> None:
    parsed = parse(WINDOWS)
    assert (parsed.os_version, parsed.os_features) == ("10.0.20348.2402", ("win32k",))
    assert parsed.config.args_escaped is True
    assert json.loads(serialize(parsed)) == WINDOWS


def test_nulls_and_gaps_of_docker_are_tolerated() -> None:
    optional = ["created", "author", "architecture", "os", "os.version", "os.features", "variant", "config", "history"]
    bare = parse({"rootfs": {"type": "layers"}})
    assert parse({**dict.fromkeys(optional), "rootfs": {"type": "layers", "diff_ids": None}}) == bare
    assert bare.diff_ids == ()
    assert bare.history == ()
    assert bare.config.env == ()
    inner = ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"]
    assert parse({"rootfs": {"type": "layers"}, "config": dict.fromkeys(inner)}) == bare
    assert serialize(bare) == b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}'
    entry = parse({"rootfs": {"type": "layers"}, "history": [{"empty_layer": None, "author": None}]}).history[0]
    assert entry == HistoryEntry()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rootfs": None}, "rootfs: .*object"),
        ({"rootfs": {}}, "rootfs.type: Field required"),
        ({"rootfs": {"type": "layers+base", "diff_ids": []}}, "rootfs.type: "),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}}, r"rootfs.diff_ids\[0\]: .*digest"),
        ({"rootfs": {"type": "layers", "diff_ids": str(A)}}, "rootfs.diff_ids: "),
        ({"architecture": 1}, "architecture: .*string"),
        ({"os.features": "win32k"}, "os.features: "),
        ({"created": 1714557600}, "created: .*string"),
        ({"config": []}, "config: .*object"),
        ({"config": {"Env": "A=1"}}, "config.Env: "),
        ({"config": {"Env": ["A=1", 2]}}, r"config.Env\[1\]: .*string"),
        ({"config": {"Cmd": {"0": "sh"}}}, "config.Cmd: "),
        ({"config": {"Labels": {"a": 1}}}, "config.Labels.a: .*string"),
        ({"config": {"ExposedPorts": ["80"]}}, "config.ExposedPorts: "),
        ({"config": {"ArgsEscaped": 1}}, "config.ArgsEscaped: .*boolean"),
        ({"history": [{"empty_layer": "true"}]}, r"history\[0\].empty_layer: .*boolean"),
        ({"history": {}}, "history: "),
    ],
)
def test_refuses_and_says_where_and_what(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidManifestError, match=f"invalid config: {says}"):
        parse({**DOCKER, **changes})


@given(st.binary() | st.dictionaries(st.text(), st.none() | st.text() | st.integers()).map(json.dumps).map(str.encode))
def test_only_the_declared_error_comes_out_of_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(InvalidManifestError):
        parse_config(data)


def test_chain_ids_follow_the_formula_of_the_specification() -> None:
    def sha256(text: str) -> str:
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    assert chain_ids([]) == []
    assert chain_ids([A]) == [A]
    # ChainID(A|B|C) = Digest(Digest(DiffID(A) + " " + DiffID(B)) + " " + DiffID(C))
    assert chain_ids(iter([A, B, C])) == [A, sha256(f"{A} {B}"), sha256(sha256(f"{A} {B}") + f" {C}")]
    assert chain_ids([C])[-1] != chain_ids([A, B, C])[-1]


def test_chain_ids_of_the_specification_s_example_config() -> None:
    # The two DiffIDs of config.md, "Example"; the ChainID computed with `printf %s … | sha256sum`.
    first = Digest("sha256:c6f988f4874bb0add23a778f753c65efe992244e148a1d2ec2a8b664fb66bbd1")
    second = Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")
    assert chain_ids([first, second]) == [
        first,
        "sha256:c3191d32a37d7159b2e30830937d2e30268ad6c375a773a8994911a3aba9b93f",
    ]


def test_rfc3339() -> None:
    assert rfc3339(datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))) == "2024-05-01T10:00:00Z"
    assert rfc3339(datetime(2024, 5, 1, 0, 0, 0, 5, tzinfo=UTC)) == "2024-05-01T00:00:00.000005Z"
    with pytest.raises(InvalidManifestError, match="time zone"):
        rfc3339(datetime(2024, 5, 1))


def test_image_config() -> None:
    made = image_config(
        [A, B],
        architecture="arm64",
        os="linux",
        variant="v8",
        created=datetime(2024, 5, 1, tzinfo=UTC),
        config={"Env": ("A=1",), "Cmd": ["sh"], "Healthcheck": {"Test": ["NONE"]}, "User": None},
        history=[HistoryEntry(created_by="one"), HistoryEntry(empty_layer=True), HistoryEntry(created_by="two")],
    )
    assert parse_config(serialize(made)) == made
    assert json.loads(serialize(made)) == {
        "created": "2024-05-01T00:00:00Z",
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "config": {"Env": ["A=1"], "Cmd": ["sh"], "Healthcheck": {"Test": ["NONE"]}},
        "rootfs": {"type": "layers", "diff_ids": [A, B]},
        "history": [{"created_by": "one"}, {"empty_layer": True}, {"created_by": "two"}],
    }


def test_equal_images_have_equal_configs() -> None:
    one = image_config([A], architecture="amd64", os="linux", config={"Labels": {"a": "1", "b": "2"}, "User": "x"})
    other = image_config([A], architecture="amd64", os="linux", config={"User": "x", "Labels": {"b": "2", "a": "1"}})
    assert serialize(one) == serialize(other)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"Env": "A=1"}, "Env: "),
        ({"Labels": {"a": 1}}, "Labels.a: "),
        ({"X": float("nan")}, "JSON"),
        ({"X": object()}, "JSON"),
    ],
)
def test_image_config_refuses(config: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidManifestError, match=f"execution config.*{says}"):
        image_config([A], architecture="amd64", os="linux", config=config)
    with pytest.raises(InvalidManifestError, match=f"execution config.*{says}"):
        derive_config(parse(DOCKER), config=config)


def test_image_config_refuses_arguments_of_the_wrong_type() -> None:
    with pytest.raises(InvalidManifestError, match="architecture"):
        image_config([A], architecture=1, os="linux")  # type: ignore[arg-type]
    with pytest.raises(InvalidManifestError, match="diff_ids"):
        image_config(["sha256:1"], architecture="amd64", os="linux")  # type: ignore[list-item]


def test_a_history_must_fit_the_layers() -> None:
    one_layer = [HistoryEntry(created_by="x"), HistoryEntry(empty_layer=True)]
    with pytest.raises(InvalidManifestError, match="describes 1 layers, but there are 2"):
        image_config([A, B], architecture="amd64", os="linux", history=one_layer)
    with pytest.raises(InvalidManifestError, match="describes 1 layers, but there are 0"):
        derive_config(parse(DOCKER), history=one_layer)


def test_derive_config() -> None:
    base = parse(
        {**WINDOWS, **DOCKER, "x.example": [1], "moby.buildkit.cache.v0": "x", "variant": "v2", "author": "me"}
    )
    child = derive_config(
        base,
        [C],
        created=datetime(2025, 1, 1, tzinfo=UTC),
        config={"Cmd": ["/app"], "WorkingDir": None, "Labels": {"c": "3"}, "Memory": 1},
        history=[HistoryEntry(created_by="COPY app /app")],
    )
    assert child.diff_ids == (A, B, C)
    assert chain_ids(child.diff_ids)[:2] == chain_ids(base.diff_ids)
    assert child.history[:3] == base.history
    assert child.history[3].created_by == "COPY app /app"
    assert (child.architecture, child.os, child.variant) == ("amd64", "linux", "v2")
    assert (child.os_version, child.os_features) == ("10.0.20348.2402", ("win32k",))
    assert (child.created, child.author) == ("2025-01-01T00:00:00Z", None)
    assert child.model_extra == {"x.example": [1]}
    assert child.config.cmd == ("/app",)
    assert child.config.working_dir is None
    assert child.config.labels == {"c": "3"}
    assert child.config.env == base.config.env
    assert child.config.model_extra is not None
    assert child.config.model_extra["Memory"] == 1
    assert child.config.model_extra["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert parse_config(serialize(child)) == child
    assert base == parse({**WINDOWS, **DOCKER, **json.loads(serialize(base))})


def test_derive_config_without_changes_keeps_the_layers() -> None:
    base = parse(DOCKER)
    child = derive_config(base)
    assert child.diff_ids == base.diff_ids
    assert child.history == base.history
    assert child.created is None
