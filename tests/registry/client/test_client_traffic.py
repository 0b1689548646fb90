"""What really goes over the wire is told beside the size of what was copied."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from client_samples import Images
from samples import noise
from server_process import ServerProcess

from layerstore import RemoteRepository
from layerstore.cli.application import program

OLD = {f"usr/file{n:03}": noise(20_000, n) for n in range(40)}
NEW = OLD | {"usr/file020": noise(21_000, 1000)}

Output = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServerProcess(tmp_path_factory.mktemp("server") / "store", "--anonymous", "all") as process:
        yield process.address


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Output:
    for name in [one for one in os.environ if one.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def succeed(*arguments: object) -> str:
        result = CliRunner().invoke(program, [str(one) for one in arguments])
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    return succeed


def stored(output: Output, path: Path, images: Images, *names: str) -> tuple[object, ...]:
    """A store with images of a layout; the options that choose it."""
    chosen = ("--store", path)
    output(*chosen, "init")
    output(*chosen, "import", images.path, *names, "--prove")
    return chosen


def test_a_difference_is_told_for_what_it_costs(server: str, output: Output, tmp_path: Path) -> None:
    images = Images(tmp_path / "shop")
    images.add(images.image(OLD), "1")
    images.add(images.image(NEW), "2")
    (layer,) = images.layers_of(images.roots[1]["digest"])
    local = stored(output, tmp_path / "local", images)

    first = document(output(*local, "push", f"{server}/told/shop:1", "--from", "shop:1", "--json"))
    assert (first["differences"], first["blobs_copied"]) == ([], 1)
    assert first["bytes_copied"] < first["bytes_sent"] < first["bytes_copied"] + 5_000, "the blob and two documents"
    second = document(output(*local, "push", f"{server}/told/shop:2", "--from", "shop:2", "--json"))
    check_difference(second, layer, second["bytes_sent"])

    other = ("--store", tmp_path / "other")
    output(*other, "init")
    whole = document(output(*other, "pull", f"{server}/told/shop:1", "--json"))
    assert whole["differences"] == [] and whole["bytes_received"] > whole["bytes_copied"]
    lines = output(*other, "pull", f"{server}/told/shop:2").splitlines()
    assert lines[1].startswith(f"{layer['digest']}   changed chunks: 2") and " KiB of 7" in lines[1]
    assert lines[2].startswith("1 image: 1 blob new, 7") and lines[2].endswith(" KiB received")


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def check_difference(told: dict[str, Any], layer: dict[str, Any], transferred: int) -> None:
    (one,) = told["differences"]
    assert (one["digest"], one["size"]) == (layer["digest"], layer["size"])
    assert 21_000 < one["transferred"] <= transferred < 60_000 < layer["size"] == told["bytes_copied"]


def test_a_difference_that_is_no_good_is_not_told(server: str, output: Output, tmp_path: Path) -> None:
    """The blob came whole after all, and what came before it counts as received."""
    images = Images(tmp_path / "shop")
    images.add(images.image(OLD), "1")
    images.add(images.image(NEW), "2")
    local = stored(output, tmp_path / "local", images)
    for name in ("1", "2"):
        output(*local, "push", f"{server}/both/shop:{name}", "--from", f"shop:{name}")
    repository = RemoteRepository(f"{server}/both/shop:2")
    (root,) = repository.roots()
    (layer,) = json.loads(repository.read_document(root.descriptor))["layers"]
    descriptor = root.descriptor.model_copy(update={"digest": layer["digest"], "size": layer["size"]})
    have = json.loads(output(*local, "layers", "--json"))[0]["diff_id"]
    with repository.open_difference(descriptor, [have]) as blocks:
        assert blocks is not None
        got = sum(map(len, blocks))
    assert [one.transferred for one in repository.traffic.differences] == [got]
    with repository.read_blob(descriptor) as whole:
        assert sum(map(len, whole)) == layer["size"]
    assert repository.traffic.differences == []
    assert repository.traffic.bytes_received > layer["size"] + got
    repository.close()


def test_what_goes_between_files_is_no_traffic(output: Output, tmp_path: Path) -> None:
    images = Images(tmp_path / "shop")
    images.add(images.image(OLD), "1")
    told = document(output("copy", images.path, tmp_path / "other", "--json"))
    assert (told["bytes_sent"], told["bytes_received"], told["differences"]) == (0, 0, [])
    assert " received" not in output("copy", images.path, tmp_path / "third")
