"""The real tools read what is written, and what they write is read."""

import json
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places_samples import LayoutMaker, layer_tar, needs, noise, run, sample_layout, sha256, tree

from layerstore.places.archive import OCIArchive
from layerstore.places.copying import copy
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.layout import OCILayout


def names(place: OCILayout | OCIArchive | DockerArchive) -> list[str | None]:
    return [root.name for root in place.roots()]


@pytest.fixture
def maker(tmp_path: Path) -> LayoutMaker:
    """One image; layers not compressed, as docker save has them, so that all tools keep them as they are."""
    maker = LayoutMaker(tmp_path / "shop")
    base = layer_tar({"etc/hostname": b"shop\n", "usr/lib/base": noise(1, 100_000)})
    maker.list_root(maker.image([base, layer_tar({"app/main": noise(2, 10_000)})]), "1.0")
    return maker


def config_digest(maker: LayoutMaker) -> str:
    return str(json.loads(maker.blob_path(maker.roots[0]["digest"]).read_bytes())["config"]["digest"])


def test_a_layout_that_skopeo_made_stays_the_same(tmp_path: Path) -> None:
    needs("skopeo")
    maker = sample_layout(tmp_path / "shop")
    for name in ("1.0", "1.1"):
        run("skopeo", "copy", f"oci:{maker.path}:{name}", f"oci:{tmp_path}/made:{name}")
    run("skopeo", "copy", f"oci:{maker.path}:1.1", f"oci:{tmp_path}/made:1.0")
    copy(OCILayout(tmp_path / "made"), OCIArchive(tmp_path / "made.tar"))
    copy(OCIArchive(tmp_path / "made.tar"), OCILayout(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(tmp_path / "made")


def test_names_end_up_as_with_skopeo(tmp_path: Path) -> None:
    needs("skopeo")
    maker = sample_layout(tmp_path / "shop")
    for name, new_name in (("1.0", "a"), ("1.1", "a"), ("1.0", "b"), ("1.1", "a")):
        run("skopeo", "copy", f"oci:{maker.path}:{name}", f"oci:{tmp_path}/made:{new_name}")
        copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"), [name], name=new_name)
    assert tree(tmp_path / "copy") == tree(tmp_path / "made")


def test_a_layout_that_umoci_made_stays_the_same(tmp_path: Path) -> None:
    needs("umoci")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hostname").write_bytes(b"shop\n")
    run("umoci", "init", "--layout", tmp_path / "made")
    run("umoci", "new", "--image", f"{tmp_path}/made:1.0")
    run("umoci", "insert", "--image", f"{tmp_path}/made:1.0", tmp_path / "etc", "/etc")
    run("umoci", "gc", "--layout", tmp_path / "made")
    copy(OCILayout(tmp_path / "made"), OCILayout(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(tmp_path / "made")


def test_skopeo_reads_layouts_and_archives(tmp_path: Path) -> None:
    needs("skopeo")
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"))
    copy(OCILayout(maker.path), OCIArchive(tmp_path / "oci.tar"))
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "docker.tar"))
    for number, name in enumerate(("1.0", "1.1")):
        for place in (f"oci:{tmp_path}/copy", f"oci-archive:{tmp_path}/oci.tar", f"oci-archive:{tmp_path}/docker.tar"):
            found = json.loads(run("skopeo", "inspect", f"{place}:{name}"))
            assert found["Digest"] == maker.roots[number]["digest"]
    run("skopeo", "copy", f"docker-archive:{tmp_path}/docker.tar:shop:1.0", f"dir:{tmp_path}/dir")
    assert json.loads((tmp_path / "dir" / "manifest.json").read_bytes())["config"]["digest"] == config_digest(maker)


def test_what_skopeo_writes_is_read(tmp_path: Path, maker: LayoutMaker) -> None:
    needs("skopeo")
    run("skopeo", "copy", f"oci:{maker.path}:1.0", f"oci-archive:{tmp_path}/oci.tar:1.0")
    copy(OCIArchive(tmp_path / "oci.tar"), OCILayout(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(maker.path)
    run("skopeo", "copy", f"oci:{maker.path}:1.0", f"docker-archive:{tmp_path}/docker.tar:shop:1.0")
    archive = DockerArchive(tmp_path / "docker.tar")
    assert names(archive) == ["shop:1.0"]
    manifest = json.loads(archive.read_document(archive.roots()[0].descriptor))
    assert manifest["config"]["digest"] == config_digest(maker)
    copy(archive, OCILayout(tmp_path / "again"))
    run("skopeo", "copy", f"oci:{tmp_path}/again:1.0", f"dir:{tmp_path}/dir")


def test_umoci_unpacks(tmp_path: Path) -> None:
    needs("umoci")
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"etc/hostname": b"shop\n"}), layer_tar({"main": b"main"})]), "1.0")
    copy(OCILayout(maker.path), OCILayout(tmp_path / "copy"))
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/copy:1.0", tmp_path / "bundle")
    assert tree(tmp_path / "bundle" / "rootfs") == {"etc/hostname": b"shop\n", "main": b"main"}


