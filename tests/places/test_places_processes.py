"""Several processes with one layout, and processes that are killed."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import places_children
import pytest
from places_samples import LayoutMaker, layer_tar, noise, tree

from layerstore.places.archive import OCIArchive
from layerstore.places.copying import copy
from layerstore.places.files import TEMPORARY_PREFIX
from layerstore.places.layout import OCILayout


def child(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, places_children.__file__, *map(str, arguments)])


@pytest.fixture
def maker(tmp_path: Path) -> LayoutMaker:
    maker = LayoutMaker(tmp_path / "shop")
    base = layer_tar({"base": noise(0, 2_000_000)})
    for number in range(6):
        app = layer_tar({"app": noise(number + 1, 100_000)})
        maker.list_root(maker.image([base, app], "none"), f"v{number}")
    return maker


def test_processes_that_write_one_layout(tmp_path: Path, maker: LayoutMaker) -> None:
    target = tmp_path / "copy"
    children = [child("copy", maker.path, target, f"v{number}") for number in range(4)]
    assert [process.wait(60) for process in children] == [0] * 4
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: copy(OCILayout(maker.path), OCILayout(target), [name]), ["v4", "v5"]))
    roots = OCILayout(target).roots()
    assert {root.name: root.descriptor.digest for root in roots} == {
        f"v{number}": maker.roots[number]["digest"] for number in range(6)
    }
    assert tree(target / "blobs") == tree(maker.path / "blobs")
    assert {file.name for file in target.iterdir()} == {"blobs", "index.json", "oci-layout"}


def test_threads_that_write_one_layout(tmp_path: Path, maker: LayoutMaker) -> None:
    target = tmp_path / "copy"
    names = [f"v{number}" for number in range(6)] * 3
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: copy(OCILayout(maker.path), OCILayout(target), [name]), names))
    assert sorted(root.name or "" for root in OCILayout(target).roots()) == sorted(set(names))
    assert tree(target / "blobs") == tree(maker.path / "blobs")


def test_a_killed_writer_of_a_layout(tmp_path: Path, maker: LayoutMaker) -> None:
    target = OCILayout(tmp_path / "copy")
    copy(OCILayout(maker.path), target, ["v0"], name="before")
    before = target.roots()
    assert child("die", maker.path, target.path, "").wait(60) == -signal.SIGKILL
    assert target.roots() == before
    assert [file for file in target.path.iterdir() if file.name.startswith(TEMPORARY_PREFIX)]
    report = copy(OCILayout(maker.path), target)
    assert report.blobs_present >= 2
    assert [root.name for root in target.roots()] == ["before", *(f"v{number}" for number in range(6))]
    assert tree(target.path / "blobs") == tree(maker.path / "blobs")
    assert {file.name for file in target.path.iterdir()} == {"blobs", "index.json", "oci-layout"}


def test_a_killed_writer_of_a_new_layout_or_archive(tmp_path: Path, maker: LayoutMaker) -> None:
    (tmp_path / "new").mkdir()
    assert child("die", maker.path, tmp_path / "copy", "").wait(60) == -signal.SIGKILL
    assert OCILayout(tmp_path / "copy").roots() == []
    copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(maker.path)
    target = tmp_path / "new" / "shop.tar"
    assert child("die", maker.path, target, "").wait(60) == -signal.SIGKILL
    assert not target.exists()
    copy(OCILayout(maker.path), OCIArchive(target))
    assert [file.name for file in target.parent.iterdir()] == ["shop.tar"]
