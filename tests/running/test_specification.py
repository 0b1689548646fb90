"""The runtime configuration that becomes of an image's config (OCI image specification, conversion.md)."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from running_samples import GROUP, PASSWD

from layerstore import Store
from layerstore.errors import InvalidManifestError, InvalidOptionError
from layerstore.running.errors import ProgramNotExecutableError, ProgramNotFoundError
from layerstore.running.options import RunOptions, Volume
from layerstore.running.specification import CAPABILITIES, check_program, for_user, runtime_config
from layerstore.running.users import ContainerUser, find_user


def tar_of(files: dict[str, bytes | str]) -> bytes:
    """Files; a text is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, contents in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(contents, str):
                info.type, info.linkname = tarfile.SYMTYPE, contents
                tar.addfile(info)
            else:
                info.size = len(contents)
                tar.addfile(info, io.BytesIO(contents))
    return buffer.getvalue()


def configured(store: Store, config: dict[str, Any], options: RunOptions | None = None, **files: bytes | str) -> Any:
    named = {name.replace("__", "/"): contents for name, contents in files.items()}
    layer = store.push_layer(tar_of({"etc/passwd": PASSWD.encode(), "etc/group": GROUP.encode(), **named})).layer
    image = store.create_image([layer], config=config)
    with image.view() as view:
        document = runtime_config(image.config, view, options or RunOptions())
        check = document["process"]["args"][0] != "any"
        if check:
            check_program(document, view)
        return document


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ContainerUser(0, 0, (), "/root")),
        ("root", ContainerUser(0, 0, (), "/root")),
        ("app", ContainerUser(1000, 1000, (50,), "/home/app")),
        ("1000", ContainerUser(1000, 1000, (50,), "/home/app")),
        ("1000:50", ContainerUser(1000, 50, (), "/home/app")),
        ("app:extra", ContainerUser(1000, 50, (), "/home/app")),
        ("app:0", ContainerUser(1000, 0, (), "/home/app")),
        ("12345", ContainerUser(12345, 0, (), "/")),
        (":50", ContainerUser(0, 50, (), "/root")),
    ],
)
def test_users(store: Store, text: str, expected: ContainerUser) -> None:
    layer = store.push_layer(tar_of({"etc/passwd": PASSWD.encode(), "etc/group": GROUP.encode()})).layer
    with store.view([layer]) as view:
        assert find_user(view, text) == expected


@pytest.mark.parametrize("text", ["nobody", "app:nogroup", "-1", "4294967296", "99999999999999", "app:-1", "1e3"])
def test_unknown_users_are_refused(store: Store, text: str) -> None:
    layer = store.push_layer(tar_of({"etc/passwd": PASSWD.encode(), "etc/group": GROUP.encode()})).layer
    with store.view([layer]) as view, pytest.raises(InvalidOptionError, match="give a number"):
        find_user(view, text)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"etc/passwd": "../../../../../../etc/passwd"},
        {"etc/passwd": "/etc/passwd"},
        {"etc/passwd": b"\xff\xfe:::\n::::::\nroot\nroot:x:zero:0:::\n"},
        {"etc": b"a file"},
        {"etc/passwd/x": b"a directory"},
        {"etc/passwd": b"x" * (3 << 20)},
    ],
)
def test_a_hostile_passwd_names_nobody(store: Store, files: dict[str, bytes | str]) -> None:
    """Links lead nowhere out of the image: this machine's daemon user is not found."""
    layer = store.push_layer(tar_of(files)).layer
    with store.view([layer]) as view:
        assert find_user(view, "0").uid == 0
        with pytest.raises(InvalidOptionError):
            find_user(view, "daemon")