def test_podman_loads_and_saves(tmp_path: Path, maker: LayoutMaker) -> None:
    needs("podman")
    folder = tempfile.mkdtemp(prefix="ls")  # podman wants less than 50 characters
    podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
    info = subprocess.run([*podman, "info"], capture_output=True, text=True, timeout=60, check=False)
    if info.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"podman does not work here: {info.stderr[-300:]}")
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "docker.tar"))
    copy(OCILayout(maker.path), OCIArchive(tmp_path / "oci.tar"), name="localhost/other:2")
    try:
        for archive, name in (("docker.tar", "docker.io/library/shop:1.0"), ("oci.tar", "localhost/other:2")):
            run(*podman, "load", "-i", tmp_path / archive)
            assert run(*podman, "image", "inspect", "--format", "{{.Id}}", name).strip() == config_digest(maker)[7:]
        run(*podman, "save", "-o", tmp_path / "saved.tar", "docker.io/library/shop:1.0")
        assert names(DockerArchive(tmp_path / "saved.tar")) == ["shop:1.0"]
        run(*podman, "save", "--format", "oci-archive", "-o", tmp_path / "saved-oci.tar", "localhost/other:2")
        copy(OCIArchive(tmp_path / "saved-oci.tar"), OCILayout(tmp_path / "copy"))
    finally:
        subprocess.run([*podman, "rmi", "-af"], capture_output=True, timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command line of a client whose daemon has everything in a folder of its own."""
    needs("dockerd")
    needs("docker")
    folder = tmp_path_factory.mktemp("d")
    host = f"unix://{folder}/s"
    options = ["--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
    options += ["--host", host, "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["dockerd", *map(str, options)], stdout=log, stderr=log)
    try:
        if not answers(folder / "s", daemon):
            pytest.skip("dockerd does not start here: " + (folder / "log").read_text(errors="replace")[-300:])
        yield ["docker", "--host", host]
    finally:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def answers(path: Path, daemon: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end and daemon.poll() is None:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except OSError:
                time.sleep(0.1)
            else:
                command = ["docker", "--host", f"unix://{path}", "info"]
                return not subprocess.run(command, capture_output=True, timeout=20, check=False).returncode
    return False


def test_docker_loads_and_saves(tmp_path: Path, maker: LayoutMaker, docker: list[str]) -> None:
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "docker.tar"))
    run(*docker, "load", "-i", tmp_path / "docker.tar")
    assert run(*docker, "image", "inspect", "--format", "{{.Id}}", "shop:1.0").strip() == config_digest(maker)
    run(*docker, "save", "-o", tmp_path / "saved.tar", "shop:1.0")
    saved = DockerArchive(tmp_path / "saved.tar")
    assert names(saved) == ["shop:1.0"]
    copy(saved, DockerArchive(tmp_path / "again.tar"))
    with tarfile.open(tmp_path / "again.tar") as tar:
        layers = {member.name.rpartition("/")[2] for member in tar.getmembers()}
    base = layer_tar({"etc/hostname": b"shop\n", "usr/lib/base": noise(1, 100_000)})
    assert sha256(base)[7:] in layers


def test_docker_loads_compressed_layers_and_one_image_of_an_index(tmp_path: Path, docker: list[str]) -> None:
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "docker.tar", platform="linux/amd64"), ["1.0", "multi"])
    run(*docker, "load", "-i", tmp_path / "docker.tar")
    assert run(*docker, "image", "inspect", "--format", "{{.Id}}", "shop:1.0").strip() == config_digest(maker)
    child = json.loads(maker.blob_path(maker.roots[2]["digest"]).read_bytes())["manifests"][0]
    config = json.loads(maker.blob_path(child["digest"]).read_bytes())["config"]["digest"]
    assert run(*docker, "image", "inspect", "--format", "{{.Id}}", "shop:multi").strip() == config
