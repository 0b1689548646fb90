"""The files in which others keep logins, and where the command line looks for them."""

import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from layerstore import Credentials, DockerConfig
from layerstore.cli.registry_options import known_credentials
from layerstore.errors import AuthenticationError, InvalidInputError, StorageError
from layerstore.registry.client.auth_file import ContainersAuthFile

DOMAIN = "r.example.com"


def encoded(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def written(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A credential helper ``test``."""
    folder.mkdir(exist_ok=True)
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


KEEPING = """
cd "$(dirname "$0")"
case "$1" in
    store) cat > kept ;;
    erase) cat > erased; rm -f kept ;;
    get) [ -e kept ] && cat kept || { echo "credentials not found in native keychain"; exit 1; } ;;
esac
"""
"""A helper that keeps one login in a file beside it."""


# The file of Podman and its relatives.


def test_the_longest_name_holds(tmp_path: Path) -> None:
    entries = {
        DOMAIN: encoded("all:a"),
        f"{DOMAIN}/team": encoded("team:b"),
        f"{DOMAIN}/team/shop": encoded("shop:c"),
        f"{DOMAIN}/te": encoded("other:d"),
    }
    file = ContainersAuthFile(written(tmp_path / "auth.json", {"auths": entries}))
    users = {
        name: found.username if (found := file.credentials(f"{DOMAIN}{name}")) is not None else None
        for name in ("", "/team", "/team/shop", "/team/shop/part", "/team/other", "/else", "/team/shopping")
    }
    assert users == {
        "": "all",
        "/team": "team",
        "/team/shop": "shop",
        "/team/shop/part": "shop",
        "/team/other": "team",
        "/else": "all",
        "/team/shopping": "team",
    }
    assert file.credentials("elsewhere.example.com/team/shop") is None


def test_names_of_the_hub_and_urls(tmp_path: Path) -> None:
    for key, name in (
        ("docker.io", "docker.io/library/debian"),
        ("https://index.docker.io/v1/", "docker.io/library/debian"),
        (f"https://{DOMAIN}/v1/", f"{DOMAIN}/team/shop"),
    ):
        file = ContainersAuthFile(written(tmp_path / "auth.json", {"auths": {key: encoded("shop:word")}}))
        assert file.credentials(name) == Credentials("shop", "word"), key


def test_a_helper_of_one_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path / "bin", monkeypatch, 'echo "{\\"Username\\": \\"$(cat)\\", \\"Secret\\": \\"word\\"}"')
    document = {"credHelpers": {DOMAIN: "test"}, "auths": {"other.example.com": encoded("a:b")}, "credsStore": "test"}
    file = ContainersAuthFile(written(tmp_path / "auth.json", document))
    assert file.credentials(f"{DOMAIN}/team/shop") == Credentials(DOMAIN, "word")
    assert file.credentials("other.example.com/x") == Credentials("a", "b")


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", "7" * 5000, " " * (4 << 20) + "{}"])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "auth.json", text)
    for known in (ContainersAuthFile(path), DockerConfig(path)):
        with pytest.raises(InvalidInputError, match=r"auth\.json"):
            known.credentials(DOMAIN)


@pytest.mark.parametrize("auth", ["%%", "YQ==", "/w==", "é"])
def test_entries_that_are_none(tmp_path: Path, auth: str) -> None:
    path = written(tmp_path / "auth.json", {"auths": {DOMAIN: {"auth": auth}}})
    for known in (ContainersAuthFile(path), DockerConfig(path)):
        with pytest.raises(InvalidInputError, match="log in again"):
            known.credentials(DOMAIN)
    for strange in ({"auths": []}, {"auths": {DOMAIN: 7}}, {"credHelpers": 7}, {"auths": {DOMAIN: {"auth": 7}}}):
        assert ContainersAuthFile(written(path, strange)).credentials(f"{DOMAIN}/shop") is None


# Where the command line looks.


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def known() -> str | None:
    found = known_credentials(DOMAIN, f"{DOMAIN}/team/shop")
    return None if found is None else found.username


def test_dockers_file_comes_first_then_those_of_podman(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert known() is None
    written(home / ".config/containers/auth.json", {"auths": {f"{DOMAIN}/team": encoded("config:x")}})
    assert known() == "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert known() is None
    written(tmp_path / "other/containers/auth.json", {"auths": {DOMAIN: encoded("other:x")}})
    assert known() == "other"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert known() == "other"
    written(tmp_path / "run/containers/auth.json", {"auths": {DOMAIN: encoded("run:x")}})
    assert known() == "run"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "named.json"))
    assert known() is None
    written(tmp_path / "named.json", {"auths": {DOMAIN: encoded("named:x")}})
    assert known() == "named"
    written(home / ".docker/config.json", {"auths": {"elsewhere.example.com": encoded("docker:x")}})
    assert known() == "named"
    written(home / ".docker/config.json", {"auths": {DOMAIN: encoded("docker:x")}})
    assert known() == "docker"


# Docker's file, written.


def test_a_login_is_stored_and_all_else_stays(tmp_path: Path) -> None:
    before = {
        "auths": {"other.example.com": encoded("a:b"), DOMAIN: {"auth": "old", "identitytoken": "old"}},
        "credHelpers": {"third.example.com": "none"},
        "detachKeys": "ctrl-e,é😀",
        "HttpHeaders": {"X": ["y", 1.5, None, True, 12345678901234567890]},
    }
    path = written(tmp_path / "config.json", before)
    path.chmod(0o644)
    config = DockerConfig(path)
    assert config.store(DOMAIN, Credentials("shop", "wo:rd é")) == str(path)
    after = json.loads(path.read_text())
    assert config.credentials(DOMAIN) == Credentials("shop", "wo:rd é")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(after) == list(before) and after["auths"].pop(DOMAIN) == encoded("shop:wo:rd é")
    assert after == {**before, "auths": {"other.example.com": encoded("a:b")}}
    assert [one.name for one in tmp_path.iterdir()] == ["config.json"], "nothing is left beside it"
    assert config.erase(DOMAIN) and not config.erase(DOMAIN)
    assert json.loads(path.read_text()) == after


def test_a_first_login_makes_the_folder_for_its_owner_only(tmp_path: Path) -> None:
    config = DockerConfig(tmp_path / "new" / "config.json")
    assert not config.erase("docker.io")
    assert not (tmp_path / "new").exists()
    config.store("docker.io", Credentials("shop", "word"))
    assert list(json.loads(config.path.read_text())["auths"]) == ["https://index.docker.io/v1/"]
    assert [stat.S_IMODE(one.stat().st_mode) for one in (config.path, config.path.parent)] == [0o600, 0o700]
    assert config.erase("docker.io") and config.credentials("docker.io") is None


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    target = written(tmp_path / "there" / "real.json", {"auths": {}})
    link = tmp_path / "config.json"
    link.symlink_to(target)
    DockerConfig(link).store(DOMAIN, Credentials("shop", "word"))
    assert link.is_symlink() and DOMAIN in json.loads(target.read_text())["auths"]


def test_the_same_login_again_shuts_a_file_that_others_could_read(tmp_path: Path) -> None:
    config = DockerConfig(tmp_path / "config.json")
    config.store(DOMAIN, Credentials("shop", "word"))
    config.path.chmod(0o644)
    config.store(DOMAIN, Credentials("shop", "word"))
    assert stat.S_IMODE(config.path.stat().st_mode) == 0o600


def test_logins_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    domains = [f"r{number}.example.com" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        store = DockerConfig(tmp_path / "config.json").store
        list(pool.map(lambda domain: store(domain, Credentials("shop", domain)), domains))
    assert sorted(DockerConfig(tmp_path / "config.json").domains()) == sorted(domains)


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    loop = tmp_path / "config.json"
    loop.symlink_to(loop)
    with pytest.raises(InvalidInputError, match="cannot read"):
        DockerConfig(loop).store(DOMAIN, Credentials("shop", "word"))


def test_entries_with_urls_are_erased_too(tmp_path: Path) -> None:
    entries = {DOMAIN: encoded("a:b"), f"https://{DOMAIN}/v1/": encoded("c:d"), f"{DOMAIN}.org": encoded("e:f")}
    path = written(tmp_path / "config.json", {"auths": entries})
    assert DockerConfig(path).erase(DOMAIN)
    assert json.loads(path.read_text()) == {"auths": {f"{DOMAIN}.org": encoded("e:f")}}


def test_a_file_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    for document in ("{", "[]", '{"auths": 7}'):
        path = written(tmp_path / "config.json", document)
        for change in (lambda c: c.store(DOMAIN, Credentials("shop", "word")), lambda c: c.erase(DOMAIN)):
            with pytest.raises(InvalidInputError):
                change(DockerConfig(path))
            assert path.read_text() == document
    with pytest.raises(StorageError, match="cannot write"):
        DockerConfig(tmp_path / "config.json" / "config.json").store(DOMAIN, Credentials("shop", "word"))


@pytest.mark.parametrize("name", ["", "a:b"])
def test_names_that_cannot_be_stored(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="no user name"):
        DockerConfig(tmp_path / "config.json").store(name, Credentials(name, "word"))
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("by", ["credsStore", "credHelpers"])
def test_a_helper_keeps_the_login_and_the_file_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    helper(tmp_path / "bin", monkeypatch, KEEPING)
    chosen: dict[str, Any] = {"credsStore": "test"} if by == "credsStore" else {"credHelpers": {DOMAIN: "test"}}
    path = written(tmp_path / "config.json", {"auths": {DOMAIN: encoded("old:old")}, **chosen})
    config = DockerConfig(path)
    assert config.store(DOMAIN, Credentials("shop", "wörd")) == "docker-credential-test"
    kept = json.loads((tmp_path / "bin" / "kept").read_text())
    assert kept == {"ServerURL": DOMAIN, "Username": "shop", "Secret": "wörd"}
    assert json.loads(path.read_text()) == {"auths": {DOMAIN: {}}, **chosen}
    assert config.credentials(DOMAIN) == Credentials("shop", "wörd")
    assert config.erase(DOMAIN) and not config.erase(DOMAIN)
    assert (tmp_path / "bin" / "erased").read_text() == DOMAIN
    assert json.loads(path.read_text()) == {"auths": {}, **chosen}


def test_a_helper_that_does_not_store_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path / "bin", monkeypatch, "echo the keychain is locked >&2; exit 1")
    document = json.dumps({"auths": {DOMAIN: encoded("old:old")}, "credsStore": "test"})
    path = written(tmp_path / "config.json", document)
    with pytest.raises(AuthenticationError, match="docker-credential-test failed: the keychain is locked"):
        DockerConfig(path).store(DOMAIN, Credentials("shop", "word"))
    assert path.read_text() == document