def test_what_the_config_says(store: Store) -> None:
    config = {
        "Env": ["A=1", "B=", "PATH=/own"],
        "Entrypoint": ["any", "x"],
        "Cmd": ["y"],
        "WorkingDir": "/work",
        "User": "app",
        "Labels": {"org.example": "1", "org.opencontainers.image.author": "label"},
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    }
    document = configured(store, config)
    process = document["process"]
    assert process["args"] == ["any", "x", "y"]
    assert process["env"] == ["PATH=/own", "HOME=/home/app", "A=1", "B="]
    assert process["cwd"] == "/work" and not process["terminal"]
    assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [50]}
    assert process["capabilities"]["effective"] == [] and process["capabilities"]["bounding"] == list(CAPABILITIES)
    assert document["annotations"]["org.opencontainers.image.stopSignal"] == "SIGQUIT"
    assert document["annotations"]["org.opencontainers.image.exposedPorts"] == "53/udp,80/tcp"
    assert document["annotations"]["org.opencontainers.image.author"] == "label"
    assert {one["type"] for one in document["linux"]["namespaces"]} == {"pid", "ipc", "uts", "mount", "network"}


def test_what_the_user_says_instead(store: Store, tmp_path: Path) -> None:
    options = RunOptions(
        command=("z",),
        environment={"A": "2", "C": "3"},
        working_directory="/other",
        user="0:50",
        hostname="box",
        network="host",
        volumes=(Volume.parse(f"{tmp_path}:/data:ro"),),
        read_only=True,
        terminal=True,
    )
    document = configured(store, {"Env": ["A=1"], "Entrypoint": ["any"], "Cmd": ["y"]}, options)
    process = document["process"]
    assert process["args"] == ["any", "z"]
    assert "A=2" in process["env"] and "C=3" in process["env"] and "TERM=xterm" in process["env"]
    assert process["cwd"] == "/other" and process["user"]["gid"] == 50 and process["terminal"]
    assert document["hostname"] == "box" and document["root"]["readonly"]
    assert "network" not in {one["type"] for one in document["linux"]["namespaces"]}
    assert document["mounts"][-1] == {
        "destination": "/data",
        "type": "bind",
        "source": str(tmp_path),
        "options": ["rbind", "rprivate", "ro"],
    }
    alone = configured(store, {"Entrypoint": ["e"], "Cmd": ["y"]}, RunOptions(entrypoint=("any",)))
    assert alone["process"]["args"] == ["any"]


def test_a_user_without_rights_is_root_in_a_namespace(store: Store) -> None:
    document = for_user(configured(store, {"Cmd": ["any"]}))
    assert {"type": "user"} in document["linux"]["namespaces"]
    assert [one["size"] for one in document["linux"]["uidMappings"]] == [1]
    assert not any("gid=5" in mount["options"] for mount in document["mounts"])


@pytest.mark.parametrize(
    ("config", "options", "error"),
    [
        ({}, RunOptions(), InvalidOptionError),
        ({"Cmd": ["any"]}, RunOptions(working_directory="relative"), InvalidOptionError),
        ({"Cmd": ["any"]}, RunOptions(network="bridge"), InvalidOptionError),
        ({"Cmd": ["any"], "Env": ["=x"]}, RunOptions(), InvalidManifestError),
        ({"Cmd": ["missing"]}, RunOptions(), ProgramNotFoundError),
        ({"Cmd": ["etc"], "Env": ["PATH=/"]}, RunOptions(), ProgramNotFoundError),
        ({"Cmd": ["/etc"]}, RunOptions(), ProgramNotExecutableError),
        ({"Cmd": ["/bin/none"]}, RunOptions(), ProgramNotFoundError),
    ],
)
def test_what_cannot_be_run_is_refused(
    store: Store, config: dict[str, Any], options: RunOptions, error: type[Exception]
) -> None:
    with pytest.raises(error):
        configured(store, config, options)


def test_what_a_script_names_must_be_there(store: Store) -> None:
    """The system would say that the script is not there."""
    scripts = {"a": b"#!/bin/sh\n", "b": b"#! /bin/none -x\n", "c": b"#!", "d": b"", "bin__sh": b"\x7fELF"}
    for name in ("/a", "/c", "/d", "/bin/sh"):
        configured(store, {"Cmd": [name]}, **scripts)
    with pytest.raises(ProgramNotFoundError, match="/bin/none"):
        configured(store, {"Cmd": ["/b"]}, **scripts)


@pytest.mark.parametrize("text", ["", "/a", "/a:b", "/a:/b:rx", ":/b", "/missing-for-sure:/b"])
def test_volumes_that_make_no_sense(text: str) -> None:
    with pytest.raises(InvalidOptionError):
        Volume.parse(text)
