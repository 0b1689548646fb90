"""The commands mount and umount."""

import json
from pathlib import Path

from click.testing import CliRunner, Result
from mounting_servers import Mounter, kill_server
from union_samples import file, layer

from layerstore.cli import mounts
from layerstore.cli.settings import Settings
from layerstore.errors import AlreadyMountedError, NotMountedError


def _run(command: object, mounter: Mounter, *arguments: object) -> Result:
    words = ["--store", str(mounter.store.path), *map(str, arguments)]
    return CliRunner().invoke(command, words, obj=Settings())  # type: ignore[arg-type]


def test_an_image_is_mounted_listed_and_unmounted(mounter: Mounter, runtime: Path) -> None:
    (diff_id,) = mounter.push(layer(file(b"name", b"one\n")))
    image = mounter.store.create_image([diff_id])
    mounter.store.tags["shop:1.0"] = image.digest
    target = mounter.folder("target")
    done = _run(mounts.mount, mounter, "shop:1.0", target)
    assert (done.exit_code, done.output) == (0, f"{image.digest}   {target}\n")
    assert (target / "name").read_text() == "one\n"
    listed = json.loads(_run(mounts.mount, mounter, "--json").output)
    assert {
        "directory": str(target),
        "kind": "view",
        "store": str(mounter.store.path),
        "tags": ["shop:1.0"],
        "layers": [diff_id],
    } in listed
    shown = _run(mounts.mount, mounter).output
    assert any(line.split()[:3] == [str(target), "view", "shop:1.0"] for line in shown.splitlines())
    assert isinstance(_run(mounts.mount, mounter, "shop:1.0", target).exception, AlreadyMountedError)
    done = _run(mounts.umount, mounter, "--json", target)
    assert json.loads(done.output) == [str(target)]
    assert isinstance(_run(mounts.umount, mounter, target).exception, NotMountedError)


def test_a_layer_is_mounted_and_a_dead_mount_is_told(mounter: Mounter, runtime: Path) -> None:
    (diff_id,) = mounter.push(layer(file(b"name", b"one\n")))
    target = mounter.folder("target")
    done = _run(mounts.mount, mounter, "--json", diff_id, target)
    assert json.loads(done.output) == {"image": diff_id, "directory": str(target)}
    shown = _run(mounts.mount, mounter).output
    assert any(line.split()[:4] == [str(target), "view", "1", "layer"] for line in shown.splitlines())
    kill_server(runtime)
    assert "its server is dead" in _run(mounts.mount, mounter).output
    assert _run(mounts.umount, mounter, target).exit_code == 0


def test_a_directory_is_needed(mounter: Mounter) -> None:
    done = _run(mounts.mount, mounter, "shop:1.0")
    assert done.exit_code == 2
    assert "give the directory" in done.output
