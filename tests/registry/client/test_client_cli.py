"""Registries on the command line: push, pull, and ``docker://`` as a place."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from client_samples import Images
from client_servers import PASSWORD, PASSWORD_LINE, USER, docker_registry, make_certificate
from samples import make_tar, noise

from layerstore.cli.application import program
from layerstore.places.platforms import WantedPlatform

Run = Callable[..., Result]

OWN = WantedPlatform.of_this_machine().architecture


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("LAYERSTORE_PATH", "SOURCE_DATE_EPOCH"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bare() -> Run:
    def run(*arguments: object, input: bytes | None = None) -> Result:
        return CliRunner().invoke(program, [str(one) for one in arguments], input=input)

    return run


@pytest.fixture
def run(bare: Run, tmp_path: Path) -> Run:
    store = tmp_path / "store"
    assert bare("--store", store, "init").exit_code == 0
    return lambda *arguments, **more: bare("--store", store, *arguments, **more)


@pytest.fixture
def output(run: Run) -> Callable[..., str]:
    def succeed(*arguments: object, input: bytes | None = None) -> str:
        result = run(*arguments, input=input)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    return succeed


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """An image ``1.0`` with a signature, and an index ``multi`` for this machine and another."""
    made = Images(tmp_path / "shop")
    image = made.image({"etc/os": b"one\n", "lib/data": noise(100_000)})
    made.add(image, "1.0")
    made.add(made.signature(image))
    children = [
        {
            **made.image({"arch": name.encode()}, platform=f"linux/{name}"),
            "platform": {"os": "linux", "architecture": name},
        }
        for name in (OWN, "s390x")
    ]
    made.add(made.index(*children), "multi")
    return made


def test_push_and_pull(registry: str, output: Callable[..., str], run: Run, images: Images) -> None:
    output("import", images.path)
    reference = f"{registry}/cli/shop:1.0"
    output("tag", "shop:1.0", reference)
    digest = images.roots[0]["digest"]
    first, second = output("push", reference).splitlines()
    assert first == f"{digest}   {reference}"
    assert second.startswith("1 image: 1 blob new, ")
    assert "0 blobs new, 0 B; 1 already present" in output("push", reference)
    output("untag", reference)
    pulled = json.loads(output("pull", reference, "--json"))
    assert pulled["images"][0]["name"] == reference
    assert (pulled["blobs_copied"], pulled["blobs_present"]) == (0, 1)
    assert output("pull", reference, "--name", "mine:1", "--quiet").split() == [digest]
    assert output("pull", f"{registry}/cli/shop@{digest}").startswith(f"{digest}   <none>")
    assert output("pull", f"docker://{registry}/cli/shop:1.0@{digest}").startswith(f"{digest}   {reference}")


def test_what_the_store_calls_otherwise_is_sent_with_from(
    registry: str, output: Callable[..., str], run: Run, images: Images
) -> None:
    output("import", images.path)
    result = run("push", f"{registry}/cli/from:1.0")
    assert result.exit_code == 3
    assert f"there is no file {registry}/cli/from:1.0, nor" in result.stderr and "--from" in result.stderr
    sent = json.loads(
        output("push", f"{registry}/cli/from:1.0", f"{registry}/cli/from", "--from", "shop:1.0", "--json")
    )
    names = [f"{registry}/cli/from:1.0", f"{registry}/cli/from:latest"]
    assert [image["name"] for image in sent["images"]] == names


def test_platforms(registry: str, output: Callable[..., str], run: Run, images: Images) -> None:
    output("import", images.path)
    reference = f"{registry}/cli/multi:1"
    output("push", reference, "--from", "shop:multi")
    index = json.loads(images.read(images.roots[2]["digest"]))["manifests"]
    assert output("pull", reference, "-q").split() == [index[0]["digest"]]
    assert output("pull", reference, "-q", "--platform", "linux/s390x").split() == [index[1]["digest"]]
    assert output("pull", reference, "-q", "--all").split() == [images.roots[2]["digest"]]
    assert output("import", f"docker://{reference}", "-q").split() == [images.roots[2]["digest"]]
    only = images.index(index[1])
    images.add(only, "only")
    output("import", images.path, "only")
    output("push", f"{registry}/cli/multi:only", "--from", "shop:only")
    name, hint = (
        f"{registry}/cli/multi:only",
        "it is for: linux/s390x; choose one with --platform, or take all with --all",
    )
    for options, wanted in (([], f"linux/{OWN}"), (["--platform", "linux/riscv64"], "linux/riscv64")):
        result = run("pull", name, *options)
        assert result.exit_code == 3
        assert result.stderr == f"layerstore: {name} is not there for {wanted}; {hint}\n"
    assert output("pull", f"{registry}/cli/multi", "--all-tags", "--all", "-q").split()


def test_an_image_for_another_platform_is_told(
    registry: str, output: Callable[..., str], run: Run, images: Images
) -> None:
    """Where there is no index, there is nothing to choose from: it comes, with a warning."""
    images.add(images.image({"arch": b"s390x"}, platform="linux/s390x"), "other")
    images.add(images.image({"arch": OWN.encode()}, platform=f"linux/{OWN}"), "own")
    output("import", images.path, "other", "own")
    for name in ("other", "own"):
        output("push", f"{registry}/cli/single:{name}", "--from", f"shop:{name}")
    reference = f"{registry}/cli/single:other"
    for options, wanted in (([], f"linux/{OWN}"), (["--platform", "linux/arm/v7"], "linux/arm/v7")):
        result = run("pull", reference, *options)
        assert result.exit_code == 0 and reference in result.stdout
        assert result.stderr == f"layerstore: warning: {reference} is for linux/s390x, not for {wanted}\n"
    output("pull", reference, "--platform", "linux/s390x")
    output("pull", reference, "--all")
    output("pull", f"{registry}/cli/single:own")


def test_referrers(registry: str, output: Callable[..., str], images: Images) -> None:
    output("import", images.path)
    output("push", f"{registry}/cli/signed:1.0", "--from", "shop:1.0", "--referrers")
    pulled = output("pull", f"{registry}/cli/signed:1.0", "--referrers", "--quiet").split()
    assert pulled == [images.roots[0]["digest"], images.roots[1]["digest"]]


def test_layers_of_a_push_go_compressed(registry: str, output: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(make_tar({"a": b"a" * 10_000}))
    output("push", "layer.tar", "--tag", f"{registry}/cli/made:1")
    sent = json.loads(output("push", f"{registry}/cli/made:1", "--compression", "gzip", "--json"))
    assert sent["images"][0]["digest"] != sent["images"][0]["source_digest"]
    assert sent["bytes_copied"] < 1000


def test_places_in_a_registry(registry: str, output: Callable[..., str], bare: Run, images: Images) -> None:
    place = f"docker://{registry}/cli/places"
    for arguments in (
        ("copy", images.path, place),
        ("copy", f"{place}:1.0", "oci:back"),
        ("copy", f"{place}:1.0", f"{place}-copy:2.0"),
        ("copy", place, "oci:both", "1.0", "multi"),
    ):
        result = bare(*arguments)
        assert result.exit_code == 0, result.output
    assert {root["digest"] for root in json.loads(Path("both/index.json").read_text())["manifests"]} == {
        images.roots[0]["digest"],
        images.roots[2]["digest"],
    }
    assert output("import", place, "1.0", "--name", "shop").startswith(images.roots[0]["digest"])
    assert "1 already present" in output("export", "shop:1.0", place)
    result = bare("copy", place, "oci:latest")
    assert (result.exit_code, "has no image 'latest'" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("push", "localhost:1/a:1", "file.tar"),
        ("push", "localhost:1/a:1", "--tag", "x"),
        ("push", "file.tar", "--plain-http"),
        ("push", "file.tar", "--from", "x"),
        ("push", "localhost:1/a@sha256:" + "0" * 64),
        ("pull", "localhost:1/a:1", "file"),
        ("pull", "shop:1.0"),
        ("pull", "4f2e9b0c1d3a", "file", "--all"),
        ("pull", "localhost:1/a:1", "--all", "--platform", "linux/amd64"),
        ("pull", "localhost:1/a:1", "--all-tags"),
        ("pull", "localhost:1/a", "--all-tags", "--name", "x"),
        ("pull", "localhost:1/a", "--username", "x"),
        ("pull", "localhost:1/a", "--password-stdin"),
        ("pull", "localhost:1/A"),
        ("import", "docker://localhost:1/a", "--format", "oci"),
        ("copy", "file.tar", "docker://localhost:1/a@sha256:" + "0" * 64),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "file.tar").write_bytes(make_tar({"a": b"a"}))
    assert run(*arguments).exit_code == 2


def test_a_registry_that_is_not_there(run: Run, output: Callable[..., str], images: Images) -> None:
    output("import", images.path)
    result = run("push", "localhost:1/a:1", "--from", "shop:1.0", "--json")
    assert result.exit_code == 5
    assert json.loads(result.stderr)["error"]["code"] == "registry"


def test_logging_in(tmp_path: Path, run: Run, output: Callable[..., str], images: Images) -> None:
    """By options, by Docker's configuration, and what is said without; over TLS."""
    output("import", images.path)
    certificate = make_certificate(tmp_path)
    with docker_registry(tmp_path / "r", users=PASSWORD_LINE, certificate=certificate) as host:
        push: tuple[Any, ...] = ("push", f"{host}/shop:1.0", "--from", "shop:1.0", "--ca-file", certificate[0])
        result = run(*push)
        assert (result.exit_code, f"(`layerstore login {host}`, or --username" in result.stderr) == (5, True)
        output(*push, "--username", USER, "--password-stdin", input=f"{PASSWORD}\n".encode())
        (tmp_path / "docker").mkdir()
        auth = {"auths": {host: {"auth": "c2hvcDpzM2NyZXQ6d29yZA=="}}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(auth))
        output("pull", f"{host}/shop:1.0", "--insecure")
        result = run("pull", f"{host}/shop:1.0")
        assert (result.exit_code, "--ca-file" in result.stderr) == (5, True)
