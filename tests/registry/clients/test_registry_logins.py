"""Real clients with accounts and without: everyone may read, who has an account may write."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import oras.client
import pytest
from client_images import GREETING, closure, served
from places_samples import LayoutMaker, needs, run, tree
from server_process import ServerProcess

NAME, PASSWORD = "writer", "a long: passwörd"
CREDENTIALS = ("--username", NAME, "--password", PASSWORD)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one account."""
    folder = tmp_path_factory.mktemp("guarded")
    secret = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (folder / "accounts").write_text(f"{NAME}:{secret}\n")
    options = ("--htpasswd", str(folder / "accounts"), "--anonymous", "read", "--workers", "2")
    with ServerProcess(folder / "store", *options) as running:
        yield running


def refused(*command: str | Path) -> str:
    """What a command says that must not succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode, f"{command}: {done.stdout}"
    return (done.stdout + done.stderr).lower()


def has(text: str) -> bool:
    """Whether a client was told that it needs other rights."""
    words = ("unauthorized", "denied", "authentication required", "authorization failed", "invalid username/password")
    return any(word in text for word in words)


def test_skopeo_logs_in(guarded: ServerProcess, layout: LayoutMaker, tmp_path: Path) -> None:
    needs("skopeo")
    login = ["--authfile", str(tmp_path / "auth.json"), "--tls-verify=false"]
    target = f"docker://{guarded.address}/skopeo/shop:1.0"
    push = ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout.path}:1.0", target]
    assert has(refused(*push))
    assert has(refused("skopeo", "login", *login, "--username", NAME, "--password", "wrong", guarded.address))
    run("skopeo", "login", *login, *CREDENTIALS, guarded.address)
    run(*push, "--dest-authfile", tmp_path / "auth.json")
    run("skopeo", "copy", "--src-tls-verify=false", "--src-no-creds", target, f"oci:{tmp_path}/copy:1.0")
    contents = closure(layout, "1.0")
    assert set(tree(tmp_path / "copy" / "blobs" / "sha256")) == {digest[7:] for digest in contents}
    delete = ["skopeo", "delete", "--tls-verify=false", target]
    assert has(refused(*delete, "--no-creds"))
    assert served(guarded.url, "skopeo/shop", "1.0") == contents
    run(*delete, "--authfile", tmp_path / "auth.json")


def test_podman_and_buildah_log_in(
    guarded: ServerProcess,
    layout: LayoutMaker,
    podman: Callable[[str], list[str]],
    buildah: Callable[[str], list[str]],
    tmp_path: Path,
) -> None:
    """Each with a login of its own; what the one pushed the other builds on."""
    login = ["--authfile", str(tmp_path / "auth.json"), "--tls-verify=false"]
    target, other = f"{guarded.address}/podman/shop:1.0", f"{guarded.address}/podman/shop:2.0"
    one, two = podman("one"), buildah("two")
    nobody = ["--authfile", str(tmp_path / "nobody.json"), "--tls-verify=false"]
    (tmp_path / "nobody.json").write_text("{}")
    loaded = run(*one, "pull", "-q", f"oci:{layout.path}:1.0").split()[-1]
    run(*one, "tag", loaded, target)
    assert has(refused(*one, "push", *nobody, target))
    assert has(refused(*one, "login", *login, "--username", NAME, "--password", "wrong", guarded.address))
    run(*one, "login", *login, *CREDENTIALS, guarded.address)
    run(*one, "push", *login, target)
    container = run(*two, "from", "--tls-verify=false", target).strip().splitlines()[-1]
    run(*two, "commit", container, other)
    assert has(refused(*two, "push", *nobody, other))
    run(*two, "login", *login, *CREDENTIALS, guarded.address)
    run(*two, "push", *login, other)
    assert served(guarded.url, "podman/shop", "2.0")


def test_docker_logs_in(guarded: ServerProcess, layout: LayoutMaker, docker: list[str], tmp_path: Path) -> None:
    source, target = f"{guarded.address}/docker/shop:1.0", f"{guarded.address}/docker/shop:2.0"
    skopeo_push(guarded, layout, "docker/shop:1.0")
    run(*docker, "pull", source)
    run(*docker, "tag", source, target)
    assert has(refused(*docker, "push", target))
    assert has(refused(*docker, "login", "--username", NAME, "--password", "wrong", guarded.address))
    run(*docker, "login", *CREDENTIALS, guarded.address)
    run(*docker, "push", target)
    assert served(guarded.url, "docker/shop", "2.0")
    run(*docker, "logout", guarded.address)
    run(*docker, "tag", source, f"{guarded.address}/docker/other:1")
    assert has(refused(*docker, "push", f"{guarded.address}/docker/other:1"))


def test_containerd_has_credentials(guarded: ServerProcess, layout: LayoutMaker, ctr: list[str]) -> None:
    source, target = f"{guarded.address}/containerd/shop:1.0", f"{guarded.address}/containerd/other:1.0"
    skopeo_push(guarded, layout, "containerd/shop:1.0")
    run(*ctr, "images", "pull", "--plain-http", "--snapshotter=native", source)
    assert has(refused(*ctr, "images", "push", "--plain-http", target, source))
    assert has(refused(*ctr, "images", "push", "--plain-http", "--user", f"{NAME}:wrong", target, source))
    run(*ctr, "images", "push", "--plain-http", "--user", f"{NAME}:{PASSWORD}", target, source)
    assert served(guarded.url, "containerd/other", "1.0") == closure(layout, "1.0")


@pytest.mark.parametrize("kind", ["token", "basic"])
def test_oras_logs_in(guarded: ServerProcess, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(GREETING)
    target = f"{guarded.address}/oras/{kind}:1"
    if kind == "token":
        anonymous = oras.client.OrasClient(insecure=True)
        with pytest.raises(Exception, match=r"UNAUTHORIZED|DENIED"):
            anonymous.push(target, files=[str(path)], disable_path_validation=True)
    client = oras.client.OrasClient(insecure=True, auth_backend=kind)
    client.login(NAME, PASSWORD, hostname=guarded.address, tls_verify=False, config_path=str(tmp_path / "auth.json"))
    client.push(target, files=[str(path)], disable_path_validation=True)
    assert served(guarded.url, f"oras/{kind}", "1")


def skopeo_push(server: ServerProcess, layout: LayoutMaker, target: str) -> None:
    needs("skopeo")
    credentials = ("--dest-creds", f"{NAME}:{PASSWORD}", "--dest-tls-verify=false")
    run("skopeo", "copy", *credentials, f"oci:{layout.path}:1.0", f"docker://{server.address}/{target}")
